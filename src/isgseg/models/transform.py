"""From images to the network's pixels and back: a fixed scale, and masks left as small arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from isgseg.errors import InputError
from isgseg.models.roi_align import STRIDE, widen


class Transform(GeneralizedRCNNTransform):
    """torchvision's transform with a fixed scale, and with masks left as small arrays.

    Args:
        scale: network pixels per image pixel; None resizes by the image's shape to 800 pixels.
        margin: network pixels around boxes that masks cover.
        channels: of images.

    Attributes:
        zoom: along y and x, by how much more images are enlarged, so that objects of other pixels
            than those of the training data have the size that the network knows. Not used where
            scale is None.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, scale: float | None, margin: float = 0.0, channels: int = 3) -> None:
        # ImageNet's mean and standard deviation, which torchvision's weights expect.
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        if channels != len(mean):
            mean, deviation = [mean[1]] * channels, [deviation[1]] * channels
        super().__init__(800, 1333, mean, deviation)
        # On the device, or each image would send them there and wait until it has them.
        shape = (channels, 1, 1)
        self.register_buffer("mean", torch.tensor(mean).view(shape), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(shape), persistent=False)
        self.scale, self.margin = scale, margin
        self.zoom = (1.0, 1.0)

    @property
    def scales(self) -> tuple[float, float] | None:
        """Network pixels per image pixel along y and x; None where the image's shape decides."""
        if self.scale is None:
            return None
        return self.scale * self.zoom[0], self.scale * self.zoom[1]

    def normalize(self, image: Tensor) -> Tensor:
        """As torchvision's, of float32; one channel is repeated.

        Raises:
            InputError: other channels than the network takes.
        """
        return (fit_channels(image, len(self.mean)) - self.mean) / self.deviation

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """One image (C, H, W) and its target to network pixels."""
        scales = self.scales
        if scales is None:
            return super().resize(image, target)  # type: ignore[no-any-return]
        before = image.shape[-2:]
        after = [round(side * scale) for side, scale in zip(before, scales, strict=True)]
        image = nn.functional.interpolate(image[None], after, mode="bilinear")[0]
        if target is not None:
            masks = target["masks"][:, None]
            if len(masks):  # torch cannot resize a stack of none
                masks = nn.functional.interpolate(masks, after)
            boxes = scale_boxes(target["boxes"], before, after)
            target = {**target, "boxes": boxes, "masks": masks[:, 0]}
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = STRIDE) -> Tensor:
        """Images padded into one batch, in the memory order that convolutions are fastest in."""
        batch: Tensor = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=torch.channels_last)

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Detections back to image pixels.

        Pasting is left to the consumer: 300 whole-slice masks take longer than the backbone.
        """
        if self.training:
            return result
        for found, network, image in zip(result, image_shapes, original_image_sizes, strict=True):
            # roi_align, which cuts the mask targets, takes a pixel's index for its centre: what the
            # mask head has learnt lies half a network pixel before the box.
            wide = widen(found["boxes"], self.margin)
            found["mask_boxes"] = scale_boxes(wide + 0.5, network, image)
            found["boxes"] = scale_boxes(found["boxes"], network, image)
        return result


def scale_boxes(boxes: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
    """Boxes, (N, 4) xyxy, of an image that is resized from one (H, W) to another.

    As torchvision's `resize_boxes`, but nothing is sent to the device.
    """
    y, x = (new / old for new, old in zip(after, before, strict=True))
    x0, y0, x1, y1 = boxes.unbind(1)
    return torch.stack([x0 * x, y0 * y, x1 * x, y1 * y], dim=1)


def fit_channels(image: Tensor, wanted: int) -> Tensor:
    """An image of the channels that a network takes: a grey one stands for all.

    Args:
        image: (C, H, W).
        wanted: channels.

    Raises:
        InputError: the image has others.
    """
    if len(image) not in (1, wanted):
        raise InputError(
            f"images of {len(image)} channels, but the network takes {wanted}, or a grey one "
            "for all; give it a dataset, or a checkpoint, of the same patches.z_context"
        )
    return image.expand(wanted, -1, -1)
