"""What a method of segmentation is: the contracts that Mask R-CNN and the U-Net fulfil."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isgseg.data.normalization import Normalizer
from isgseg.instances.components import Floats, Ints, Labels
from isgseg.io.volumes import Volume

Detections = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Granules:
    """A labelled volume, and what is known of each granule: row `i` is of number `i + 1`.

    Attributes:
        labels: (z, y, x) uint16, uint32 beyond 65,535 granules: 0 is background, granules from 1.
            Of a volume that stays on the disk they may be `RunLabels`, which stand in for an array.
        score: (N,) mean score of its detections; with several axes the mean over these. Of a U-Net
            the score of the instance, as the next.
        best: (N,) the highest score of its detections, which the object score threshold is of.
        slices: (N,) in how many slices it was detected, summed over the axes. Where the volume is
            resampled across its slices, those of the resampled volume count.
    """

    labels: Labels
    score: Floats
    best: Floats
    slices: Ints

    def in_memory(self) -> Granules:
        """The same, with labels that are an array."""
        return replace(self, labels=np.asarray(self.labels))


def no_granules(shape: tuple[int, ...]) -> Granules:
    """Background alone, of this (z, y, x)."""
    none = np.zeros(0)
    return Granules(np.zeros(shape, np.uint16), none, none, np.zeros(0, np.int64))


class Method(Protocol):
    """From a volume to its granules; `isgseg.inference.predictor.Predictor` calls it.

    A further method implements this and nothing else. One that needs a few slices at a time only
    may have a true attribute `by_slices`: then it is given volumes that stay on the disk
    (`isgseg.io.on_disk.OnDisk`), and answers with `RunLabels`. Others are given arrays.
    """

    def segment(self, volume: Volume, normalizer: Normalizer, name: str = "") -> Granules:
        """The granules of a volume, on the volume's own grid.

        Args:
            volume: (z, y, x), any real numbers, with its voxel size (nm), or None.
            normalizer: from voxels to what the network sees, fixed for this volume.
            name: of the volume, for messages.
        """
        ...


class Slices(Protocol):
    """Slices of a volume, made one at a time: an array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> npt.NDArray[Any]: ...


class MapModel(Protocol):
    """What maps single slices; `isgseg.inference.map_segmentation` makes 3D instances of them."""

    def maps(
        self, slices: Slices, normalizer: Normalizer, zoom: tuple[float, float] = (1.0, 1.0)
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Maps of every slice, in order.

        Args:
            slices: (n, H, W) voxels.
            normalizer: the volume's normalization.
            zoom: along y and x, the size of a voxel over that of the training data.

        Returns:
            For each slice (2, H, W): the probability of granule, and how deep inside of its granule
            a pixel lies, each from 0 to 255.
        """
        ...


class SliceModel(Protocol):
    """What finds granules in single slices; `isgseg.inference.segmentation` makes 3D of them."""

    def detect(
        self,
        slices: Slices,
        normalizer: Normalizer,
        threshold: float,
        zoom: tuple[float, float] = (1.0, 1.0),
    ) -> Iterator[Detections]:
        """Detections of every slice, in order.

        Args:
            slices: (n, H, W) voxels.
            normalizer: the volume's normalization.
            threshold: detections with a lower score are left out.
            zoom: along y and x, the size of a voxel over that of the training data.

        Returns:
            For each slice `masks` (N, M, M) probabilities, `mask_boxes` (N, 4) xyxy in pixels of
            the slice, `scores` (N,).
        """
        ...
