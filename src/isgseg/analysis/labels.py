"""What the labels of a split say, in numbers and text, and how many detections to allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

_PERCENTILES = (5, 25, 50, 75, 95)
_MARGIN = 1.5  # cells to come may be more crowded
_PROPOSALS = 4  # for each detection, as several overlap an object
_ROWS = (  # title, key of `summary`, how it is written
    ("images", "images", "{}"),
    ("  without an object", "empty_share", "{:.3f}"),
    ("objects", "objects", "{}"),
    ("  in an image, mean", "objects_per_image", "{:.1f}"),
    ("  in an image, most", "most_objects", "{}"),
    ("  without a pixel", "vanished", "{}"),
    ("  drawn twice", "drawn_twice", "{}"),
    ("  cover two of the next slice", "merged", "{}"),
    ("  touch another", "touching_share", "{:.3f}"),
    ("  no brighter than around", "not_brighter_share", "{:.3f}"),
    ("  with an anchor that fits", "anchor_share", "{:.3f}"),
    ("tight side, px", "side_px", "{:.1f}"),
    ("tight side, nm", "side_nm", "{:.0f}"),
    ("diameter, px", "diameter_px", "{:.1f}"),
    ("diameter, nm", "diameter_nm", "{:.0f}"),
    ("contrast, grey levels", "contrast", "{:.1f}"),
    ("contrast, of what is around", "relative_contrast", "{:.2f}"),
)


def summary(objects: pd.DataFrame, images: pd.DataFrame, vanished: int) -> dict[str, Any]:
    """The numbers of one split.

    Args:
        objects: of `measure_objects`, with `nm` of a pixel, `merged` (NaN: not known), and `fits`,
            whether an anchor does.
        images: of `list_images`.
        vanished: how many further objects have no pixel.
    """
    contrast = objects["inside"] - objects["around"]
    measured = contrast.notna()
    linked = objects["merged"].notna()
    return {
        "images": len(images),
        "empty_share": float((images["objects"] == 0).mean()),
        "objects": len(objects),
        "objects_per_image": float(images["objects"].mean()),
        "most_objects": int(images["objects"].max()),
        "side_px": percentiles(objects["side"]),
        "side_nm": percentiles(objects["side"] * objects["nm"]),
        "diameter_px": percentiles(objects["diameter"]),
        "diameter_nm": percentiles(objects["diameter"] * objects["nm"]),
        "touching_share": float(objects["touching"].mean()),
        "vanished": vanished,
        "drawn_twice": int(objects["twice"].sum()),
        "merged": int(objects["merged"].sum()) if linked.any() else None,
        "merged_of": int(linked.sum()),
        "contrast": percentiles(contrast),
        "relative_contrast": percentiles((contrast / objects["around"]).replace(np.inf, np.nan)),
        "contrast_of": int(measured.sum()),
        "not_brighter_share": float((contrast[measured] <= 0).mean()) if measured.any() else None,
        "anchor_share": float(objects["fits"].mean()),
    }


def percentiles(values: pd.Series[float]) -> dict[str, float] | None:
    """Percentiles 5, 25, 50, 75 and 95 by their names, without NaN; None where all are NaN."""
    known = values.dropna()
    if known.empty:
        return None
    return dict(zip(map(str, _PERCENTILES), np.percentile(known, _PERCENTILES), strict=True))


def recommend_limits(images: pd.DataFrame) -> dict[str, int]:
    """`detections` and `proposals` for a whole slice, from the most crowded one, with a margin.

    Prediction sees whole slices: patches of one slice count together where their place is known.
    """
    slices = images.groupby(["volume", "axis", "slice"])["objects"].sum()
    most = max(images["objects"].max(), slices.max() if len(slices) else 0)
    detections = max(100, 50 * math.ceil(_MARGIN * most / 50))
    return {"proposals": _PROPOSALS * detections, "detections": detections}


def recommend_crop(scale: float, largest: float, smallest_image: int) -> int | None:
    """Side of training crops, pixels, that fill 512 network pixels; None keeps whole patches.

    Args:
        scale: network pixels per image pixel.
        largest: side of the largest object, pixels; a crop is at least four times that.
        smallest_image: shortest side of any image.
    """
    crop = 32 * math.ceil(max(512 / scale, 4 * largest) / 32)
    return crop if crop < smallest_image else None


def split_table(splits: dict[str, dict[str, Any]], unlinked: str | None) -> str:
    """The numbers of each split as text, one row each."""
    lines = [f"{'':30}" + "".join(f"{name:>30}" for name in splits)]
    for title, key, form in _ROWS:
        cells = [_text(split[key], form) for split in splits.values()]
        lines.append(f"{title:30}" + "".join(f"{cell:>30}" for cell in cells))
    lines.append("(five numbers: percentiles 5, 25, 50, 75, 95)")
    if unlinked:
        lines.append(f"(objects that cover two of the next slice are not known: {unlinked})")
    return "\n".join(lines)


def _text(value: Any, form: str) -> str:
    """A number or percentiles as text."""
    if value is None:
        return "not known"
    numbers = value.values() if isinstance(value, dict) else [value]
    return " ".join(form.format(number) for number in numbers)


def candidate_table(candidates: list[dict[str, Any]]) -> str:
    """The networks that were compared as text, one row each."""
    lines = [f"{'coverage':>8}{'scale':>7}{'anchor_density':>16}  anchor_sizes"]
    lines += [
        f"{option['coverage']:8.3f}{option['scale']:7g}{option['anchor_density']:16}  "
        f"{option['anchor_sizes']}"
        for option in candidates
    ]
    return "\n".join(lines)
