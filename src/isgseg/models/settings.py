"""What networks are built from: the one list of their settings, with ranges and defaults.

`conf/model/` shows the same keys to people, the network of a checkpoint holds them, and
`build_mask_rcnn` and `build_unet` take them. Torch is not imported here, so that a configuration is
checked before anything slow happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from isgseg.data.normalization import Normalization

Share = Annotated[float, Field(ge=0, le=1)]
Length = Annotated[float, Field(gt=0, le=10_000)]
METHODS = ("mask_rcnn", "unet")  # what a checkpoint calls them, and the names of its files
Size = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]


class NetworkSettings(BaseModel):
    """How the network is built. The defaults are those of `conf/model/resnet50.yaml`.

    The upper ends of the ranges are far beyond what is of use. They keep a checkpoint of a stranger
    from asking for more memory than there is.

    Attributes:
        channels: of images: colours, or neighbouring slices. One grey channel stands for all.
        backbone: a torchvision ResNet; `resnet10` has one basic block in each stage.
        stages: the ResNet stages whose features feed the pyramid, ascending; later ones are not
            built.
        fpn_channels: width of the pyramid.
        norm: norm layers of the backbone: `batch`, `group` or `frozen` (batch norm that is fixed).
        num_classes: classes with the background.
        scale: network pixels per image pixel, fixed; None: torchvision's resizing to 800 pixels.
        anchor_sizes: for each pyramid level, sides of the anchors in image pixels (in network
            pixels where scale is None); one level more than stages adds torchvision's pooled level.
        anchor_ratios: height over width of the anchors.
        anchor_density: of each anchor, how many stand along each axis between two places of the
            pyramid, evenly spread; see `isgseg.models.rpn.DenseAnchors`.
        rpn_iou: anchors below the first are background, those above the second are objects.
        proposals: regions that reach the second stage, of an image of up to 256 x 256 pixels, and
            in proportion of larger ones; where scale is None, of any image.
        rois: of those, how many it learns from per image.
        roi_iou: those that overlap an object less are background.
        box_width: width of the box head's two layers.
        mask_width: channels of the mask head.
        mask_depth: convolutions of the mask head.
        mask_margin: image pixels (network pixels where scale is None) around a box in which the
            mask head looks for its object too.
        detections: most objects per image.
        nms_iou: of two detections that overlap more, the weaker goes.
        score_threshold: weaker detections go.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channels: int = Field(default=3, ge=1, le=99)
    backbone: Literal["resnet10", "resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    stages: list[Annotated[int, Field(ge=1, le=4)]] = Field(default=[1, 2, 3], min_length=1)
    fpn_channels: int = Field(default=128, ge=1, le=4096)
    norm: Literal["batch", "group", "frozen"] = "batch"
    num_classes: int = Field(default=2, ge=2, le=10_000)
    scale: Annotated[float, Field(gt=0, le=32)] | None = 2.0
    anchor_sizes: list[Annotated[list[Length], Field(min_length=1, max_length=64)]] = Field(
        default=[[2, 4, 6], [8, 11, 15], [20, 28, 40]], min_length=1
    )
    anchor_ratios: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        default=[1.0], min_length=1, max_length=64
    )
    anchor_density: int = Field(default=2, ge=1, le=16)
    rpn_iou: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.3, 0.7]
    proposals: int = Field(default=500, ge=1, le=100_000)
    rois: int = Field(default=256, ge=1, le=100_000)
    roi_iou: Share = 0.4
    box_width: int = Field(default=512, ge=1, le=65_536)
    mask_width: int = Field(default=256, ge=1, le=4096)
    mask_depth: int = Field(default=4, ge=1, le=64)
    mask_margin: float = Field(default=0.0, ge=0, le=1000)
    detections: int = Field(default=300, ge=1, le=100_000)
    nms_iou: Share = 0.4
    score_threshold: Share = 0.05

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuses levels that do not fit the anchors.

        Raises:
            ValueError: stages or `rpn_iou` do not rise, or anchors and stages do not fit.
        """
        if sorted(set(self.stages)) != self.stages:
            raise ValueError(f"stages={self.stages} must rise, such as [1, 2, 3]")
        if self.rpn_iou[0] > self.rpn_iou[1]:
            raise ValueError(f"rpn_iou={self.rpn_iou} must rise, such as [0.3, 0.7]")
        has_pooled_level(self.stages, self.anchor_sizes)
        counts = [len(level) for level in self.anchor_sizes]
        if len(set(counts)) > 1:
            raise ValueError(
                f"anchor_sizes has {counts} sizes on its levels; all levels share one head and "
                "need the same number"
            )
        return self


class UNetSettings(BaseModel):
    """How a U-Net is built. The defaults are those of `conf/model/unet.yaml`.

    Attributes:
        channels: of images: neighbouring slices. One grey channel stands for all.
        widths: channels at full resolution, at half, at a quarter, and so on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    channels: int = Field(default=1, ge=1, le=99)
    widths: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        default=[24, 48, 96], min_length=2, max_length=6
    )


# torchvision's maskrcnn_resnet50_fpn, as `conf/model/torchvision.yaml` has it; its published
# weights hold frozen norm layers.
TORCHVISION: dict[str, Any] = {
    "backbone": "resnet50",
    "stages": [1, 2, 3, 4],
    "fpn_channels": 256,
    "norm": "frozen",
    "scale": None,
    "anchor_sizes": [[32], [64], [128], [256], [512]],
    "anchor_ratios": [0.5, 1.0, 2.0],
    "anchor_density": 1,
    "proposals": 1000,
    "rois": 512,
    "roi_iou": 0.5,
    "box_width": 1024,
    "detections": 100,
    "nms_iou": 0.5,
}


def has_pooled_level(stages: Sequence[int], anchor_sizes: Sequence[Sequence[float]]) -> bool:
    """Whether torchvision's pooled level is used: there is one list of anchors more than stages.

    Raises:
        ValueError: there are neither as many lists as stages nor one more.
    """
    if len(anchor_sizes) - len(stages) not in (0, 1):
        raise ValueError(
            f"anchor_sizes has {len(anchor_sizes)} levels for {len(stages)} stages; give one list "
            "for each stage, and at most one more"
        )
    return len(anchor_sizes) > len(stages)


class Thresholds(NamedTuple):
    """What prediction asks of detections and granules; a checkpoint holds those that were tuned.

    Attributes:
        score: of a detection.
        mask: probability of a pixel that belongs to it.
        object: the best score of the detections that were linked to one granule. A false positive
            that spans many slices easily has one high-scoring detection, so that it is above
            `score`.
    """

    score: Share
    mask: Share
    object: Share


class SavedThresholds(BaseModel):
    """`Thresholds` as a checkpoint holds them: see there."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    score: Share
    mask: Share
    object: Share

    def as_tuple(self) -> Thresholds:
        """The same, as prediction takes them."""
        return Thresholds(self.score, self.mask, self.object)


class TrainingMetadata(BaseModel):
    """What prediction has to know of the data that a network was trained on.

    Attributes:
        normalization: from voxels to the 8-bit values that the network sees; None: it was trained
            on 8-bit images as they are.
        voxel_size: nm, (z, y, x); None where it was not known.
        z_context: slices on either side of a slice that an image shows too.
        classes: names of the classes, numbered from 1; None where they are not known.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    normalization: Normalization | None = None
    voxel_size: Size | None = None
    z_context: int = Field(default=0, ge=0, le=49)
    classes: list[str] | None = None
