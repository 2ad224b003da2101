"""Where a volume lies: a file, the folder of an OME-Zarr, or a dataset within an HDF5 file.

`cell.mrc` is a file, `cell.zarr` a folder, `cell.zarr/labels/granules` a part of it, and
`cell.h5:/entry/data` a dataset of a file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from isgseg.io.damage import HDF5 as HDF5
from isgseg.io.formats import VolumeError

MRC = (".mrc", ".mrc.gz", ".map", ".map.gz", ".rec", ".rec.gz")
TIFF = (".tif", ".tiff", ".ome.tif", ".ome.tiff")
NPY = (".npy",)
ZARR = (".zarr", ".ome.zarr")
WRITTEN = (*MRC, *TIFF, *NPY, *ZARR)
SUFFIXES = (*WRITTEN, *HDF5)

_HDF5_DATASET = re.compile(r"(?i)(?P<file>.+?\.(?:h5|hdf5|hdf|nxs)):(?P<inside>.*)")
_ZARR_NODES = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True)
class Place:
    """Where a volume lies.

    Attributes:
        disk: the file or folder.
        inside: the part of it, without a slash at the ends; empty: all of it.
        suffix: of `disk`, one of `SUFFIXES`.
    """

    disk: Path
    inside: str
    suffix: str


def place_of(path: str | Path) -> Place | None:
    """Where a path points to, by its name alone; None where the name is that of no volume."""
    path = Path(path)
    dataset = _HDF5_DATASET.fullmatch(str(path))
    if dataset:
        disk = Path(dataset["file"])
        return Place(disk, dataset["inside"].strip("/"), disk.suffix.lower())
    suffix = max(
        (end for end in SUFFIXES if path.name.lower().endswith(end)), key=len, default=None
    )
    if suffix is not None:
        return Place(path, "", suffix)
    for folder in path.parents:
        if folder.name.lower().endswith(ZARR):
            return Place(folder, path.relative_to(folder).as_posix(), ".zarr")
    return None


def is_zarr(path: Path) -> bool:
    """Whether a folder is a group or an array of a Zarr."""
    return any((path / name).is_file() for name in _ZARR_NODES)


def suffix_of(path: Path) -> str:
    """The suffix that says how a volume is read.

    Raises:
        VolumeError: it has none that is known, or is a folder.
    """
    place = place_of(path)
    if path.is_dir() and (place is None or place.suffix not in ZARR):
        raise VolumeError(f"{path} is a folder; name a file in it, e.g. {path / 'cell.mrc'}")
    if place is None:
        packed = (
            "unpack it first; " if path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz") else ""
        )
        raise VolumeError(
            f"{path}: unknown kind of file; {packed}accepted are {', '.join(SUFFIXES)}. Export it "
            "as one of these; an MRC file of another suffix, such as .st or .ali, can be renamed"
        )
    return place.suffix


def stem(path: str | Path) -> str:
    """The name of the file or Zarr without folder and suffix, whichever part of it is meant.

    >>> stem("cells/cell.mrc.gz"), stem("cells/cell.h5:/entry/data"), stem("cell.zarr/labels/a")
    ('cell', 'cell', 'cell')
    """
    path = Path(path)
    suffix = suffix_of(path)
    place = place_of(path)
    assert place is not None
    return place.disk.name[: -len(suffix)]


def is_there(path: Path) -> bool:
    """Whether a volume can be read from here: its file is there, or its folder.

    Raises:
        OSError: that cannot be told.
    """
    place = place_of(path)
    if place is None or place.suffix not in (*ZARR, *HDF5):
        return path.is_file()
    if place.suffix in HDF5:
        return place.disk.is_file()
    return path.is_dir()


def missing(path: Path) -> VolumeError:
    """What to say of a volume that is not there."""
    place = place_of(path)
    disk = path if place is None or place.suffix not in HDF5 else place.disk
    there = os.path.lexists(disk)
    what = "a broken link, or no regular file" if there else "no such file"
    return VolumeError(f"{path}: {what}; check the name, and the folder you are in")
