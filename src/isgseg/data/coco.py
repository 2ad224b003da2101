"""A COCO folder as a dataset of torchvision targets."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageSequence
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import Dataset

log = logging.getLogger(__name__)
Target = dict[str, Tensor]


class CocoInstances(Dataset[tuple[Tensor, Target]]):
    """Pictures and instance masks of one split.

    Boxes come from the masks, whatever the file says, and objects without a pixel are left out;
    both are counted and said once, when the dataset is opened. Crowd regions are left out too.

    An item is a picture, (C, H, W) uint8, and torchvision's target: `boxes` (N, 4) float32, xyxy in
    pixels, half-open and tight; `labels` (N,) int64, from 1; `masks` (N, H, W) uint8; `image_id`.

    Args:
        folder: holds `annotations.json` and the pictures, in `images/` or where `file_name` says.

    Attributes:
        vanished: how many objects have no pixel.

    Raises:
        FileNotFoundError: no `annotations.json`, or a picture is missing.
        ValueError: the file is not COCO, has no picture, a `file_name` leaves the folder, an
            annotation names no picture or category, or a segmentation cannot be decoded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "annotations.json"
        content = self._read()
        self.images: list[dict[str, Any]] = content["images"]
        self.files = [self._find_picture(image["file_name"]) for image in self.images]
        self.categories = {
            category["id"]: number
            for number, category in enumerate(
                sorted(content["categories"], key=lambda category: category["id"]), start=1
            )
        }
        self.objects = self._collect(content["annotations"])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.picture(index), self.target(index)

    def require_objects(self) -> None:
        """Raises ValueError where the split has no object: nothing to learn from, or to score."""
        if not any(self.objects.values()):
            raise ValueError(f"{self.path} has no object; a split needs at least one")

    def picture(self, index: int) -> Tensor:
        """The picture, uint8: (1, H, W) grey, (3, H, W) colour, or (pages, H, W) of a TIFF."""
        with Image.open(self.files[index]) as image:
            if getattr(image, "n_frames", 1) > 1:
                pages = [np.array(page.convert("L")) for page in ImageSequence.Iterator(image)]
                array = np.stack(pages, axis=-1)
            else:
                plain = image if image.mode == "L" else image.convert("RGB")
                array = np.atleast_3d(np.array(plain))
        height, width = self.size(index)
        if array.shape[:2] != (height, width):
            raise ValueError(
                f"{self.files[index]} is {array.shape[1]} x {array.shape[0]} pixels, but "
                f"{self.path} says {width} x {height}"
            )
        return torch.from_numpy(array).permute(2, 0, 1).contiguous()

    def target(self, index: int) -> Target:
        """The truth of one picture."""
        objects = self.objects[self.images[index]["id"]]
        masks = np.zeros((len(objects), *self.size(index)), dtype=np.uint8)
        for mask, (_, rle) in zip(masks, objects, strict=True):
            mask[:] = coco_mask.decode(rle)
        return make_target(
            torch.from_numpy(masks),
            torch.tensor([label for label, _ in objects], dtype=torch.int64),
            index,
        )

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, pixels."""
        return int(self.images[index]["height"]), int(self.images[index]["width"])

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path} does not exist; data.root must hold train/ and val/, each with "
                "images/ and annotations.json (isgseg-prepare writes such a folder)"
            )
        try:
            content = json.loads(self.path.read_text())
            lists = [content[key] for key in ("images", "annotations", "categories")]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is not a COCO instance file: {error!r}") from error
        if not all(isinstance(entries, list) for entries in lists) or not lists[0]:
            raise ValueError(f"{self.path} lists no image; an empty split cannot be used")
        return dict(content)

    def _find_picture(self, file_name: str) -> Path:
        inside = self.folder.resolve()
        for path in (self.folder / "images" / file_name, self.folder / file_name):
            if not path.resolve().is_relative_to(inside):
                raise ValueError(
                    f"{self.path}: file_name '{file_name}' leaves the dataset's folder"
                )
            if path.is_file():
                return path
        raise FileNotFoundError(
            f"{self.path}: picture '{file_name}' is not in {self.folder}/images"
        )

    def _collect(self, annotations: list[dict[str, Any]]) -> dict[int, list[tuple[int, Any]]]:
        """Run lengths and labels by image, with a count of all that was left out or mended."""
        sizes = {image["id"]: self.size(i) for i, image in enumerate(self.images)}
        objects: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        boxes_off = vanished = crowds = 0
        for annotation in annotations:
            where = f"{self.path}: annotation {annotation.get('id')}"
            if annotation.get("image_id") not in sizes:
                raise ValueError(
                    f"{where} names image {annotation.get('image_id')}, not in the file"
                )
            if annotation.get("category_id") not in self.categories:
                raise ValueError(
                    f"{where} names category {annotation.get('category_id')}, not there"
                )
            if annotation.get("iscrowd"):
                crowds += 1
                continue
            rle = run_lengths(annotation.get("segmentation"), *sizes[annotation["image_id"]], where)
            if coco_mask.area(rle) == 0:
                vanished += 1
                continue
            box = annotation.get("bbox")
            off = box is not None and np.abs(np.subtract(coco_mask.toBbox(rle), box)).max() > 1
            boxes_off += bool(off)
            label = self.categories[annotation["category_id"]]
            objects[annotation["image_id"]].append((label, rle))
        self.vanished = vanished
        for count, what in (
            (boxes_off, "boxes disagree with their masks by more than a pixel; masks are used"),
            (vanished, "objects have no pixel when drawn; they are left out"),
            (crowds, "crowd regions are left out"),
        ):
            if count:
                log.warning("%s: %d of %d %s", self.path, count, len(annotations), what)
        return objects


def middle(picture: Tensor) -> Tensor:
    """(C, H, W) to the (H, W) in which the objects are: of slices the middle, of colours green."""
    return picture[len(picture) // 2]


def run_lengths(segmentation: Any, height: int, width: int, where: str) -> Any:
    """COCO's compressed run lengths of polygons or RLE.

    Raises:
        ValueError: it is neither, or its size is not the picture's.
    """
    try:
        if isinstance(segmentation, list) and not segmentation:
            segmentation = {"size": [height, width], "counts": [height * width]}
        rle = segmentation
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, height, width)
        size = [int(side) for side in rle["size"]]
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{where}: segmentation is neither polygons nor RLE: {error}") from error
    if size != [height, width]:
        raise ValueError(f"{where}: its RLE is of {size}, its picture {[height, width]} (h, w)")
    return rle


def make_target(masks: Tensor, labels: Tensor, image_id: int) -> Target:
    """A target from masks: tight, half-open boxes, and no object without a pixel.

    Args:
        masks: (N, H, W) uint8.
        labels: (N,) int64.
        image_id: the picture's index.
    """
    rows, columns = (masks.amax(axis).int() for axis in (2, 1))  # torchvision's boxes take a loop
    keep = rows.any(1)
    height, width = masks.shape[1:]
    sides = [
        columns.argmax(1),
        rows.argmax(1),
        width - columns.flip(1).argmax(1),
        height - rows.flip(1).argmax(1),
    ]
    return {
        "boxes": torch.stack(sides, 1)[keep].float(),
        "labels": labels[keep],
        "masks": masks[keep],
        "image_id": torch.tensor(image_id),
    }
