"""The most doubtful granules of a volume on one page, each in a small image of its own."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isgseg.analysis.figures import contrast_limits
from isgseg.analysis.review import box_of, in_order
from isgseg.instances.parts import Box
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

COUNT = 50
_COLUMNS = 10
_MARGIN = 8  # voxels around a granule
_LEAST = 36  # voxels across an image, at least
_OWN, _OTHER = (1.0, 0.82, 0.0), (0.0, 0.85, 0.95)  # yellow and cyan; the colour-blind tell them


def contact_sheet(
    volume: Array,
    labels: Array,
    table: pd.DataFrame,
    path: str | Path,
    voxel_size: Sequence[float] | None = None,
    count: int = COUNT,
) -> Path:
    """Draws the most doubtful granules, the most doubtful first, with the reasons.

    Each image is the slice through the middle of the granule, which is outlined in yellow; others
    are outlined in cyan.

    Args:
        volume: (z, y, x), grey values.
        labels: (z, y, x), unsigned integers, 0 is background.
        table: of `granule_table`, with `suspicion` and `reason`.
        path: of the image; its suffix is the format. Its folder is created.
        voxel_size: nm, (z, y, x), for the shape of the images.
        count: how many granules at most.

    Raises:
        ValueError: `labels` and `volume` differ in shape.
    """
    if volume.shape != labels.shape:
        raise ValueError(f"labels are {labels.shape} but the volume is {volume.shape} (z, y, x)")
    by_label = table.set_index("label", drop=False)
    rows = by_label.loc[in_order(by_label)[:count]].to_dict("records")
    lines = max(1, math.ceil(len(rows) / _COLUMNS))
    figure = Figure(figsize=(1.7 * _COLUMNS, 2.45 * lines + 0.5), dpi=100)
    figure.suptitle(
        f"The {len(rows)} most doubtful of {_counted(table)}, the most doubtful first",
        fontsize=12,
        y=1 - 0.12 / (2.45 * lines + 0.5),
    )
    figure.subplots_adjust(
        left=0.005, right=0.995, bottom=0.01, top=1 - 0.95 / (2.45 * lines + 0.5), hspace=0.55
    )
    aspect = 1.0 if voxel_size is None else voxel_size[1] / voxel_size[2]
    panels = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, row in zip(panels, rows, strict=False):
        _draw(axes, volume, labels, row, aspect)
    path = Path(path)
    with replacing(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:] or "png")
    return path


def _counted(table: pd.DataFrame) -> str:
    """How many granules and candidates a table has; only these have `best`."""
    candidates = int(table["best"].notna().sum()) if "best" in table else 0
    words = f"{len(table) - candidates} granules"
    return f"{words} and {candidates} candidates" if candidates else words


def _draw(
    axes: Axes, volume: Array, labels: Array, row: dict[Hashable, Any], aspect: float
) -> None:
    """One granule."""
    label, box = int(row["label"]), box_of(row)
    z = int(np.argmax((labels[box] == label).sum(axis=(1, 2)))) + box[0].start
    image = _around(volume[z].astype(float), box[1:], np.nan)
    own = _around(labels[z], box[1:], 0)
    inside = np.isfinite(image)
    low, high = contrast_limits(np.where(inside, image, np.median(image[inside])), own == label)
    axes.set_facecolor("black")
    axes.imshow(image, "gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    for mask, colour in ((own == label, _OWN), ((own > 0) & (own != label), _OTHER)):
        if mask.any():
            padded = np.pad(mask, 1).astype(float)
            extent = (-1.5, mask.shape[1] + 0.5, -1.5, mask.shape[0] + 0.5)
            axes.contour(padded, [0.5], colors=[colour], linewidths=1, extent=extent)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    words = textwrap.fill(str(row["reason"]) or "no reason to doubt", 27, max_lines=3)
    title = f"{label} at z {z}: {row['suspicion']:.2f}\n{words}"
    axes.set_title(title, fontsize=6.5, loc="left", pad=2)


def _around(plane: Array, box: Box, beyond: float) -> Array:
    """A square of a slice around a box, with one value beyond the edge of the volume."""
    half = max(_LEAST, *(side.stop - side.start + 2 * _MARGIN for side in box)) // 2
    wanted = [((side.start + side.stop) // 2 - half, 2 * half) for side in box]
    whole = np.full((2 * half, 2 * half), beyond, plane.dtype)
    inner = tuple(slice(max(first, 0), first + side) for first, side in wanted)
    part = plane[inner]
    at = tuple(slice(i.start - first, None) for i, (first, _) in zip(inner, wanted, strict=True))
    whole[at][: part.shape[0], : part.shape[1]] = part
    return whole
