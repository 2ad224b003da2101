"""Volumes and label volumes in memory, and their way from and to MRC, TIFF and NPY files.

Arrays are `(z, y, x)`, voxel sizes nm in the same order. Reading refuses what would only fail
later or, worse, would not fail: pictures, stacks of volumes, colour, NaN.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isgseg import formats
from isgseg.formats import Array, VoxelSize

_MRC = (".mrc", ".mrc.gz", ".map", ".map.gz", ".rec", ".rec.gz")
_TIFF = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
_READERS = {
    **dict.fromkeys(_MRC, formats.read_mrc),
    **dict.fromkeys(_TIFF, formats.read_tiff),
    ".npy": formats.read_npy,
}
SUFFIXES = tuple(_READERS)


class VolumeError(ValueError):
    """A file that cannot be used as a volume; the message says which, why, and what would do."""


@dataclass(frozen=True)
class Volume:
    """A volume in memory.

    Attributes:
        data: (z, y, x), in the file's own dtype.
        voxel_size: nm, (z, y, x); None where the file does not say.
    """

    data: Array
    voxel_size: VoxelSize | None


def read_volume(path: str | Path) -> Volume:
    """Read a volume of grey values.

    Raises:
        VolumeError: The file is missing, damaged, not 3D, not real-valued, or holds NaN.
    """
    path = Path(path).expanduser()  # a shell leaves the ~ of volume=~/cell.mrc alone
    suffix = _suffix(path)
    if not path.is_file():
        raise VolumeError(f"{path}: no such file")
    try:
        data, voxel_size = _READERS[suffix](path)
    except Exception as error:  # on a damaged file the libraries raise nearly anything
        raise VolumeError(f"{path}: cannot be read as {suffix}: {error}") from error
    return Volume(_checked(path, data), voxel_size)


def read_labels(path: str | Path) -> Volume:
    """Read a label volume; its data are uint16, or uint32 where an identifier needs it.

    Raises:
        VolumeError: As `read_volume`; or a value is negative or not a whole number.
    """
    volume = read_volume(path)
    data = volume.data
    if data.dtype.kind == "f" and (broken := data != np.floor(data)).any():
        where = _first(broken)
        raise VolumeError(
            f"{path}: {broken.sum()} voxels are not whole numbers, the first {data[where]} at "
            f"(z, y, x) = {where}; labels are, and 0 is background. Is this the tomogram?"
        )
    if data.min() < 0:
        raise VolumeError(
            f"{path}: the smallest label is {data.min()}; labels count up from 0. "
            f"If {data.dtype} was too small for the identifiers, save them as unsigned 16-bit."
        )
    try:
        dtype = label_dtype(int(data.max()))
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None
    return Volume(data.astype(dtype, copy=False), volume.voxel_size)


def write_volume(path: str | Path, data: Array, voxel_size: Sequence[float] | None) -> Path:
    """Write a volume in the format its suffix names, whole or not at all; its folder is created.

    MRC and TIFF hold integers of up to 16 and 32 bits, chosen by value, and floats as float32.
    A TIFF opens in Fiji as a stack with its voxel size. NPY keeps the dtype but no voxel size.

    Args:
        path: Ends in one of `SUFFIXES`.
        data: (z, y, x).
        voxel_size: nm, (z, y, x), or None.

    Raises:
        VolumeError: The format cannot hold the values, or the place cannot be written.
    """
    path = Path(path).expanduser()
    suffix = _suffix(path)
    if data.ndim != 3 or data.size == 0:
        raise VolumeError(f"{path}: cannot write shape {data.shape}; a volume is (z, y, x)")
    if voxel_size is not None and not formats.is_voxel_size(voxel_size):
        raise VolumeError(f"{path}: voxel size {voxel_size} is not three positive numbers (nm)")
    with replacing(path) as scratch:
        try:
            if suffix == ".npy":
                np.save(scratch, data, allow_pickle=False)
            elif suffix in _MRC:
                formats.write_mrc(scratch, data, voxel_size)
            else:
                formats.write_tiff(scratch, data, voxel_size)
        except ValueError as error:
            raise VolumeError(f"{path}: {suffix} {error}") from error
    return path


def stem(path: str | Path) -> str:
    """The file's name without folder and suffix.

    >>> stem("cells/cell.mrc.gz")
    'cell'
    """
    path = Path(path)
    return path.name[: -len(_suffix(path))]


def find_volumes(patterns: str | Path | Sequence[str | Path]) -> list[Path]:
    """The volumes that paths and glob patterns name, sorted, each once.

    Raises:
        FileNotFoundError: A pattern matches no file of an accepted suffix.
        VolumeError: A pattern is a folder.
    """
    found: dict[Path, Path] = {}
    for pattern in [patterns] if isinstance(patterns, (str, Path)) else patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise VolumeError(f"{path} is a folder; name its files, e.g. {path}/*.mrc")
        matches = [path] if path.is_file() else map(Path, glob.glob(str(path), recursive=True))
        files = [file for file in matches if file.name.lower().endswith(SUFFIXES)]
        if not files:
            accepted = ", ".join(SUFFIXES)
            raise FileNotFoundError(f"no volume matches {pattern}; accepted are {accepted}")
        found |= {file.resolve(): file for file in files}
    if not found:
        raise FileNotFoundError("no volume was named; give a path, a pattern, or a list of these")
    return sorted(found.values())


def label_dtype(count: int) -> type[np.unsignedinteger[Any]]:
    """The dtype for identifiers up to `count`: uint16 while they fit, uint32 beyond."""
    if count > np.iinfo(np.uint32).max:
        raise VolumeError(f"identifier {count} does not fit 32 bits; number the objects from 1")
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch path beside `path`: it becomes `path` if the block succeeds, else it is removed.

    Raises:
        VolumeError: The folder or the file cannot be written.
    """
    scratch = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise VolumeError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def _suffix(path: Path) -> str:
    suffixes = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    if not suffixes:
        raise VolumeError(f"{path}: unknown kind of file; accepted are {', '.join(SUFFIXES)}")
    return max(suffixes, key=len)


def _first(where: Array) -> tuple[int, ...]:
    """Index of the first True."""
    return tuple(int(i) for i in np.unravel_index(int(where.argmax()), where.shape))


def _checked(path: Path, data: Array) -> Array:
    """`data` as a contiguous (z, y, x) array in native byte order."""
    if data.dtype.kind not in "biuf":
        raise VolumeError(f"{path}: {data.dtype} voxels; a volume has one real number a voxel")
    shape = data.shape
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    if data.ndim != 3 or data.size == 0:
        raise VolumeError(f"{path}: {len(shape)}D, shape {shape}; a volume is (z, y, x)")
    if data.dtype.kind == "f" and (bad := ~np.isfinite(data)).any():
        raise VolumeError(
            f"{path}: {bad.sum()} voxels are NaN or infinite, the first at (z, y, x) = "
            f"{_first(bad)}; replace them by a number"
        )
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))
