"""Where objects may be: torchvision's region proposals, for small objects on large images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import (
    RegionProposalNetwork,
    RPNHead,
    concat_box_prediction_layers,
)

from isgseg.models.roi_align import padded


class ScaledRegionProposalNetwork(RegionProposalNetwork):
    """torchvision's region proposals, as many on a part of an image as on the whole.

    Args:
        anchors: the same number on each level.
        channels: of the pyramid.
        iou: anchors below the first are background, those above the second are objects.
        count: of candidates on each level before suppression, and of proposals after it.
        area: network pixels of the image to which the count refers; larger ones have more in
            proportion. None: it holds for any image, and training takes twice as many candidates.

    Attributes:
        share: of an image that may hold objects: the rest of it adds nothing to the count.
    """

    def __init__(
        self,
        anchors: AnchorGenerator,
        channels: int,
        iou: Sequence[float],
        count: int,
        area: int | None,
    ) -> None:
        super().__init__(
            anchors,
            RPNHead(channels, anchors.num_anchors_per_location()[0]),
            fg_iou_thresh=iou[1],
            bg_iou_thresh=iou[0],
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": count if area else 2 * count, "testing": count},
            post_nms_top_n={"training": count, "testing": count},
            nms_thresh=0.7,
        )
        self.area, self.share, self._times = area, 1.0, 1.0

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """As torchvision's, but only the anchors that are candidates become boxes.

        On a whole slice that is some thousands of a million.
        """
        proposals, _, (anchors, logits, deltas_flat) = self._look(images, features)
        if targets is None:
            return proposals, {}
        labels, matched = self.assign_targets_to_anchors(anchors, targets)
        wanted = self.box_coder.encode(matched, anchors)
        objects, places = self.compute_loss(logits, deltas_flat, labels, wanted)
        return proposals, {"loss_objectness": objects, "loss_rpn_box_reg": places}

    def propose(
        self, images: ImageList, features: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The proposals of each image, (N, 4), and their scores, (N,), in falling order."""
        proposals, scores, _ = self._look(images, features)
        return proposals, scores

    def _look(
        self, images: ImageList, features: dict[str, Tensor]
    ) -> tuple[list[Tensor], list[Tensor], tuple[list[Tensor], Tensor, Tensor]]:
        """Proposals, their scores, and of all anchors places, logits and corrections."""
        height, width = padded(images.image_sizes)
        self._times = max(1.0, self.share * height * width / self.area) if self.area else 1.0
        levels = list(features.values())
        objectness, deltas = self.head(levels)
        anchors = self.anchor_generator(images, levels)
        counts = [level[0].numel() for level in objectness]
        logits, deltas_flat = concat_box_prediction_layers(objectness, deltas)
        scores = logits.detach().reshape(len(anchors), -1)
        chosen = self._get_top_n_idx(scores, counts)
        image = torch.arange(len(anchors), device=chosen.device)[:, None]
        boxes = self.box_coder.decode(
            deltas_flat.detach().reshape(len(anchors), -1, 4)[image, chosen].flatten(0, 1),
            [part[index] for part, index in zip(anchors, chosen, strict=True)],
        )
        proposals, kept = self.filter_proposals(
            boxes.reshape(len(anchors), -1, 4),
            scores[image, chosen],
            images.image_sizes,
            [min(count, self.pre_nms_top_n()) for count in counts],
        )
        return proposals, kept, (anchors, logits, deltas_flat)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As torchvision's, but only anchors that touch an object are compared with the objects.

        The others, nearly all of them, are background. On CUDA all are compared: finding
        those that touch is seven launches for each object.
        """
        if anchors[0].is_cuda:
            return super().assign_targets_to_anchors(anchors, targets)  # type: ignore[no-any-return]
        near = [
            _touching(part, target["boxes"]) for part, target in zip(anchors, targets, strict=True)
        ]
        some = [part[index] for part, index in zip(anchors, near, strict=True)]
        labels, matched = [], []
        for part, index, label, match in zip(
            anchors, near, *super().assign_targets_to_anchors(some, targets), strict=True
        ):
            labels.append(part.new_zeros(len(part)).index_copy(0, index, label))
            matched.append(part.index_copy(0, index, match))
        return labels, matched

    def pre_nms_top_n(self) -> int:
        """Candidates of each level that enter suppression."""
        count: int = super().pre_nms_top_n()
        return round(count * self._times)

    def post_nms_top_n(self) -> int:
        """Proposals that leave it."""
        count: int = super().post_nms_top_n()
        return round(count * self._times)


def _touching(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Indices of the anchors, (N, 4), that overlap one of the boxes, (K, 4); the first if none do.

    The first stands in because torchvision compares with one anchor at least.
    """
    low_x, low_y, high_x, high_y = anchors.T.contiguous()
    touches = torch.zeros_like(low_x, dtype=torch.bool)
    for x0, y0, x1, y1 in boxes.tolist():
        touches |= (low_x < x1) & (high_x > x0) & (low_y < y1) & (high_y > y0)
    touches[0] |= not touches.any()
    return touches.nonzero()[:, 0]


