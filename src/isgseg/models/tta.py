"""Test-time augmentation: an image seen flipped and turned too, and the mean of what is seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.ops import clip_boxes_to_image, nms

from isgseg.errors import InputError

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Symmetry:
    """One of the eight ways to lay a square on itself: first transposed, then flipped.

    Attributes:
        transpose: x and y change places.
        flip_y: rows in the other order.
        flip_x: columns in the other order.
        reverse: channels in the other order, as of a volume seen from its other side.
    """

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False
    reverse: bool = False

    @property
    def inverse(self) -> Symmetry:
        """The symmetry that undoes this one."""
        flips = (self.flip_y, self.flip_x)
        return Symmetry(self.transpose, *(flips[::-1] if self.transpose else flips), self.reverse)

    def turn(self, grid: Tensor) -> Tensor:
        """Args: grid (..., H, W). Returns it as seen, (..., W, H) if transposed."""
        if self.transpose:
            grid = grid.mT
        axes = [axis for axis, flip in ((-2, self.flip_y), (-1, self.flip_x)) if flip]
        return grid.flip(axes) if axes else grid

    def boxes(self, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
        """Where boxes, (N, 4) xyxy, of an image of this (H, W) lie in the turned one."""
        x0, y0, x1, y1 = boxes.unbind(-1)
        height, width = shape
        if self.transpose:
            x0, y0, x1, y1 = y0, x0, y1, x1
            height, width = width, height
        if self.flip_x:
            x0, x1 = width - x1, width - x0
        if self.flip_y:
            y0, y1 = height - y1, height - y0
        return torch.stack([x0, y0, x1, y1], dim=-1)

    def deltas(self, deltas: Tensor) -> Tensor:
        """The box head's corrections, (..., 4) of x, y, width and height, of the turned image."""
        if self.transpose:
            deltas = deltas[..., [1, 0, 3, 2]]
        signs = [-1 if self.flip_x else 1, -1 if self.flip_y else 1, 1, 1]
        return deltas * deltas.new_tensor(signs)


# The first 1, 2, 4 or 8 of them. A volume turned upside down and flipped is the same volume again,
# so that half of them also see it from its other side.
SYMMETRIES = (
    Symmetry(),
    Symmetry(flip_y=True, flip_x=True, reverse=True),
    Symmetry(flip_x=True),
    Symmetry(flip_y=True, reverse=True),
    Symmetry(transpose=True),
    Symmetry(transpose=True, flip_y=True, flip_x=True, reverse=True),
    Symmetry(transpose=True, flip_x=True, reverse=True),
    Symmetry(transpose=True, flip_y=True),
)
COUNTS = (1, 2, 4, 8)


