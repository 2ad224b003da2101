"""One task for each volume, by a launcher of Hydra: `hydra/launcher=submitit_slurm`.

A launcher of Hydra acts on a sweep. The command that is typed plans the work, makes a sweep over
the volumes that are to be done, waits for all tasks, and says what became of each.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from omegaconf import DictConfig

from isgseg.batch.progress import changed, progress_of
from isgseg.batch.records import note_failure, one_line, read_record, reason_of, renew
from isgseg.batch.tasks import all_awaited
from isgseg.batch.work import Item, Work
from isgseg.errors import InputError
from isgseg.overrides import literal
from isgseg.streams import plain_logging

log = logging.getLogger(__name__)
_LOCAL = "submitit_local"
_SWITCHES = {"-m", "--multirun"}


@dataclass(frozen=True)
class Batch:
    """What a command tells of itself, so that its volumes can become tasks.

    Attributes:
        key: of the configuration, which names the volumes.
        plan: finds the volumes of a configuration, and which of them are to be done.
        for_tasks: arguments for tasks, of which each sees one volume; None: those that were typed.
    """

    key: str
    plan: Callable[[DictConfig], Work[Any]]
    for_tasks: Callable[[DictConfig], list[str]] | None = None


def launcher_of(arguments: Sequence[str]) -> str | None:
    """The launcher that arguments ask for, if it is to make one task of each volume.

    None where none is asked for, and where a sweep of the user's own is: that is Hydra's matter.
    """
    chosen = [argument for argument in arguments if argument.startswith("hydra/launcher=")]
    if not chosen or chosen[-1] == "hydra/launcher=basic":
        return None
    return None if any(map(_is_sweep, arguments)) else chosen[-1].partition("=")[2]


def launch(
    name: str, arguments: Sequence[str], batch: Batch, launcher: str, run: Callable[[], None]
) -> None:
    """Plans the work, has it done by tasks, and writes the summary.

    Args:
        name: of the command.
        arguments: for Hydra, names of today.
        batch: of the command.
        launcher: that was asked for.
        run: runs Hydra with `sys.argv`; each task does one volume.

    Raises:
        InputError: a setting is wrong, a file is in the way, or volumes have no results.
    """
    _check_plugin(launcher)
    typed = [argument for argument in arguments if argument not in _SWITCHES]
    with plain_logging():
        cfg, typed = _composed(name, typed)
        work = batch.plan(cfg)
        kept = len(work.items) - len(work.todo) - len(work.failed)
        log.info("%d volumes: %d to do, %d are complete", len(work.items), len(work.todo), kept)
        for item in work.todo:
            former = read_record(item.record)
            if former is not None:
                log.info("%s once more; it failed: %s", item.volume, reason_of(former))
                renew(item.record)
        failed = dict(work.failed)
        before = {item.done: changed(item.done) for item in work.todo}
        if work.todo:
            typed += batch.for_tasks(cfg) if batch.for_tasks else []
            sys.argv[1:] = _tasks(typed, batch.key, work.todo, launcher, cfg)
            with progress_of(work, shown=bool(cfg.get("progress", True))):
                outcomes, fault = _run(run)
            if fault is not None and not any(map(_is_begun, work.todo, before.values())):
                raise InputError(f"hydra/launcher={launcher} did not start the tasks: {fault}")
    with plain_logging():
        for number, item in enumerate(work.todo):
            outcome = outcomes[number] if number < len(outcomes) else fault
            why = _why(work.command, item, before[item.done], outcome)
            if why is not None:
                failed[str(item.volume)] = why
        work.finish(failed, always=True)


def _is_begun(item: Item, before: int | None) -> bool:
    """Whether a task has left anything of a volume."""
    return changed(item.done) != before or read_record(item.record) is not None


def _why(command: str, item: Item, before: int | None, outcome: str | None) -> str | None:
    """Why a volume has no results; None where it has. A task that was killed has left no reason.

    Args:
        command: such as `predict`.
        item: the volume.
        before: when its results were changed last before the tasks began.
        outcome: what the launcher knows.
    """
    record = read_record(item.record)
    if record is not None and record.get("status") == "failed":
        return reason_of(record)
    if record is None and changed(item.done) not in (None, before):
        return None
    why = outcome or "its task ended without a result; see its log in the folder of this run"
    note_failure(item.record, command, item.volume, why)
    return why


def _composed(name: str, typed: list[str]) -> tuple[DictConfig, list[str]]:
    """The configuration of the whole batch, and the arguments, with one folder for all results."""
    from hydra import compose, initialize_config_dir

    from isgseg.config import CONFIG_DIR, checked, unique_folder

    own = [word for word in typed if not word.startswith(("-", "hydra/", "hydra.", "+hydra"))]
    own.insert(0, "paths.output_dir='.'")  # there is no run of Hydra yet whose folder it would be
    if not any(word.startswith(("output_dir=", "paths.output_dir=")) for word in own[1:]):
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            root = compose(name, own).paths.root
        folder = unique_folder(f"{root}/{name}/{datetime.now():%Y-%m-%d_%H-%M-%S}")
        own.append(f"output_dir={literal(folder)}")
        typed = [*typed, own[-1]]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return checked(name, compose(name, own)), typed


def _tasks(
    typed: Sequence[str], key: str, todo: Sequence[Item], launcher: str, cfg: DictConfig
) -> list[str]:
    """Arguments of Hydra's sweep over volumes."""
    kept = [word for word in typed if word.partition("=")[0].lstrip("+") != key]
    volumes = ",".join(f"[{literal(str(item.volume))}]" for item in todo)  # each a list of one
    added = [f"++{key}={volumes}"]
    if "progress" in cfg:
        added.append("progress=false")  # of a task; it would fill its log
    size = "hydra.sweeper.max_batch_size"
    if launcher == _LOCAL and not any(word.lstrip("+").startswith(size) for word in typed):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        at_once = max(1, min(len(todo), cores // 4))
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // at_once)))
        log.info("%d at once on this machine; %s=N for another number", at_once, size)
        added.append(f"{size}={at_once}")
    flags = [word for word in kept if word.startswith("-")]  # argparse wants them together
    return ["--multirun", *flags, *(word for word in kept if word not in flags), *added]


def _run(run: Callable[[], None]) -> tuple[list[str | None], str | None]:
    """Runs the tasks.

    Returns:
        For each task why it has failed, as far as that is known; and what made the launcher fail.
    """
    outcomes: list[str | None] = []
    with all_awaited(outcomes):
        try:
            run()
        except Exception as error:
            log.debug("Where the launcher failed:", exc_info=error)
            return outcomes, one_line(error)
    return outcomes, None


def _check_plugin(launcher: str) -> None:
    """Says how to install submitit's launcher where it is not."""
    if launcher.startswith("submitit") and importlib.util.find_spec("submitit") is None:
        raise InputError(
            f"hydra/launcher={launcher} needs the extra cluster: pip install 'isgseg[cluster]'"
        )


def _is_sweep(argument: str) -> bool:
    """Whether an argument is a sweep of Hydra, such as `threshold=0.5,0.6`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if argument.startswith("-") or "=" not in argument:
        return False
    try:
        return bool(OverridesParser.create().parse_override(argument).is_sweep_override())
    except HydraException:
        return False
