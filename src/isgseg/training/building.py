"""Objects made of the configuration, and what runs of them say of memory."""

from __future__ import annotations

import contextlib
import inspect
import os
import pkgutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from omegaconf import DictConfig

from isgseg.config import plain
from isgseg.errors import InputError, input_error
from isgseg.io.folders import locked


def build(part: DictConfig, key: str, base: type, **given: Any) -> Any:
    """Calls what `_target_` of a part of the config names, with the part's own values.

    Unlike Hydra's `instantiate`, it makes nothing of what is inside of the values: a `_target_`
    that came in with a file's content stays a text.

    Args:
        part: of the config.
        key: of the part, for messages.
        base: the class that the target must be, or be derived from.
        **given: more arguments, passed as they are.

    Raises:
        InputError: there is no such class, it is of another kind, or does not take the arguments.
    """
    content = plain(part)
    name = content.pop("_target_")
    content.pop("_convert_", None)
    arguments = {**content, **given}
    right = f"name a class derived from {base.__module__.partition('.')[0]}.{base.__name__}"
    try:
        target = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{key}._target_={name!r}: there is no such class; {right}") from error
    if not (isinstance(target, type) and issubclass(target, base)):
        raise InputError(f"{key}._target_={name} is no class of that kind; {right}")
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        raise InputError(f"{key}: {name} does not fit: {error}; correct the key") from error
    return target(**arguments)


@contextlib.contextmanager
def settings_refused() -> Iterator[None]:
    """Says which setting of the Trainer, its callbacks or loggers Lightning refuses.

    Lightning checks many of them only when the training starts. Its exceptions are of several
    classes; what they have in common is that its own code raises them.

    Raises:
        InputError: Lightning refused one.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        by_lightning = str(frame.f_globals.get("__name__")).startswith("lightning.pytorch.")
        if not by_lightning and not isinstance(error, MisconfigurationException):
            raise
        said = " ".join(str(error).split())
        raise InputError(
            f"a setting of trainer, callbacks or logger cannot be used: {said}"
        ) from error


def loggers_and_callbacks(cfg: DictConfig) -> tuple[list[Any], list[Any]]:
    """What the groups `logger` and `callbacks` make, once their folders were tried.

    Raises:
        InputError: a part cannot be made, or its folder cannot be written.
    """
    loggers = build_all(cfg.get("logger"), "logger")
    callbacks = without_rate(build_all(cfg.get("callbacks"), "callbacks"), loggers)
    require_folders(loggers, callbacks)
    return loggers, callbacks


def require_folders(loggers: list[Any], callbacks: list[Any]) -> None:
    """Whether the folders of loggers and checkpoints can be written, before hours of training.

    Raises:
        InputError: one cannot; the message says whose it is.
    """
    folders = [("a logger's save_dir", getattr(one, "save_dir", None)) for one in loggers]
    folders += [
        ("a checkpoint's dirpath", one.dirpath)
        for one in callbacks
        if isinstance(one, ModelCheckpoint)
    ]
    for whose, folder in folders:
        if folder is None or "://" in str(folder):
            continue
        try:
            with locked(Path(folder).expanduser(), f".isgseg-probe-{os.getpid()}"):
                pass
        except InputError as error:
            raise InputError(f"{whose}: {error}") from error


def without_rate(callbacks: list[Any], loggers: list[Any]) -> list[Any]:
    """The callbacks, less those that only write to a logger where there is none."""
    return [one for one in callbacks if loggers or not isinstance(one, LearningRateMonitor)]


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Says what takes less memory.

    Raises:
        InputError: the device has too little.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InputError(
            f"there is too little memory ({str(error).partition('. ')[0]}); lower data.batch_size, "
            "data.augment.crop or model.network.scale, or choose model=resnet18 or resnet10"
        ) from error


def build_all(parts: DictConfig | None, group: str) -> list[Any]:
    """What Hydra makes of each part of a group of the user's own configuration.

    Args:
        parts: by name; null ones are left out.
        group: of the configuration, for messages.

    Raises:
        InputError: a part's own; or one names a class that is not there, or arguments that it
            does not take.
    """
    made: list[Any] = []
    for name, part in (parts or {}).items():
        try:
            made += [instantiate(part)] if part else []
        except InstantiationException as error:
            if (found := input_error(error)) is not None:
                raise found from error
            cause = error.__cause__ or error
            unknown = isinstance(cause, TypeError) and "argument" in str(cause)
            theirs = isinstance(cause, (ImportError, MisconfigurationException)) or unknown
            if not theirs:
                raise
            key = f"{group}.{name!s}"
            said = " ".join(f"{key}: {cause}".split())
            said = f"{said}; correct it, or leave it out by ~{key}"
            raise InputError(said) from error
    return made
