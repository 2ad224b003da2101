"""Detections and targets as the metrics take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage as ndi
from torch import Tensor

from isgseg.data.coco import Target
from isgseg.evaluation.thresholds import DEFAULT, MASK_THRESHOLDS
from isgseg.instances.map_objects import score_objects, split_maps
from isgseg.models.masks import draw

MIN_PIXELS = 3  # smaller parts of a granule in a slice go to a neighbour


def detect(
    module: Callable[[list[Tensor]], list[dict[str, Tensor]]], images: list[Tensor]
) -> list[dict[str, Tensor]]:
    """Detections with masks at full size, on the CPU.

    Args:
        module: in evaluation mode.
        images: (C, H, W) float32 in [0, 1].

    Returns:
        For each image `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, H, W) bool, and
        `mask_probs` (N, M, M) and `mask_boxes` (N, 4), from which masks can be drawn otherwise.
    """
    results = []
    for image, found in zip(images, module(images), strict=True):
        arrays = {name: value.float().cpu() for name, value in found.items()}
        masks = draw(
            arrays["masks"][:, 0].numpy(),
            arrays["mask_boxes"].numpy(),
            (image.shape[-2], image.shape[-1]),
        )
        results.append(
            {
                "boxes": arrays["boxes"],
                "scores": arrays["scores"],
                "labels": found["labels"].cpu(),
                "masks": torch.from_numpy(masks),
                "mask_probs": arrays["masks"][:, 0],
                "mask_boxes": arrays["mask_boxes"],
            }
        )
    return results


def objects_of(maps: Tensor) -> dict[str, Tensor]:
    """Objects in the maps of one image, as `detect` gives them.

    The maps are split as those of a volume are (see `isgseg.instances.map_objects`), from the
    lowest mask threshold on that is tried, so that masks can be drawn at every one.

    Args:
        maps: (2, H, W) foreground and centre in [0, 1].
    """
    foreground, centre = maps.float().cpu().numpy()
    labels = split_maps(foreground[None], centre[None], MASK_THRESHOLDS[0], min_voxels=MIN_PIXELS)
    scores = score_objects(labels, foreground[None], centre[None])
    boxes = [box[1:] for box in ndi.find_objects(labels)]
    side = max((axis.stop - axis.start for box in boxes for axis in box), default=1)
    probs = np.zeros((len(boxes), side, side), np.float32)
    masks = np.zeros((len(boxes), *foreground.shape), bool)
    tight = np.zeros((len(boxes), 4), np.float32)
    for index, (rows, columns) in enumerate(boxes):
        own = labels[0, rows, columns] == index + 1
        values = np.where(own, foreground[rows, columns], 0)
        probs[index, : values.shape[0], : values.shape[1]] = values
        masks[index, rows, columns] = values >= DEFAULT
        y, x = np.nonzero(masks[index] if masks[index].any() else labels[0] == index + 1)
        tight[index] = x.min(), y.min(), x.max() + 1, y.max() + 1
    corners = np.array([(box[1].start, box[0].start) for box in boxes], np.float32).reshape(-1, 2)
    return {
        "boxes": torch.from_numpy(tight),
        "scores": torch.from_numpy(scores.astype(np.float32)),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "masks": torch.from_numpy(masks),
        "mask_probs": torch.from_numpy(probs),
        "mask_boxes": torch.from_numpy(np.hstack([corners, corners + side])),
    }


def to_metric(target: Target) -> dict[str, Any]:
    """A target as the metric takes it, on the CPU."""
    return {
        "boxes": target["boxes"].cpu(),
        "labels": target["labels"].cpu(),
        "masks": target["masks"].cpu().bool(),
    }
