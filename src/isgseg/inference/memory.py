"""Volumes larger than memory: which method needs all of one at once, and what that takes."""

from __future__ import annotations

import logging

import numpy as np

from isgseg.errors import InputError
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.method import Method
from isgseg.inference.segmentation import SliceSegmenter
from isgseg.io.formats import available_memory
from isgseg.io.volumes import Volume

log = logging.getLogger(__name__)
# Bytes a voxel that are in memory at once, beside the volume, by tracemalloc.
LABEL_BYTES = 2  # labels of one axis
AGREED_BYTES = 10  # what these agree on, while it is split
MAPS_BYTES = 6  # maps, and labels while they are split; the mean of maps of several axes


def made_ready(volume: Volume, method: Method, name: str) -> Volume:
    """A volume on the disk, read where a method needs it as a whole.

    Before, it is said how much memory a method takes that grows with the volume.

    Raises:
        InputError: there is not as much.
    """
    by_slices, maps = getattr(method, "by_slices", False), isinstance(method, MapSegmenter)
    if by_slices and not maps:
        return volume
    axes = method.settings.axes if isinstance(method, SliceSegmenter) else "z"
    voxel = 0 if by_slices else volume.data.dtype.itemsize
    tell_memory(name, volume.data.size, voxel, axes, maps=maps)
    if by_slices:
        return volume
    try:
        return Volume(np.asarray(volume.data), volume.voxel_size)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def tell_memory(name: str, voxels: int, itemsize: int, axes: str, *, maps: bool) -> None:
    """Logs, before it begins, what memory a method takes that grows with the volume.

    Args:
        name: of the volume.
        voxels: of the volume.
        itemsize: bytes of a voxel; 0 where the volume itself stays on the disk.
        axes: across which it is sliced.
        maps: whether the method makes maps of it, as a U-Net does.
    """
    each = itemsize + (MAPS_BYTES if maps else LABEL_BYTES * len(axes) + AGREED_BYTES)
    free = available_memory()
    there = "" if free is None else f"; {free / 1e9:.1f} GB are free"
    log.info(
        "%s: this method needs %s as a whole, about %.1f GB of memory with its labels%s",
        name,
        "the volume" if itemsize else "maps of the volume",
        voxels * each / 1e9,
        there,
    )
