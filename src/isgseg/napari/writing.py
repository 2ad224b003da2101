"""Labels to files: with their voxel size, the table and the manifest in step.

The first time that a file is replaced, it is kept beside as `<name>.original.<suffix>`.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isgseg.analysis.granules import granule_table, write_table
from isgseg.errors import InputError
from isgseg.inference.manifest import hash_labels
from isgseg.io.atomic import replacing, writing
from isgseg.io.formats import Array, VoxelSize, is_voxel_size
from isgseg.io.volumes import stem, write_volume
from isgseg.napari.reading import cell_name, read_manifest, table_path

log = logging.getLogger(__name__)
INHERITED = ("score", "supporting_slices", "suspicion", "reason", "state")


def write_labels(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Napari's writer of one labels layer.

    Args:
        path: that the user chose; .tif or .mrc.
        data: (z, y, x).
        meta: of the layer.

    Returns:
        The files that were written.

    Raises:
        InputError: they cannot be.
    """
    target = Path(path)
    about = (meta.get("metadata") or {}).get("isgseg") or {}
    voxel_size = about.get("voxel_size")
    if voxel_size is None and "nm" in str((meta.get("units") or ["pixel"])[0]):
        voxel_size = tuple(float(side) for side in meta["scale"])
    features = meta.get("features")
    former = pd.DataFrame(features) if features is not None and len(features) else None
    source = Path(about["file"]) if about.get("file") else None
    return [str(file) for file in save(target, np.asarray(data), voxel_size, former, source)]


def save(
    path: Path,
    labels: Array,
    voxel_size: VoxelSize | None,
    former: pd.DataFrame | None = None,
    source: Path | None = None,
    volume: Array | None = None,
) -> list[Path]:
    """Writes labels, their table and their manifest, each whole or not at all.

    Args:
        path: of the labels.
        labels: (z, y, x), unsigned integers.
        voxel_size: nm, (z, y, x), or None.
        former: a table whose scores and states go on for labels that are still there.
        source: the labels that these were made of, for the manifest.
        volume: (z, y, x), for the intensities; None: they are left empty, or as they were.

    Returns:
        The files: labels, table and manifest; and the one that was replaced, if it was kept.

    Raises:
        InputError: a file cannot be written, or these are no labels.
    """
    if labels.ndim != 3 or labels.dtype.kind not in "ui" or labels.min(initial=0) < 0:
        raise InputError(
            f"{path}: {labels.dtype} {labels.shape} is no label volume: (z, y, x), whole numbers, "
            "0 for background"
        )
    if voxel_size is not None and not is_voxel_size(voxel_size):
        raise InputError(f"{path}: voxel size {voxel_size} is not three positive numbers (nm)")
    manifest = read_manifest(source) if source is not None else {}
    kept = keep_original(path)
    table = with_former(granule_table(labels, volume, voxel_size), former)
    write_volume(path, labels, voxel_size)
    write_table(table_path(path), table)
    beside = path.with_name(f"{cell_name(path)}_labels.json")
    content = {
        **manifest,
        "created_by": "isgseg in napari",
        "labels": path.name,
        "labels_sha256": hash_labels(labels),
        "granules": len(table),
        "voxel_size_nm": None if voxel_size is None else [float(side) for side in voxel_size],
        "corrected_from": None if source is None else str(source),
    }
    with replacing(beside) as scratch:
        scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    log.info("%d granules in %s", len(table), path)
    return [path, table_path(path), beside, *([kept] if kept else [])]


def with_former(table: pd.DataFrame, former: pd.DataFrame | None) -> pd.DataFrame:
    """A table with the columns of a former one that do not follow from the voxels."""
    if former is None or "label" not in former:
        return table
    own = former.drop_duplicates("label").set_index("label")
    for name in INHERITED:
        if name in own and (name not in table or table[name].isna().all()):
            table[name] = table["label"].map(own[name])
    return table


def keep_original(path: Path) -> Path | None:
    """Gives the file of that name, and its table and manifest, another name; once.

    Returns:
        The labels under their other name; None where there was nothing to keep.

    Raises:
        InputError: the folder cannot be written.
    """
    name = stem(path)
    original = path.with_name(f"{name}.original{path.name[len(name) :]}")
    if not path.exists() or original.exists():
        return None
    others = (table_path(path), path.with_name(f"{cell_name(path)}_labels.json"))
    with writing(path):
        for file in others:
            if file.exists():
                os.replace(file, file.with_name(f"{file.stem}.original{file.suffix}"))
        os.replace(path, original)
    return original
