"""The commands' frame: Hydra is run in it, and errors are shown."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from isgseg.config import CONFIG_DIR, checked
from isgseg.errors import InputError, input_error
from isgseg.mistakes import stop
from isgseg.overrides import modernize, with_key
from isgseg.ranks import without_files

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
            if {"--help", "-h"} & set(sys.argv[1:]):
                _print_help(name)
                return
            try:
                try:
                    arguments, old_names = modernize(name, with_key(files, sys.argv[1:]))
                    sys.argv[1:] = arguments_of(arguments)
                    done = batch is not None and _launched(name, batch, function, old_names)
                except InputError as error:
                    stop(name, error)
                if not done:
                    job = functools.partial(_job, name, function, old_names)
                    with without_files(name) as more:
                        sys.argv[1:] += more
                        _run_hydra(name, job)
            except KeyboardInterrupt:
                print(f"isgseg-{name}: interrupted", file=sys.stderr)
                raise SystemExit(128 + signal.SIGINT) from None

        return main

    return decorate


def _print_help(name: str) -> None:
    """Prints what `conf/` says of a command; Hydra is not asked, and nothing is composed."""
    from isgseg.help import help_text

    try:
        print(help_text(name, sys.argv[1:]))
        sys.stdout.flush()
    except BrokenPipeError:
        _end_of_pipe()


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
        cause = input_error(error) or _of_the_disk(error)
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
        cause = input_error(error) or _of_the_disk(error)
        if cause is None or os.environ.get("HYDRA_FULL_ERROR"):
            raise
        log.debug("Where it was raised:", exc_info=error)
        log.error("%s", cause)
        if _is_of_sweep():  # the others go on
            raise cause from None
        raise SystemExit(1) from None


def _is_of_sweep() -> bool:
    """Whether a job is one of several, by `-m`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def _of_the_disk(error: Exception) -> InputError | None:
    """What to do where the disk is full or may not be used, whichever file it is about."""
    if not isinstance(error, OSError):
        return None
    what = f"{error.filename or 'a file of this run'}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{what}; free some space, or choose a folder on another disk")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
        return InputError(f"{what}; give a path that you may use, or ask for the right to it")
    return None


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
    except BrokenPipeError:
        _end_of_pipe()
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        if full or any(error is other for other in raised):
            if not full and isinstance(error, InputError):  # of a job of a sweep, which has said it
                raise SystemExit(1) from None
            raise
        stop(name, error)


def _end_of_pipe() -> NoReturn:
    """Ends the program where who reads has enough, as in `--help | head`."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it when it ends
    raise SystemExit(128 + signal.SIGPIPE) from None


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
