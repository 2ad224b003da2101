"""The configuration of `isgseg-analyse`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.schema.fields import (
    Command,
    Count,
    CountFrom0,
    Files,
    Section,
    Text,
    VoxelSize,
    section_of,
)

Relations = section_of(RelationSettings, "Relations")
Chance = section_of(ChanceSettings, "Chance")


class StructureFiles(Section):
    """`structures` of `conf/analyse.yaml`; further ones are added with `+structures.NAME=FILE`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text | None] = Field(init=False)

    map: Text | None
    names: Literal["phantom"] | dict[CountFrom0, Text] | None
    cell: Text | None
    nucleus: Text | None
    mitochondria: Text | None

    @model_validator(mode="after")
    def _names_are_of_a_map(self) -> Self:
        if self.names is not None and self.map is None:
            raise ValueError("names are those of a map's numbers: give structures.map too")
        return self


class Analyse(Command):
    """`conf/analyse.yaml`."""

    volume: Files
    labels: Files
    output_dir: Text
    overwrite: bool = False
    voxel_size: VoxelSize | None
    slice: CountFrom0 | None
    lac: Literal["auto"] | bool
    report: bool
    meshes: bool
    parquet: bool
    structures: StructureFiles
    cell: Count | None
    relations: Relations  # type: ignore[valid-type]
    chance: Chance  # type: ignore[valid-type]
