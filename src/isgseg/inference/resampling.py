"""Voxels of another size than those that a network learnt.

In the plane of a slice the network's own scale makes up for it, so that masks keep the pixels of
the volume. Across slices the volume is resampled, slice by slice, and labels are brought back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from isgseg.inference.method import Granules
from isgseg.instances.components import Ints, Labels
from isgseg.instances.runs import RunLabels
from isgseg.io.volumes import Volume

TOLERANCE = 1.1  # factor between voxel sizes up to which nothing is resampled


def zoom_factors(
    voxel_size: Sequence[float] | None, learnt: Sequence[float] | None
) -> tuple[float, float, float]:
    """Along each axis, the size of a voxel over that of the training data.

    Args:
        voxel_size: nm, (across the slices, y, x); None where it is not known.
        learnt: nm, (z, y, x) of the training data; None likewise.

    Returns:
        1 where one of them is not known, and along axes where they are about the same.
    """
    if voxel_size is None or learnt is None:
        return 1.0, 1.0, 1.0
    across, down, right = (
        1.0 if max(a / b, b / a) <= TOLERANCE else a / b
        for a, b in zip(voxel_size, learnt, strict=True)
    )
    return across, down, right


def permuted(voxel_size: Sequence[float] | None, axis: str) -> tuple[float, float, float] | None:
    """The voxel size, (z, y, x), in the order of slices across an axis."""
    if voxel_size is None:
        return None
    across = "zyx".index(axis)
    down, right = (voxel_size[i] for i in range(3) if i != across)
    return voxel_size[across], down, right


def any_zoom(volume: Volume, learnt: Sequence[float] | None, axes: str) -> bool:
    """Whether slices of a volume across some of these axes are resampled; see `zoom_factors`."""
    return any(
        zoom_factors(permuted(volume.voxel_size, axis), learnt) != (1, 1, 1) for axis in axes
    )


@dataclass(frozen=True)
class ResampledSlices:
    """The slices of a volume at another distance, each made when it is asked for.

    Neighbouring slices are weighted by a triangle, as wide as two slices of the coarser of both
    grids: linear interpolation between coarse slices, and a mean of fine ones.

    Attributes:
        slices: (n, H, W) voxels.
        count: number of slices that the same extent has then.
    """

    slices: npt.NDArray[Any]
    count: int

    @classmethod
    def by(cls, slices: npt.NDArray[Any], factor: float) -> ResampledSlices:
        """So that there are `factor` times as many slices, at least one."""
        return cls(slices, max(1, round(len(slices) * factor)))

    @property
    def shape(self) -> tuple[int, ...]:
        """(count, H, W)."""
        return (self.count, *self.slices.shape[1:])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> npt.NDArray[np.float32]:
        """(H, W) float32."""
        if not 0 <= index < self.count:
            raise IndexError(f"slice {index} of {self.count}")
        pitch = len(self.slices) / self.count
        centre = (index + 0.5) * pitch - 0.5
        width = max(1.0, pitch)
        first = max(0, int(np.floor(centre - width)) + 1)
        last = min(len(self.slices), int(np.ceil(centre + width)))
        near = np.arange(first, max(last, first + 1)).clip(0, len(self.slices) - 1)
        weights = np.maximum(1 - np.abs(near - centre) / width, 0)
        if not weights.sum():
            weights[:] = 1
        total = np.zeros(self.slices.shape[1:], np.float32)
        for number, weight in zip(near.tolist(), (weights / weights.sum()).tolist(), strict=True):
            total += np.float32(weight) * self.slices[number].astype(np.float32)
        return total

    def nearest(self) -> Ints:
        """(n,) of each slice of the volume, the resampled slice that lies nearest."""
        places = (np.arange(len(self.slices)) + 0.5) * self.count / len(self.slices)
        return np.minimum(places.astype(np.int64), self.count - 1)


def bring_back(granules: Granules, slices: ResampledSlices) -> Granules:
    """Labels of resampled slices on the slices of the volume itself.

    Granules that none of these meets are left out, and the others numbered from 1 again.

    Args:
        granules: of the resampled slices.
        slices: how they were made.
    """
    nearest = slices.nearest()
    shape = granules.labels.shape[1:]
    kept = np.zeros(len(granules.score) + 1, bool)
    labels = RunLabels(shape, granules.labels.dtype)
    for z in nearest.tolist():
        labels.append(granules.labels[z])
        kept[labels.in_order(len(labels) - 1)] = True
    kept[0] = False
    numbers = (np.cumsum(kept) * kept).astype(labels.dtype)
    rows = kept[1:]
    return replace(
        granules,
        labels=cast("Labels", RunLabels.of((numbers[p] for p in labels), shape, labels.dtype)),
        score=granules.score[rows],
        best=granules.best[rows],
        slices=granules.slices[rows],
    )
