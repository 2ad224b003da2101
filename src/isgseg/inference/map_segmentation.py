"""Maps of slices to numbered granules in 3D: averaged over axes, split, scored, sifted."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi
from tqdm import tqdm

from isgseg.data.normalization import Normalizer
from isgseg.inference.method import Granules, MapModel
from isgseg.inference.resampling import ResampledSlices, any_zoom, permuted, zoom_factors
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.components import Labels
from isgseg.instances.map_objects import score_objects, split_maps
from isgseg.instances.runs import RunLabels
from isgseg.io.on_disk import OnDisk
from isgseg.io.volumes import Volume, label_dtype
from isgseg.models.settings import Thresholds

log = logging.getLogger(__name__)
Maps = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MapSegmenter:
    """A `Method`: granules of the maps of a volume, which its slices make across one axis or more.

    Attributes:
        model: maps slices.
        thresholds: of foreground (`mask`) and granules (`object`).
        settings: how maps become granules.
        learnt: nm, (z, y, x), the voxels of the training data; None where they are not known.
        progress: show a bar.
    """

    model: MapModel
    thresholds: Thresholds
    settings: SegmentationSettings
    learnt: Sequence[float] | None = None
    progress: bool = False

    def segment(self, volume: Volume, normalizer: Normalizer, name: str = "") -> Granules:
        """The granules of a volume; two maps of a byte a voxel are in memory.

        Of a volume that stays on the disk, labels are runs.
        """
        (found,) = self.segment_at((self.thresholds.mask,), volume, normalizer, name)
        if not isinstance(volume.data, OnDisk):
            return found
        runs = RunLabels.of(found.labels, found.labels.shape[1:], found.labels.dtype)
        return replace(found, labels=cast("Labels", runs))

    @property
    def by_slices(self) -> bool:
        """Whether a few slices of a volume in memory are enough, beside the maps."""
        return self.settings.axes == "z"

    def segment_at(
        self, masks: Sequence[float], volume: Volume, normalizer: Normalizer, name: str = ""
    ) -> list[Granules]:
        """The granules at each of several mask thresholds; the maps are made once."""
        foreground, centre = self.maps(volume, normalizer, name)
        return [
            find_granules(
                foreground,
                centre,
                self.thresholds._replace(mask=mask),
                self.settings,
                volume.voxel_size,
                name,
            )
            for mask in masks
        ]

    def zooms(self, volume: Volume) -> bool:
        """Whether the voxels of a volume are resampled."""
        return any_zoom(volume, self.learnt, self.settings.axes)

    def maps(self, volume: Volume, normalizer: Normalizer, name: str = "") -> Maps:
        """(2, z, y, x) foreground and centre, the mean over the axes, on the volume's own grid."""
        axes = self.settings.axes
        if len(axes) == 1:
            return self._along(axes, volume, normalizer, name)
        total = np.zeros((2, *volume.data.shape), np.uint16)
        for axis in axes:
            total += self._along(axis, volume, normalizer, f"{name} along {axis}".lstrip())
        for part in total.reshape(-1, *total.shape[2:]):
            np.rint(part / len(axes), out=part, casting="unsafe")
        return total.astype(np.uint8)

    def _along(self, axis: str, volume: Volume, normalizer: Normalizer, name: str) -> Maps:
        """(2, z, y, x) of the slices across one axis."""
        first = "zyx".index(axis)
        data = np.moveaxis(volume.data, first, 0) if first else volume.data
        across, down, right = zoom_factors(permuted(volume.voxel_size, axis), self.learnt)
        slices = data if across == 1 else ResampledSlices.by(data, across)
        found = self.model.maps(slices, normalizer, (down, right))
        bar = tqdm(found, desc=name, total=len(slices), unit="slice", disable=not self.progress)
        maps = np.zeros((2, *volume.data.shape), np.uint8)
        into = np.moveaxis(maps, 1 + first, 1)
        if isinstance(slices, ResampledSlices):
            between = np.zeros((2, *slices.shape), np.uint8)
            for number, answer in enumerate(bar):
                between[:, number] = answer
            for source, target in zip(between, into, strict=True):
                back = ResampledSlices(source, len(data))
                for number in range(len(data)):
                    target[number] = np.rint(back[number])
        else:
            for number, answer in enumerate(bar):
                into[:, number] = answer
        return maps


def find_granules(
    foreground: Maps,
    centre: Maps,
    thresholds: Thresholds,
    settings: SegmentationSettings,
    voxel_size: Sequence[float] | None,
    name: str = "",
) -> Granules:
    """Splits the foreground, and keeps what reaches the object score threshold and is large enough.

    Args:
        foreground: (z, y, x) probability of granule, 0 to 255.
        centre: (z, y, x) depth inside of a granule, 0 to 255.
        thresholds: of foreground (`mask`) and granules (`object`).
        settings: `maps`, `min_diameter_nm`, `min_slices` and `min_score` are used.
        voxel_size: nm, (z, y, x); None where it is not known.
        name: of the volume, for messages.
    """
    labels = split_maps(foreground, centre, thresholds.mask, settings.maps)
    scores = score_objects(labels, foreground, centre)
    # Slice by slice: of the whole volume, numbers would be 8 bytes a voxel.
    sizes = sum(np.bincount(plane.ravel(), minlength=len(scores) + 1)[1:] for plane in labels)
    boxes = ndi.find_objects(labels, len(scores))
    slices = np.array([box[0].stop - box[0].start for box in boxes], np.int64)
    ball = math.pi / 6 * settings.min_diameter_nm**3 / math.prod(voxel_size or (1, 1, 1))
    large = (sizes >= ball) & (slices >= settings.min_slices) & (scores >= settings.min_score)
    kept = large & (scores >= thresholds.object)
    if not large.all():
        log.info(
            "%s: dropped %d granules (too small, in too few slices or of too low a score)",
            name,
            np.count_nonzero(~large),
        )
    numbers = np.r_[0, np.cumsum(kept) * kept].astype(labels.dtype)
    for plane in labels:
        plane[:] = numbers[plane]
    labels = labels.astype(label_dtype(int(kept.sum())), copy=False)
    return Granules(labels, scores[kept], scores[kept], slices[kept])
