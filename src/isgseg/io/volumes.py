"""Volumes and label volumes, and their way from and to files.

MRC, TIFF, NPY and OME-Zarr are read and written, HDF5 is read. Arrays are `(z, y, x)`, voxel sizes
nm in the same order. Reading refuses what would only fail later or, worse, would not fail: images,
stacks of volumes, colour, NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from isgseg.errors import InputError, InputFileNotFoundError
from isgseg.io import places
from isgseg.io.atomic import replacing
from isgseg.io.by_slices import write_mrc_slices, write_npy_slices, write_tiff_slices
from isgseg.io.checks import FILL as FILL
from isgseg.io.checks import checked, first_true
from isgseg.io.damage import described
from isgseg.io.folders import replacing_folder
from isgseg.io.formats import Array, VoxelSize, is_voxel_size, plausible
from isgseg.io.formats import VolumeError as VolumeError
from isgseg.io.hdf5 import open_hdf5
from isgseg.io.labels import check_instances
from isgseg.io.mrc import open_mrc, write_mrc
from isgseg.io.npy import open_npy
from isgseg.io.ome_zarr import open_zarr
from isgseg.io.ome_zarr_metadata import check_no_image_of_labels
from isgseg.io.ome_zarr_writing import Slabs, write_zarr
from isgseg.io.on_disk import OnDisk
from isgseg.io.paths import Patterns, as_list, is_volume, matches, user_path
from isgseg.io.places import SUFFIXES as SUFFIXES
from isgseg.io.places import missing, place_of, suffix_of
from isgseg.io.places import stem as stem
from isgseg.io.tiff import open_tiff, write_tiff

_OPENERS: dict[str, Callable[[Path], tuple[Array | OnDisk, VoxelSize | None]]] = {
    **dict.fromkeys(places.MRC, open_mrc),
    **dict.fromkeys(places.TIFF, open_tiff),
    **dict.fromkeys(places.NPY, open_npy),
    **dict.fromkeys(places.ZARR, open_zarr),
    **dict.fromkeys(places.HDF5, open_hdf5),
}


@dataclass(frozen=True)
class Volume:
    """A volume.

    Attributes:
        data: (z, y, x), in the file's own dtype. Of `open_volume` it may be an `OnDisk`, which
            stands in for an array where slices suffice.
        voxel_size: nm, (z, y, x); None where the file does not say.
    """

    data: Array
    voxel_size: VoxelSize | None


def open_volume(path: str | Path) -> Volume:
    """A volume of grey values that stays on the disk where its file allows that.

    MRC, NPY, TIFF without compression, Zarr and HDF5 do; others are read. Whether values are
    missing is checked here all the same, slice by slice.

    Raises:
        VolumeError: as `read_volume`.
    """
    path = user_path(path)
    data, voxel_size = _opened(path, whole=False)
    # It is asked for nothing but what an OnDisk has too.
    return Volume(cast("Array", checked(path, data)), plausible(voxel_size, str(path)))


def read_volume(path: str | Path) -> Volume:
    """Read a volume of grey values.

    Raises:
        VolumeError: The file is missing, damaged, not 3D, not real-valued, or holds NaN.
    """
    path = user_path(path)
    data, voxel_size = _opened(path, whole=True)
    return Volume(cast("Array", checked(path, data)), plausible(voxel_size, str(path)))


def _opened(path: Path, *, whole: bool) -> tuple[Array | OnDisk, VoxelSize | None]:
    there = is_volume(path)
    suffix = suffix_of(path)
    if not there:
        raise missing(path)
    try:
        data, voxel_size = _OPENERS[suffix](path)
        if whole:
            data = np.asarray(data)
    except InputError:
        raise
    except Exception as error:  # on a damaged file the libraries raise nearly anything
        reason = described(path, error)
        raise VolumeError(f"{path}: cannot be read as {suffix}: {reason}") from error
    return data, voxel_size


def read_labels(path: str | Path, *, check: bool = True) -> Volume:
    """Read a label volume; its data are uint16, or uint32 where an identifier needs it.

    Args:
        path: the file.
        check: warn where the numbers seem to be no instances; see `check_instances`.

    Raises:
        VolumeError: As `read_volume`; or a value is negative or not a whole number.
    """
    check_no_image_of_labels(user_path(path))
    volume = read_volume(path)
    data = volume.data
    if data.dtype.kind == "f" and (broken := data != np.floor(data)).any():
        where = first_true(broken)
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


def write_volume(
    path: str | Path,
    data: Array | Slabs,
    voxel_size: Sequence[float] | None,
    **zarr: Any,
) -> Path:
    """Write a volume in the format its suffix names, whole or not at all; its folder is created.

    MRC and TIFF hold integers of up to 16 and 32 bits, chosen by value, and floats as float32.
    A TIFF opens in Fiji as a stack with its voxel size. NPY keeps the dtype but no voxel size. A
    Zarr is an OME-Zarr.

    Args:
        path: Ends in one of `isgseg.io.places.WRITTEN`.
        data: (z, y, x): an array, or what gives slices like one.
        voxel_size: nm, (z, y, x), or None.
        **zarr: of `isgseg.io.ome_zarr_writing.write_zarr`, such as `labels`; other formats have no
            use for them.

    Raises:
        VolumeError: The format cannot hold the values, or the place cannot be written.
    """
    path = user_path(path)
    suffix = suffix_of(path)
    if len(data.shape) != 3 or 0 in data.shape:
        raise VolumeError(f"{path}: cannot write shape {data.shape}; a volume is (z, y, x)")
    if voxel_size is not None and not is_voxel_size(voxel_size):
        raise VolumeError(f"{path}: voxel size {voxel_size} is not three positive numbers (nm)")
    if suffix in places.HDF5:
        raise VolumeError(f"{path}: HDF5 is read only; write .zarr, .mrc, .tif or .npy")
    beside = replacing_folder if suffix in places.ZARR else replacing
    with beside(path) as scratch:
        try:
            if suffix in places.ZARR:
                write_zarr(scratch, data, voxel_size, **zarr)
            elif isinstance(data, np.ndarray) or suffix.endswith(".gz"):
                _write_array(scratch, suffix, np.asarray(data), voxel_size)
            elif suffix in places.NPY:
                write_npy_slices(scratch, data)
            elif suffix in places.MRC:
                write_mrc_slices(scratch, data, voxel_size)
            else:
                write_tiff_slices(scratch, data, voxel_size)
        except ValueError as error:
            raise VolumeError(f"{path}: {suffix} {error}") from error
    return path


def _write_array(path: Path, suffix: str, data: Array, voxel_size: Sequence[float] | None) -> None:
    if suffix in places.NPY:
        np.save(path, data, allow_pickle=False)
    elif suffix in places.MRC:
        write_mrc(path, data, voxel_size)
    else:
        write_tiff(path, data, voxel_size)


def find_volumes(patterns: Patterns) -> list[Path]:
    """The volumes that paths, folders and glob patterns name, each once.

    A list keeps its order; what a glob or folder holds is sorted by name, cell2 before cell10.

    Raises:
        InputError: A pattern matches no file of an accepted suffix, or is no path at all.
    """
    found: dict[Path, Path] = {}
    for pattern in as_list(patterns):
        named = matches(pattern, folders=True)
        files = [file for file in named if place_of(file) is not None]
        if not files:
            raise InputFileNotFoundError(_no_volume(str(pattern)))
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise InputFileNotFoundError(
            "no volume was named; give a path, a pattern, or a list of these"
        )
    return list(found.values())


def _no_volume(pattern: str) -> str:
    """Why a pattern names no volume, and what would be one."""
    accepted = f"accepted are {', '.join(SUFFIXES)}"
    path = user_path(pattern)
    if path.is_dir():
        return f"{pattern} is a folder that holds no volume; {accepted}"
    if path.is_file():
        return (
            f"{pattern} is no volume by the end of its name; {accepted}. Slices that are pictures "
            "can be saved as one TIFF stack, in grey values"
        )
    return (
        f"no volume matches {pattern}; {accepted}; check the name, and the folder you are in, "
        f"{Path.cwd()}"
    )


def label_dtype(count: int) -> type[np.unsignedinteger[Any]]:
    """The dtype for identifiers up to `count`: uint16 while they fit, uint32 beyond."""
    if count > np.iinfo(np.uint32).max:
        raise VolumeError(f"identifier {count} does not fit 32 bits; number the objects from 1")
    return np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32
