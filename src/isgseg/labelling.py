"""A volume to numbered granules: normalize, detect slice by slice, separate, link."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage as ndi
from tqdm import tqdm

from isgseg.data.patches import picture_of
from isgseg.hardware import autocast, pick_precision
from isgseg.instances.linking import SliceLinker
from isgseg.instances.slices import label_slice
from isgseg.model.module import MaskRCNNModule
from isgseg.normalization import Grey, Normalization
from isgseg.volume import Volume, label_dtype

log = logging.getLogger(__name__)
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Labelling:
    """How detections become granules; `conf/labelling/` describes each key.

    Attributes:
        separate: each detection keeps its own mask; else the connected components of all masks of a
            slice are the granules.
        link: sections of neighbouring slices become one granule; else numbers are unique over all
            slices, and all that follows `min_pixels` has no effect.
        mask_threshold: see `label_slice`, as the next two.
        max_overlap: see there.
        min_pixels: see there.
        min_overlap: see `SliceLinker`, as all that follow.
        max_distance: see there.
        gap: see there.
        waist: see there.
        max_length: nm, or slices where the voxel size is not known; None is any.
        min_diameter: nm, or voxels where the voxel size is not known.
    """

    separate: bool = True
    link: bool = True
    mask_threshold: float = 0.5
    max_overlap: float = 0.5
    min_pixels: int = 1
    min_overlap: float = 0.25
    max_distance: float = 1.5
    gap: int = 1
    waist: float = 0.75
    max_length: float | None = None
    min_diameter: float = 0.0


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


def detect_slices(
    module: MaskRCNNModule,
    volume: npt.NDArray[Any],
    grey: Grey,
    threshold: float,
    precision: str = "auto",
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Detections of every slice, one slice at a time.

    Args:
        module: in evaluation mode, on the device to use.
        volume: (z, y, x).
        grey: the volume's normalization.
        threshold: weaker detections never reach the mask head.
        precision: see `isgseg.hardware.pick_precision`.

    Yields:
        `masks` (N, M, M) probabilities, `mask_boxes` (N, 4) xyxy in pixels, `scores` (N,).
    """
    context = (module.hparams.get("facts") or {}).get("context", 0)
    module.network.roi_heads.score_thresh = threshold
    device = module.device
    mode = autocast(pick_precision(precision, device), device)
    for index in range(len(volume)):
        picture = torch.from_numpy(np.atleast_3d(picture_of(volume, grey, index, context)))
        picture = picture.to(device).permute(2, 0, 1).expand(3, -1, -1).float() / 255
        with torch.inference_mode(), mode:
            found = module([picture])[0]
        yield {
            "masks": found["masks"][:, 0].float().cpu().numpy(),
            "mask_boxes": found["mask_boxes"].float().cpu().numpy(),
            "scores": found["scores"].float().cpu().numpy(),
        }


def label_volume(
    module: MaskRCNNModule,
    volume: npt.NDArray[Any],
    grey: Grey,
    *,
    threshold: float = 0.5,
    labelling: Labelling | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    precision: str = "auto",
    progress: bool = True,
    name: str = "",
) -> Labels:
    """Labels a volume slice by slice and links the slices.

    One slice's detections are in memory at a time.

    Args:
        module: in evaluation mode, on the device to use.
        volume: (z, y, x).
        grey: the volume's normalization; see `grey_of`.
        threshold: detections with a lower score are left out.
        labelling: how detections become granules.
        voxel_size: nm, (z, y, x); None takes voxels as cubes.
        precision: see `isgseg.hardware.pick_precision`.
        progress: show a bar.
        name: stands before the bar.

    Returns:
        (z, y, x) uint16, uint32 beyond 65,535 granules: 0 is background, granules from 1.
    """
    labelling = labelling or Labelling()
    linker = SliceLinker(
        voxel_size=voxel_size,
        min_overlap=labelling.min_overlap,
        max_distance=labelling.max_distance,
        gap=labelling.gap,
        waist=labelling.waist,
        max_length=labelling.max_length,
        min_diameter=labelling.min_diameter,
    )
    counts = [0]
    sections = np.zeros(volume.shape, np.uint16)  # numbers of a slice fit: they are detections
    slices = detect_slices(module, volume, grey, threshold, precision)
    bar = tqdm(slices, desc=name, total=len(volume), unit="slice", disable=not progress)
    for found, section in zip(bar, sections, strict=True):
        section[:], scores = label_slice(
            found["masks"],
            found["mask_boxes"],
            found["scores"],
            section.shape,
            threshold=threshold,
            mask_threshold=labelling.mask_threshold,
            max_overlap=labelling.max_overlap,
            min_pixels=labelling.min_pixels,
        )
        if not labelling.separate:
            section[:], _ = ndi.label(section, np.ones((3, 3)))
        if labelling.link:
            linker.add(section, scores if labelling.separate else None)
        counts.append(int(section.max()))
    labels = linker.finish().apply(sections) if labelling.link else number_all(sections, counts)
    if labels.dtype != np.uint16:
        log.warning("%s: more than 65,535 granules, so that labels are %s", name, labels.dtype)
    return labels


def labels_of(
    module: MaskRCNNModule,
    volume: Volume,
    threshold: float,
    labelling: Labelling,
    precision: str,
    progress: bool,
    name: str,
) -> Labels:
    """The labels that `isgseg-predict` writes, for what scores them; see `label_volume`."""
    return label_volume(
        module,
        volume.data,
        grey_of(module, volume.data, name),
        threshold=threshold,
        labelling=labelling,
        voxel_size=volume.voxel_size,
        precision=precision,
        progress=progress,
        name=name,
    )


def number_all(sections: npt.NDArray[np.uint16], counts: list[int]) -> Labels:
    """Makes numbers unique over all slices.

    Args:
        sections: (z, y, x), numbered from 1 in each slice.
        counts: 0, and the highest number of each slice.

    Returns:
        (z, y, x) of the smallest of uint16 and uint32 that holds all numbers.
    """
    offsets = np.cumsum(counts)
    labels = sections.astype(label_dtype(int(offsets[-1])), copy=False)
    for section, offset in zip(labels, offsets[:-1], strict=True):
        section[section > 0] += offset.astype(labels.dtype)
    return labels
