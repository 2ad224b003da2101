"""OME-Zarr 0.4 and 0.5, written by `zarr`: images and labels in several resolutions.

https://ngff.openmicroscopy.org/0.5 and /0.4 fix the metadata. Each resolution has half the voxels
of the one before along every axis; of an image they are means, of labels every second voxel. Slabs
of a chunk's depth are in memory, not the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from isgseg.io.formats import Array
from isgseg.io.ome_zarr import zarr_library

Version = Literal["0.4", "0.5"]
CHUNK = (32, 256, 256)
_SMALLEST = 256  # voxels: from here on down there is no coarser resolution


class Slabs(Protocol):
    """An array, or what gives its slices like one: `isgseg.io.on_disk.OnDisk`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels."""
        ...

    def __getitem__(self, key: slice) -> Array: ...


def write_zarr(
    folder: Path,
    data: Slabs,
    voxel_size: Sequence[float] | None,
    *,
    labels: bool = False,
    version: Version = "0.5",
    source: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write a multiscale image; `folder` becomes its group.

    Args:
        folder: is created; it is not there yet.
        data: (z, y, x).
        voxel_size: nm, (z, y, x); None: its metadata have no unit.
        labels: write an image of labels, which OME-Zarr tells from other images.
        version: of OME-Zarr: 0.5 is Zarr 3, 0.4 is Zarr 2, which older programs read.
        source: of labels, the image that they are of, as seen from `folder`.
        attributes: further ones of the group.
    """
    zarr = zarr_library()
    shapes = level_shapes(data.shape)
    ome = metadata(len(shapes), voxel_size, labels=labels, version=version, source=source)
    content = dict(attributes or {}) | ({"ome": ome} if version == "0.5" else ome)
    new = version == "0.5"
    group = zarr.create_group(store=str(folder), zarr_format=3 if new else 2, attributes=content)
    previous: Slabs | None = None
    for number, shape in enumerate(shapes):
        array = group.create_array(
            str(number),
            shape=shape,
            chunks=tuple(min(a, b) for a, b in zip(CHUNK, shape, strict=True)),
            dtype=data.dtype.newbyteorder("="),
            chunk_key_encoding=None if new else {"name": "v2", "separator": "/"},
            dimension_names=["z", "y", "x"] if new else None,
        )
        depth = CHUNK[0]
        for start in range(0, shape[0], depth):
            stop = min(start + depth, shape[0])
            if previous is None:
                array[start:stop] = data[start:stop]
            else:
                array[start:stop] = _coarser(previous[2 * start : 2 * stop], labels)
        previous = array


def level_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """(z, y, x) of each resolution, the finest first; the last one's sides are 256 at most.

    >>> level_shapes((600, 100, 300))
    [(600, 100, 300), (300, 50, 150), (150, 25, 75)]
    """
    shapes = [tuple(int(side) for side in shape)]
    while max(shapes[-1]) > _SMALLEST:
        shapes.append(tuple(-(-side // 2) for side in shapes[-1]))
    return shapes


def metadata(
    levels: int,
    voxel_size: Sequence[float] | None,
    *,
    labels: bool,
    version: Version,
    source: str | None = None,
) -> dict[str, Any]:
    """What OME-Zarr says of a group: see `write_zarr`."""
    # um: the one unit that Fiji, Bio-Formats and napari all know.
    um = [1.0] * 3 if voxel_size is None else [side / 1000 for side in voxel_size]
    unit = {} if voxel_size is None else {"unit": "micrometer"}
    image = {
        "name": "labels" if labels else "image",
        "axes": [{"name": axis, "type": "space", **unit} for axis in "zyx"],
        "datasets": [
            {
                "path": str(i),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [side * 2**i for side in um]},
                    {"type": "translation", "translation": [side * (2**i - 1) / 2 for side in um]},
                ],
            }
            for i in range(levels)
        ],
        "type": "every second voxel" if labels else "mean",
    }
    old = {"version": version} if version == "0.4" else {}
    content: dict[str, Any] = {"multiscales": [image | old]}
    if labels:
        content["image-label"] = old | ({"source": {"image": source}} if source else {})
    return content if old else {"version": version, **content}


def _coarser(slab: Array, labels: bool) -> Array:
    """Half as many voxels along each axis; an odd one at the end stands alone."""
    if labels:
        return slab[::2, ::2, ::2]
    even = np.pad(slab, [(0, side % 2) for side in slab.shape], mode="edge")
    z, y, x = (side // 2 for side in even.shape)
    mean = even.reshape(z, 2, y, 2, x, 2).mean(axis=(1, 3, 5), dtype=np.float32)
    if slab.dtype.kind in "ui":
        mean = np.rint(mean)
    coarse: Array = mean.astype(slab.dtype)
    return coarse
