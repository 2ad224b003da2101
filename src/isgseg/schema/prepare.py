"""The configuration of `isgseg-prepare`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from isgseg.data.normalization import Normalization
from isgseg.data.patches import PatchSettings
from isgseg.phantom.settings import PhantomSettings
from isgseg.schema.fields import (
    Command,
    Files,
    Instances,
    Section,
    Seed,
    Split,
    Text,
    VoxelSize,
    section_of,
)

NormalizationSection = section_of(Normalization, "NormalizationSection")
Patches = section_of(PatchSettings, "Patches")


def _few_seeds(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("must name each seed once")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_few_seeds)]
Name = Text | int | float  # Hydra reads 783_5 as a number; isgseg-prepare finds the name again
Phantom = section_of(PhantomSettings, "Phantom", train_seeds=(Seeds, ...), val_seeds=(Seeds, ...))


class Source(Section):
    """`conf/source/`."""

    phantom: Phantom | None = None  # type: ignore[valid-type]


def _not_null(source: Any) -> Any:
    return {} if source is None else source  # conf/source/volumes.yaml holds no key


class Prepare(Command):
    """`conf/prepare.yaml`."""

    source: Annotated[Source, BeforeValidator(_not_null)] = Source()
    volumes: Files | None
    labels: Files | None
    val: Name | list[Name]
    output_dir: Text
    overwrite: bool
    voxel_size: VoxelSize | None = None
    instances: Instances
    split: Split  # type: ignore[valid-type]
    normalization: NormalizationSection  # type: ignore[valid-type]
    patches: Patches  # type: ignore[valid-type]
