"""The files that prediction writes for a volume: labels, a table, and their manifest.

The labels are written last, so that a volume whose labels are there is complete. A second run keeps
what is complete and was made the same way, makes what is missing, and never touches what isgseg did
not write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from isgseg.analysis.granules import is_table, write_table
from isgseg.errors import InputError, InputFileExistsError
from isgseg.inference.manifest import (
    MARK,
    Manifest,
    deciding,
    hash_labels,
    hash_of_file,
    read_content,
)
from isgseg.instances.runs import RunLabels
from isgseg.io.atomic import remove_tree, replacing
from isgseg.io.formats import Array
from isgseg.io.ome_zarr import zarr_library
from isgseg.io.ome_zarr_labels import add_labels, check_place_for_labels
from isgseg.io.ome_zarr_writing import Version
from isgseg.io.volumes import stem, write_volume
from isgseg.words import one_of

log = logging.getLogger(__name__)
FORMATS = ("tif", "mrc", "zarr", "zarr-0.4")


@dataclass(frozen=True)
class Outputs:
    """Where the results of one volume go.

    Attributes:
        labels: `<stem>_labels.<suffix>`.
        table: `<stem>_granules.csv`.
        manifest: `<stem>_labels.json`: checkpoint, volume and settings that they were made with.
        origin: `<stem>_granules.json`, which the last release wrote in place of the manifest.
        zarr: version of OME-Zarr, where labels are one; the manifest is in its attributes too.
        image: an OME-Zarr image into which the labels are written too; None: none.
    """

    labels: Path
    table: Path
    manifest: Path
    origin: Path
    zarr: Version = "0.5"
    image: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, volume: Path, folder: Path, format: str, *, into_zarr: bool = False) -> Outputs:
        """Those of a volume; `format` and `into_zarr` are those of `conf/predict.yaml`."""
        name, (suffix, _, version) = stem(volume), format.partition("-")
        return cls(
            folder / f"{name}_labels.{suffix}",
            folder / f"{name}_granules.csv",
            folder / f"{name}_labels.json",
            folder / f"{name}_granules.json",
            "0.4" if version == "0.4" else "0.5",
            volume if into_zarr else None,
        )

    @property
    def candidates(self) -> tuple[Path, Path]:
        """`<stem>_candidates.tif` and `.csv`, which only `review=true` writes."""
        table = self.table.with_name(self.table.name.replace("_granules.csv", "_candidates.csv"))
        return table.with_suffix(".tif"), table

    def former(self) -> dict[str, Any] | None:
        """What an earlier run wrote as manifest; None where there is none of isgseg."""
        return read_content(self.manifest if self.manifest.exists() else self.origin)

    def is_complete(self, wanted: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether the results are there already, and were made the same way.

        Args:
            wanted: what they would be made with; see `isgseg.inference.manifest.deciding`.
            overwrite: replace results of isgseg that were made otherwise.

        Raises:
            InputFileExistsError: a file is in the way that must not be replaced: it is of someone
                else, or it was made otherwise and `overwrite` is false.
        """
        if (former := self.former()) is None:
            self._check_strangers(overwrite)
            return False
        if not self.labels.exists() or not self.table.exists():
            return False
        there = hash_of_file(self.labels)
        if there is None or not is_table(self.table):
            raise InputFileExistsError(
                f"{self.labels if there is None else self.table} is damaged or is not what "
                "isgseg-predict wrote; move it away, and the next run makes it again, or set "
                "another output_dir"
            )
        changed = former.get("labels_sha256") != there
        if overwrite and changed:
            raise InputFileExistsError(
                f"{self.labels} was changed after isgseg-predict wrote it, so that overwrite=true "
                "does not replace it; move it, or set another output_dir"
            )
        made = deciding(former)
        differ = [key for key in wanted if made.get(key) != json.loads(json.dumps(wanted[key]))]
        if not differ:
            if changed and not overwrite:
                log.warning("%s was changed after isgseg-predict wrote it; kept", self.labels)
            return not overwrite
        if overwrite:
            return False
        raise InputFileExistsError(
            f"{self.labels} exists, and was made with another {', '.join(differ)} (see "
            f"{self.manifest.name}); set overwrite=true or another output_dir"
        )

    def check_image(self, overwrite: bool) -> None:
        """Whether the labels may be written into the image too; see `check_place_for_labels`."""
        if self.image is not None:
            check_place_for_labels(self.image, MARK, overwrite=overwrite)

    def write(
        self,
        labels: Array | RunLabels,
        voxel_size: Sequence[float] | None,
        table: pd.DataFrame,
        manifest: Manifest,
    ) -> Manifest:
        """Writes the results, each whole or not at all, the labels last.

        Args:
            labels: (z, y, x), an array or as runs.
            voxel_size: nm, (z, y, x), or None.
            table: one row a granule.
            manifest: what they were made with; the labels' name and hash are filled in.

        Returns:
            The manifest as it was written.

        Raises:
            InputError: the folder cannot be written.
        """
        written = self.write_beside(hash_labels(labels), table, manifest)
        zarr: dict[str, Any] = {
            "labels": True,
            "version": self.zarr,
            "attributes": {"isgseg": written.plain()},
        }
        write_volume(self.labels, labels, voxel_size, **zarr)
        if self.image is not None:
            place = add_labels(self.image, labels, voxel_size, zarr["attributes"])
            log.info("%s: the labels are in %s too", self.image, place)
        return written

    def write_beside(self, labels_sha256: str, table: pd.DataFrame, manifest: Manifest) -> Manifest:
        """Writes what lies beside labels, before these take their name.

        For labels that were written slab by slab: the scratch file is renamed after this.

        Args:
            labels_sha256: of `isgseg.inference.manifest.LabelHash`.
            table: one row a granule.
            manifest: see `write`.

        Returns:
            The manifest as it was written.

        Raises:
            InputError: the folder cannot be written.
        """
        manifest = replace(manifest, labels=self.labels.name, labels_sha256=labels_sha256)
        if self.labels.is_dir():
            remove_tree(self.labels)
        for file in (self.labels, *self.candidates):  # no longer what the manifest says
            file.unlink(missing_ok=True)
        with replacing(self.manifest) as beside:
            beside.write_text(manifest.text(), encoding="utf-8")
        if read_content(self.origin) is not None:  # of the last release, and of labels that go
            self.origin.unlink()
        write_table(self.table, table)
        return manifest

    def _check_strangers(self, overwrite: bool) -> None:
        """Refuses to replace files that no run of isgseg-predict is known to have written."""
        own = (self.labels, self.table, self.manifest, self.origin, *self.candidates)
        there = [file for file in own if file.exists()]
        if not there:
            return
        if not overwrite:
            raise InputFileExistsError(
                f"{there[0]} exists; set overwrite=true or another output_dir"
            )
        # The first releases wrote labels and table alone.
        if self.manifest.exists() or self.origin.exists() or not is_table(self.table):
            raise InputFileExistsError(
                f"{there[0]} was not written by isgseg-predict, so that overwrite=true does not "
                "replace it; move it, or set another output_dir"
            )


def plan_outputs(
    volumes: Sequence[Path], folder: Path, format: str, *, into_zarr: bool = False
) -> list[Outputs]:
    """Where each volume's results go.

    Raises:
        InputError: two volumes would share a file, or the format needs what is not installed.
    """
    for name in (format, "zarr") if into_zarr else (format,):
        check_format(name)
    planned: list[Outputs] = []
    for volume in volumes:
        outputs = Outputs.of(volume, folder, format, into_zarr=into_zarr)
        if outputs in planned:
            raise InputError(
                f"{volumes[planned.index(outputs)]} and {volume} would both be written to "
                f"{outputs.labels}; label them in two runs, into two folders"
            )
        planned.append(outputs)
    return planned


def check_format(name: str) -> None:
    """Refuses a format that is none, or whose package is not installed.

    Raises:
        InputError: the message says which there are, or what to install.
    """
    if name not in FORMATS:
        raise InputError(f"format={name} must be {one_of(FORMATS)}")
    if name.startswith("zarr"):
        zarr_library()
