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
        header = mrc.header.copy()
    with path.open("r+b") as file:
        file.seek(header.nbytes)
        for plane in _planes(data):
            file.write(np.ascontiguousarray(plane, dtype).data)
            total += float(plane.sum(dtype=np.float64))
            squares += float(np.square(plane, dtype=np.float64).sum())
            low, high = min(low, float(plane.min())), max(high, float(plane.max()))
        mean = total / count
        header.nz = header.mz = data.shape[0]
        sides = (0.0, 0.0, 0.0) if voxel_size is None else size_in_angstrom(voxel_size)
        for axis, side, length in zip("xyz", sides, data.shape[::-1], strict=True):
            header.cella[axis] = side * length
        header.dmin, header.dmax, header.dmean = low, high, mean
        header.rms = math.sqrt(max(squares / count - mean**2, 0.0))
        file.seek(0)
        file.write(header.tobytes())


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
    """The type that a format has for these voxels: their lowest and highest numbers decide."""
    if data.dtype.name in integers:
        return data.dtype
    low, high = 0, 0
    for plane in _planes(data) if data.dtype.kind in "ui" else ():
        low, high = min(low, int(plane.min())), max(high, int(plane.max()))
    return storable(np.array([low, high], data.dtype), integers).dtype
