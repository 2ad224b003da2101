"""A U-Net as a LightningModule: what it loses, and the objects in its maps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F

from isgseg.data.coco import Target
from isgseg.data.datamodule import CocoDataModule
from isgseg.errors import InputError
from isgseg.models.settings import UNetSettings
from isgseg.models.transform import fit_channels
from isgseg.models.unet import UNet, build_unet
from isgseg.training.base import GranuleModule
from isgseg.training.detections import objects_of

CENTRE = 5.0  # weight of the centre map's loss: its errors are small numbers
OUTSIDE = 0.2  # weight of a background pixel in it, so that the few of granules count


class UNetModule(GranuleModule):
    """Trains `UNet`; see `GranuleModule` for the arguments.

    The losses are cross entropy and soft Dice (Milletari et al. 2016) of the foreground, and the
    absolute error of the centre map.

    Raises:
        InputError: a setting is out of range.
    """

    name: ClassVar[str] = "unet"
    settings: ClassVar[type[BaseModel]] = UNetSettings
    network: UNet

    def check_start(self, network: dict[str, Any], weights: str | None) -> None:
        """Refuses weights of another network."""
        if weights == "coco":
            raise InputError(
                "model.weights=coco are torchvision's of Mask R-CNN, which fit no U-Net; set "
                "model.weights=null, or a checkpoint of model=unet"
            )

    def build(self, network: dict[str, Any]) -> UNet:
        """See `build_unet`."""
        return build_unet(**network)

    def setup(self, stage: str) -> None:
        """Asks the dataset for its centre maps.

        Raises:
            InputError: it has none.
        """
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, CocoDataModule):
            data.require_centres()

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        """Images, (C, H, W) float32 in [0, 1], to maps; see `UNet.predict`."""
        return self.network.predict(images)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """Of all pixels of a batch, whose images may differ in size."""
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        batch = torch.stack(
            [_padded(fit_channels(image, self.network.channels), height, width) for image in images]
        )
        answers = self.network(batch)
        logits, true, depth, known = [], [], [], []
        for answer, target in zip(answers, targets, strict=True):
            rows, columns = target["centre"].shape
            own = answer[:, :rows, :columns].flatten(1)
            mask = target["masks"].any(0) if len(target["masks"]) else target["centre"] > 255
            logits.append(own[0])
            true.append(mask.flatten().float())
            depth.append(own[1].sigmoid())
            known.append(target["centre"].flatten().float() / 255)
        return map_losses(*(torch.cat(parts) for parts in (logits, true, depth, known)))

    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The maps of each slice split by themselves.

        Without the slices around, granules are told apart worse than in 3D.
        """
        return [objects_of(maps) for maps in self(images)]


def map_losses(logits: Tensor, true: Tensor, depth: Tensor, known: Tensor) -> dict[str, Tensor]:
    """The losses of both maps.

    Args:
        logits: (N,) of foreground.
        true: (N,) whether it is, 0 or 1.
        depth: (N,) predicted centre map.
        known: (N,) the true one.
    """
    probability = logits.sigmoid()
    shared = (probability * true).sum()
    dice = 1 - (2 * shared + 1) / (probability.sum() + true.sum() + 1)
    weight = OUTSIDE + (1 - OUTSIDE) * true
    return {
        "loss_foreground": F.binary_cross_entropy_with_logits(logits, true),
        "loss_dice": dice,
        "loss_centre": CENTRE * (weight * (depth - known).abs()).sum() / weight.sum(),
    }


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    """(C, H, W) to (C, height, width); what is added is at the bottom and right."""
    missing = width - image.shape[2], height - image.shape[1]
    return F.pad(image, (0, missing[0], 0, missing[1]))
