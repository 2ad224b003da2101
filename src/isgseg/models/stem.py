"""A ResNet's first convolution of an image that is enlarged twice, without enlarging it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList

from isgseg.models.roi_align import padded
from isgseg.models.transform import Transform, fit_channels

GREY = 124  # of 255, near the mean: pixels less this are small whole numbers, exact in bf16
EDGE = 4  # image pixels that decide the two outermost of what the convolution makes


def fuse_stem(network: MaskRCNN) -> None:
    """Puts `StemTransform` in the place of transform and first convolution, where they fit it.

    Args:
        network: changed in place; its norm layers are in its convolutions already.
    """
    transform, conv = network.transform, network.backbone.body.conv1
    shape = (conv.kernel_size, conv.stride, conv.padding)
    if transform.scales == (2, 2) and shape == ((7, 7), (2, 2), (3, 3)):
        network.transform = StemTransform(transform, conv)
        network.backbone.body.conv1 = nn.Identity()


class StemTransform(Transform):
    """Enlarges twice, normalizes and does the first convolution, all in one convolution.

    The three are linear, so that they are one: 7 x 7 pixels of the enlarged image, of which every
    second is a centre, are 5 x 5 pixels of the image itself. That is half of the operations, and
    the large image is never in memory. The edges of an image, beyond which the enlargement repeats
    the last pixel and the convolution sees zeros, are done in the three steps.

    Args:
        transform: that enlarges twice along both axes.
        conv: the first convolution, 7 x 7 with a stride of 2.
    """

    def __init__(self, transform: Transform, conv: nn.Conv2d) -> None:
        channels = conv.in_channels
        super().__init__(transform.scale, transform.margin, channels)
        self.train(transform.training)
        self.zoom, self.conv, weight = transform.zoom, conv, conv.weight.detach()
        self.mean, self.deviation = transform.mean, transform.deviation
        # Of five pixels in a row, the seven that lie between the outermost of ten.
        enlarged = F.interpolate(torch.eye(5)[None], scale_factor=2, mode="linear")[0, :, 1:8]
        enlarged = enlarged.to(weight)
        weight = weight / self.deviation
        self.weight = torch.einsum("ocyx,ry,sx->ocrs", weight / 255, enlarged, enlarged)
        self.weight = self.weight.contiguous(memory_format=torch.channels_last)
        bias = (weight.sum((2, 3)) * (GREY / 255 - self.mean.flatten())).sum(1)
        self.bias = bias if conv.bias is None else bias + conv.bias.detach()

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, None]:
        """Images of one shape, (C, H, W), to (N, O, H', W') of the first convolution.

        H' and W' are those of images that are padded as `Transform` pads them. The sizes in the
        result are in network pixels, as of `Transform`.
        """
        batch = torch.stack([fit_channels(image, self.conv.in_channels) for image in images])
        height, width = batch.shape[-2:]
        sizes = [(2 * height, 2 * width)] * len(batch)
        rows, columns = (side // 2 for side in padded(sizes))
        pixels = F.pad(255 * batch - GREY, (0, columns - width, 0, rows - height))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        features = F.conv2d(pixels, self.weight, self.bias, padding=2)
        for axis, side in ((2, height), (3, width)):
            start, first, total = max(side - EDGE, 0), max(side - 2, 0), features.shape[axis]
            low = self._in_steps(batch.narrow(axis, 0, min(EDGE, side)), features.shape, axis, 2)
            features.narrow(axis, 0, 2).copy_(low)
            high = batch.narrow(axis, start, side - start)
            high = self._in_steps(high, features.shape, axis, total - start)
            kept = total - first
            features.narrow(axis, first, kept).copy_(high.narrow(axis, first - start, kept))
        return ImageList(features, sizes), None

    def _in_steps(self, part: Tensor, shape: torch.Size, axis: int, count: int) -> Tensor:
        """Of a part of the images, along one axis, what the three steps make one by one.

        Args:
            part: (N, C, H, W).
            shape: of the features of whole images.
            axis: along which it is a part.
            count: of lines of features along the axis.
        """
        large = F.interpolate((part - self.mean) / self.deviation, scale_factor=2, mode="bilinear")
        wanted = list(shape)
        wanted[axis] = max(count, part.shape[axis])
        beyond = [2 * wanted[3] - large.shape[3], 2 * wanted[2] - large.shape[2]]
        large = F.pad(large, (0, beyond[0], 0, beyond[1]))
        features: Tensor = self.conv(large.contiguous(memory_format=torch.channels_last))
        return features.narrow(axis, 0, count)
