"""A COCO folder as a dataset of torchvision targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import Dataset

from isgseg.data.annotations import Annotations, find_image, key, read_annotations
from isgseg.data.centre_maps import centre_file, check_centre_map, read_centre_map
from isgseg.data.images import Header, Window, common_window, read_header, read_image
from isgseg.data.polygons import boxes_of, in_one_piece, run_lengths
from isgseg.errors import InputError

log = logging.getLogger(__name__)
Target = dict[str, Tensor]
MAX_MASK_BYTES = 8_000_000_000  # the masks of one image, one byte a pixel and object


class CocoInstances(Dataset[tuple[Tensor, Target]]):
    """Images and instance masks of one split.

    Everything that can be is checked when the dataset is opened: every entry, every mask, the
    header of every image. Boxes come from the masks, whatever the file says, and objects without a
    pixel are left out; both are counted and said once.

    A mask marked `iscrowd=1` is one object if it is in one piece, because brush masks of common
    tools are marked so; in several pieces it is a region of many objects, and is left out. Both are
    counted and said.

    An item is an image, (C, H, W) uint8, and torchvision's target: `boxes` (N, 4) float32, xyxy in
    pixels, half-open and tight; `labels` (N,) int64, from 1; `masks` (N, H, W) uint8; `image_id`.

    Args:
        annotations: of `read_annotations`, or the folder that holds `annotations.json` and the
            images, in `images/` or where `file_name` says.
        classes: names of the categories that are numbered from 1; None: those of this split. Use
            `open_splits` for the same numbers in all splits.
        window: values of 16-bit and float images that become 0 and 255; None: the lowest and the
            highest of this split.

    Attributes:
        images: the entries of the file.
        headers: of the images.
        classes: names of the categories, numbered from 1.
        objects: of each image, the labels and run lengths of its objects.
        vanished: how many objects have no pixel.
        has_centres: whether targets have `centre` too, (H, W) uint8; see `require_centres`.

    Raises:
        InputFileNotFoundError: no `annotations.json`, or an image is missing.
        InputError: the file is not COCO or has no image; an entry, a segmentation or an image is
            wrong; the message names it.
    """

    def __init__(
        self,
        annotations: Annotations | str | Path,
        classes: Sequence[str] | None = None,
        window: Window | None = None,
    ) -> None:
        if not isinstance(annotations, Annotations):
            annotations = read_annotations(annotations)
        self.path, self.folder = annotations.path, annotations.folder
        self.images = annotations.images
        self.classes = list(annotations.used if classes is None else classes)
        self.files = [
            find_image(self.folder, image["file_name"], self.path) for image in self.images
        ]
        self.headers = self._check_headers()
        if window is None and self.headers[0].deep != "8-bit":
            window = common_window(self.files)
        self.window = window
        self.vanished = 0
        self.has_centres = False
        self.objects = self._collect(annotations)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        return self.image(index), self.target(index)

    def require_objects(self) -> None:
        """Raises InputError where the split has no object: nothing to learn from, or to score."""
        if not any(self.objects):
            raise InputError(
                f"{self.path} has no object; a split needs at least one: add annotations, or move "
                "annotated images into it"
            )

    def require_centres(self) -> None:
        """Adds centre maps to targets from now on.

        Raises:
            InputError: one is missing, or no map of its image.
        """
        for index, file in enumerate(self.files):
            check_centre_map(centre_file(self.folder, file.name), self.size(index))
        self.has_centres = True

    def image(self, index: int) -> Tensor:
        """The image, uint8: (1, H, W) grey, (3, H, W) colour, or (pages, H, W) of a TIFF."""
        return torch.from_numpy(read_image(self.files[index], self.window))

    def target(self, index: int) -> Target:
        """The ground truth of one image."""
        objects = self.objects[index]
        masks = np.zeros((len(objects), *self.size(index)), dtype=np.uint8)
        for mask, (_, rle) in zip(masks, objects, strict=True):
            mask[:] = coco_mask.decode(rle)
        labels = torch.tensor([label for label, _ in objects], dtype=torch.int64)
        target = make_target(torch.from_numpy(masks), labels, index)
        if self.has_centres:
            path = centre_file(self.folder, self.files[index].name)
            target["centre"] = torch.from_numpy(read_centre_map(path, self.size(index)))
        return target

    def size(self, index: int) -> tuple[int, int]:
        """Height and width, pixels."""
        return int(self.images[index]["height"]), int(self.images[index]["width"])

    def _check_headers(self) -> list[Header]:
        """The headers of all images, which must be alike in depth, and of the size said."""
        headers = [read_header(file) for file in self.files]
        for index, (file, header) in enumerate(zip(self.files, headers, strict=True)):
            height, width = self.size(index)
            if (header.height, header.width) != (height, width):
                raise InputError(
                    f"{file} is {header.width} x {header.height} pixels, but {self.path} says "
                    f"{width} x {height}; correct the entry, or save the image that was annotated"
                )
            if header.deep != headers[0].deep:
                raise InputError(
                    f"{file} is {header.deep}, but {self.files[0]} is {headers[0].deep}; save all "
                    "images of a dataset alike"
                )
        return headers

    def _collect(self, annotations: Annotations) -> list[list[tuple[int, Any]]]:
        """Labels and run lengths by image, with a count of all that was left out or mended."""
        objects: list[list[tuple[int, Any]]] = [[] for _ in self.images]
        most = [
            MAX_MASK_BYTES // (height * width) for height, width in map(self.size, range(len(self)))
        ]
        labels = {
            identifier: self.classes.index(name) + 1
            for identifier, name in annotations.names.items()
            if name in self.classes
        }
        entries = annotations.annotations
        indices = [annotations.indices[key(entry["image_id"])] for entry in entries]
        rles = [self._rle(*pair) for pair in zip(entries, indices, strict=True)]
        boxes_off = brushed = crowds = doubled = 0
        seen: set[tuple[int, bytes]] = set()
        for entry, index, rle, box in zip(entries, indices, rles, boxes_of(rles), strict=True):
            if not box[2:].all():
                self.vanished += 1
                continue
            if (index, rle["counts"]) in seen:
                doubled += 1
                continue
            seen.add((index, rle["counts"]))
            if entry.get("iscrowd"):
                if not in_one_piece(rle):
                    crowds += 1
                    continue
                brushed += 1
            boxes_off += self._box_is_off(entry, box)
            objects[index].append((labels[key(entry["category_id"])], rle))
            if len(objects[index]) > most[index]:
                raise InputError(
                    f"{self.files[index]} has so many objects on so many pixels that their masks "
                    f"take more than {MAX_MASK_BYTES / 1e9:g} GB; cut it into patches"
                )
        for count, what in (
            (boxes_off, "boxes disagree with their masks by more than a pixel; masks are used"),
            (self.vanished, "objects have no pixel when drawn; they are left out"),
            (doubled, "objects have the very mask of another of their image; they are left out"),
            (brushed, "masks are marked iscrowd=1 but in one piece; each is taken as an object"),
            (
                crowds,
                "crowd regions (iscrowd=1, in several pieces) are left out; set iscrowd=0 where "
                "one is an object",
            ),
        ):
            if count:
                log.warning("%s: %d of %d %s", self.path, count, len(entries), what)
        return objects

    def _rle(self, entry: dict[str, Any], index: int) -> Any:
        """The mask of an annotation as run lengths."""
        where = f"{self.path}: annotation {entry['id']}"
        if entry.get("segmentation") is None:
            raise InputError(
                f"{where} has no mask (segmentation), perhaps a box only; isgseg learns outlines: "
                "export polygons or masks"
            )
        return run_lengths(entry["segmentation"], *self.size(index), where)

    def _box_is_off(self, entry: dict[str, Any], drawn: Any) -> bool:
        """Whether the box that the file says is not its mask's; False where it says none."""
        box = entry.get("bbox")
        if not box:
            return False
        if not isinstance(box, list) or len(box) != 4 or not set(map(type, box)) <= {int, float}:
            raise InputError(
                f"{self.path}: annotation {entry['id']}: bbox is no list of four numbers "
                "[x, y, width, height]"
            )
        # As whole numbers, which a mask's box has, they can be compared with any number.
        sides = map(int, drawn)
        return not all(abs(side - said) <= 1 for side, said in zip(sides, box, strict=True))


def middle(image: Tensor) -> Tensor:
    """(C, H, W) to the (H, W) in which the objects are: of slices the middle, of colours green."""
    return image[len(image) // 2]


def make_target(masks: Tensor, labels: Tensor, image_id: int) -> Target:
    """A target from masks: tight, half-open boxes, and no object without a pixel.

    Args:
        masks: (N, H, W) uint8.
        labels: (N,) int64.
        image_id: the image's index.
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
