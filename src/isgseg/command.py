"""The commands' frame: Hydra is run in it, and errors are shown."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from isgseg.config import CONFIG_DIR, checked
from isgseg.errors import InputError, input_error, one_of
from isgseg.overrides import modernize, with_key

if TYPE_CHECKING:
    from isgseg.batch.launch import Batch

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def command(
    name: str,
    files: str = "",
    arguments_of: Callable[[list[str]], list[str]] = list,
    batch: Batch | None = None,
) -> Callable[[Callable[[DictConfig], Result]], Callable[[], None]]:
    """Makes a console script of a function of a config.

    Names of the last release are renamed, Hydra composes `conf/<name>.yaml`, and the whole of it is
    checked before the function is called. An `InputError` is shown as one line on standard error;
    every other exception keeps its traceback. `HYDRA_FULL_ERROR=1` shows the traceback of both, and
    `hydra.verbose=true` logs it.

    Args:
        name: of the command, as in `isgseg-<name>`.
        files: the key that arguments without a key mean, where they stand first.
        arguments_of: makes arguments for Hydra of those that were typed, names of today.
        batch: how its volumes become tasks of a launcher; None: it has none.
    """

    def decorate(function: Callable[[DictConfig], Result]) -> Callable[[], None]:
        @functools.wraps(function)
        def main() -> None:
            # Torch reads it once, when it is imported: large tensors lie on large pages, where
            # Linux has them on request. Fresh small ones cost more than what is computed on them.
            os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
            try:
                arguments, old_names = modernize(name, with_key(files, sys.argv[1:]))
                sys.argv[1:] = arguments_of(arguments)
                if batch is not None and _launched(name, batch, function, old_names):
                    return
            except InputError as error:
                _stop(name, error)
            try:
                _run_hydra(name, functools.partial(_job, name, function, old_names))
            except KeyboardInterrupt:
                print(f"isgseg-{name}: interrupted", file=sys.stderr)
                raise SystemExit(128 + signal.SIGINT) from None

        return main

    return decorate


def _launched(
    name: str, batch: Batch, function: Callable[[DictConfig], Any], old_names: list[str]
) -> bool:
    """Whether the arguments choose a launcher, whose tasks then have done the volumes."""
    from isgseg.batch.launch import launch, launcher_of

    launcher = launcher_of(sys.argv[1:])
    if launcher is None:
        return False
    task = functools.partial(_task, name, function, old_names)
    launch(name, sys.argv[1:], batch, launcher, functools.partial(_run_hydra, name, task))
    return True


def _task(
    name: str, function: Callable[[DictConfig], Any], old_names: list[str], cfg: DictConfig
) -> str | None:
    """`_job` for one volume of a batch; returns why it failed, for the process that waits."""
    cores = os.environ.get("SLURM_CPUS_PER_TASK")
    if cores:  # torch would take all of the machine's
        os.environ.setdefault("OMP_NUM_THREADS", cores)
    try:
        for message in old_names:
            log.warning("%s", message)
        function(checked(name, cfg))
    except Exception as error:
        cause = input_error(error) or _full_disk(error)
        if cause is None:
            log.exception("The task failed")
            return " ".join(f"{type(error).__name__}: {error}".split())
        log.error("%s", cause)
        return str(cause)
    return None


def _job(
    name: str, function: Callable[[DictConfig], Result], old_names: list[str], cfg: DictConfig
) -> Result:
    """Checks a composed config and calls the function; ends in one line for a user's mistake."""
    from hydra.errors import InstantiationException

    try:
        for message in old_names:
            log.warning("%s", message)
        return function(checked(name, cfg))
    except (InputError, InstantiationException, OSError) as error:
        cause = input_error(error) or _full_disk(error)
        if cause is None or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        log.debug("Where it was raised:", exc_info=error)
        log.error("%s", cause)
        raise SystemExit(1) from None


def _full_disk(error: Exception) -> InputError | None:
    """What to do where the disk is full, whichever file was being written."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return InputError(
        f"{error.filename or 'a file of this run'}: {error.strerror}; free some space, or choose a "
        "folder on another disk"
    )


def _run_hydra(name: str, job: Callable[[DictConfig], Any]) -> None:
    """Runs a job by Hydra; what goes wrong before the job starts is said in one line."""
    import hydra
    from hydra.errors import HydraException

    raised: list[BaseException] = []
    full = os.environ.get("HYDRA_FULL_ERROR")

    def run(cfg: DictConfig) -> Any:
        with _environment("HYDRA_FULL_ERROR", full):
            try:
                return job(cfg)
            except Exception as error:
                raised.append(error)
                raise

    main = hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name=name)(run)
    try:
        # Hydra prints its own errors and others alike, unless it is told to raise them.
        with _environment("HYDRA_FULL_ERROR", "1"):
            main()
    except BrokenPipeError:  # `--help | head`: who reads has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it when it ends
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if full or any(error is other for other in raised):
            raise
        _stop(name, error)


def _stop(name: str, error: Exception) -> None:
    """Says an error in a line on standard error, and ends the program."""
    from hydra.errors import HydraException

    said, cause = str(error), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        said = f"{said}\n{cause}"
    if said.startswith("Config group override must be"):  # Hydra does not say which
        said = (
            f"{', '.join(_empty_groups(sys.argv[1:])) or 'a group'}: a group needs one of its "
            f"choices, which isgseg-{name} --help lists; ~GROUP takes a group out"
        )
    if unknown := re.search(r"^Could not override '([^']+)'.*is not in struct", said, re.DOTALL):
        said = f"{unknown[1]}: unknown key; {_hint(name, unknown[1])}"
    system: BaseException | None = error  # OmegaConf wraps what a resolver raised
    while system is not None and not isinstance(system, OSError):
        system = system.__cause__ or system.__context__
    if system is not None and not isinstance(error, (InputError, HydraException)):
        said = (
            f"the folder of this run cannot be made: {system}; start in a folder that you may "
            "write to, or choose one by paths.root=FOLDER"
        )
    said = re.sub(r"\n +(object_type|reference_type)=.*", "", said)
    print(f"isgseg-{name}: {said}", file=sys.stderr)
    raise SystemExit(1) from None


def _empty_groups(arguments: list[str]) -> list[str]:
    """The arguments that give a group of `conf/` no choice, such as `model=null`."""
    found = []
    for argument in arguments:
        group, equals, choice = argument.lstrip("+").partition("=")
        if equals and choice in ("null", "") and (Path(CONFIG_DIR) / group).is_dir():
            found.append(argument)
    return found


def _hint(name: str, key: str) -> str:
    """The key of a command that was perhaps meant."""
    from difflib import get_close_matches

    from isgseg.schema import schema_of
    from isgseg.schema.messages import dotted_keys, json_schema

    known = dotted_keys(json_schema(schema_of(name)))
    last = key.rsplit(".", 1)[-1]
    same = [other for other in known if other.rsplit(".", 1)[-1] == last]
    near = same or get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {one_of(near)}?"
    return f"isgseg-{name} --cfg job shows those there are"


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """A variable of the environment, for a while; None takes it away."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


class BelowWarning(logging.Filter):
    """Lets through what belongs on standard output: warnings and errors have a stream of theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is less than a warning."""
        return record.levelno < logging.WARNING
