"""Detections of every slice by Mask R-CNN: the fast path, and the plain one it must agree with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from isgseg.data.normalization import Normalizer
from isgseg.inference.method import Detections, Slices
from isgseg.inference.streaming import SliceNetwork, crop, simple
from isgseg.inference.tiling import Tile, inside
from isgseg.models.fusion import fuse_mask_rcnn, grid_unit, receptive_field, share_weights
from isgseg.models.stem import fuse_stem
from isgseg.models.tta import AugmentedMaskRCNN

NOTHING: Detections = {
    "masks": np.zeros((0, 28, 28), np.float32),
    "mask_boxes": np.zeros((0, 4), np.float32),
    "scores": np.zeros(0, np.float32),
}


class MaskRCNNDetector(SliceNetwork[Detections]):
    """A `SliceModel`; see `SliceNetwork` for the arguments."""

    network: AugmentedMaskRCNN

    @property
    def scale(self) -> float | None:
        """Network pixels per image pixel; None where the size of an image decides."""
        scale: float | None = self.network.transform.scale
        return scale

    def detect(
        self,
        slices: Slices,
        normalizer: Normalizer,
        threshold: float,
        zoom: tuple[float, float] = (1.0, 1.0),
    ) -> Iterator[Detections]:
        """Detections of every slice, in order; see `SliceModel`.

        Weaker detections than the threshold never reach the mask head. One slice is in memory at a
        time, on CUDA three batches.
        """
        return self.stream(self._copy(threshold, zoom), slices, normalizer)

    def scales(self, network: Any) -> tuple[float, float] | None:
        """Those of the network's own transform."""
        return network.transform.scales  # type: ignore[no-any-return]

    def windows(self, network: Any) -> tuple[Sequence[int] | None, int]:
        """See `grid_unit` and `receptive_field`."""
        return grid_unit(network), receptive_field(self.network)

    def compute(self, network: Any, images: Tensor, tiles: list[Tile]) -> list[Detections]:
        """Detections of images, each from the window that owns it."""
        return _detect(network, images, tiles)

    def _copy(self, threshold: float, zoom: tuple[float, float]) -> AugmentedMaskRCNN:
        """The network with a score threshold and a scale of its own."""
        copied = fuse_mask_rcnn if self.fast else share_weights
        network: AugmentedMaskRCNN = copied(self.network)
        network.roi_heads.score_thresh = threshold
        network.symmetries = self.symmetries
        scale = network.transform.scale
        if scale is not None:
            y, x = (factor if factor == 1 else simple(scale * factor) / scale for factor in zoom)
            network.transform.zoom = y, x
        if self.fast and len(self.symmetries) == 1:  # a turned image would have other edges
            fuse_stem(network)
        return network


def _detect(network: MaskRCNN, images: Tensor, tiles: list[Tile]) -> list[Detections]:
    """Detections of images, (N, C, H, W) uint8, each from the window that owns it."""
    answers: list[dict[str, Tensor]] = []
    for tile in tiles:
        network.rpn.share = tile.share
        answers += network(list(crop(images, tile)))
    found = [[NOTHING] for _ in images]
    for number, answer in enumerate(to_arrays(answers)):
        tile_number, image = divmod(number, len(images))
        found[image].append(_owned(answer, tiles[tile_number]))
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in NOTHING}
        for parts in found
    ]


def to_arrays(answers: list[dict[str, Tensor]]) -> list[Detections]:
    """A network's answers as arrays, in one copy: before each the device must end its work.

    Args:
        answers: of each image, as of `build_mask_rcnn`.

    Returns:
        Of each image `boxes` (N, 4), `mask_boxes` (N, 4), `scores` (N,) and `masks` (N, M, M).
    """
    if not answers:
        return []
    boxes, wide, scores, masks = (
        torch.cat([answer[name].float() for answer in answers])
        for name in ("boxes", "mask_boxes", "scores", "masks")
    )
    array = torch.cat([boxes, wide, scores[:, None], masks.flatten(1)], dim=1).cpu().numpy()
    ends = np.cumsum([len(answer["scores"]) for answer in answers])
    return [
        {
            "boxes": part[:, :4],
            "mask_boxes": part[:, 4:8],
            "scores": part[:, 8],
            "masks": part[:, 9:].reshape(-1, *masks.shape[2:]),
        }
        for part in np.split(array, ends[:-1])
    ]


def _owned(answer: Detections, tile: Tile) -> Detections:
    """Of a network's answer on a window what belongs to it, in pixels of the slice."""
    offset = np.array([tile.columns.start or 0, tile.rows.start or 0] * 2, np.float32)
    keep = inside(answer["boxes"] + offset, tile.core)
    return {
        "masks": answer["masks"][keep],
        "mask_boxes": answer["mask_boxes"][keep] + offset,
        "scores": answer["scores"][keep],
    }
