"""The only reader and writer of `dataset.yaml`: what isgseg-prepare keeps of a dataset's origin.

The file may come from a stranger. It is parsed as plain data, bounded in size and depth, without
aliases, tags or interpolation, and every field is checked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from isgseg.data.normalization import Normalization, Normalizer
from isgseg.data.patches import PatchSettings
from isgseg.data.plain_yaml import read_plain_yaml
from isgseg.errors import check
from isgseg.instances.settings import InstanceSettings
from isgseg.io.atomic import replacing

log = logging.getLogger(__name__)

NAME = "dataset.yaml"
Nanometres = Annotated[float, Field(strict=True, gt=0, le=1e9)]
Count = Annotated[int, Field(strict=True, ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Entry):
    """One labelled volume that patches were cut from.

    Attributes:
        name: its name, with which the names of its patches begin.
        split: where its patches are.
        file: the volume; in `dataset.yaml` relative to the dataset's folder where it is inside.
        labels: its label volume, likewise.
        sha256: of the volume's file.
        shape: (z, y, x).
        normalizer: the numbers with which its voxels became grey values.
        instances: how the numbers of its labels became granules.
    """

    name: str = ""
    split: Literal["train", "val"]
    file: Annotated[str, Field(min_length=1)]
    labels: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    shape: tuple[Count, Count, Count] | None = None
    normalizer: Normalizer | None = None
    instances: InstanceSettings = InstanceSettings(method="numbers")


class Statistics(_Entry):
    """How many patches and objects a split holds, and how large the objects are.

    Attributes:
        side_px_percentiles_5_25_50_75_95: of the root of width times height of the tight box.
    """

    patches: Count
    empty_patches: Count
    objects: Count
    side_px_percentiles_5_25_50_75_95: list[float] = []


class DatasetMetadata(_Entry):
    """The content of `dataset.yaml`; without any field, that of a COCO folder that has none.

    Attributes:
        isgseg: the version that wrote it; None of old files.
        source: whose volumes they are; isgseg-prepare wrote those of `phantom` itself, into
            `volumes/`.
        voxel_size: (z, y, x), nm.
        z_context: slices on either side that an image shows too.
        normalization: voxels to grey values; None: images are taken as they are.
        patches: how the volumes were cut; None where isgseg-prepare did not write the file.
        volumes: where the patches come from.
        objects: statistics by split.
    """

    isgseg: str | None = None
    source: Literal["volumes", "phantom"] | None = None
    voxel_size: tuple[Nanometres, Nanometres, Nanometres] | None = None
    z_context: Annotated[int, Field(strict=True, ge=0, le=49)] = 0
    normalization: Normalization | None = None
    patches: PatchSettings | None = None
    volumes: tuple[Source, ...] = ()
    objects: dict[Literal["train", "val"], Statistics] = {}

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """A file of isgseg-prepare has every key that training and prediction depend on."""
        if self.patches is not None:
            for key in ("z_context", "normalization", "volumes"):
                if key not in self.model_fields_set:
                    raise ValueError(f"{key} is missing; isgseg-prepare writes it")
            if self.patches.z_context != self.z_context:
                raise ValueError(
                    f"z_context={self.z_context}, but patches.z_context="
                    f"{self.patches.z_context}; they must be the same"
                )
        shared = {source.file for source in self.volumes if source.split == "train"} & {
            source.file for source in self.volumes if source.split == "val"
        }
        if shared:
            raise ValueError(
                f"volumes: {min(shared)} is in both train and val, so that scores would be of "
                "what was learnt; cut its patches into one of them"
            )
        return self

    def for_checkpoint(self) -> dict[str, Any]:
        """What prediction must know, as plain values.

        Returns:
            `normalization` (None for other COCO folders), `voxel_size` (nm, [z, y, x], or None)
            and `z_context`.
        """
        plain = self.model_dump(mode="json")
        return {key: plain[key] for key in ("normalization", "voxel_size", "z_context")}


def read_metadata(root: str | Path) -> DatasetMetadata:
    """What `dataset.yaml` of a dataset's folder says; of other COCO folders, nothing is known.

    Files of volumes and labels become absolute. Those of earlier releases were kept as they were
    typed, and are looked for in the working folder too.

    Raises:
        InputError: the file is not plain YAML, is too large, or has an unknown, missing or wrong
            key; the message names it.
    """
    path = Path(root) / NAME
    if not path.exists():
        return DatasetMetadata()
    metadata = check(DatasetMetadata, _renamed(read_plain_yaml(path), path), str(path))
    volumes = tuple(
        source.model_copy(
            update={
                "name": source.name or Path(source.file).name.split(".")[0],
                "file": _located(source.file, path.parent),
                "labels": _located(source.labels, path.parent),
            }
        )
        for source in metadata.volumes
    )
    return metadata.model_copy(update={"volumes": volumes})


def write_metadata(
    metadata: DatasetMetadata, folder: str | Path, root: str | Path | None = None
) -> Path:
    """Writes `dataset.yaml`, whole or not at all, and returns its path.

    Args:
        metadata: what it says.
        folder: where it is written.
        root: where the folder will be moved to; None: it stays. Volumes inside of either are named
            relative to it, so that the dataset can be moved; all others absolutely.
    """
    homes = [Path(home).resolve() for home in (folder, root) if home is not None]

    def portable(file: str) -> str:
        path = Path(file).resolve()
        inside = [home for home in homes if path.is_relative_to(home)]
        return path.relative_to(inside[0]).as_posix() if inside else str(path)

    content = metadata.model_dump(mode="json")
    for source in content["volumes"]:
        source |= {key: portable(source[key]) for key in ("file", "labels")}
    target = Path(folder) / NAME
    with replacing(target) as beside:
        beside.write_text(
            yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    return target


def validation_pairs(root: str | Path) -> list[tuple[Path, Path]]:
    """The validation volumes of a dataset and their labels, those that are still there.

    A warning names the missing ones, and says what is lost without them.
    """
    pairs = [
        (Path(source.file), Path(source.labels))
        for source in read_metadata(root).volumes
        if source.split == "val"
    ]
    there = [pair for pair in pairs if all(map(isfile, pair))]
    missing = [str(file) for pair in pairs for file in pair if not isfile(file)]
    if missing:
        lost = (
            "the others are used alone"
            if there
            else "val/f1_3d is not computed, and the object score threshold is not tuned in 3D"
        )
        log.warning(
            "%s names validation volumes that are not there: %s. Without them %s. Correct the "
            "paths in the file, or name a volume and its labels (volume=, labels=; in "
            "isgseg-train callbacks.volume_score.volume= and .labels=)",
            Path(root) / NAME,
            ", ".join(missing),
            lost,
        )
    return there


def _located(file: str, root: Path) -> str:
    """Where a file of `dataset.yaml` is; if nowhere, where it should be."""
    inside = (root / file).absolute()
    typed = Path(file).absolute()
    # isfile, unlike is_file, takes a name that no file can have.
    return str(typed if isfile(typed) and not isfile(inside) else inside)


def _renamed(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Content with the keys of today, where the previous release wrote others."""
    old: list[str] = []

    def rename(entry: Any, before: str, now: str) -> Any:
        if not isinstance(entry, Mapping) or before not in entry or now in entry:
            return entry
        old.append(f"{before} (now {now})")
        return {now if key == before else key: value for key, value in entry.items()}

    content = dict(rename(content, "context", "z_context"))
    if "patches" in content:
        content["patches"] = rename(content["patches"], "context", "z_context")
    if isinstance(content.get("volumes"), list):
        content["volumes"] = [rename(v, "grey", "normalizer") for v in content["volumes"]]
    if old:
        log.info("%s is of an earlier release: %s", path, ", ".join(dict.fromkeys(old)))
    return content
