"""Detections in slices to numbered granules: separate, link, and agree along several axes."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from isgseg.data.normalization import Normalizer
from isgseg.inference.masks import join_touching, label_slice, number_all
from isgseg.inference.method import Detections, Granules, SliceModel
from isgseg.inference.resampling import (
    ResampledSlices,
    any_zoom,
    bring_back,
    permuted,
    zoom_factors,
)
from isgseg.inference.settings import SegmentationSettings
from isgseg.inference.splitting import split_granules
from isgseg.inference.streaming import ahead
from isgseg.instances.components import Floats, Ints, Labels
from isgseg.instances.consensus import merge_instances
from isgseg.instances.linking import SliceLinker
from isgseg.instances.runs import RunLabels
from isgseg.io.on_disk import OnDisk
from isgseg.io.volumes import Volume, label_dtype
from isgseg.models.settings import Thresholds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SliceSegmenter:
    """A `Method`: granules from detections in slices, across one axis or several.

    Attributes:
        model: finds granules in slices.
        thresholds: of detections, masks and granules.
        settings: how detections become granules.
        learnt: nm, (z, y, x), the voxels of the training data; None where they are not known.
        progress: show a bar.
    """

    model: SliceModel
    thresholds: Thresholds
    settings: SegmentationSettings
    learnt: Sequence[float] | None = None
    progress: bool = False

    def segment(self, volume: Volume, normalizer: Normalizer, name: str = "") -> Granules:
        """The granules of a volume, one slice of detections in memory at a time."""
        granules = self._found(volume, normalizer, name)
        if self.settings.split and self.settings.link:
            found = len(granules.score)
            granules = split_granules(granules, self.settings)
            log.info("%s: %d granules, split to %d", name, found, len(granules.score))
        on_disk = isinstance(volume.data, OnDisk) and self.by_slices
        return granules if on_disk else granules.in_memory()

    def _found(self, volume: Volume, normalizer: Normalizer, name: str) -> Granules:
        """The granules before they are split."""
        axes = self.settings.axes
        if len(axes) == 1:
            return self._along(axes, volume, normalizer, self.settings, name)
        self._warn_of_cuboids(volume, name)
        settings = replace(self.settings, min_diameter_nm=0.0)  # asked of what they agree on
        found = [
            self._along(axis, volume, normalizer, settings, f"{name} along {axis}".lstrip())
            for axis in axes
        ]
        granules = find_consensus(found, self.settings, volume.voxel_size)
        counts = ", ".join(f"{len(f.score)} along {a}" for f, a in zip(found, axes, strict=True))
        log.info("%s: %d granules agreed on, of %s", name, len(granules.score), counts)
        return granules

    @property
    def by_slices(self) -> bool:
        """Whether a few slices of a volume and of its labels in memory are enough."""
        return self.settings.axes == "z"

    def zooms(self, volume: Volume) -> bool:
        """Whether the voxels of a volume are resampled."""
        return any_zoom(volume, self.learnt, self.settings.axes)

    def _along(
        self,
        axis: str,
        volume: Volume,
        normalizer: Normalizer,
        settings: SegmentationSettings,
        name: str,
    ) -> Granules:
        """The granules of the slices across one axis."""
        first = "zyx".index(axis)
        data = np.moveaxis(volume.data, first, 0) if first else volume.data
        size = permuted(volume.voxel_size, axis)
        across, down, right = zoom_factors(size, self.learnt)
        slices = data if across == 1 else ResampledSlices.by(data, across)
        if size is not None and isinstance(slices, ResampledSlices):
            size = (size[0] * len(data) / len(slices), size[1], size[2])
        # Of one detection: of several slices of a granule, only one must have a higher score.
        enough = self.thresholds.score * (settings.hysteresis_ratio if settings.link else 1)
        found = self.model.detect(slices, normalizer, enough, (down, right))
        granules = self._granules(found, slices.shape, enough, settings, size, name)
        if isinstance(slices, ResampledSlices):
            granules = bring_back(granules, slices)
        if not first:
            return granules
        return replace(granules, labels=np.moveaxis(np.asarray(granules.labels), 0, first))

    def _granules(
        self,
        slices: Iterator[Detections],
        shape: tuple[int, ...],
        enough: float,
        settings: SegmentationSettings,
        voxel_size: Sequence[float] | None,
        name: str,
    ) -> Granules:
        """The granules of detections in slices.

        Args:
            slices: detections of each.
            shape: (n, H, W).
            enough: score that a detection must reach.
            settings: how detections become granules.
            voxel_size: nm, (across, y, x).
            name: stands before the bar.
        """
        linker = SliceLinker(settings, voxel_size=voxel_size, threshold=self.thresholds.object)
        kept: list[npt.NDArray[np.float32]] = []  # scores of each slice
        planes = RunLabels(shape[1:], np.uint16)  # numbers of a slice fit: they are detections
        bar = tqdm(slices, desc=name, total=shape[0], unit="slice", disable=not self.progress)
        labelled = (self._label(found, (shape[1], shape[2]), enough, settings) for found in bar)
        beside = ahead if getattr(self.model, "batched", False) else iter
        for (plane, scores), _ in zip(beside(labelled), range(shape[0]), strict=True):
            planes.append(plane)
            if settings.link:
                linker.add(plane, scores)
            kept.append(scores)
        if not settings.link:
            numbered = number_all(planes, [len(scores) for scores in kept])
            score = np.concatenate(kept).astype(np.float64)
            labels = RunLabels.of(numbered, shape[1:], label_dtype(len(score)))
            return _granules(labels, score, score, np.ones(len(score), np.int64))
        linking = linker.finish()
        if linking.specks or linking.dropped:
            log.info(
                "%s: dropped %d granules (too small, in too few slices or of too low a score) and "
                "%d specks (parts of masks in one slice that touch nothing of their granule)",
                name,
                linking.dropped,
                linking.specks,
            )
        instances = linking.instances
        labels = RunLabels.of(linking.slices(planes), shape[1:], linking.dtype)
        return _granules(labels, instances.score, instances.best, instances.masks)

    def _label(
        self,
        found: Detections,
        shape: tuple[int, int],
        enough: float,
        settings: SegmentationSettings,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Labels of one slice, of this (H, W), and their scores."""
        plane, scores = label_slice(
            found["masks"],
            found["mask_boxes"],
            found["scores"],
            shape,
            threshold=enough,
            mask_threshold=self.thresholds.mask,
            max_overlap=settings.max_overlap,
            min_pixels=settings.min_pixels,
        )
        return (plane, scores) if settings.separate else join_touching(plane, scores)

    def _warn_of_cuboids(self, volume: Volume, name: str) -> None:
        """Slices across y and x of voxels that are no cubes are distorted; see `zoom_factors`."""
        size = volume.voxel_size
        if self.learnt is None and size is not None and max(size) > 1.25 * min(size):
            log.warning(
                "%s: voxels of %s nm are no cubes, and the checkpoint does not say which voxels "
                "its network learnt, so that slices along %s show granules distorted to it; "
                "resample the volume first",
                name,
                [round(side, 2) for side in size],
                " and ".join(self.settings.axes.replace("z", "")),
            )


def _granules(labels: RunLabels, score: Floats, best: Floats, slices: Ints) -> Granules:
    # They stand in for an array wherever slices are asked for.
    return Granules(cast("Labels", labels), score, best, slices)


def find_consensus(
    found: Sequence[Granules],
    segmentation: SegmentationSettings,
    voxel_size: Sequence[float] | None,
) -> Granules:
    """The granules that segmentations along several axes agree on."""
    ball = math.pi / 6 * segmentation.min_diameter_nm**3
    labels, members = merge_instances(
        [np.asarray(granules.labels) for granules in found],
        min_votes=segmentation.min_votes,
        min_iou=segmentation.min_iou,
        min_voxels=ball / math.prod(voxel_size or (1, 1, 1)),
    )
    each = list(zip(found, members.T, strict=True))
    score = sum(np.r_[0.0, granules.score][numbers] for granules, numbers in each)
    slices = sum(np.r_[0, granules.slices][numbers] for granules, numbers in each)
    best = np.max([np.r_[0.0, granules.best][numbers] for granules, numbers in each], axis=0)
    return Granules(labels, score / (members > 0).sum(1), best, slices)
