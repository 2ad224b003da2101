"""Training by several processes, one a device, as Lightning's `ddp` wants them.

Either isgseg-train starts them itself, or `srun`, submitit or `torchrun` has started the command
several times. The first process, of rank 0, writes files and log for all.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from isgseg.config import plain
from isgseg.io.folders import locked

log = logging.getLogger(__name__)
_STARTED = "ISGSEG_TRAIN_PROCESS"
GRACE = 2.0  # seconds until the other processes are ended where one has failed
Train = Callable[[DictConfig], float | None]


def count_processes(trainer: DictConfig) -> int:
    """How many processes a training takes: one for each device.

    Args:
        trainer: the group of the configuration.
    """
    gpus = torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if trainer.devices == "auto":
        return max(1, gpus)
    return trainer.devices if isinstance(trainer.devices, int) else len(trainer.devices)


def started_together() -> Any:
    """Lightning's description of the processes that `srun` or `torchrun` has started, this one too.

    None where this is the only one.
    """
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that srun is there and was not used
        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect() and (found := kind()).world_size() > 1:
                return found
    return None


def environment_here() -> list[Any]:
    """What the Trainer must be told of the processes, beyond what it finds out: a plugin, or none.

    Those that `train_in_processes` started are its own, also in a job of SLURM with one task.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [LightningEnvironment()] if _STARTED in os.environ else []


def train_together(train: Train, cfg: DictConfig, environment: Any) -> float | None:
    """Trains as one of the processes that `started_together` has found.

    All take the configuration of rank 0, and with it the folder of the run.

    Args:
        train: trains.
        cfg: of this process.
        environment: of `started_together`.

    Raises:
        InputError: another training uses the folder; in every process.
    """
    rank = environment.global_rank()
    if rank:
        _quieten()
    os.environ["MASTER_ADDR"] = environment.main_address
    os.environ["MASTER_PORT"] = str(environment.main_port)
    torch.distributed.init_process_group(rank=rank, world_size=environment.world_size())
    with contextlib.ExitStack() as stack:
        shared: list[Any] = [None]
        if rank == 0:
            try:
                stack.enter_context(locked(Path(cfg.paths.output_dir)))
                shared = [_literal(plain(cfg))]
            except ValueError as error:  # the others must not wait for this one
                shared = [error]
        torch.distributed.broadcast_object_list(shared)
        if isinstance(shared[0], ValueError):
            raise shared[0]
        score = train(OmegaConf.create(shared[0], flags={"allow_objects": True}))
        end_group()
        return score


def train_in_processes(train: Train, cfg: DictConfig, count: int) -> float | None:
    """Starts processes that train, and waits for them.

    Lightning would start the command anew for each, which in a sweep is the whole sweep, and would
    kill this process where one of them fails.

    Args:
        train: trains, in each process; a function of a module.
        cfg: with interpolations that only this process can resolve.
        count: of processes.

    Returns:
        What rank 0 returned.

    Raises:
        Exception: what the first process that failed has raised; the others are ended.
    """
    from torch.multiprocessing.spawn import (
        ProcessExitedException,
        ProcessRaisedException,
        start_processes,
    )

    context = get_context("spawn")
    records, answers = context.Queue(), context.SimpleQueue()
    listener = QueueListener(records, _HandleHere())
    listener.start()
    level = logging.getLogger().getEffectiveLevel()
    arguments = (train, _literal(plain(cfg)), count, _free_port(), level, records, answers)
    started = start_processes(_work, arguments, count, join=False)  # type: ignore[no-untyped-call]
    failed: Exception | None = None
    try:
        while not started.join(grace_period=GRACE):
            pass
    except (ProcessExitedException, ProcessRaisedException) as error:
        failed = error
    finally:
        for process in started.processes:
            if process.is_alive():  # this one is interrupted
                process.kill()
            process.join()
        listener.stop()
    if not answers.empty():
        answer: Any = answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]
    # Without a word: killed, such as by the system for its memory.
    raise RuntimeError(f"one of {count} processes of the training died: {failed}")


def end_group() -> None:
    """Leaves the group of processes, if there is one."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _work(
    rank: int,
    train: Train,
    content: dict[str, Any],
    count: int,
    port: int,
    level: int,
    records: Any,
    answers: Any,
) -> None:
    """One process: tells Lightning which it is, trains, and answers the process that started it."""
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), _STARTED: "1"}
    root = logging.getLogger()
    root.handlers = [QueueHandler(records)]
    root.setLevel(level)
    if rank:
        _quieten()
    try:
        score = train(OmegaConf.create(content, flags={"allow_objects": True}))
        end_group()
    except Exception as error:
        # Where it was raised is lost on the way otherwise.
        error.add_note("".join(traceback.format_tb(error.__traceback__)))
        answers.put(error)
        raise SystemExit(1) from None
    if rank == 0:
        answers.put(score)


def _quieten() -> None:
    """What several processes would say, rank 0 says."""
    logging.getLogger().setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


class _HandleHere(logging.Handler):
    """Gives records of another process to the log of this one."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def _literal(content: Any) -> Any:
    """Plain values whose texts OmegaConf does not take for interpolations."""
    if isinstance(content, dict):
        return {key: _literal(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_literal(value) for value in content]
    return content.replace("${", "\\${") if isinstance(content, str) else content


def _free_port() -> int:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        port: int = here.getsockname()[1]
        return port
