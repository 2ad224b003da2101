"""Reading a `.pth` file of anybody: nothing is unpickled, and no more memory taken than it holds.

A `.pth` file is a zip archive of a pickle and of raw numbers. torch reads it with
`weights_only=True`, which knows tensors and plain containers only.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isgseg.errors import InputError, InputFileNotFoundError, InputPermissionError
from isgseg.io.paths import is_file, user_path

_LARGEST = 1e15  # weights beyond overflow at once
_PICKLE = b"\x80"  # how a pickle begins, as files of torch before 1.6 do


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a file that torch saved, as it is.

    Raises:
        InputError: the file is missing, empty, a folder, unreadable, not torch's, larger when
            read than on disk, or would need unpickling.
    """
    path = user_path(path)
    check_file(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise InputError(
            f"{path} cannot be loaded without unpickling objects"
            f"{f' ({named[1]})' if named else ''}, which could run any code; save its "
            "state_dict() alone, as plain tensors and numbers"
        ) from error
    except Exception as error:  # on a damaged file torch raises nearly anything
        raise InputError(
            f"{path} is not a checkpoint, or a damaged one; copy it again. ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds a {type(content).__name__}, not a checkpoint; give a .pth file of "
            "isgseg-train or a state_dict()"
        )
    return content


def check_file(path: Path) -> None:
    """Refuses what is no file of torch, before torch looks at it.

    Raises:
        InputError: the file is missing, empty, a folder, unreadable, or of another kind.
    """
    there = is_file(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the .pth file in it")
    if not there:
        raise InputFileNotFoundError(f"checkpoint {path} does not exist; check the path")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(4)
    except PermissionError as error:
        raise InputPermissionError(f"{path} cannot be read; ask for the permission") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    if not size:
        raise InputError(
            f"{path} is empty: a copy or a training was cut off; take another checkpoint"
        )
    if start[:2] == b"PK":
        _check_archive(path, size)
    elif start[:1] != _PICKLE:
        raise InputError(
            f"{path} is not a checkpoint: its content is neither a zip archive nor a pickle; give "
            "a .pth file of isgseg-train or torchvision"
        )


def _check_archive(path: Path, size: int) -> None:
    """Torch stores its numbers uncompressed, so that no honest file grows when it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # NotImplementedError and others, of a damaged directory
        raise InputError(
            f"{path} is not a checkpoint, or a damaged one; copy it again. ({_first_line(error)})"
        ) from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise InputError(
            f"{path} holds compressed entries, which torch.save never writes; save it anew with "
            "torch.save"
        )
    total = sum(entry.file_size for entry in entries)
    if total > size:
        raise InputError(
            f"{path} says that it holds {total} bytes, but has {size}; it is damaged or made to "
            "take more memory than it should. Save it anew with torch.save"
        )


def check_tensor(path: str | Path, name: str, value: Tensor) -> None:
    """Refuses weights that are no plain numbers.

    Args:
        path: of the file.
        name: of the tensor in it.
        value: any shape.

    Raises:
        InputError: the tensor is sparse, says that it is larger than its numbers, or holds NaN or
            infinity.
    """
    whole = value.layout == torch.strided and value.device.type == "cpu"
    if not whole or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"{path}: {name} is no plain tensor; save the network's state_dict() anew")
    if value.is_complex():
        raise InputError(f"{path}: {name} is complex; save the network's state_dict() anew")
    if value.is_floating_point() and not bool((good := value.abs() <= _LARGEST).all()):
        bad = int((~good).sum())
        raise InputError(
            f"{path}: {bad} of {value.numel()} weights of {name} are NaN, infinite or beyond "
            f"{_LARGEST:g}: the training "
            "diverged, and this network finds nothing. Take an earlier checkpoint, or train with a "
            "lower model.lr"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
