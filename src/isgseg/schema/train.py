"""The configuration of `isgseg-train`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.settings import SplitSettings
from isgseg.models.settings import NetworkSettings, UNetSettings
from isgseg.schema.fields import (
    Command,
    Count,
    CountFrom0,
    Part,
    Section,
    Seed,
    Share,
    Text,
    Tta,
    Workers,
    only_for,
    section_of,
)
from isgseg.schema.messages import CHOSEN
from isgseg.schema.trainer import Trainer
from isgseg.training.settings import TrainingSettings

Segmentation = section_of(
    SegmentationSettings, "Segmentation", maps=(section_of(SplitSettings, "Maps"), ...)
)
Network = section_of(NetworkSettings, "Network")
UNetwork = section_of(UNetSettings, "UNetwork")


UNET = "isgseg.training.unet_module.UNetModule"


def _method(model: Any) -> str:
    """Which of the modules a model is, by its class."""
    unet = isinstance(model, Mapping) and model.get("_target_") == UNET
    return f"{CHOSEN}{'unet' if unet else 'mask_rcnn'}"


def _rising_pair(value: list[float]) -> list[float]:
    if value[0] > value[1]:
        raise ValueError("must be [low, high], the smaller number first")
    return value


Factor = Annotated[float, Field(ge=0.1, le=10)]
Range = Annotated[list[Factor], Field(min_length=2, max_length=2), AfterValidator(_rising_pair)]


class Augment(Section):
    """`data.augment`, of `conf/data/coco.yaml`."""

    crop: Count | None
    crop_on_object: Share
    drop_z_context: Share
    flip: bool
    scale: Range
    intensity: Range
    noise: Share
    blur: Annotated[float, Field(ge=0, le=100)]


class Coco(Section):
    """`conf/data/coco.yaml`."""

    target: str = Field(alias="_target_")
    convert: str = Field("all", alias="_convert_")
    root: Text
    batch_size: Count
    num_workers: Workers
    seed: Seed
    augment: Augment


_MODEL: dict[str, tuple[Any, Any]] = {
    "target": (str, Field(alias="_target_")),
    "convert": (str, Field("all", alias="_convert_")),
    "weights": (Text | None, ...),
    # 0 is of checkpoints that were made to test something
    "lr": (Annotated[float, Field(gt=0, le=10)], ...),
    "tta": (Tta, ...),
}
MaskRCNN = section_of(
    TrainingSettings,
    "MaskRCNN",
    **_MODEL,
    method=(Literal["mask_rcnn"], "mask_rcnn"),
    network=(Network | None, ...),
)
UNet = section_of(
    TrainingSettings,
    "UNet",
    **_MODEL,
    method=(Literal["unet"], ...),
    network=(UNetwork | None, ...),
)
Model = Annotated[
    Annotated[MaskRCNN, Tag(f"{CHOSEN}mask_rcnn")] | Annotated[UNet, Tag(f"{CHOSEN}unet")],  # type: ignore[valid-type]
    Discriminator(_method),
    only_for("isgseg.training.module.MaskRCNNModule", UNET),
]


class Checkpoint(Part):
    """`best`, `every_5_epochs` and `final` of `conf/callbacks/`."""

    dirpath: Text
    filename: Text
    monitor: Text | None
    mode: Literal["min", "max"]
    every_n_epochs: CountFrom0
    save_top_k: Annotated[int, Field(ge=-1)] = 1
    save_on_train_epoch_end: bool
    auto_insert_metric_name: bool
    enable_version_counter: bool


class EarlyStopping(Part):
    """Ends a training that no longer improves."""

    monitor: Text
    mode: Literal["min", "max"]
    patience: CountFrom0
    check_on_train_epoch_end: bool


class LearningRate(Part):
    """Logs the learning rate."""

    logging_interval: Literal["step", "epoch"] | None


class Images(Part):
    """Draws validation patches."""

    count: CountFrom0
    threshold: Share


class VolumeScore(Part):
    """Tunes granules on whole volumes."""

    model_config = ConfigDict(extra="forbid")

    convert: str = Field("all", alias="_convert_")
    volume: Text | None
    labels: Text | None
    slices: Count | None
    threshold: Share | None
    segmentation: Segmentation  # type: ignore[valid-type]


class Callbacks(Section):
    """`conf/callbacks/`; each can be taken out, and others be added."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Part | None]

    best: Checkpoint | None = None
    every_5_epochs: Checkpoint | None = None
    final: Checkpoint | None = None
    early_stopping: EarlyStopping | None = None
    learning_rate: LearningRate | None = None
    images: Images | None = None
    volume_score: VolumeScore | None = None

    @model_validator(mode="after")
    def _different_files(self) -> Self:
        there = [part for part in (self.best, self.every_5_epochs, self.final) if part]
        files = Counter((part.dirpath, part.filename) for part in there)
        for (_, name), count in files.items():
            if count > 1:
                raise ValueError(
                    f"{count} checkpoints have filename={name}; one would replace the other: name "
                    "each differently"
                )
        return self


class Train(Command):
    """`conf/train.yaml`."""

    seed: Seed
    install: bool
    overwrite: bool
    ckpt_path: Text | None
    optimized_metric: Text
    optimized_mode: Literal["min", "max"]
    data: Annotated[Coco, only_for("isgseg.data.datamodule.CocoDataModule")]
    model: Model
    trainer: Trainer
    callbacks: Callbacks | None = None
    logger: dict[str, Part] | Annotated[list[Any], Field(max_length=0)] | None = None