class DenseAnchors(AnchorGenerator):
    """torchvision's anchors, with more of each between two places of the pyramid.

    An object of 3 pixels has no anchor that fits where anchors stand 2 pixels apart: copies a
    fraction of the stride aside stand as close as on a pyramid of twice the resolution would, and
    cost a few channels instead (anchor densification: Zhang et al., FaceBoxes, 2017).

    Args:
        sizes: for each level, sides in network pixels.
        ratios: for each level, height over width.
        density: copies along each axis.

    Raises:
        ValueError: the density is not 1, 2, 3, ...
    """

    def __init__(
        self,
        sizes: tuple[tuple[float, ...], ...],
        ratios: tuple[tuple[float, ...], ...],
        density: int = 1,
    ) -> None:
        if density < 1 or density != int(density):
            raise ValueError(f"network.anchor_density is {density}; it must be 1, 2, 3, ...")
        super().__init__(sizes, ratios)
        self.density = int(density)
        self._known: tuple[Any, Tensor] | None = None

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """As torchvision's, but made once for all images of a size: (N, 4) for each image."""
        grids = [list(level.shape[-2:]) for level in feature_maps]
        size, device = padded(image_list.image_sizes), feature_maps[0].device
        # Tensors of inference mode are of no use outside of it.
        key = (size, grids, device, torch.is_inference_mode_enabled())
        if self._known is None or self._known[0] != key:
            strides = [
                [torch.tensor(size[i] // grid[i], device=device) for i in (0, 1)] for grid in grids
            ]
            self.set_cell_anchors(torch.float32, device)
            self._known = key, torch.cat(self.grid_anchors(grids, strides))
        return [self._known[1]] * len(image_list.image_sizes)

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        """Anchors stay in float32: of the features' bfloat16 a coordinate above 512 has steps of 4.

        There an anchor of 4 pixels would be moved by half of itself, or have no width.
        """
        super().set_cell_anchors(torch.float32, device)

    def num_anchors_per_location(self) -> list[int]:
        """For each level."""
        return [count * self.density**2 for count in super().num_anchors_per_location()]

    def grid_anchors(
        self, grid_sizes: list[list[int]], strides: list[list[Tensor]]
    ) -> list[Tensor]:
        """All anchors of each level, (N, 4) xyxy, in the order of the head's channels."""
        dense = []
        for grid, stride, anchors in zip(
            grid_sizes, strides, super().grid_anchors(grid_sizes, strides), strict=True
        ):
            steps = torch.arange(self.density).to(anchors) / self.density
            y, x = torch.meshgrid(steps * stride[0], steps * stride[1], indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            places = anchors.reshape(grid[0] * grid[1], 1, -1, 4)
            dense.append((places + shifts).reshape(-1, 4))
        return dense