def choose_symmetries(count: int, slices: bool) -> tuple[Symmetry, ...]:
    """So many symmetries.

    Args:
        count: one of `COUNTS`.
        slices: channels are neighbouring slices, whose order may be reversed; else colours.

    Raises:
        InputError: another count.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count not in COUNTS:
        raise InputError(f"tta is {count}; choose {', '.join(map(str, COUNTS[:-1]))} or 8")
    return tuple(
        replace(symmetry, reverse=symmetry.reverse and slices) for symmetry in SYMMETRIES[:count]
    )


class AugmentedMaskRCNN(MaskRCNN):
    """torchvision's Mask R-CNN, which in evaluation can average over flips and turns of an image.

    Proposals of all passes are pooled; then each pass's heads judge the same boxes, and draw the
    same masks, and the means of their answers count (Detectron2's test-time augmentation pools
    detections instead, whose scores are the highest of any pass).

    Attributes:
        symmetries: how an image is looked at.
    """

    symmetries: tuple[Symmetry, ...] = SYMMETRIES[:1]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        """As torchvision's; see `build_mask_rcnn`."""
        if self.training or len(self.symmetries) == 1:
            return super().forward(images, targets)
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, _ = self.transform(images)
        orders = {False: batch.tensors}
        if any(symmetry.reverse for symmetry in self.symmetries):
            # Before they are normalized, as in training: three channels have different means.
            orders[True] = self.transform([image.flip(0) for image in images])[0].tensors
        passes = [
            _AugmentedPass(self, symmetry, orders[symmetry.reverse]) for symmetry in self.symmetries
        ]
        proposals = self._pool([part.propose() for part in passes], batch.image_sizes)
        heads = self.roi_heads
        answers = [part.judge(proposals) for part in passes]
        boxes, scores, labels = heads.postprocess_detections(
            _mean(share for share, _ in answers).log(),
            _mean(deltas for _, deltas in answers).flatten(1),
            proposals,
            batch.image_sizes,
        )
        masks = torch.split(
            _mean(part.draw(boxes, labels) for part in passes), [len(b) for b in boxes]
        )
        keys = ("boxes", "labels", "scores", "masks")
        found = [
            dict(zip(keys, parts, strict=True))
            for parts in zip(boxes, labels, scores, masks, strict=True)
        ]
        return self.transform.postprocess(found, batch.image_sizes, sizes)

    def _pool(
        self, found: list[tuple[list[Tensor], list[Tensor]]], shapes: list[tuple[int, int]]
    ) -> list[Tensor]:
        """Proposals of all passes, of each image as many as one pass has."""
        pooled = []
        for number, shape in enumerate(shapes):
            boxes = torch.cat([boxes[number] for boxes, _ in found])
            scores = torch.cat([scores[number] for _, scores in found])
            boxes = clip_boxes_to_image(boxes, shape)
            keep = nms(boxes, scores, self.rpn.nms_thresh)[: self.rpn.post_nms_top_n()]
            pooled.append(boxes[keep])
        return pooled


class _AugmentedPass:
    """What a network sees of a batch of images, turned one way; boxes go in and out unturned."""

    def __init__(self, network: AugmentedMaskRCNN, symmetry: Symmetry, batch: Tensor) -> None:
        self.network, self.symmetry = network, symmetry
        self.shape = (batch.shape[-2], batch.shape[-1])
        images = symmetry.turn(batch).contiguous(memory_format=torch.channels_last)
        self.images = ImageList(images, [(images.shape[-2], images.shape[-1])] * len(batch))
        self.features: Features = network.backbone(images)

    def propose(self) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image proposals and their scores."""
        boxes, scores = self.network.rpn.propose(self.images, self.features)
        turned = self.images.image_sizes[0]
        return [self.symmetry.inverse.boxes(part, turned) for part in boxes], scores

    def judge(self, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of all boxes the probability of each class, (N, C), and corrections, (N, C, 4)."""
        heads = self.network.roi_heads
        regions = self._cut(heads.box_roi_pool, boxes)
        logits, deltas = heads.box_predictor(heads.box_head(regions))
        deltas = deltas.reshape(len(deltas), -1, 4)
        return logits.softmax(-1), self.symmetry.inverse.deltas(deltas)

    def draw(self, boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Of all boxes the mask of their class, (N, 1, M, M) probabilities."""
        heads = self.network.roi_heads
        # Masks lie half a pixel beside their boxes (`Transform.postprocess`), on the other side in
        # a flipped image.
        regions = self._cut(heads.mask_roi_pool, [part + 0.5 for part in boxes], 0.5)
        logits = heads.mask_predictor(heads.mask_head(regions))
        return self.symmetry.inverse.turn(torch.cat(maskrcnn_inference(logits, labels)))

    def _cut(self, pool: Callable[..., Tensor], boxes: list[Tensor], shift: float = 0) -> Tensor:
        turned = [self.symmetry.boxes(part, self.shape) - shift for part in boxes]
        return pool(self.features, turned, self.images.image_sizes)


def _mean(parts: Iterable[Tensor]) -> Tensor:
    """Of tensors of one shape, which need not be there at once."""
    total, count = torch.zeros(()), 0
    for part in parts:
        total, count = part + (total if count else 0), count + 1
    return total / count
