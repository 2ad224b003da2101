"""Labelled volumes to slice patches with COCO annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage as ndi

from isgseg.data.polygons import encode
from isgseg.normalization import Grey

AXES = {"z": 0, "y": 1, "x": 2}
# What `cut_volume` calls a patch.
PLACE = re.compile(
    r"(?P<volume>.+)_(?P<axis>[zyx])(?P<slice>\d+)_(?P<top>\d+)_(?P<left>\d+)\.(png|tif)"
)


@dataclass(frozen=True)
class PatchSettings:
    """How volumes are cut; `conf/prepare.yaml` describes each.

    Attributes:
        size: side of a patch, pixels; slices smaller than that are kept whole.
        stride: distance between neighbouring patches, pixels.
        axes: the axes along which slices are taken, of z, y and x.
        slice_step: every how many slices one is taken.
        context: how many slices on either side a picture shows too; see `picture_maker`.
        min_pixels: sections of an object smaller than this are left out, and counted.
        empty_share: share of patches without any object that is allowed in the training split.
    """

    size: int = 256
    stride: int = 256
    axes: Sequence[str] = ("z",)
    slice_step: int = 1
    context: int = 0
    min_pixels: int = 1
    empty_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("size", "stride", "slice_step", "min_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"patches.{name} is {getattr(self, name)}; it must be at least 1")
        if not self.axes or not set(self.axes) <= set(AXES):
            raise ValueError(f"patches.axes is {list(self.axes)}; choose from z, y and x")
        if self.context < 0:
            raise ValueError(f"patches.context is {self.context}; choose 0, 1, 2, ...")
        if not 0 <= self.empty_share < 1:
            raise ValueError(f"patches.empty_share is {self.empty_share}; it must be in [0, 1)")


@dataclass
class Split:
    """One split while it grows: its COCO content and what was left out."""

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    too_small: int = 0
    empty_left_out: int = 0

    def add(self, picture: npt.NDArray[np.uint8], labels: npt.NDArray[Any], name: str) -> None:
        """Saves a patch and its objects; every object of `labels` becomes one annotation."""
        identifier = len(self.images) + 1
        save_picture(self.folder / "images" / name, picture)
        height, width = labels.shape
        self.images.append({"id": identifier, "file_name": name, "height": height, "width": width})
        for number, window in enumerate(ndi.find_objects(labels), start=1):
            if window is not None:
                annotation = annotate(labels, number, window)
                annotation |= {"id": len(self.annotations) + 1, "image_id": identifier}
                self.annotations.append(annotation)

    def save(self) -> None:
        """Writes annotations.json."""
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": 1, "name": "granule"}],
        }
        (self.folder / "annotations.json").write_text(json.dumps(content))


def save_picture(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Saves (H, W) or (H, W, 3) as PNG, and of more channels each as a page of a TIFF."""
    if path.suffix == ".png":
        Image.fromarray(picture).save(path, compress_level=1)
        return
    first, *others = (Image.fromarray(page) for page in np.moveaxis(picture, -1, 0))
    # As noise hardly shrinks, each reading would wait for its decompression in vain.
    first.save(path, compression="raw", save_all=True, append_images=others)


def annotate(labels: npt.NDArray[Any], number: int, window: tuple[slice, slice]) -> dict[str, Any]:
    """One COCO annotation; its box is tight and half-open, as the masks are the truth."""
    mask = labels[window] == number
    rows, columns = window
    segmentation = encode(mask)
    if isinstance(segmentation, list):  # polygons move with their window; run lengths do not
        segmentation = [
            [value + (rows.start if i % 2 else columns.start) for i, value in enumerate(polygon)]
            for polygon in segmentation
        ]
    else:
        segmentation = encode(labels == number)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return {
        "category_id": 1,
        "segmentation": segmentation,
        "bbox": [columns.start, rows.start, width, height],
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where patches begin so that they cover `length` pixels; the last one is moved inside."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def drop_small(labels: npt.NDArray[Any], min_pixels: int) -> tuple[npt.NDArray[Any], int]:
    """Removes sections of fewer pixels; returns the rest, renumbered from 1, and their count."""
    numbers, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    keep = (counts >= min_pixels) & (numbers > 0)
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[inverse].reshape(labels.shape), int(((numbers > 0) & ~keep).sum())


def picture_maker(
    slices: npt.NDArray[Any], grey: Grey, context: int
) -> Callable[[int], npt.NDArray[np.uint8]]:
    """What makes of one slice what the network sees; training and prediction both come through it.

    Args:
        slices: (n, H, W) voxels.
        grey: the volume's normalization. It is computed once for each slice, if they come in order.
        context: how many slices before and after it to show too. The end slices stand in for those
            beyond.

    Returns:
        A function from the index of a slice to (H, W) uint8, or with context
        (H, W, 2 context + 1), the slice itself in the middle.
    """
    at = lru_cache(2 * context + 1)(lambda number: grey(slices[number]))

    def picture_of(index: int) -> npt.NDArray[np.uint8]:
        if context == 0:
            return at(index)
        shown = np.clip(np.arange(index - context, index + context + 1), 0, len(slices) - 1)
        return np.stack([at(number) for number in shown.tolist()], axis=-1)

    return picture_of


def cut_volume(
    split: Split,
    name: str,
    volume: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    grey: Grey,
    settings: PatchSettings,
    all_empty: bool,
) -> None:
    """Cuts one volume into a split.

    Args:
        split: grows by the patches.
        name: begins every picture's name.
        volume: (z, y, x).
        labels: (z, y, x), 0 is background.
        grey: the volume's normalization.
        settings: how to cut.
        all_empty: keep every patch without objects (validation: false positives must count), or
            only `empty_share` of them, evenly spread (training).
    """
    cells: list[tuple[str, npt.NDArray[np.uint8], npt.NDArray[Any]]] = []
    full = 0
    suffix = "png" if settings.context < 2 else "tif"  # PNG has no more than three such channels
    for axis in settings.axes:
        slices, label_slices = (np.moveaxis(part, AXES[axis], 0) for part in (volume, labels))
        picture_of = picture_maker(slices, grey, settings.context)
        for index in range(0, len(slices), settings.slice_step):
            picture = picture_of(index)
            for top in starts(picture.shape[0], settings.size, settings.stride):
                for left in starts(picture.shape[1], settings.size, settings.stride):
                    window = np.s_[top : top + settings.size, left : left + settings.size]
                    kept, small = drop_small(label_slices[index][window], settings.min_pixels)
                    split.too_small += small
                    file_name = f"{name}_{axis}{index:04d}_{top:04d}_{left:04d}.{suffix}"
                    if kept.any() or all_empty:
                        split.add(picture[window], kept, file_name)
                        full += 1
                    else:
                        cells.append((file_name, picture[window].copy(), kept))
    if not all_empty:
        share = settings.empty_share
        wanted = min(len(cells), round(full * share / (1 - share)))
        split.empty_left_out += len(cells) - wanted
        for i in np.linspace(0, len(cells) - 1, wanted).round().astype(int):
            file_name, patch, kept = cells[i]
            split.add(patch, kept, file_name)
