"""`annotations.json` of a COCO folder: read, and checked entry by entry.

The file may come from a stranger: what its entries say is checked for type and range before
anything is done with it.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, FailFast, Field, with_config
from typing_extensions import TypedDict

from isgseg.errors import InputError, InputFileNotFoundError, check
from isgseg.words import one_of

log = logging.getLogger(__name__)

NAME = "annotations.json"
MAX_SIDE = 100_000  # pixels
# 1 and "1" are one identifier: tools that keep tables write either.
Identifier = Annotated[int, Field(strict=True)] | str
Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]
Place = Annotated[int, Field(strict=True, ge=0)]


@with_config(ConfigDict(extra="allow", allow_inf_nan=True))
class ImageEntry(TypedDict):
    """One of `images`; where isgseg-prepare cut it from, `volume` to `left` say."""

    id: Identifier
    file_name: Annotated[str, Field(min_length=1, max_length=4096)]
    height: Side
    width: Side
    volume: NotRequired[str]
    axis: NotRequired[str]
    slice: NotRequired[Place]
    top: NotRequired[Place]
    left: NotRequired[Place]


@with_config(ConfigDict(extra="allow", allow_inf_nan=True))
class AnnotationEntry(TypedDict):
    """One of `annotations`; its segmentation is checked by `run_lengths`."""

    id: Identifier
    image_id: Identifier
    category_id: Identifier
    iscrowd: NotRequired[int | bool | None]


@with_config(ConfigDict(extra="allow"))
class CategoryEntry(TypedDict):
    """One of `categories`."""

    id: Identifier
    name: NotRequired[str | None]


@with_config(ConfigDict(extra="allow"))
class _Content(TypedDict):
    images: Annotated[list[ImageEntry], FailFast()]
    annotations: Annotated[list[AnnotationEntry], FailFast()]
    categories: Annotated[list[CategoryEntry], FailFast()]


@dataclass(frozen=True)
class Annotations:
    """The checked content of one file.

    Attributes:
        path: of the file.
        images: its entries.
        annotations: its entries.
        indices: place in `images` by `key` of the id.
        names: names of the categories by `key` of the id; its id where one has none.
        used: the names of categories that have an annotation, in the order of their ids.
    """

    path: Path
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    indices: dict[str, int]
    names: dict[str, str]
    used: list[str]

    @property
    def folder(self) -> Path:
        """The folder of the split."""
        return self.path.parent


def key(identifier: object) -> str:
    """What identifiers are compared by: 1 and "1" are the same."""
    return str(identifier)


def read_annotations(folder: str | Path) -> Annotations:
    """Reads and checks `annotations.json` of a split.

    Raises:
        InputFileNotFoundError: it is not there.
        InputError: it is no COCO instance file, has no image, an entry lacks a field or has one of
            a wrong type, an id is there twice, or an annotation names no image or category.
    """
    path = Path(folder) / NAME
    content = _read(path)
    images, annotations = content["images"], content["annotations"]
    if not images:
        raise InputError(f"{path} lists no image; an empty split cannot be used")
    indices = _unique(images, path, "images", "the objects of one would be given to all")
    _different_files(images, path)
    _unique(annotations, path, "annotations", "it cannot be said which of them is right")
    categories = _unique(content["categories"], path, "categories", "they mean different classes")
    names = {
        key(entry["id"]): (entry.get("name") or str(entry["id"])).strip()
        for entry in content["categories"]
    }
    for annotation in annotations:
        image, category = annotation["image_id"], annotation["category_id"]
        if key(image) not in indices:
            raise InputError(
                f"{path}: annotation {annotation['id']} names image {image}, not in the file; "
                "remove it, or add the image"
            )
        if key(category) not in categories:
            raise InputError(
                f"{path}: annotation {annotation['id']} names category {category}, not there; the "
                f"categories are {list(names)}; correct it, or add the category"
            )
    used = {key(annotation["category_id"]) for annotation in annotations}
    in_order = sorted(categories, key=lambda identifier: (len(identifier), identifier))
    classes = list(dict.fromkeys(names[i] for i in in_order if i in used))
    return Annotations(path, images, annotations, indices, names, classes)


def find_image(folder: Path, file_name: str, path: Path) -> Path:
    """The file of an image, in `images/` of its split or where `file_name` says.

    Links are followed: who keeps the folder made them.

    Raises:
        InputError: the name leaves the folder.
        InputFileNotFoundError: no such file.
    """
    plain = file_name.replace("\\", "/")
    if "\0" in plain or plain.startswith("/") or ".." in plain.split("/") or Path(plain).drive:
        raise InputError(
            f"{path}: file_name {file_name!r} leaves the dataset's folder; name a file in it"
        )
    for candidate in (folder / "images" / plain, folder / plain):
        try:
            if candidate.is_file():
                return candidate
        except OSError:  # a name too long for the file system
            continue
    raise InputFileNotFoundError(
        f"{path}: image {file_name!r} is not in {folder}{os.sep}images; copy it there, or remove "
        "its entry"
    )


def _read(path: Path) -> dict[str, Any]:
    """The file's three lists, each entry of the right form."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; it must be the file of the labels")
    if not path.is_file():
        if others := sorted(file.name for file in path.parent.glob("*.json"))[:3]:
            raise InputFileNotFoundError(
                f"{path} does not exist, but {one_of(others)} does; rename it if it holds "
                "the labels"
            )
        raise InputFileNotFoundError(
            f"{path} does not exist; data.root must hold train/ and val/, each with "
            "images/ and annotations.json (isgseg-prepare writes such a folder)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; it must be a file that you may read"
        ) from error
    except (ValueError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            f"{path} is not a COCO instance file: {said}; it must be JSON in UTF-8, saved whole"
        ) from error
    missing = ["images", "annotations", "categories"]
    if isinstance(content, dict):
        missing = [name for name in missing if name not in content]
    if missing:
        raise InputError(
            f"{path} is not a COCO instance file: it has no {', '.join(missing)}; export the "
            "labels as COCO instances, with images, annotations and categories"
        )
    return dict(check(_Content, content, str(path)))


def _different_files(images: list[dict[str, Any]], path: Path) -> None:
    """Raises InputError where two entries name one file, as merged exports of equal names do."""
    names: dict[str, int] = {}
    for place, image in enumerate(images):
        before = names.setdefault(image["file_name"], place)
        if before != place:
            raise InputError(
                f"{path}: images[{before}] and images[{place}] both have the file_name "
                f"{image['file_name']!r}; give each image a file of its own, or remove one"
            )


def _unique(entries: list[dict[str, Any]], path: Path, what: str, why: str) -> dict[str, int]:
    """Places of entries by their ids.

    Raises:
        InputError: two have the same.
    """
    places: dict[str, int] = {}
    for place, entry in enumerate(entries):
        before = places.setdefault(key(entry["id"]), place)
        if before != place:
            raise InputError(
                f"{path}: {what}[{before}] and {what}[{place}] have the same id {entry['id']}: "
                f"{why}; number them anew"
            )
    return places
