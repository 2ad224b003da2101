"""Where the images of a dataset were cut from, and what neighbouring slices say of each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pycocotools import mask as coco_mask

from isgseg.data.coco import CocoInstances
from isgseg.data.metadata import DatasetMetadata
from isgseg.data.patches import AXES, PLACE

# How earlier releases wrote into a file's name what the fields of an image say now.
_NAMED = re.compile(
    r"(?P<volume>.+)_(?P<axis>[zyx])(?P<slice>\d+)_(?P<top>\d+)_(?P<left>\d+)\.(png|tif)"
)


def place_of(image: Mapping[str, Any], metadata: DatasetMetadata) -> dict[str, Any] | None:
    """Where an image was cut from: its `volume`, `axis`, `slice`, `top` and `left`.

    Args:
        image: an entry of COCO's `images`. Datasets of earlier releases have no such fields; there
            the name of the file says the same.
        metadata: of the dataset; only its volumes are known.

    Returns:
        The five values, or None where they are not known.
    """
    place = {key: image[key] for key in PLACE if key in image}
    if len(place) < len(PLACE):
        named = _NAMED.fullmatch(image["file_name"])
        if named is None:
            return None
        place = {key: named[key] if key in ("volume", "axis") else int(named[key]) for key in PLACE}
    known = {source.name for source in metadata.volumes}
    return place if place["volume"] in known and place["axis"] in AXES else None


def pixel_sizes(
    images: Sequence[Mapping[str, Any]], metadata: DatasetMetadata
) -> npt.NDArray[np.float64]:
    """The sides of a pixel of each image, which depend on the axis that it was sliced along.

    Args:
        images: entries of COCO's `images`.
        metadata: of the dataset.

    Returns:
        (N, 2), rows and columns, nm; NaN where the voxel size is not known. Images whose axis is
        not known are taken as slices along z.
    """
    sizes = np.full((len(images), 2), np.nan)
    if metadata.voxel_size is not None:
        for size, image in zip(sizes, images, strict=True):
            place = place_of(image, metadata)
            size[:] = np.delete(metadata.voxel_size, AXES[place["axis"] if place else "z"])
    return sizes


def list_images(dataset: CocoInstances, metadata: DatasetMetadata) -> pd.DataFrame:
    """One row for each image.

    Returns:
        `image`, its index; `height`, `width`, and number of `objects`; where it was cut from:
        `volume`, `axis`, `slice`, `top` and `left`, not set where it is not known; `nm`, the side
        of a square as large as a pixel, or NaN.
    """
    sides = np.sqrt(pixel_sizes(dataset.images, metadata).prod(1))
    rows = []
    for index, (image, nm) in enumerate(zip(dataset.images, sides.tolist(), strict=True)):
        height, width = dataset.size(index)
        place = place_of(image, metadata) or dict.fromkeys(PLACE)
        objects = len(dataset.objects[index])
        rows.append(
            {"image": index, "height": height, "width": width, "objects": objects}
            | place
            | {"nm": nm}
        )
    return pd.DataFrame(rows)


def why_not_linked(metadata: DatasetMetadata, side: float) -> str | None:
    """Why masks of neighbouring slices cannot be compared, or None where they can.

    Args:
        metadata: of the dataset.
        side: of a usual object, pixels; beyond a quarter of it, another object may follow.
    """
    if metadata.patches is None:
        return "no dataset.yaml of isgseg-prepare says which images are neighbouring slices"
    step = metadata.patches.slice_step
    if step > max(1, side / 4):
        return f"slices are {step} apart; isgseg-prepare patches.slice_step=1 keeps them all"
    return None


def merged(dataset: CocoInstances, images: pd.DataFrame, step: int) -> npt.NDArray[np.float64]:
    """Which objects cover two or more of a neighbouring slice, each with at least half its area.

    Args:
        dataset: a split.
        images: of `list_images`.
        step: slices from one image to its neighbour.

    Returns:
        For each object, in the order of the images, 1 or 0; NaN where neither neighbour is there.
    """
    rles = [[rle for _, rle in objects] for objects in dataset.objects]
    places = images[["volume", "axis", "top", "left"]].apply(tuple, axis=1)
    index = {
        (place, int(number)): image
        for image, (place, number) in enumerate(zip(places, images["slice"], strict=True))
        if pd.notna(number)
    }
    found = [np.full(len(objects), np.nan) for objects in rles]
    for (place, number), here in index.items():
        for there in (index.get((place, number - step)), index.get((place, number + step))):
            if there is None:
                continue
            covered = np.zeros((len(rles[there]), len(rles[here])))
            if covered.size:  # to COCO, the share of an object that a crowd region covers
                covered = coco_mask.iou(rles[there], rles[here], [1] * len(rles[here]))
            found[here] = np.fmax(found[here], (covered >= 0.5).sum(0) >= 2)
    return np.concatenate(found)
