"""A small U-Net that says of each pixel whether it is granule, and how deep inside of one.

Of granules of 5 to 13 voxels a mask alone does not say where one ends and the next begins; its
second map, which has a maximum in the middle of each, does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isgseg.errors import check
from isgseg.models.settings import UNetSettings
from isgseg.models.transform import fit_channels
from isgseg.models.tta import SYMMETRIES, Symmetry

GREY, SPREAD = 0.5, 0.25  # about the mean and the standard deviation of images in [0, 1]
RARE = -2.0  # logit of granule pixels before training: they are few


class UNet(nn.Module):
    """Ronneberger et al. 2015, with padding, batch norm, and upsampling without weights.

    Args:
        channels: of images.
        widths: channels at full resolution, at half, and so on.

    Attributes:
        symmetries: how `predict` looks at an image.
        zoom: along y and x, by how much `predict` enlarges images, so that objects of other pixels
            than those of the training data have the size that the network knows.
    """

    symmetries: tuple[Symmetry, ...] = SYMMETRIES[:1]
    zoom: tuple[float, float] = (1.0, 1.0)

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.widths = channels, tuple(widths)
        into = (channels, *widths[:-1])
        self.down = nn.ModuleList(_block(*pair) for pair in zip(into, widths, strict=True))
        pairs = pairwise(widths)
        self.up = nn.ModuleList(UpBlock(fine, coarse) for fine, coarse in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)
        nn.init.constant_(self.head.bias, RARE)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)

    @property
    def unit(self) -> int:
        """Pixels by which an image may be moved without moving the coarsest grid."""
        unit: int = 2 ** (len(self.widths) - 1)
        return unit

    @property
    def receptive_field(self) -> int:
        """How far from a pixel others bear on it, at most, in network pixels."""
        # Two 3 x 3 convolutions on each level, down and up, and the pixels that are pooled.
        levels = range(len(self.widths))
        down = sum(2 * 2**level for level in levels)
        up = sum(2 * 2**level for level in levels[:-1])
        return int(down + up + 2 * self.unit)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, 2, H, W) logits of foreground and of centre."""
        height, width = images.shape[-2:]
        missing = -width % self.unit, -height % self.unit
        padded = F.pad(images, (0, missing[0], 0, missing[1]), mode="replicate")
        values = ((padded - GREY) / SPREAD).contiguous(memory_format=torch.channels_last)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            values = block(F.max_pool2d(values, 2) if level else values)
            kept.append(values)
        for block, finer in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            values = block(finer, values)
        # Losses and sigmoids in half precision lose small probabilities.
        logits: Tensor = self.head(values).float()
        return logits[..., :height, :width]

    def predict(self, images: list[Tensor]) -> list[Tensor]:
        """Foreground and centre, (2, H, W) in [0, 1], of images, (C, H, W) in [0, 1].

        Images of one shape are computed together.

        Raises:
            InputError: other channels than the network takes.
        """
        images = [fit_channels(image, self.channels) for image in images]
        if len({image.shape for image in images}) == 1:
            return list(self._predict(torch.stack(images)))
        return [self._predict(image[None])[0] for image in images]

    def _predict(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2, H, W), the mean over the symmetries."""
        shape = images.shape[-2:]
        if self.zoom != (1.0, 1.0):
            sides = [max(1, round(side * by)) for side, by in zip(shape, self.zoom, strict=True)]
            images = F.interpolate(images, sides, mode="bilinear")
        total = torch.zeros(())
        for number, symmetry in enumerate(self.symmetries):
            seen = images.flip(1) if symmetry.reverse else images
            maps = symmetry.inverse.turn(self(symmetry.turn(seen)).sigmoid())
            total = maps + total if number else maps
        mean = total / len(self.symmetries)
        if self.zoom != (1.0, 1.0):
            mean = F.interpolate(mean, shape, mode="bilinear")
        return mean


def build_unet(**network: Any) -> UNet:
    """Builds the network with random weights.

    Args:
        **network: of `UNetSettings`, which describes each.

    Raises:
        InputError: an unknown setting, or one that is out of range.
    """
    settings = check(UNetSettings, network, "model.network")
    return UNet(settings.channels, settings.widths)


class UpConv2d(nn.Conv2d):
    """A 3 x 3 convolution of features beside others of half their resolution.

    The same as of both in one array, the coarse ones enlarged twice by their nearest neighbours.
    But the nine large pixels under the kernel are four coarse ones, so that a transposed
    convolution makes the same of them in 4/9 of the operations, and nothing large is in memory.

    Args:
        fine: channels.
        coarse: channels.
        width: channels of the result.
    """

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__(fine + coarse, width, 3, padding=1, bias=False)
        self.fine = fine

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:  # type: ignore[override]
        """(B, fine, H, W) and (B, coarse, H / 2, W / 2) to (B, width, H, W)."""
        own, other = self.weight[:, : self.fine], self.weight[:, self.fine :]
        # Each of 4 x 4 is the sum of those of 3 x 3 that look at the same coarse pixel.
        kernel = 4 * F.avg_pool2d(other.flip(2, 3), 2, stride=1, padding=1)
        enlarged = F.conv_transpose2d(coarser, kernel.transpose(0, 1), stride=2, padding=1)
        return F.conv2d(finer, own, self.bias, padding=1) + enlarged


class UpBlock(nn.Sequential):
    """As `_block`, of features and of coarser ones, to as many channels as the first have."""

    def __init__(self, fine: int, coarse: int) -> None:
        super().__init__(*_layers(UpConv2d(fine, coarse, fine)))

    def forward(self, finer: Tensor, coarser: Tensor) -> Tensor:  # type: ignore[override]
        """See `UpConv2d`."""
        first, *rest = self
        values: Tensor = first(finer, coarser)
        for layer in rest:
            values = layer(values)
        return values


def _block(channels: int, width: int) -> nn.Sequential:
    """Two convolutions, each with batch norm and ReLU."""
    return nn.Sequential(*_layers(nn.Conv2d(channels, width, 3, padding=1, bias=False)))


def _layers(first: nn.Conv2d) -> list[nn.Module]:
    """A convolution and another of its width, each with batch norm and ReLU."""
    width = first.out_channels
    layers: list[nn.Module] = []
    for convolution in (first, nn.Conv2d(width, width, 3, padding=1, bias=False)):
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return layers
