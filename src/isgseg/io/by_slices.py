"""MRC, TIFF and NPY files, written slice by slice: what does not fit into memory, or is made late.

They are the same as those of `isgseg.io.mrc` and `isgseg.io.tiff`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import mrcfile
import numpy as np
import tifffile

from isgseg.io.formats import Array, storable
from isgseg.io.mrc import MRC_INTEGERS, size_in_angstrom
from isgseg.io.ome_zarr_writing import Slabs
from isgseg.io.tiff import TIFF_INTEGERS, tiff_options


def write_mrc_slices(path: Path, data: Slabs, voxel_size: Sequence[float] | None) -> None:
    """As `write_mrc`, uncompressed.

    Args:
        path: of the file.
        data: (z, y, x).
        voxel_size: nm, (z, y, x), or None.

    Raises:
        ValueError: MRC cannot hold the numbers.
    """
    dtype = _dtype(data, MRC_INTEGERS)
    count, total, squares = math.prod(data.shape), 0.0, 0.0
    low, high = math.inf, -math.inf
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.zeros((1, *data.shape[1:]), dtype))
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(file.tell() - math.prod(data.shape[1:]) * dtype.itemsize)
        for plane in _planes(data):
            file.write(np.ascontiguousarray(plane, dtype).data)
            total += float(plane.sum(dtype=np.float64))
            squares += float(np.square(plane, dtype=np.float64).sum())
            low, high = min(low, float(plane.min())), max(high, float(plane.max()))
    mean = total / count
    with mrcfile.open(path, "r+", header_only=True, permissive=True) as mrc:
        header = mrc.header
        header.nz = header.mz = data.shape[0]
        if voxel_size is not None:
            sides = zip("xyz", size_in_angstrom(voxel_size), data.shape[::-1], strict=True)
            for axis, side, length in sides:
                header.cella[axis] = side * length
        header.dmin, header.dmax, header.dmean = low, high, mean
        header.rms = math.sqrt(max(squares / count - mean**2, 0.0))


def write_tiff_slices(path: Path, data: Slabs, voxel_size: Sequence[float] | None) -> None:
    """As `write_tiff`; see `write_mrc_slices` for the arguments.

    Raises:
        ValueError: TIFF cannot hold the numbers.
    """
    dtype = _dtype(data, TIFF_INTEGERS)
    planes = (np.ascontiguousarray(plane, dtype) for plane in _planes(data))
    options = tiff_options(path, data.shape, dtype, voxel_size)
    tifffile.imwrite(path, planes, shape=data.shape, dtype=dtype, **options)


def write_npy_slices(path: Path, data: Slabs) -> None:
    """As `numpy.save`; see `write_mrc_slices` for the arguments."""
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, data.dtype))
        np.lib.format.write_array_header_1_0(file, header | {"shape": tuple(data.shape)})
        for plane in _planes(data):
            file.write(np.ascontiguousarray(plane, data.dtype).data)


def _planes(data: Slabs) -> Iterator[Array]:
    return (data[z : z + 1][0] for z in range(data.shape[0]))


def _dtype(data: Slabs, integers: Sequence[str]) -> np.dtype[np.generic]:
    """The type that a format has for labels of this type: their highest number decides."""
    highest = max((int(plane.max()) for plane in _planes(data)), default=0)
    return storable(np.array([0, highest], data.dtype), integers).dtype
