"""What Python callers give as a volume: any array of real numbers, or what becomes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError
from isgseg.io.volumes import FILL


def as_volume(data: npt.ArrayLike) -> npt.NDArray[Any]:
    """The data as a (D, H, W) array of real numbers.

    Raises:
        ValueError: they are something else, or hold NaN or infinity.
    """
    if np.ma.is_masked(data):
        raise InputError("the volume has masked voxels; fill them, e.g. by data.filled(value)")
    try:
        volume = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal length, torch's
        raise InputError(f"the data are no array of numbers: {error}") from error
    if volume.dtype.kind not in "buif":
        raise InputError(f"a volume holds real numbers, not {volume.dtype}; give an array")
    if volume.ndim != 3 or volume.size == 0:
        raise InputError(
            f"a volume has the shape (D, H, W), not {volume.shape}; stack slices by numpy.stack, "
            "and give one channel alone"
        )
    bad = np.count_nonzero(~(np.abs(volume) < FILL)) if volume.dtype.kind == "f" else 0
    if bad:
        raise InputError(
            f"the volume holds {bad} voxels that are NaN, infinite or beyond {FILL:g}; replace "
            "them by the value outside of the cell"
        )
    return volume
