"""A volume to numbered granules: normalize, detect slice by slice, separate, link."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from isgseg.detection import detect_slices
from isgseg.instances.consensus import merge_instances
from isgseg.instances.linking import LinkSettings, SliceLinker
from isgseg.instances.sections import Floats, Ints, Labels
from isgseg.instances.slices import join_touching, label_slice, number_all
from isgseg.model.module import MaskRCNNModule
from isgseg.model.operating_point import Thresholds, choose_thresholds
from isgseg.normalization import Grey, Normalization
from isgseg.volume import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Labelling(LinkSettings):
    """How detections become granules; `conf/labelling/` describes each key.

    Attributes:
        separate: each detection keeps its own mask; else the connected components of all masks of a
            slice are the granules.
        link: sections of neighbouring slices become one granule; else numbers are unique over all
            slices, and the settings of linking have no effect.
        support: a granule has one detection that reaches the threshold of granules, and others
            that reach this share of that of detections (hysteresis, as edges are traced: Canny
            1986), because the caps of a granule score less than its middle. Without linking all
            must reach the threshold of detections.
        mask_threshold: see `label_slice`, as the next two; None takes the checkpoint's.
        max_overlap: see there.
        min_pixels: see there.
        axes: across which the volume is sliced, of z, y and x. With several, granules are what
            they agree on, and `min_diameter` is asked of these.
        min_votes: axes that must agree; see `merge_instances`, as the next.
        min_iou: see there.

    Raises:
        ValueError: a setting is out of range, or slices of several axes are not linked.
    """

    separate: bool = True
    link: bool = True
    support: float = 0.5
    mask_threshold: float | None = None
    max_overlap: float = 0.5
    min_pixels: int = 1
    axes: str = "z"
    min_votes: int = 2
    min_iou: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.axes or len(set(self.axes)) < len(self.axes) or set(self.axes) - set("zyx"):
            raise ValueError(f"axes must be some of z, y and x, such as zyx, not '{self.axes}'")
        if not 0 < self.support <= 1:
            raise ValueError(f"support must be above 0 and at most 1, not {self.support}")
        if len(self.axes) == 1:
            return
        if not self.link:
            raise ValueError(f"link=false numbers slices, on which axes={self.axes} cannot agree")
        if not 2 <= self.min_votes <= len(self.axes):
            raise ValueError(f"min_votes must be 2 to {len(self.axes)}, not {self.min_votes}")


@dataclass(frozen=True)
class Granules:
    """A labelled volume, and what is known of each granule: row `i` is of number `i + 1`.

    Attributes:
        labels: (z, y, x) uint16, uint32 beyond 65,535 granules: 0 is background, granules from 1.
        score: (N,) mean score of its detections; with several axes the mean over these.
        best: (N,) the highest score of its detections.
        slices: (N,) in how many slices it was detected, summed over the axes.
    """

    labels: Labels
    score: Floats
    best: Floats
    slices: Ints


def grey_of(module: MaskRCNNModule, volume: npt.NDArray[Any], name: str) -> Grey:
    """The normalization that the checkpoint was trained with, fixed for this volume.

    A checkpoint from pictures carries none; it gets a window between two percentiles of the volume,
    and a plain torchvision state dict the documented [0, 1] of each slice, both with a warning.
    """
    facts = module.hparams.get("facts")
    settings = (facts or {}).get("normalization")
    if facts is None:
        settings = {"method": "slice"}
        log.warning(
            "The checkpoint is a plain state dict: every slice of %s is stretched to [0, 1] by "
            "itself and enlarged to 800 pixels, so that one bright voxel dims its slice; train "
            "with isgseg-train, or set normalization.method",
            name,
        )
    elif settings is None:
        settings = {"method": "percentile", "low": 0.1, "high": 99.9}
        log.warning(
            "The checkpoint was trained on pictures and carries no normalization: %s is windowed "
            "between its percentiles 0.1 and 99.9; set normalization.method to choose",
            name,
        )
    return Normalization(**settings).fit(volume, name)


def label_volume(
    module: MaskRCNNModule,
    volume: npt.NDArray[Any],
    grey: Grey,
    *,
    threshold: float | Thresholds | None = None,
    labelling: Labelling | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    precision: str = "auto",
    fast: bool = True,
    progress: bool = True,
    name: str = "",
) -> Granules:
    """Labels a volume slice by slice and links the slices; along several axes if asked to.

    One slice's detections are in memory at a time.

    Args:
        module: in evaluation mode, on the device to use.
        volume: (z, y, x).
        grey: the volume's normalization; see `grey_of`.
        threshold: granules without a detection of this score are left out; None takes the
            checkpoint's. `Thresholds` gives those of detections, masks and granules apart.
        labelling: how detections become granules.
        voxel_size: nm, (z, y, x); None takes voxels as cubes.
        precision: see `isgseg.hardware.pick_precision`.
        fast: see `detect_slices`.
        progress: show a bar.
        name: stands before the bar.
    """
    labelling = labelling or Labelling()
    if isinstance(threshold, Thresholds):
        thresholds = threshold
    else:
        thresholds = choose_thresholds(module.hparams, threshold, labelling.mask_threshold)
    axes = labelling.axes
    if axes != "z" and voxel_size is not None and max(voxel_size) > 1.25 * min(voxel_size):
        log.warning(
            "%s: voxels of %s nm are no cubes, so that slices along %s show granules distorted to "
            "a network that learnt slices along z; resample the volume first",
            name,
            [round(side, 2) for side in voxel_size],
            " and ".join(axes.replace("z", "")),
        )
    found = [
        label_along(
            axis,
            module,
            volume,
            grey,
            thresholds=thresholds,
            labelling=labelling if len(axes) == 1 else replace(labelling, min_diameter=0.0),
            voxel_size=voxel_size,
            precision=precision,
            fast=fast,
            progress=progress,
            name=name if axes == "z" else f"{name} along {axis}".lstrip(),
        )
        for axis in axes
    ]
    granules = found[0]
    if len(axes) > 1:
        granules = find_consensus(found, labelling, voxel_size)
        counts = ", ".join(f"{len(f.score)} along {a}" for f, a in zip(found, axes, strict=True))
        log.info("%s: %d granules agreed on, of %s", name, len(granules.score), counts)
    if granules.labels.dtype != np.uint16:
        log.warning(
            "%s: more than 65,535 granules, so that labels are %s", name, granules.labels.dtype
        )
    return granules


def label_along(
    axis: str,
    module: MaskRCNNModule,
    volume: npt.NDArray[Any],
    grey: Grey,
    *,
    thresholds: Thresholds,
    labelling: Labelling,
    voxel_size: Sequence[float] | None,
    precision: str,
    fast: bool,
    progress: bool,
    name: str,
) -> Granules:
    """Labels the slices across one axis and links them.

    `label_volume` tells of the arguments.
    """
    enough = thresholds.score * (labelling.support if labelling.link else 1)  # for one detection
    first = "zyx".index(axis)
    volume = np.moveaxis(volume, first, 0)
    if voxel_size is not None:
        voxel_size = (voxel_size[first], *(voxel_size[i] for i in range(3) if i != first))
    linker = SliceLinker(labelling, voxel_size=voxel_size, threshold=thresholds.granule)
    kept: list[npt.NDArray[np.float32]] = []  # scores of each slice
    sections = np.zeros(volume.shape, np.uint16)  # numbers of a slice fit: they are detections
    slices = detect_slices(module, volume, grey, enough, precision, fast)
    bar = tqdm(slices, desc=name, total=len(volume), unit="slice", disable=not progress)
    for found, section in zip(bar, sections, strict=True):
        section[:], scores = label_slice(
            found["masks"],
            found["mask_boxes"],
            found["scores"],
            section.shape,
            threshold=enough,
            mask_threshold=thresholds.mask,
            max_overlap=labelling.max_overlap,
            min_pixels=labelling.min_pixels,
        )
        if not labelling.separate:
            section[:], scores = join_touching(section, scores)
        if labelling.link:
            linker.add(section, scores)
        kept.append(scores)
    if not labelling.link:
        labels = number_all(sections, [len(scores) for scores in kept])
        score = np.concatenate(kept).astype(np.float64)
        return Granules(np.moveaxis(labels, 0, first), score, score, np.ones(len(score), np.int64))
    linking = linker.finish()
    if linking.specks or linking.dropped:
        log.info(
            "%s: dropped %d granules (too small, in too few slices or of too low a score) and %d "
            "specks (parts of masks in one slice that touch nothing of their granule)",
            name,
            linking.dropped,
            linking.specks,
        )
    labels = linking.apply(sections)
    instances = linking.instances
    labels = np.moveaxis(labels, 0, first)
    return Granules(labels, instances.score, instances.best, instances.sections)


def granules_of(
    module: MaskRCNNModule,
    volume: Volume,
    threshold: float | None,
    labelling: Labelling,
    precision: str,
    progress: bool,
    name: str,
    fast: bool = True,
) -> Granules:
    """The granules of a volume as it was read, normalized as the network learnt it."""
    return label_volume(
        module,
        volume.data,
        grey_of(module, volume.data, name),
        threshold=threshold,
        labelling=labelling,
        voxel_size=volume.voxel_size,
        precision=precision,
        fast=fast,
        progress=progress,
        name=name,
    )


def find_consensus(
    found: Sequence[Granules],
    labelling: Labelling,
    voxel_size: Sequence[float] | None,
) -> Granules:
    """The granules that labellings along several axes agree on."""
    ball = math.pi / 6 * labelling.min_diameter**3
    labels, members = merge_instances(
        [granules.labels for granules in found],
        min_votes=labelling.min_votes,
        min_iou=labelling.min_iou,
        min_voxels=ball / math.prod(voxel_size or (1, 1, 1)),
    )
    each = list(zip(found, members.T, strict=True))
    score = sum(np.r_[0.0, granules.score][numbers] for granules, numbers in each)
    slices = sum(np.r_[0, granules.slices][numbers] for granules, numbers in each)
    best = np.max([np.r_[0.0, granules.best][numbers] for granules, numbers in each], axis=0)
    return Granules(labels, score / (members > 0).sum(1), best, slices)
