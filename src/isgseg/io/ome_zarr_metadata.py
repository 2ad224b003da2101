"""The metadata of OME-Zarr 0.4 and 0.5, and of Zarr 2 and 3, read from the JSON of their folders.

https://ngff.openmicroscopy.org/0.5 and /0.4 say what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.io.formats import VolumeError
from isgseg.io.places import is_zarr


def multiscale_of(folder: Path) -> Mapping[str, Any] | None:
    """The first multiscale image of a group; None where it has none."""
    images = ome_attributes(folder).get("multiscales") or [None]
    first: Mapping[str, Any] | None = images[0]
    return first


def ome_attributes(folder: Path) -> Mapping[str, Any]:
    """The attributes of a group or array that OME-Zarr knows: `multiscales`, `labels` and so on."""
    node = folder / "zarr.json"
    if node.is_file():
        attributes = read_json(node).get("attributes", {})
        inner: Mapping[str, Any] = attributes.get("ome", attributes)
        return inner
    attributes_file = folder / ".zattrs"
    return read_json(attributes_file) if attributes_file.is_file() else {}


def label_names(folder: Path) -> list[str]:
    """The names of the label images that lie in an image."""
    return [str(name) for name in ome_attributes(folder / "labels").get("labels", [])]


def read_json(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file.name} is damaged ({error}); copy or export it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no metadata; copy or export it again")
    return content


def is_array(folder: Path) -> bool:
    """Whether a folder is an array, not a group."""
    node = folder / "zarr.json"
    return (
        read_json(node).get("node_type") == "array"
        if node.is_file()
        else (folder / ".zarray").is_file()
    )


def of_level(path: Path) -> tuple[Sequence[Any] | None, Sequence[float] | None]:
    """Axes and scale of an array that is one resolution of the group it lies in."""
    image = multiscale_of(path.parent) if is_zarr(path.parent) else None
    for level in image["datasets"] if image else ():
        if image and level["path"] == path.name:
            return axes_of(image), scale_of(image, level)
    return None, None


def axes_of(image: Mapping[str, Any]) -> Sequence[Any]:
    """The axes of a multiscale image, each with its `name`, and with a `unit` where it is known.

    Raises:
        ValueError: it has none.
    """
    axes = image.get("axes")
    if not axes or not all(isinstance(axis, dict) for axis in axes):
        raise ValueError(
            "its multiscales say nothing of axes and units, as before OME-Zarr 0.4; export it as "
            "0.4 or 0.5"
        )
    return list(axes)


def scale_of(image: Mapping[str, Any], level: Mapping[str, Any]) -> Sequence[float]:
    """Of each axis, in its unit: that of the resolution times that of the whole image."""
    scale = np.ones(len(axes_of(image)))
    for part in (level, image):
        for change in part.get("coordinateTransformations", ()):
            if change.get("type") == "scale":
                scale = scale * np.asarray(change["scale"], float)
    return scale.tolist()


def check_no_image_of_labels(path: Path) -> None:
    """Refuses an image where its labels are asked for.

    Raises:
        VolumeError: the message names the labels that lie in it.
    """
    try:
        if not is_zarr(path) or "image-label" in ome_attributes(path):
            return
        names = label_names(path)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return  # reading it says what is wrong
    if names:
        places = ", ".join(str(path / "labels" / name) for name in names)
        raise VolumeError(f"{path} is an image with labels in it; name these: {places}")
