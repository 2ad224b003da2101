"""What became of each instance, of ground truth and of prediction.

The table, and images of failures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isgseg.analysis.figures import overlay
from isgseg.analysis.granules import granule_table
from isgseg.evaluation.matching import Matching
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

# What images call them, for readers who do not count with false negatives and positives.
IN_IMAGES = {"false_negative": "missed", "false_positive": "spurious"}
_AROUND = 16  # voxels about the centre of a failure that are always in its image
_PIXELS = 160  # of a crop, shown on twice as many: outlines are two pixels wide


@dataclass(frozen=True)
class Failure:
    """An instance without a partner, and what is around it.

    Attributes:
        title: its outcome, and where it is.
        size: nm3, or voxels; the worst of several failures is the largest.
        centre: (z, y, x) pixels in the crops.
        volume: (z, y, x) crop of the grey values.
        ground_truth: (z, y, x) crop of the labels.
        predicted: (z, y, x) crop of the labels.
        voxel_size: nm, (z, y, x), or 1 where it is not known.
    """

    title: str
    size: float
    centre: tuple[int, int, int]
    volume: Array
    ground_truth: Array
    predicted: Array
    voxel_size: tuple[float, float, float]


def outcome_table(
    matching: Matching,
    predicted: Array,
    ground_truth: Array,
    volume: Array,
    voxel_size: Sequence[float] | None,
) -> pd.DataFrame:
    """One row an instance, true ones first; the columns are those of `granule_table`, after three.

    - `side`: `ground_truth` or `predicted`
    - `outcome`: see `Outcomes`; `iou`: with the partner, 0 without one

    Args:
        matching: of the two label volumes.
        predicted: (z, y, x), unsigned integers, 0 is background.
        ground_truth: the same.
        volume: (z, y, x), grey values.
        voxel_size: nm, (z, y, x).
    """
    tables = []
    for side, labels in (("ground_truth", ground_truth), ("predicted", predicted)):
        outcomes = getattr(matching, side)
        table = granule_table(labels, volume, voxel_size)  # both in the order of the labels
        for name, values in (("iou", outcomes.iou), ("outcome", outcomes.outcome), ("side", side)):
            table.insert(0, name, values)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def worst_failures(
    table: pd.DataFrame,
    predicted: Array,
    ground_truth: Array,
    volume: Array,
    voxel_size: tuple[float, float, float] | None,
    *,
    count: int,
    name: str,
) -> list[Failure]:
    """The largest instances without a partner, largest first.

    One whose centre is in the box of a larger one is left out: it is the other half of the same
    failure, such as a ground truth that was merged, and seen in the same image.

    Args:
        table: of `outcome_table`, as the arguments that follow.
        predicted: see there.
        ground_truth: see there.
        volume: see there.
        voxel_size: see there.
        count: at most so many.
        name: what titles call the volume.
    """
    lost = table[table["outcome"] != "matched"].sort_values(
        "voxels", ascending=False, kind="stable"
    )
    low, high, centre = (
        lost[[part.format(axis) for axis in "zyx"]].to_numpy()
        for part in ("{}0", "{}1", "centroid_{}")
    )
    chosen: list[int] = []
    for i in range(len(lost)):
        inside = (low[chosen] <= centre[i]) & (centre[i] < high[chosen])
        if not inside.all(axis=1).any():
            chosen.append(i)
        if len(chosen) == count:
            break
    failures = []
    for i in chosen:
        row = lost.iloc[i]
        middle = np.round(centre[i]).astype(int)
        window = _window(middle, high[i] - low[i], voxel_size or (1.0, 1.0, 1.0))
        z, y, x = (int(m - part.start) for m, part in zip(middle, window, strict=True))
        diameter = f"{row['equivalent_diameter_nm']:.0f} nm"
        if voxel_size is None:
            diameter = f"{row['equivalent_diameter_px']:.1f} px"
        outcome = IN_IMAGES.get(row["outcome"], row["outcome"])
        title = f"{outcome}: {row['side'].replace('_', ' ')} {row['label']}, {diameter}"
        failures.append(
            Failure(
                title=f"{title}\n{name} ({', '.join(map(str, middle))})",
                size=float(row["voxels"] * np.prod(voxel_size or 1.0)),
                centre=(z, y, x),
                volume=volume[window].copy(),
                ground_truth=ground_truth[window].copy(),
                predicted=predicted[window].copy(),
                voxel_size=voxel_size or (1.0, 1.0, 1.0),
            )
        )
    return failures


def _window(
    centre: npt.NDArray[np.int64], extent: npt.NDArray[np.int64], voxel_size: Sequence[float]
) -> tuple[slice, ...]:
    """As wide in nm along each axis, and twice as wide as the instance: its neighbours show."""
    size = np.array(voxel_size)
    half = np.ceil(max((extent * size).max(), _AROUND * size.min()) / size).astype(int)
    return tuple(
        slice(max(0, int(c - h)), int(c + h + 1)) for c, h in zip(centre, half, strict=True)
    )


def failure_figure(failures: Sequence[Failure], path: Path) -> Path:
    """Draw each failure in the planes z and y through its centre, which a yellow cross marks.

    Args:
        failures: at least one.
        path: of the image; its suffix is the format. Its folder is created.
    """
    columns = min(4, len(failures))
    rows = math.ceil(len(failures) / columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows + 0.5), layout="constrained")
    figure.suptitle("Ground truth green, prediction magenta, white where outlines agree; (z, y, x)")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for one in axes.flat:
        one.set_axis_off()
    for failure, (left, right) in zip(failures, axes.reshape(-1, 2), strict=False):
        z, y, x = failure.centre
        nm = failure.voxel_size
        _draw(left, failure, np.s_[z], (x, y), nm[1] / nm[2])
        _draw(right, failure, np.s_[:, y], (x, z), nm[0] / nm[2])
        left.set_title(failure.title, fontsize=9, loc="left")
        right.set_title("along y", fontsize=9, loc="right")
    with replacing(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:] or "png", dpi=120)
    return path


def _draw(axes: Axes, failure: Failure, plane: Any, centre: tuple[int, int], aspect: float) -> None:
    """One plane of the crops; centre: (column, row)."""
    ground_truth, predicted = (
        _masks(labels[plane]) for labels in (failure.ground_truth, failure.predicted)
    )
    image = failure.volume[plane]
    height, width = image.shape
    axes.imshow(
        overlay(image, ground_truth, predicted, _PIXELS),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        aspect=aspect,
        interpolation="nearest",
    )
    axes.plot(*centre, "+", color="yellow", markersize=5)


def _masks(labels: Array) -> Array:
    """(H, W) labels to (N, H, W) masks."""
    numbers = np.unique(labels[labels > 0])
    return np.asarray(labels == numbers[:, None, None])
