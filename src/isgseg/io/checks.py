"""What a volume must be: three axes of real numbers, none of which stands for a missing one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from isgseg.io.formats import Array, VolumeError
from isgseg.io.on_disk import OnDisk

FILL = 1e30  # beyond all that is measured; netCDF fills with 9.97e36, others with -3.4e38


def checked(path: Path, data: Array | OnDisk) -> Array | OnDisk:
    """`data` as (z, y, x), an array contiguous and in native byte order.

    Raises:
        VolumeError: they are something else, or hold values that stand for none.
    """
    if data.dtype.kind not in "biuf":
        raise VolumeError(
            f"{path}: {data.dtype} voxels; a volume has one real number a voxel. "
            "Save its real values, for example as 32-bit floats"
        )
    shape = data.shape
    if isinstance(data, np.ndarray):
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
    if isinstance(data, OnDisk):
        return data
    return np.ascontiguousarray(data, dtype=data.dtype.newbyteorder("="))


def first_true(where: Array) -> tuple[int, ...]:
    """Index of the first True."""
    return tuple(int(i) for i in np.unravel_index(int(where.argmax()), where.shape))


def _check_values(path: Path, data: Array | OnDisk) -> None:
    """Refuses values that stand for none: NaN, infinity, and what programs fill gaps with."""
    largest = max(abs(float(data.min())), abs(float(data.max())))
    if largest < FILL:  # not so where one is NaN
        return
    counts = [[int((~np.isfinite(p)).sum()), int((np.abs(p) >= FILL).sum())] for p in data]
    missing, filled = np.sum(counts, axis=0).tolist()
    z = next(z for z, pair in enumerate(counts) if pair[0 if missing else 1])
    plane = data[z]
    place = first_true(~np.isfinite(plane) if missing else np.abs(plane) >= FILL)
    kind = "NaN or infinite"
    if not missing:
        kind = f"{plane[place]:.4g}, with which programs fill what was not measured"
    measured = min((float(p[np.abs(p) < FILL].min(initial=np.inf)) for p in data), default=math.inf)
    remedy = f", such as {measured:.4g}, the smallest measured one" if measured < math.inf else ""
    raise VolumeError(
        f"{path}: {missing or filled} voxels are {kind}, the first at (z, y, x) = {(z, *place)}; "
        f"replace them by the value outside of the cell{remedy}"
    )
