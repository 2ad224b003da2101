"""Mask R-CNN as a LightningModule."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel
from torch import Tensor

from isgseg.data.coco import Target
from isgseg.errors import InputError
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.settings import NetworkSettings
from isgseg.models.tta import AugmentedMaskRCNN
from isgseg.training.base import GranuleModule
from isgseg.training.detections import detect


class MaskRCNNModule(GranuleModule):
    """Trains `build_mask_rcnn`; see `GranuleModule` for the arguments.

    Raises:
        InputError: a setting is out of range, or norm layers are frozen with random weights.
    """

    name: ClassVar[str] = "mask_rcnn"
    settings: ClassVar[type[BaseModel]] = NetworkSettings
    network: AugmentedMaskRCNN

    def check_start(self, network: dict[str, Any], weights: str | None) -> None:
        """Refuses frozen norm layers with random weights."""
        if network.get("norm") == "frozen" and weights is None:
            raise InputError(
                "model.network.norm=frozen with model.weights=null would freeze random statistics; "
                "set model.network.norm=batch, or give weights"
            )

    def build(self, network: dict[str, Any]) -> AugmentedMaskRCNN:
        """See `build_mask_rcnn`."""
        return build_mask_rcnn(**network)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Images, (C, H, W) float32 in [0, 1], to detections; see `build_mask_rcnn`."""
        return self.network(images)  # type: ignore[no-any-return]

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The five of torchvision."""
        return self.network(images, targets)  # type: ignore[no-any-return]

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """See `isgseg.training.detections.detect`."""
        return detect(self, images)

    @property
    def floor(self) -> float:
        """Detections of a lower score are never looked at."""
        return self.network.roi_heads.score_thresh  # type: ignore[no-any-return]
