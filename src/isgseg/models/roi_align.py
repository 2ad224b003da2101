"""Cutting regions out of the pyramid: RoIAlign with a margin, in less time on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

STRIDE = 32  # network pixels of which torchvision pads sides to a multiple


class MarginRoIAlign(MultiScaleRoIAlign):
    """torchvision's RoIAlign with a margin around the boxes.

    A box that is a pixel off cuts away a third of a granule of 3 pixels: with a margin the mask
    head can still draw it whole.

    Args:
        levels: names of the features that regions are cut from, from fine to coarse.
        output_size: of the regions.
        sampling_ratio: samples per bin along each axis.
        margin: network pixels.
    """

    def __init__(
        self, levels: list[str], output_size: int, sampling_ratio: int, margin: float = 0.0
    ) -> None:
        super().__init__(levels, output_size, sampling_ratio)
        self.margin = margin

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """As torchvision's. The list then holds the wide boxes: the loss cuts its targets there."""
        boxes[:] = [widen(part, self.margin) for part in boxes]
        features = [x[name] for name in self.featmap_names]
        height, _ = padded(image_shapes)
        powers = [round(math.log2(height / level.shape[-2])) for level in features]
        mapper = LevelMapper(powers[0], powers[-1], self.canonical_scale, self.canonical_level)
        level = mapper(boxes)
        image = torch.cat([torch.full_like(part[:, :1], i) for i, part in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        size = self.output_size[0]
        cut = roi_align_by_embedding if rois.device.type == "cpu" else roi_align
        # Channels last in memory, so that a region is contiguous; and in the precision of the
        # features, to which the heads would round it next.
        regions = features[0].new_empty(len(rois), size, size, features[0].shape[1])
        for number, (feature, power) in enumerate(zip(features, powers, strict=True)):
            chosen = torch.nonzero(level == number)[:, 0]
            if len(chosen):
                part = cut(feature, rois[chosen], size, 0.5**power, self.sampling_ratio)
                regions[chosen] = part.permute(0, 2, 3, 1).to(regions.dtype)
        return regions.permute(0, 3, 1, 2)


def roi_align_by_embedding(
    features: Tensor, rois: Tensor, size: int, scale: float, samples: int
) -> Tensor:
    """RoIAlign (He et al., Mask R-CNN, 2017), as `torchvision.ops.roi_align` but for rounding.

    A bin is a weighted sum of pixels, each with all its channels side by side in memory, which is
    what an embedding bag sums. On a CPU that takes a seventh of the time of torchvision's loops,
    forward and backward; on CUDA torchvision's kernel is the faster.

    Args:
        features: (N, C, H, W); fastest where channels are last in memory.
        rois: (K, 5), at least one: the number of the image, and its xyxy, in network pixels.
        size: bins along each axis.
        scale: feature pixels per network pixel.
        samples: in a bin along each axis.

    Returns:
        (K, C, size, size) float32, channels last in memory.
    """
    _, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    count = len(rois)
    image, start = rois[:, 0].long(), rois[:, 1:3] * scale
    extent = (rois[:, 3:5] * scale - start).clamp(min=1)
    x, x_weight = _neighbours(start[:, :1], extent[:, :1], size * samples, width)
    y, y_weight = _neighbours(start[:, 1:], extent[:, 1:], size * samples, height)
    y = y + image[:, None, None] * height
    vertical, horizontal = (count, size, 1, -1, 1), (count, 1, size, 1, -1)
    index = y.view(vertical) * width + x.view(horizontal)
    weight = y_weight.view(vertical) * x_weight.view(horizontal) / samples**2
    each = 4 * samples**2
    bags = nn.functional.embedding_bag(
        index.reshape(-1, each), rows, mode="sum", per_sample_weights=weight.reshape(-1, each)
    )
    return bags.view(count, size, size, channels).permute(0, 3, 1, 2)


def _neighbours(start: Tensor, extent: Tensor, count: int, length: int) -> tuple[Tensor, Tensor]:
    """Along one axis, the two pixels between which each sample lies, with their weights.

    Args:
        start: (K, 1) feature pixels.
        extent: (K, 1) likewise.
        count: samples.
        length: of the features. Samples more than a pixel outside count nothing.

    Returns:
        (K, count, 2) int64 and float32.
    """
    steps = (torch.arange(count, device=start.device) + 0.5) / count
    at = start + extent * steps
    inside = (at >= -1) & (at <= length)
    at = at.clamp(0, length - 1)
    low = at.floor()
    beyond = at - low
    pair = torch.stack([low, (low + 1).clamp(max=length - 1)], dim=-1).long()
    return pair, torch.stack([1 - beyond, beyond], dim=-1) * inside[..., None]


def padded(shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Height and width, in network pixels, of the batch that images of these shapes fill."""
    height, width = (math.ceil(max(sides) / STRIDE) * STRIDE for sides in zip(*shapes, strict=True))
    return height, width


def widen(boxes: Tensor, margin: float) -> Tensor:
    """(N, 4) xyxy boxes with a margin on each side, in the boxes' unit."""
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)
