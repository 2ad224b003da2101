"""torchvision's Mask R-CNN, built from plain numbers so that a checkpoint can rebuild it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from isgseg.model.proposals import DenseAnchors, Proposals
from isgseg.model.regions import STRIDE, RegionAlign, widen
from isgseg.model.views import ManyViews

BACKBONES: dict[str, Callable[..., resnet.ResNet]] = {
    "resnet10": partial(resnet.ResNet, resnet.BasicBlock, [1, 1, 1, 1]),
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
}
PATCH = 256  # pixels: the side of isgseg-prepare's patches, for which `proposals` is given
NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": partial(nn.GroupNorm, 32),
    "frozen": FrozenBatchNorm2d,
}


def build_mask_rcnn(
    *,
    channels: int = 3,
    backbone: str = "resnet50",
    stages: Sequence[int] = (1, 2, 3, 4),
    fpn_channels: int = 256,
    norm: str = "batch",
    num_classes: int = 2,
    scale: float | None = 2.0,
    anchor_sizes: Sequence[Sequence[float]] = (
        (3, 4.5, 6),
        (8, 11, 15),
        (20, 28, 40),
        (56, 80, 112),
    ),
    anchor_ratios: Sequence[float] = (1.0,),
    anchor_density: int = 1,
    rpn_iou: Sequence[float] = (0.3, 0.7),
    proposals: int = 1000,
    rois: int = 256,
    roi_iou: float = 0.5,
    box_width: int = 1024,
    mask_width: int = 256,
    mask_depth: int = 4,
    mask_margin: float = 0.0,
    detections: int = 300,
    nms_iou: float = 0.5,
    score_threshold: float = 0.05,
) -> ManyViews:
    """Builds the network with random weights. It downloads nothing.

    Detections keep their masks as small probability grids; `isgseg.instances.slices.paste` draws
    them. Each is a dict of `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, 1, M, M) and
    `mask_boxes` (N, 4), where on the picture that grid lies; boxes are xyxy in picture pixels.

    Args:
        channels: of pictures: colours, or neighbouring slices. One grey channel stands for all.
        backbone: a torchvision ResNet; `resnet10` has one basic block in each stage.
        stages: the ResNet stages whose features feed the pyramid; later ones are not built.
        fpn_channels: width of the pyramid.
        norm: `batch`, `group` or `frozen`, in the backbone.
        num_classes: classes with the background.
        scale: network pixels per picture pixel, fixed; null: torchvision's resizing to 800 pixels.
        anchor_sizes: for each pyramid level, sides of the anchors in picture pixels (in network
            pixels where scale is null); one level more than stages adds torchvision's pooled level.
        anchor_ratios: height over width of the anchors.
        anchor_density: of each anchor, how many stand along each axis between two places of the
            pyramid, evenly spread; see `DenseAnchors`.
        rpn_iou: anchors below the first are background, those above the second are objects.
        proposals: regions that reach the second stage, of a picture of up to 256 x 256 pixels, and
            in proportion of larger ones; where scale is null, of any picture.
        rois: of those, how many it learns from per picture.
        roi_iou: those that overlap an object less are background.
        box_width: width of the box head's two layers.
        mask_width: channels of the mask head.
        mask_depth: convolutions of the mask head.
        mask_margin: picture pixels (network pixels where scale is null) around a box in which the
            mask head looks for its object too.
        detections: most objects per picture.
        nms_iou: of two detections that overlap more, the weaker goes.
        score_threshold: weaker detections go.

    Raises:
        ValueError: an unknown backbone or norm, or levels that do not fit the anchors.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"network.backbone is '{backbone}'; choose one of {', '.join(BACKBONES)}")
    if norm not in NORMS:
        raise ValueError(f"network.norm is '{norm}'; choose one of {', '.join(NORMS)}")
    pooled = has_pooled_level(stages, anchor_sizes)
    counts = [len(level) for level in anchor_sizes]
    if len(set(counts)) > 1:
        raise ValueError(
            f"network.anchor_sizes has {counts} sizes on its levels; all levels share one head and "
            "need the same number"
        )
    sizes = tuple(tuple(size * (scale or 1) for size in level) for level in anchor_sizes)
    anchors = DenseAnchors(sizes, (tuple(anchor_ratios),) * len(sizes), anchor_density)
    levels = [str(i) for i in range(len(stages))]
    # One sample a bin is enough: the bins of small objects are finer than the pyramid as it is.
    pool = partial(RegionAlign, levels, sampling_ratio=2 if scale is None else 1)
    margin = mask_margin * (scale or 1)
    model = ManyViews(
        _pyramid(backbone, channels, list(stages), fpn_channels, NORMS[norm], pooled),
        rpn_anchor_generator=anchors,
        box_roi_pool=pool(output_size=7),
        box_head=TwoMLPHead(fpn_channels * 7**2, box_width),
        box_predictor=FastRCNNPredictor(box_width, num_classes),
        box_batch_size_per_image=rois,
        box_fg_iou_thresh=roi_iou,
        box_bg_iou_thresh=roi_iou,
        box_detections_per_img=detections,
        box_nms_thresh=nms_iou,
        box_score_thresh=score_threshold,
        mask_roi_pool=pool(output_size=14, margin=margin),
        mask_head=MaskRCNNHeads(fpn_channels, [mask_width] * mask_depth, 1),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, num_classes),
    )
    model.transform = Transform(scale, margin, channels)
    area = None if scale is None else round(PATCH * scale) ** 2
    model.rpn = Proposals(anchors, fpn_channels, rpn_iou, proposals, area)
    for head in (model.rpn.head, model.roi_heads.box_predictor, model.roi_heads.mask_predictor):
        head.register_forward_hook(_to_float32)
    model.to(memory_format=torch.channels_last)
    return model


def has_pooled_level(stages: Sequence[int], anchor_sizes: Sequence[Sequence[float]]) -> bool:
    """Whether torchvision's pooled level is used: there is one list of anchors more than stages.

    Raises:
        ValueError: there are neither as many lists as stages nor one more.
    """
    if len(anchor_sizes) - len(stages) not in (0, 1):
        raise ValueError(
            f"model.network.anchor_sizes has {len(anchor_sizes)} levels for {len(stages)} stages; "
            "give one list for each stage, and at most one more"
        )
    return len(anchor_sizes) > len(stages)


def _pyramid(
    backbone: str,
    channels: int,
    stages: list[int],
    width: int,
    norm: Callable[..., nn.Module],
    pooled: bool,
) -> BackboneWithFPN:
    """The ResNet up to its last stage in use, with the feature pyramid on it."""
    body = BACKBONES[backbone](norm_layer=norm)
    if channels != body.conv1.in_channels:
        body.conv1 = nn.Conv2d(channels, body.conv1.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    widths = [body.inplanes // 2 ** (4 - stage) for stage in stages]
    layers = {f"layer{stage}": str(level) for level, stage in enumerate(stages)}
    extra = None if pooled else _NoExtraLevel()  # torchvision adds a pooled level for None
    return BackboneWithFPN(body, layers, widths, width, extra)


class _NoExtraLevel(ExtraFPNBlock):
    """Leaves the pyramid as it is: a level for objects larger than any granule costs time."""

    def forward(
        self, results: list[Tensor], x: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        return results, names


def _to_float32(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Box arithmetic and losses in half precision overflow or lose a pixel: leave it here."""
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_to_float32(module, inputs, part) for part in output)


class Transform(GeneralizedRCNNTransform):
    """torchvision's transform with a fixed scale, and with masks left as small grids.

    Args:
        scale: network pixels per picture pixel; None resizes by the picture's shape to 800 pixels.
        margin: network pixels around boxes that masks reach.
        channels: of pictures.
    """

    def __init__(self, scale: float | None, margin: float = 0.0, channels: int = 3) -> None:
        # ImageNet's mean and standard deviation, which torchvision's weights expect.
        mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        if channels != len(mean):
            mean, deviation = [mean[1]] * channels, [deviation[1]] * channels
        super().__init__(800, 1333, mean, deviation)
        self.scale, self.margin = scale, margin

    def normalize(self, image: Tensor) -> Tensor:
        """As torchvision's; one channel is repeated.

        Raises:
            ValueError: other channels than the network takes.
        """
        wanted = len(self.image_mean)
        if len(image) not in (1, wanted):
            raise ValueError(
                f"pictures of {len(image)} channels, but the network takes {wanted}, or a grey one "
                "for all; give it a dataset, or a checkpoint, of the same patches.context"
            )
        return super().normalize(image.expand(wanted, -1, -1))  # type: ignore[no-any-return]

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """One picture (C, H, W) and its target to network pixels."""
        if self.scale is None:
            return super().resize(image, target)  # type: ignore[no-any-return]
        before = image.shape[-2:]
        after = [round(side * self.scale) for side in before]
        image = nn.functional.interpolate(image[None], after, mode="bilinear")[0]
        if target is not None:
            masks = target["masks"][:, None]
            if len(masks):  # torch cannot resize a stack of none
                masks = nn.functional.interpolate(masks, after)
            boxes = resize_boxes(target["boxes"], before, after)
            target = {**target, "boxes": boxes, "masks": masks[:, 0]}
        return image, target

    def batch_images(self, images: list[Tensor], size_divisible: int = STRIDE) -> Tensor:
        """Pictures padded into one batch, in the memory order that convolutions are fastest in."""
        batch: Tensor = super().batch_images(images, size_divisible)
        return batch.contiguous(memory_format=torch.channels_last)

    def postprocess(
        self,
        result: list[dict[str, Tensor]],
        image_shapes: list[tuple[int, int]],
        original_image_sizes: list[tuple[int, int]],
    ) -> list[dict[str, Tensor]]:
        """Detections back to picture pixels.

        Pasting is left to the consumer: 300 whole-slice masks take longer than the backbone.
        """
        if self.training:
            return result
        for found, network, picture in zip(result, image_shapes, original_image_sizes, strict=True):
            # roi_align, which cuts the mask targets, takes a pixel's index for its centre: what the
            # mask head has learnt lies half a network pixel before the box.
            wide = widen(found["boxes"], self.margin)
            found["mask_boxes"] = resize_boxes(wide + 0.5, network, picture)
            found["boxes"] = resize_boxes(found["boxes"], network, picture)
        return result
