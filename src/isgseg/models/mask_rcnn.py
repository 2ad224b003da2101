"""torchvision's Mask R-CNN, built from plain numbers so that a checkpoint can rebuild it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from isgseg.errors import check
from isgseg.models.roi_align import MarginRoIAlign
from isgseg.models.rpn import DenseAnchors, ScaledRegionProposalNetwork
from isgseg.models.settings import NetworkSettings, has_pooled_level
from isgseg.models.transform import Transform
from isgseg.models.tta import AugmentedMaskRCNN

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


def build_mask_rcnn(**network: Any) -> AugmentedMaskRCNN:
    """Builds the network with random weights. It downloads nothing.

    Detections keep their masks as small arrays of mask probabilities, which
    `isgseg.models.masks.paste` draws. Each is a dict of `boxes` (N, 4), `labels` (N,), `scores`
    (N,), `masks` (N, 1, M, M) and `mask_boxes` (N, 4), where on the image these arrays lie; boxes
    are xyxy in image pixels.

    Args:
        **network: of `NetworkSettings`, which describes each.

    Raises:
        InputError: an unknown setting, or one that is out of range.
    """
    s = check(NetworkSettings, network, "model.network")
    scale = s.scale or 1
    pooled = has_pooled_level(s.stages, s.anchor_sizes)
    sizes = tuple(tuple(size * scale for size in level) for level in s.anchor_sizes)
    anchors = DenseAnchors(sizes, (tuple(s.anchor_ratios),) * len(sizes), s.anchor_density)
    levels = [str(i) for i in range(len(s.stages))]
    # One sample a bin is enough: the bins of small objects are finer than the pyramid as it is.
    pool = partial(MarginRoIAlign, levels, sampling_ratio=2 if s.scale is None else 1)
    margin = s.mask_margin * scale
    model = AugmentedMaskRCNN(
        _pyramid(s, pooled),
        rpn_anchor_generator=anchors,
        box_roi_pool=pool(output_size=7),
        box_head=TwoMLPHead(s.fpn_channels * 7**2, s.box_width),
        box_predictor=FastRCNNPredictor(s.box_width, s.num_classes),
        box_batch_size_per_image=s.rois,
        box_fg_iou_thresh=s.roi_iou,
        box_bg_iou_thresh=s.roi_iou,
        box_detections_per_img=s.detections,
        box_nms_thresh=s.nms_iou,
        box_score_thresh=s.score_threshold,
        mask_roi_pool=pool(output_size=14, margin=margin),
        mask_head=MaskRCNNHeads(s.fpn_channels, [s.mask_width] * s.mask_depth, 1),
        mask_predictor=MaskRCNNPredictor(s.mask_width, s.mask_width, s.num_classes),
    )
    model.transform = Transform(s.scale, margin, s.channels)
    area = None if s.scale is None else round(PATCH * s.scale) ** 2
    model.rpn = ScaledRegionProposalNetwork(anchors, s.fpn_channels, s.rpn_iou, s.proposals, area)
    for head in (model.rpn.head, model.roi_heads.box_predictor, model.roi_heads.mask_predictor):
        head.register_forward_hook(_to_float32)
    model.to(memory_format=torch.channels_last)
    return model


def _pyramid(settings: NetworkSettings, pooled: bool) -> BackboneWithFPN:
    """The ResNet up to its last stage in use, with the feature pyramid on it."""
    stages, channels = settings.stages, settings.channels
    body = BACKBONES[settings.backbone](norm_layer=NORMS[settings.norm])
    if channels != body.conv1.in_channels:
        body.conv1 = nn.Conv2d(channels, body.conv1.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    widths = [body.inplanes // 2 ** (4 - stage) for stage in stages]
    layers = {f"layer{stage}": str(level) for level, stage in enumerate(stages)}
    extra = None if pooled else _NoExtraLevel()  # torchvision adds a pooled level for None
    return BackboneWithFPN(body, layers, widths, settings.fpn_channels, extra)


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
