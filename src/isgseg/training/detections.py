"""Detections and targets as the metrics take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isgseg.data.coco import Target
from isgseg.models.masks import draw


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


def to_metric(target: Target) -> dict[str, Any]:
    """A target as the metric takes it, on the CPU."""
    return {
        "boxes": target["boxes"].cpu(),
        "labels": target["labels"].cpu(),
        "masks": target["masks"].cpu().bool(),
    }
