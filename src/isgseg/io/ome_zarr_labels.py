"""Labels written into the OME-Zarr image that they are of, as its `labels/granules`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isgseg.errors import InputError, InputFileExistsError
from isgseg.io.atomic import replacing
from isgseg.io.folders import replacing_folder
from isgseg.io.formats import VolumeError
from isgseg.io.ome_zarr_metadata import multiscale_of, ome_attributes, read_json
from isgseg.io.ome_zarr_writing import Slabs, Version, write_zarr
from isgseg.io.places import is_zarr

NAME = "granules"


def check_place_for_labels(image: Path, mark: str, *, overwrite: bool) -> None:
    """Whether labels may be written into an image.

    Args:
        image: the group of an OME-Zarr image.
        mark: what `isgseg` in the attributes says as `created_by`, if isgseg wrote the labels.
        overwrite: whether labels that isgseg wrote may be replaced; those of others never are.

    Raises:
        InputError: it is no OME-Zarr image, or labels are in the way.
    """
    try:
        there = is_zarr(image) and multiscale_of(image) is not None
    except (OSError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise VolumeError(f"{image}: cannot be read as .zarr: {error}") from error
    if not there:
        raise InputError(f"into_zarr=true: {image} is no OME-Zarr image; leave into_zarr out")
    place = image / "labels" / NAME
    if not place.exists():
        return
    if not _is_ours(place, mark):
        raise InputFileExistsError(
            f"{place} was not written by isgseg-predict and is never replaced; move it, or leave "
            "into_zarr out"
        )
    if not overwrite:
        raise InputFileExistsError(f"{place} exists; set overwrite=true, or leave into_zarr out")


def add_labels(
    image: Path,
    labels: Slabs,
    voxel_size: Sequence[float] | None,
    attributes: Mapping[str, Any],
) -> Path:
    """Writes labels into an image and lists them there; whatever else it holds stays as it is.

    Args:
        image: the group of an OME-Zarr image, of 0.4 or 0.5, which the labels will be too.
        labels: (z, y, x), of the image's shape.
        voxel_size: nm, (z, y, x), or None.
        attributes: of the group of the labels.

    Returns:
        The folder of the labels.

    Raises:
        InputError: the folder cannot be written.
    """
    version: Version = "0.5" if (image / "zarr.json").is_file() else "0.4"
    folder = image / "labels"
    with replacing_folder(folder / NAME) as scratch:
        write_zarr(
            scratch,
            labels,
            voxel_size,
            labels=True,
            version=version,
            source="../../",
            attributes=attributes,
        )
    _list(folder, version)
    return folder / NAME


def _list(folder: Path, version: Version) -> None:
    """Names the labels in the group of all labels, which is made where it is not there."""
    names = [str(name) for name in ome_attributes(folder).get("labels", [])]
    content: dict[str, Any]
    if version == "0.4":
        if not (folder / ".zgroup").exists():
            _write(folder / ".zgroup", {"zarr_format": 2})
        file = folder / ".zattrs"
        content = read_json(file) if file.exists() else {}
        inner = content
    else:
        file = folder / "zarr.json"
        content = {"zarr_format": 3, "node_type": "group"}
        if file.exists():
            content = read_json(file)
        inner = content.setdefault("attributes", {}).setdefault("ome", {"version": version})
    if NAME not in names:
        inner["labels"] = [*names, NAME]
        _write(file, content)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    with replacing(file) as scratch:
        scratch.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _is_ours(place: Path, mark: str) -> bool:
    for name, inner in (("zarr.json", "attributes"), (".zattrs", None)):
        try:
            content = read_json(place / name)
        except (OSError, ValueError):
            continue
        found = (content.get(inner) if inner else content) or {}
        made = found.get("isgseg") if isinstance(found, dict) else None
        return isinstance(made, dict) and made.get("created_by") == mark
    return False
