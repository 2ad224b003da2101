"""Two maps of a volume to instances: where granules are, and how deep inside of one.

A mask of the first is split by the second, and each instance gets a score, so that a threshold can
be tuned on it and curves drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.instances.components import Floats, Labels
from isgseg.instances.settings import MAPS, SplitSettings
from isgseg.instances.split import split

Maps = npt.NDArray[Any]  # (z, y, x), float from 0 to 1, or uint8 from 0 to 255


def split_maps(
    foreground: Maps,
    centre: Maps,
    threshold: float,
    settings: SplitSettings = MAPS,
    *,
    min_voxels: int | None = None,
) -> Labels:
    """Instances of the voxels that are granule, one for each maximum of the centre map.

    Args:
        foreground: (z, y, x) probability of granule.
        centre: (z, y, x) 1 in the middle of each granule, 0 outside.
        threshold: voxels of at least this probability are granule.
        settings: how they are split.
        min_voxels: in place of the setting.

    Returns:
        (z, y, x) instances from 1; see `split`.
    """
    return split(
        foreground >= threshold * _one(foreground),
        centre,
        height=settings.height * _one(centre),
        sigma=settings.sigma,
        min_voxels=settings.min_voxels if min_voxels is None else min_voxels,
        assign=settings.assign,
    )


def score_objects(labels: Labels, foreground: Maps, centre: Maps) -> Floats:
    """(N,) of each instance the mean of its foreground times the maximum of its centre map, 0 to 1.

    Args:
        labels: (z, y, x), from 1 to N.
        foreground: (z, y, x); see `split_maps`, as for the next.
        centre: likewise.
    """
    count = int(labels.max(initial=0))
    total, voxels = np.zeros(count + 1), np.zeros(count + 1)
    highest = np.zeros(count + 1)
    for plane, probability, depth in zip(labels, foreground, centre, strict=True):
        inside = plane > 0
        numbers = plane[inside]
        total += np.bincount(numbers, probability[inside], count + 1)
        voxels += np.bincount(numbers, minlength=count + 1)
        np.maximum.at(highest, numbers, depth[inside])
    mean = total[1:] / np.maximum(voxels[1:], 1) / _one(foreground)
    return np.asarray(mean * highest[1:] / _one(centre), np.float64)


def _one(values: Maps) -> float:
    """What stands for 1."""
    return 255.0 if values.dtype == np.uint8 else 1.0
