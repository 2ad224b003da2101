"""Volumes and label volumes in memory, and their way from and to MRC, TIFF and NPY files.

Arrays are `(z, y, x)`, voxel sizes nm in the same order. Reading refuses what would only fail
later or, worse, would not fail: images, stacks of volumes, colour, NaN.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.errors import InputError, InputFileNotFoundError
from isgseg.io.atomic import replacing
from isgseg.io.damage import described
from isgseg.io.formats import Array, VoxelSize, is_voxel_size, plausible, read_npy
from isgseg.io.labels import check_instances
from isgseg.io.mrc import read_mrc, write_mrc
from isgseg.io.paths import Patterns, as_list, is_file, matches, user_path
from isgseg.io.tiff import read_tiff, write_tiff

_MRC = (".mrc", ".mrc.gz", ".map", ".map.gz", ".rec", ".rec.gz")
_TIFF = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
_READERS = {
    **dict.fromkeys(_MRC, read_mrc),
    **dict.fromkeys(_TIFF, read_tiff),
    ".npy": read_npy,
}
SUFFIXES = tuple(_READERS)
FILL = 1e30  # beyond all that is measured; netCDF fills with 9.97e36, others with -3.4e38


class VolumeError(InputError):
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
    path = user_path(path)
    there = is_file(path)
    suffix = _suffix(path)
    if not there:
        what = "a broken link, or no regular file" if os.path.lexists(path) else "no such file"
        raise VolumeError(f"{path}: {what}; check the name, and the folder you are in")
    try:
        data, voxel_size = _READERS[suffix](path)
    except Exception as error:  # on a damaged file the libraries raise nearly anything
        reason = described(path, error)
        raise VolumeError(f"{path}: cannot be read as {suffix}: {reason}") from error
    return Volume(_checked(path, data), plausible(voxel_size, str(path)))


def read_labels(path: str | Path, *, check: bool = True) -> Volume:
    """Read a label volume; its data are uint16, or uint32 where an identifier needs it.

    Args:
        path: the file.
        check: warn where the numbers seem to be no instances; see `check_instances`.

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
    if (lowest := data.min()) < 0:
        signed = data.dtype.kind == "i" and data.dtype.itemsize < 4
        wrapped = (
            f" If they are numbers above {np.iinfo(data.dtype).max}, which {data.dtype} cannot "
            "hold, save the labels as unsigned 16-bit."
            if signed
            else ""
        )
        raise VolumeError(
            f"{path}: the smallest label is {lowest}, and {(data < 0).sum()} voxels are negative; "
            f"labels count up from 0. Make what is to be left out 0.{wrapped}"
        )
    try:
        dtype = label_dtype(int(data.max()))
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None
    labels = data.astype(dtype, copy=False)
    if check:
        check_instances(labels, str(path))
    return Volume(labels, volume.voxel_size)


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
    path = user_path(path)
    suffix = _suffix(path)
    if data.ndim != 3 or data.size == 0:
        raise VolumeError(f"{path}: cannot write shape {data.shape}; a volume is (z, y, x)")
    if voxel_size is not None and not is_voxel_size(voxel_size):
        raise VolumeError(f"{path}: voxel size {voxel_size} is not three positive numbers (nm)")
    with replacing(path) as scratch:
        try:
            if suffix == ".npy":
                np.save(scratch, data, allow_pickle=False)
            elif suffix in _MRC:
                write_mrc(scratch, data, voxel_size)
            else:
                write_tiff(scratch, data, voxel_size)
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


def find_volumes(patterns: Patterns) -> list[Path]:
    """The volumes that paths, folders and glob patterns name, each once.

    A list keeps its order; what a glob or folder holds is sorted by name, cell2 before cell10.

    Raises:
        InputError: A pattern matches no file of an accepted suffix, or is no path at all.
    """
    found: dict[Path, Path] = {}
    for pattern in as_list(patterns):
        named = matches(pattern, folders=True)
        files = [file for file in named if file.name.lower().endswith(SUFFIXES)]
        if not files:
            accepted = ", ".join(SUFFIXES)
            raise InputFileNotFoundError(
                f"no volume matches {pattern}; accepted are {accepted}; check the name, and the "
                f"folder you are in, {Path.cwd()}"
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise InputFileNotFoundError(
            "no volume was named; give a path, a pattern, or a list of these"
        )
    return list(found.values())


def label_dtype(count: int) -> type[np.unsignedinteger[Any]]:
    """The dtype for identifiers up to `count`: uint16 while they fit, uint32 beyond."""
    if count > np.iinfo(np.uint32).max:
        raise VolumeError(f"identifier {count} does not fit 32 bits; number the objects from 1")
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32


def _suffix(path: Path) -> str:
    if path.is_dir():
        raise VolumeError(f"{path} is a folder; name a file in it, e.g. {path / 'cell.mrc'}")
    suffixes = [suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)]
    if not suffixes:
        packed = (
            "unpack it first; " if path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz") else ""
        )
        raise VolumeError(
            f"{path}: unknown kind of file; {packed}accepted are {', '.join(SUFFIXES)}. Export it "
            "as one of these; an MRC file of another suffix, such as .st or .ali, can be renamed"
        )
    return max(suffixes, key=len)


def _first(where: Array) -> tuple[int, ...]:
    """Index of the first True."""
    return tuple(int(i) for i in np.unravel_index(int(where.argmax()), where.shape))


def _checked(path: Path, data: Array) -> Array:
    """`data` as a contiguous (z, y, x) array in native byte order."""
    if data.dtype.kind not in "biuf":
        raise VolumeError(
            f"{path}: {data.dtype} voxels; a volume has one real number a voxel. "
            "Save its real values, for example as 32-bit floats"
        )
    shape = data.shape
    while data.ndim > 3 and data.shape[0] == 1:
        data = data[0]
    if data.ndim != 3 or data.size == 0:
        remedy = (
            "it is empty; export it again"
            if data.size == 0
            else "stack the slices into one file"
            if len(shape) < 3
            else "save one channel and one time point a file"
        )
        raise VolumeError(f"{path}: {len(shape)}D, shape {shape}; a volume is (z, y, x): {remedy}")
    if data.dtype.kind == "f":
        _check_values(path, data)
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def _check_values(path: Path, data: Array) -> None:
    """Refuses values that stand for none: NaN, infinity, and what programs fill gaps with."""
    largest = max(abs(float(data.min())), abs(float(data.max())))
    if largest < FILL:  # not so where one is NaN
        return
    bad = ~np.isfinite(data)
    kind = "NaN or infinite"
    if not bad.any():
        bad = np.abs(data) >= FILL
        kind = f"{data[_first(bad)]:.4g}, with which programs fill what was not measured"
    measured = data[~bad]
    remedy = f", such as {measured.min():.4g}, the smallest measured one" if measured.size else ""
    raise VolumeError(
        f"{path}: {bad.sum()} voxels are {kind}, the first at (z, y, x) = {_first(bad)}; replace "
        f"them by the value outside of the cell{remedy}"
    )
