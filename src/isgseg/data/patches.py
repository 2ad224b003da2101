"""Labelled volumes to slice patches with COCO annotations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
PLACE = re.compile(r"(?P<volume>.+)_(?P<axis>[zyx])(?P<slice>\d+)_(?P<top>\d+)_(?P<left>\d+)\.png")


@dataclass(frozen=True)
class PatchSettings:
    """How volumes are cut; `conf/prepare.yaml` describes each.

    Attributes:
        size: side of a patch, pixels; slices smaller than that are kept whole.
        stride: distance between neighbouring patches, pixels.
        axes: the axes along which slices are taken, of z, y and x.
        slice_step: every how many slices one is taken.
        context: 0 for grey pictures; 1 or 2 for colour pictures that show that many slices on
            either side too; see `picture_of`.
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
        if self.context not in (0, 1, 2):
            raise ValueError(f"patches.context is {self.context}; choose 0, 1 or 2")
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
        Image.fromarray(picture).save(self.folder / "images" / name, compress_level=1)
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


def slice_pictures(
    volume: npt.NDArray[Any], grey: Grey, axis: str, settings: PatchSettings
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """The slices along an axis, as (H, W) grey or, with context, (H, W, 3) pictures."""
    slices = np.moveaxis(volume, AXES[axis], 0)
    for index in range(0, len(slices), settings.slice_step):
        yield index, picture_of(slices, grey, index, settings.context)


def picture_of(
    slices: npt.NDArray[Any], grey: Grey, index: int, context: int
) -> npt.NDArray[np.uint8]:
    """What the network sees of one slice; training and prediction both come through here.

    Args:
        slices: (n, H, W) voxels.
        grey: the volume's normalization.
        index: which slice.
        context: 0; 1 for the slices before and after as first and last channel; 2 for the mean of
            the two slices next to it as first, and of the two behind those as last channel, which
            have less noise and are the same from either end. The end slices stand in for those
            beyond.

    Returns:
        (H, W) uint8, or (H, W, 3) with context.
    """
    if context == 0:
        return grey(slices[index])

    def at(distance: int) -> npt.NDArray[Any]:
        nearest: npt.NDArray[Any] = slices[min(max(index + distance, 0), len(slices) - 1)]
        return nearest

    if context == 1:
        channels = [at(-1), at(0), at(1)]
    else:
        means = [(at(-d).astype(np.float32) + at(d)) / 2 for d in (1, 2)]
        channels = [means[0], at(0), means[1]]
    return np.stack([grey(channel) for channel in channels], axis=-1)


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
    for axis in settings.axes:
        label_slices = np.moveaxis(labels, AXES[axis], 0)
        for index, picture in slice_pictures(volume, grey, axis, settings):
            for top in starts(picture.shape[0], settings.size, settings.stride):
                for left in starts(picture.shape[1], settings.size, settings.stride):
                    window = np.s_[top : top + settings.size, left : left + settings.size]
                    kept, small = drop_small(label_slices[index][window], settings.min_pixels)
                    split.too_small += small
                    file_name = f"{name}_{axis}{index:04d}_{top:04d}_{left:04d}.png"
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
