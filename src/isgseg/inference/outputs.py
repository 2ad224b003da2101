"""The files that prediction writes for a volume: labels, a table, and where both come from.

The labels are written last, so that a volume whose labels are there is complete. A second run keeps
what is complete and was made the same way, makes what is missing, and never touches what isgseg did
not write.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isgseg.analysis.granules import write_table
from isgseg.errors import InputError, InputFileExistsError
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array
from isgseg.io.volumes import read_labels, stem, write_volume

log = logging.getLogger(__name__)
_MARK = "isgseg-predict"  # what `origin` says of itself
_TABLE = "label,centroid_z,"  # how tables of isgseg begin


@dataclass(frozen=True)
class Outputs:
    """Where the results of one volume go.

    Attributes:
        labels: `<stem>_labels.<suffix>`.
        table: `<stem>_granules.csv`.
        origin: `<stem>_granules.json`: checkpoint, volume and settings that they were made with.
    """

    labels: Path
    table: Path
    origin: Path

    @classmethod
    def of(cls, volume: Path, folder: Path, suffix: str) -> Outputs:
        """Those of a volume."""
        name = stem(volume)
        return cls(
            folder / f"{name}_labels.{suffix}",
            folder / f"{name}_granules.csv",
            folder / f"{name}_granules.json",
        )

    def is_complete(self, origin: Mapping[str, Any], overwrite: bool) -> bool:
        """Whether the results are there already, and were made the same way.

        Args:
            origin: what they would be made with; plain values.
            overwrite: replace results of isgseg that were made otherwise.

        Raises:
            InputFileExistsError: a file is in the way that must not be replaced: it is of someone
                else, or it was made otherwise and `overwrite` is false.
        """
        former = self._former()
        if former is None:
            self._check_strangers(overwrite)
            return False
        if not self.labels.exists() or not self.table.exists():
            return False
        there = _hash_of_file(self.labels)
        if there is None or not _is_table(self.table):
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
        differ = [key for key in origin if former.get(key) != json.loads(json.dumps(origin[key]))]
        if not differ:
            if changed and not overwrite:
                log.warning("%s was changed after isgseg-predict wrote it; kept", self.labels)
            return not overwrite
        if overwrite:
            return False
        raise InputFileExistsError(
            f"{self.labels} exists, and was made with another {', '.join(differ)} (see "
            f"{self.origin.name}); set overwrite=true or another output_dir"
        )

    def write(
        self,
        labels: Array,
        voxel_size: Sequence[float] | None,
        table: pd.DataFrame,
        origin: Mapping[str, Any],
    ) -> None:
        """Writes the results, each whole or not at all, the labels last.

        Args:
            labels: (z, y, x).
            voxel_size: nm, (z, y, x), or None.
            table: one row a granule.
            origin: what they were made with.

        Raises:
            InputError: the folder cannot be written.
        """
        self.labels.unlink(missing_ok=True)  # made otherwise: no longer what `origin` says
        with replacing(self.origin) as beside:
            content = {"created_by": _MARK, "labels_sha256": _hash(labels), **origin}
            beside.write_text(json.dumps(content, indent=2) + "\n")
        write_table(self.table, table)
        write_volume(self.labels, labels, voxel_size)

    def _former(self) -> dict[str, Any] | None:
        """What an earlier run wrote as origin; None where there is none of isgseg."""
        try:
            former = json.loads(self.origin.read_text())
        except (OSError, ValueError, RecursionError):
            return None
        ours = isinstance(former, dict) and former.get("created_by") == _MARK
        return former if ours else None

    def _check_strangers(self, overwrite: bool) -> None:
        """Refuses to replace files that no run of isgseg-predict is known to have written."""
        there = [file for file in (self.labels, self.table, self.origin) if file.exists()]
        if not there:
            return
        if not overwrite:
            raise InputFileExistsError(
                f"{there[0]} exists; set overwrite=true or another output_dir"
            )
        # Releases before 0.2 wrote labels and table alone.
        if self.origin.exists() or not _is_table(self.table):
            raise InputFileExistsError(
                f"{there[0]} was not written by isgseg-predict, so that overwrite=true does not "
                "replace it; move it, or set another output_dir"
            )


def plan_outputs(volumes: Sequence[Path], folder: Path, suffix: str) -> list[Outputs]:
    """Where each volume's results go.

    Raises:
        InputError: two volumes would share a file.
    """
    planned: list[Outputs] = []
    for volume in volumes:
        outputs = Outputs.of(volume, folder, suffix)
        if outputs in planned:
            raise InputError(
                f"{volumes[planned.index(outputs)]} and {volume} would both be written to "
                f"{outputs.labels}; label them in two runs, into two folders"
            )
        planned.append(outputs)
    return planned


def _hash(labels: Array) -> str:
    """SHA-256 of the labels themselves, whatever type and format hold them."""
    return hashlib.sha256(np.ascontiguousarray(labels, np.uint32).tobytes()).hexdigest()


def _hash_of_file(path: Path) -> str | None:
    """That of a label file; None where it cannot be read."""
    try:
        return _hash(read_labels(path).data)
    except InputError:
        return None


def _is_table(path: Path) -> bool:
    try:
        with path.open() as file:
            return file.read(len(_TABLE)) == _TABLE
    except (OSError, ValueError):
        return False
