"""What isgseg-prepare writes into a dataset folder, and whether what lies there is its own work."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from isgseg.data.centre_maps import FOLDER, centre_file
from isgseg.data.metadata import NAME, DatasetMetadata, read_metadata
from isgseg.errors import InputError, InputFileExistsError

_SPLITS = ("train", "val")


def check_replaceable(folder: Path, parts: Sequence[str], overwrite: bool) -> None:
    """Whether the parts of a dataset may be written into a folder.

    Args:
        folder: where the dataset goes; it need not be there.
        parts: names of its entries, such as `train`.
        overwrite: replace a dataset that is there, if isgseg-prepare wrote all of it.

    Raises:
        InputError: an entry of one of these names is not isgseg-prepare's.
        InputFileExistsError: all are, and `overwrite` is false.
    """
    present = [name for name in parts if os.path.lexists(folder / name)]
    if not present:
        return
    metadata = _written_by_isgseg(folder)
    for name in present:
        strange = folder / name if metadata is None else _strange_entry(folder / name, metadata)
        if strange is not None:
            raise InputError(
                f"{strange} was not written by isgseg-prepare, which would replace "
                f"{folder / name}; move it away, or give another output_dir"
            )
    if not overwrite:
        raise InputFileExistsError(
            f"{folder} already holds a dataset; set overwrite=true to replace it, or give another "
            "output_dir"
        )


def _written_by_isgseg(folder: Path) -> DatasetMetadata | None:
    """What the folder's dataset.yaml says; None where isgseg-prepare did not write it."""
    if (folder / NAME).is_symlink():
        return None
    try:
        metadata = read_metadata(folder)
    except InputError:
        return None
    return metadata if metadata.patches is not None else None


def _strange_entry(part: Path, metadata: DatasetMetadata) -> Path | None:
    """The first entry of a part that isgseg-prepare did not write, or the part itself."""
    if part.name == NAME:
        return None
    if part.is_symlink() or not part.is_dir():
        return part
    if part.name in _SPLITS:
        images = part / "images"
        if images.is_symlink() or (part / "annotations.json").is_symlink():
            return part
        known = _listed_images(part / "annotations.json")
        own = {"images", "annotations.json"}
        if metadata.patches is not None and metadata.patches.centre_map:
            own.add(FOLDER)
            maps = {centre_file(part, name).name for name in known}
            if (part / FOLDER).is_symlink() or _first_other(part / FOLDER, maps):
                return part / FOLDER
        return _first_other(part, own) or _first_other(images, known)
    return _first_other(part, _phantom_files(metadata))


def _first_other(folder: Path, known: set[str]) -> Path | None:
    if not folder.is_dir():
        return None
    return next((path for path in sorted(folder.iterdir()) if path.name not in known), None)


def _listed_images(annotations: Path) -> set[str]:
    try:
        return {str(image["file_name"]) for image in json.loads(annotations.read_text())["images"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _phantom_files(metadata: DatasetMetadata) -> set[str]:
    """The files of volumes/, where a dataset of phantoms has them."""
    if metadata.isgseg is not None and metadata.source != "phantom":
        return set()
    return {
        f"{volume.name}{kind}.mrc"
        for volume in metadata.volumes
        if re.fullmatch(r"phantom_[0-9]+", volume.name)
        for kind in ("", "_labels", "_organelles")
    }
