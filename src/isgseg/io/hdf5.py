"""HDF5 files, read by `h5py`: a dataset of three axes, as in `cell.h5:/entry/data`.

NeXus files are HDF5: where a group is named that says which of its datasets is the signal
(https://www.nexusformat.org, NXdata), that one is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.errors import InputError
from isgseg.io.formats import Array, VoxelSize, check_bytes, in_nm
from isgseg.io.on_disk import OnDisk
from isgseg.io.places import place_of

_MOST = 20  # datasets that a message lists
_SIZE = "element_size_um"  # (z, y, x), as Fiji's HDF5 plug-in and ilastik write it


def open_hdf5(path: Path) -> tuple[Array | OnDisk, VoxelSize | None]:
    """A dataset of an HDF5 file; it stays on the disk, and is read by whole chunks.

    Its axes are taken as they are, (z, y, x). The voxel size is that of its attribute
    `element_size_um`; other files have none.

    Args:
        path: file and dataset, such as `cell.h5:/entry/data`.

    Raises:
        ValueError: no dataset is named, or it is not there; the message lists those of the file.
        InputError: `h5py` is not installed.
    """
    place = place_of(path)
    assert place is not None
    h5py = _library()
    with h5py.File(place.disk, "r") as file:
        dataset = _dataset(file, place.inside, place.disk)
        name, dtype = dataset.name, dataset.dtype
        sides = [int(side) for side in dataset.shape]
        spare = len(sides) - 3
        size = _voxel_size(dataset)
        chunk = (dataset.chunks or (1,) * len(sides))[max(spare, 0)] if sides else 1
        if spare < 0 or any(side != 1 for side in sides[:spare]) or not prod(sides):
            return np.broadcast_to(np.zeros((), dtype), sides), size  # refused for its shape
        stored = dataset.id.get_storage_size()
    if dtype.kind not in "biufc":
        raise ValueError(f"{place.inside} holds {dtype}; name a dataset of numbers")
    if not stored:
        raise ValueError(f"{place.inside} was never written; name another dataset")
    check_bytes(prod(sides[-2:]) * chunk * dtype.itemsize)

    def read(start: int, stop: int) -> Array:
        with h5py.File(place.disk, "r") as file:
            found: Array = file[name][(0,) * spare + (slice(start, stop),)]
        return found

    return OnDisk(path, sides[spare:], dtype, read, chunk), size


def _library() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise InputError(
            'HDF5 needs h5py, which is not installed: pip install "isgseg[hdf5]"'
        ) from error


def _dataset(file: Any, inside: str, disk: Path) -> Any:
    """The dataset of that name, or the signal of the group of that name.

    Raises:
        ValueError: there is none.
    """
    h5py = _library()
    node = file.get(inside) if inside else None
    if isinstance(node, h5py.Group) and (signal := node.attrs.get("signal")) is not None:
        node = node.get(signal if isinstance(signal, str) else signal.decode())
    if isinstance(node, h5py.Dataset):
        return node
    what = "it may hold several volumes"
    if inside:
        what = f"it has no dataset {inside}" if node is None else f"{inside} is a group"
    example = f"{disk.name}:/name"
    raise ValueError(f"{what}; name a dataset, as in {example}. It has {_listed(file)}")


def _listed(file: Any) -> str:
    """The datasets of a file and their shapes, those of three axes first."""
    h5py = _library()
    found: list[tuple[str, Sequence[int], Any]] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found.append((name, node.shape or (), node.dtype))

    file.visititems(visit)
    found.sort(key=lambda row: (len(row[1]) != 3, row[0]))
    rows = [f"/{name} {tuple(shape)} {dtype}" for name, shape, dtype in found[:_MOST]]
    more = f" and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(rows) + more if rows else "no dataset"


def _voxel_size(dataset: Any) -> VoxelSize | None:
    told = dataset.attrs.get(_SIZE)
    if told is None:
        return None
    um = np.asarray(told, float).ravel()[-3:]
    return in_nm(um.tolist(), [1000.0] * 3) if len(um) == 3 else None
