"""Which normalization gives a volume the appearance that a network has learnt."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.data.normalization import Normalization
from isgseg.models.settings import TrainingMetadata

log = logging.getLogger(__name__)
AS_IT_IS = Normalization(method="window", low=0.0, high=255.0)
_LEAST = 16  # a maximum below it is no 8-bit image, but a mask or a map of classes


def as_learnt(
    metadata: TrainingMetadata | None, volume: npt.NDArray[Any], name: str
) -> Normalization:
    """The normalization that suits a network where none is asked for.

    That of its training data. A network that was trained on images has none: it gets the values of
    an 8-bit volume as they are, and of others a window between two percentiles, with a warning. A
    plain torchvision state dict gets the documented [0, 1] of each slice, with a warning.

    Args:
        metadata: of the training data; None for a plain state dict.
        volume: (z, y, x).
        name: what messages call it.
    """
    if metadata is None:
        log.warning(
            "The checkpoint is a plain state dict: every slice of %s is stretched to [0, 1] by "
            "itself and enlarged to 800 pixels, so that one bright voxel dims its slice; train "
            "with isgseg-train, or set normalization.method=",
            name,
        )
        return Normalization(method="slice")
    if metadata.normalization is not None:
        return metadata.normalization
    if holds_bytes(volume):
        log.info(
            "The checkpoint was trained on 8-bit images, and %s holds 8-bit values: they are taken "
            "as they are",
            name,
        )
        return AS_IT_IS
    log.warning(
        "The checkpoint was trained on images and carries no normalization: %s is windowed between "
        "its percentiles 0.1 and 99.9; set normalization= to choose another, such as "
        "'{method: window, low: 0, high: 255}'",
        name,
    )
    return Normalization(method="percentile", low=0.1, high=99.9)


def holds_bytes(volume: npt.NDArray[Any]) -> bool:
    """Whether a volume holds the values of an 8-bit image, whatever its type is.

    Args:
        volume: (z, y, x).
    """
    low, high = float(volume.min()), float(volume.max())
    if low < 0 or high > 255:
        return False
    if volume.dtype.itemsize == 1 and volume.dtype.kind in "ui":
        return True
    if high < _LEAST:
        return False
    if volume.dtype.kind in "ui":
        return True
    return all(bool((plane == np.rint(plane)).all()) for plane in volume)


def is_constant(volume: npt.NDArray[Any]) -> bool:
    """Whether all voxels are the same."""
    return bool(volume.min() == volume.max())
