"""What the labels of a split say: size, crowding, touching, contrast, doubtful annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools import mask as coco_mask
from scipy import ndimage
from tqdm import tqdm

from isgseg.data.coco import CocoInstances, middle
from isgseg.data.metadata import read_metadata
from isgseg.data.provenance import list_images, merged, why_not_linked
from isgseg.data.splits import open_splits

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_TWICE = 0.8  # objects that overlap more, as IoU, are one that was drawn twice
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        splits: the datasets, by name.
        images: `list_images` of each, with `split`.
        objects: `measure_objects` of each, with `split`, with `height`, `width` and `nm` of the
            image, and with `merged` (NaN: not known).
        unlinked: why `merged` is not known of any, or None.
    """

    splits: dict[str, CocoInstances]
    images: pd.DataFrame
    objects: pd.DataFrame
    unlinked: str | None


def inspect(root: str | Path, ring: int, progress: bool) -> Inspection:
    """Measures all objects of a dataset folder.

    Args:
        root: holds `train/` and `val/`.
        ring: width of the surroundings of an object, pixels.
        progress: show a bar.

    Raises:
        InputFileNotFoundError: a file is missing.
        InputError: a split is not COCO, or has no object.
    """
    metadata = read_metadata(root)
    splits = open_splits(root)
    images, objects = {}, {}
    for name, dataset in splits.items():
        dataset.require_objects()
        images[name] = list_images(dataset, metadata)
        table = measure_objects(dataset, ring, progress)
        objects[name] = table.join(images[name][["height", "width", "nm"]], on="image")
    unlinked = why_not_linked(metadata, pd.concat(objects)["side"].median())
    for name, dataset in splits.items():
        step = metadata.patches.slice_step if metadata.patches else 1
        objects[name]["merged"] = np.nan if unlinked else merged(dataset, images[name], step)
    if unlinked is None and pd.concat(objects)["merged"].isna().all():
        unlinked = "no two neighbouring slices are there"
    return Inspection(splits, _join(images), _join(objects), unlinked)


def _join(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of those of all splits, with `split`."""
    named = [table.assign(split=name) for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def measure_objects(dataset: CocoInstances, ring: int, progress: bool) -> pd.DataFrame:
    """One row for each object, in the order of the images.

    Args:
        dataset: a split.
        ring: width of the surroundings of an object, pixels.
        progress: show a bar.

    Returns:
        `image`, its index; `x0`, `y0`, `x1`, `y1`, the tight box; `side`, root of its width times
        height, and `diameter`, of the disc of the same area, pixels; `touching`; `twice`, whether
        another object is the same; `inside` and `around`, mean grey values, NaN without a ring.
    """
    tables = []
    for index in tqdm(range(len(dataset)), "Images", disable=not progress):
        target = dataset.target(index)
        masks, boxes = target["masks"].numpy(), target["boxes"].numpy()
        channel = middle(dataset.image(index)).numpy()
        inside, around = intensities(channel, masks, boxes, ring)
        table = pd.DataFrame(boxes, columns=["x0", "y0", "x1", "y1"], dtype=float)
        table.insert(0, "image", index)
        table["side"] = np.sqrt((table.x1 - table.x0) * (table.y1 - table.y0))
        table["diameter"] = np.sqrt(4 / np.pi * masks.sum((1, 2)))
        table["touching"] = touching(masks, boxes)
        table["twice"] = drawn_twice([rle for _, rle in dataset.objects[index]])
        table["inside"], table["around"] = inside, around
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def touching(masks: Array, boxes: Array) -> npt.NDArray[np.bool_]:
    """Which masks, (N, H, W), share a pixel or a neighbouring one of eight with another."""
    occupied = masks.sum(0)
    windows = zip(masks, _windows(boxes, 1), strict=True)
    return np.array(
        [
            (ndimage.binary_dilation(mask[at], _EIGHT) & (occupied[at] > mask[at])).any()
            for mask, at in windows
        ],
        bool,
    )


def intensities(image: Array, masks: Array, boxes: Array, ring: int) -> tuple[Floats, Floats]:
    """Mean grey value of each object, and of its surroundings.

    Args:
        image: (H, W).
        masks: (N, H, W).
        boxes: (N, 4), xyxy, tight.
        ring: surroundings are the pixels at most this far from the object that are in none.

    Returns:
        Two arrays (N,); NaN where every pixel around is an object's.
    """
    free = masks.sum(0) == 0
    inside, around = np.full((2, len(masks)), np.nan)
    for number, (mask, at) in enumerate(zip(masks > 0, _windows(boxes, ring), strict=True)):
        near = free[at] & (ndimage.distance_transform_edt(~mask[at]) <= ring)
        inside[number] = image[mask].mean()
        if near.any():
            around[number] = image[at][near].mean()
    return inside, around


def _windows(boxes: Array, margin: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of boxes, xyxy, with a margin."""
    for x0, y0, x1, y1 in boxes.astype(int):
        yield np.s_[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin]


def drawn_twice(rles: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """Which objects of an image, as run lengths, are the same as an earlier one."""
    if not rles:
        return np.zeros(0, bool)
    same = np.array(coco_mask.iou(rles, rles, [0] * len(rles))) > _TWICE
    return np.asarray(np.triu(same, 1).sum(0) > 0)
