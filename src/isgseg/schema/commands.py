"""The configuration of the commands that need no module of their own."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from isgseg.data.normalization import Method, Normalization
from isgseg.schema.fields import (
    Command,
    Count,
    Criterion,
    Device,
    Files,
    Instances,
    Precision,
    Rising,
    Section,
    Seed,
    Share,
    Split,
    Text,
    Tta,
    VoxelSize,
    Workers,
)
from isgseg.schema.train import Model, Segmentation


class DoctorData(Section):
    """Where `isgseg-doctor` finds the dataset."""

    root: Text


class Doctor(Command):
    """`conf/doctor.yaml`."""

    seed: Seed
    model: Model
    data: DoctorData
    output_dir: Text
    ring: Count
    iou: Annotated[float, Field(gt=0, lt=1)]
    coverage: Annotated[float, Field(gt=0, le=1)]
    scales: Annotated[list[Annotated[float, Field(gt=0, le=32)]], Field(min_length=1)]
    progress: bool


class Loading(Section):
    """How patches are read."""

    batch_size: Count
    num_workers: Workers


class TuneData(Loading):
    """The dataset whose validation split `isgseg-tune` uses."""

    root: Text


class ChosenNormalization(Section):
    """`normalization` of prediction, of which a null method is the checkpoint's."""

    method: Method | None = None
    low: float | None = None
    high: float | None = None
    power: Annotated[float, Field(gt=0, le=100)] = 1.0

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.method is not None:
            Normalization(**self.model_dump())
        elif self.low is not None or self.high is not None:
            raise ValueError("method=null is the checkpoint's; set method too, such as percentile")
        return self


class Run(Command):
    """What commands that run a network share."""

    device: Device | None
    precision: Precision
    progress: bool
    output_dir: Text
    tta: Tta | None
    segmentation: Segmentation  # type: ignore[valid-type]


class Tune(Run):
    """`conf/tune.yaml`."""

    ckpt_path: Text
    operating_point: Criterion
    data: TuneData
    volume: Text | None
    labels: Text | None
    slices: Count | None


class Predict(Run):
    """`conf/predict.yaml`."""

    ckpt_path: Text | None
    volumes: Files
    manifest: Text | None
    format: Literal["tif", "mrc", "zarr", "zarr-0.4"]
    into_zarr: bool
    overwrite: bool
    review: bool
    fast: bool
    threshold: Share | None
    normalization: ChosenNormalization | None
    voxel_size: VoxelSize | None = None


class Diameters(Section):
    """Edges of the bins of `data.diameters`."""

    nm: Rising | None
    pixels: Rising | None


class EvaluateData(Loading):
    """The split that `isgseg-evaluate` scores."""

    root: Text | None
    split: Literal["train", "val"]
    diameters: Diameters


class Evaluate(Run):
    """`conf/evaluate.yaml`."""

    ckpt_path: Text | None
    data: EvaluateData
    volumes: Files | None
    labels: Files | None
    predicted: Files | None
    instances: Instances
    split: Split  # type: ignore[valid-type]
    diameters: Rising
    threshold: Share | None
    normalization: ChosenNormalization | None
    voxel_size: VoxelSize | None = None


class Compare(Command):
    """`conf/compare.yaml`."""

    summaries: Files
    conditions: Text
    reference: Text | None
    measures: Annotated[list[Text], Field(min_length=1)] | None
    permutations: Annotated[int, Field(ge=99, le=1_000_000)]
    confidence: Annotated[float, Field(ge=0.5, le=0.999)]
    seed: Seed
    output_dir: Text
    overwrite: bool
