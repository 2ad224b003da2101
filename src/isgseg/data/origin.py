"""Where the pictures of a dataset were cut from, and what neighbouring slices say of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from omegaconf import OmegaConf
from pycocotools import mask as coco_mask

from isgseg.data.coco import CocoInstances
from isgseg.data.patches import AXES, PLACE
from isgseg.formats import is_voxel_size


def read_source(root: Path) -> dict[str, Any]:
    """What isgseg-prepare wrote into `dataset.yaml`; empty for other COCO folders.

    Raises:
        ValueError: `voxel_size` is not one positive number for each of z, y and x.
    """
    path = root / "dataset.yaml"
    content: Any = OmegaConf.to_object(OmegaConf.load(path)) if path.is_file() else {}
    size = content.get("voxel_size")
    if size is not None and not (isinstance(size, list) and is_voxel_size(size)):
        raise ValueError(f"{path}: voxel_size is {size}; give nm, [z, y, x], or remove it")
    return dict(content)


def list_pictures(dataset: CocoInstances, source: dict[str, Any]) -> pd.DataFrame:
    """One row for each picture.

    Returns:
        `picture`, its index; `height`, `width`, and number of `objects`; where it was cut from:
        `volume`, `axis`, `slice`, `top` and `left`, not set where it is not known; `nm`, the side
        of a pixel, or NaN.
    """
    names = {volume["name"] for volume in source.get("volumes", [])}
    rows = []
    for index, image in enumerate(dataset.images):
        height, width = dataset.size(index)
        place = PLACE.fullmatch(image["file_name"])
        if place is not None and place["volume"] not in names:
            place = None
        size = list(source.get("voxel_size") or [np.nan] * 3)
        size.pop(AXES[place["axis"] if place else "z"])
        rows.append(
            {
                "picture": index,
                "height": height,
                "width": width,
                "objects": len(dataset.objects[image["id"]]),
                **{key: place[key] if place else None for key in PLACE.groupindex},
                "nm": float(np.sqrt(size[0] * size[1])),
            }
        )
    return pd.DataFrame(rows)


def why_not_linked(source: dict[str, Any], side: float) -> str | None:
    """Why sections of neighbouring slices cannot be compared, or None where they can.

    Args:
        source: of `read_source`.
        side: of a usual object, pixels; beyond a quarter of it, another object may follow.
    """
    step = source.get("patches", {}).get("slice_step")
    if step is None:
        return "no dataset.yaml of isgseg-prepare says which pictures are neighbouring slices"
    if step > max(1, side / 4):
        return f"slices are {step} apart; isgseg-prepare patches.slice_step=1 keeps them all"
    return None


def merged(dataset: CocoInstances, pictures: pd.DataFrame, step: int) -> npt.NDArray[np.float64]:
    """Which objects cover two or more of a neighbouring slice, each with at least half its area.

    Args:
        dataset: a split.
        pictures: of `list_pictures`.
        step: slices from one picture to its neighbour.

    Returns:
        For each object, in the order of the pictures, 1 or 0; NaN where neither neighbour is there.
    """
    rles = [[rle for _, rle in dataset.objects[image["id"]]] for image in dataset.images]
    places = pictures[["volume", "axis", "top", "left"]].apply(tuple, axis=1)
    index = {
        (place, int(number)): picture
        for picture, (place, number) in enumerate(zip(places, pictures["slice"], strict=True))
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
