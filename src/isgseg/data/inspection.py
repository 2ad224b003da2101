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
from isgseg.data.origin import list_pictures, merged, read_source, why_not_linked

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_TWICE = 0.8  # objects that overlap more, as IoU, are one that was drawn twice
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        splits: the datasets, by name.
        pictures: `list_pictures` of each, with `split`.
        objects: `measure_objects` of each, with `split`, with `height`, `width` and `nm` of the
            picture, and with `merged` (NaN: not known).
        unlinked: why `merged` is not known of any, or None.
    """

    splits: dict[str, CocoInstances]
    pictures: pd.DataFrame
    objects: pd.DataFrame
    unlinked: str | None


def inspect(root: str | Path, ring: int, progress: bool) -> Inspection:
    """Measures all objects of a dataset folder.

    Args:
        root: holds `train/` and `val/`.
        ring: how far the surroundings of an object reach, pixels.
        progress: show a bar.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a split is not COCO, or has no object.
    """
    source = read_source(Path(root))
    splits = {name: CocoInstances(Path(root) / name) for name in ("train", "val")}
    pictures, objects = {}, {}
    for name, dataset in splits.items():
        dataset.require_objects()
        pictures[name] = list_pictures(dataset, source)
        table = measure_objects(dataset, ring, progress)
        objects[name] = table.join(pictures[name][["height", "width", "nm"]], on="picture")
    unlinked = why_not_linked(source, pd.concat(objects)["side"].median())
    for name, dataset in splits.items():
        objects[name]["merged"] = (
            np.nan if unlinked else merged(dataset, pictures[name], source["patches"]["slice_step"])
        )
    if unlinked is None and pd.concat(objects)["merged"].isna().all():
        unlinked = "no two neighbouring slices are there"
    return Inspection(splits, _join(pictures), _join(objects), unlinked)


def _join(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One table of those of all splits, with `split`."""
    named = [table.assign(split=name) for name, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def measure_objects(dataset: CocoInstances, ring: int, progress: bool) -> pd.DataFrame:
    """One row for each object, in the order of the pictures.

    Args:
        dataset: a split.
        ring: how far the surroundings of an object reach, pixels.
        progress: show a bar.

    Returns:
        `picture`, its index; `x0`, `y0`, `x1`, `y1`, the tight box; `side`, root of its width times
        height, and `diameter`, of the disc of the same area, pixels; `touching`; `twice`, whether
        another object is the same; `inside` and `around`, mean grey values, NaN without a ring.
    """
    tables = []
    for index, picture in enumerate(tqdm(dataset.images, "Pictures", disable=not progress)):
        target = dataset.target(index)
        masks, boxes = target["masks"].numpy(), target["boxes"].numpy()
        grey = middle(dataset.picture(index)).numpy()
        inside, around = intensities(grey, masks, boxes, ring)
        table = pd.DataFrame(boxes, columns=["x0", "y0", "x1", "y1"], dtype=float)
        table.insert(0, "picture", index)
        table["side"] = np.sqrt((table.x1 - table.x0) * (table.y1 - table.y0))
        table["diameter"] = np.sqrt(4 / np.pi * masks.sum((1, 2)))
        table["touching"] = touching(masks, boxes)
        table["twice"] = drawn_twice([rle for _, rle in dataset.objects[picture["id"]]])
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


def intensities(picture: Array, masks: Array, boxes: Array, ring: int) -> tuple[Floats, Floats]:
    """Mean grey value of each object, and of its surroundings.

    Args:
        picture: (H, W).
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
        inside[number] = picture[mask].mean()
        if near.any():
            around[number] = picture[at][near].mean()
    return inside, around


def _windows(boxes: Array, margin: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of boxes, xyxy, with a margin."""
    for x0, y0, x1, y1 in boxes.astype(int):
        yield np.s_[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin]


def drawn_twice(rles: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """Which objects of a picture, as run lengths, are the same as an earlier one."""
    if not rles:
        return np.zeros(0, bool)
    same = np.array(coco_mask.iou(rles, rles, [0] * len(rles))) > _TWICE
    return np.asarray(np.triu(same, 1).sum(0) > 0)
