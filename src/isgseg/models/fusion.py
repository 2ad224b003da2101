"""What prediction may know of a trained network: a faster equal, and how far it looks."""

from __future__ import annotations

import copy
from fractions import Fraction
from itertools import pairwise
from math import gcd
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FrozenBatchNorm2d

from isgseg.models.roi_align import STRIDE

Network = TypeVar("Network", bound=nn.Module)
NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)  # those that are fixed once trained
STATISTICS = ("running_mean", "running_var", "eps", "weight", "bias")


def share_weights(network: Network) -> Network:
    """A copy in evaluation mode that shares the weights, but whose settings are its own."""
    shared = {id(parameter): parameter for parameter in network.parameters()}
    return copy.deepcopy(network, shared).eval()


def fuse_mask_rcnn(network: MaskRCNN) -> MaskRCNN:
    """See `fuse_batch_norm`; the stem's pooling is `StemPool`."""
    network = fuse_batch_norm(network)
    body = network.backbone.body
    body.relu, body.maxpool = nn.Identity(), StemPool(3, stride=2, padding=1)
    return network


def fuse_batch_norm(network: Network) -> Network:
    """A copy for prediction, whose convolutions do the work of the norm layers behind them too.

    A trained norm layer is a factor and an offset for each channel, so that only the last digits
    differ. The other weights are shared with the original.
    """
    network = share_weights(network)
    for parent in list(network.modules()):
        for (_, conv), (place, norm) in pairwise(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, NORMS):
                known = [getattr(norm, name) for name in STATISTICS]
                conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, *known)
                setattr(parent, place, nn.Identity())
    return network


class StemPool(nn.MaxPool2d):
    """ReLU and a ResNet's pooling, faster on a CPU.

    The largest value is the same whether ReLU comes before or after, when a quarter of the pixels
    is left; and whole rows are compared at once.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W), of even sides as padded images have, to (N, C, H / 2, W / 2)."""
        return _halve(_halve(input, 2), 3).relu_()


def _halve(values: Tensor, axis: int) -> Tensor:
    """The largest of every second value and its two neighbours."""
    rows = values.transpose(2, axis)
    even, odd = rows[:, :, ::2], rows[:, :, 1::2]
    largest = torch.maximum(even, odd)
    later = largest[:, :, 1:]
    torch.maximum(later, odd[:, :, :-1], out=later)
    return largest.transpose(2, axis)


def receptive_field(network: MaskRCNN) -> int:
    """How far from an object's centre pixels bear on it, at most, in network pixels.

    The receptive field of the backbone (Araujo et al., Distill 2019), one step of its coarsest grid
    each for the pyramid's upsampling and convolution, the proposals' convolution and the cutting
    out of regions, and half the largest anchor.
    """
    radius, step = 0.0, 1
    for name, layer in network.backbone.body.named_modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            kernel, stride = (
                value[0] if isinstance(value, tuple) else value
                for value in (layer.kernel_size, layer.stride)
            )
            radius += (kernel - 1) / 2 * step
            step *= stride
    largest: float = max(max(level) for level in network.rpn.anchor_generator.sizes)
    return round(radius + 4 * step + largest / 2)


def grid_unit(network: MaskRCNN) -> tuple[int, int] | None:
    """Image pixels, along y and x, by which a window may be moved without moving the grid.

    None where no part of an image can stand for the whole: the image's size decides the scale or
    the place of the anchors, or norm layers depend on the whole image.
    """
    scales = network.transform.scales
    levels = len(network.rpn.anchor_generator.sizes)
    pooled = levels > len(network.backbone.fpn.layer_blocks)
    if scales is None or pooled or any(isinstance(m, nn.GroupNorm) for m in network.modules()):
        return None
    y, x = (whole_strides(scale, STRIDE) for scale in scales)
    return y, x


def whole_strides(scale: float, stride: int) -> int:
    """The fewest whole image pixels that are whole strides of a network.

    Args:
        scale: network pixels per image pixel.
        stride: network pixels.
    """
    pixel = Fraction(scale).limit_denominator(1000)
    whole = stride * pixel.denominator
    return whole // gcd(whole, pixel.numerator)
