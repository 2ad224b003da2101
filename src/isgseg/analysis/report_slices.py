"""Slices of a volume for a report: the image, with outlines that can be switched on and off."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from skimage.measure import approximate_polygon, find_contours

from isgseg.analysis.figures import contrast_limits
from isgseg.analysis.report_words import number
from isgseg.io.formats import Array

_MOST_PIXELS = 1024  # of a side; a larger slice is shown smaller
_QUALITY = 85  # of the JPEG
_UNKNOWN_SIDE = 30.0  # units of the drawing for a voxel of unknown size


@dataclass(frozen=True)
class Outline:
    """A closed outline of a slice.

    Attributes:
        path: data of an SVG path, in the units of the drawing.
        text: what the pointer shows.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Slice:
    """One slice to draw.

    Attributes:
        z: its number, counted from 0.
        width: of the drawing, nm.
        height: of the drawing, nm.
        image: as the address of an image, `data:`.
        granules: their outlines.
        structures: the outline of each, by name.
        bar: length of the scale bar, nm; 0 draws none.
    """

    z: int
    width: float
    height: float
    image: str
    granules: list[Outline]
    structures: dict[str, str]
    bar: float


def chosen_slices(table: pd.DataFrame, depth: int, how_many: int = 3) -> list[int]:
    """Slices at equal shares of the granules, as 1/4, 1/2 and 3/4; fewer of a thin volume.

    Args:
        table: of `granule_table`.
        depth: number of slices.
        how_many: slices.
    """
    shares = np.arange(1, how_many + 1) / (how_many + 1)
    z = np.quantile(table["centroid_z"], shares) if len(table) else shares * (depth - 1)
    return sorted({round(float(place)) for place in z})


def draw_slice(
    z: int,
    volume: Array,
    labels: Array,
    structures: Mapping[str, Array],
    voxel_size: Sequence[float] | None,
    diameters: Mapping[int, float],
) -> Slice:
    """A slice as an image and outlines.

    Args:
        z: its number.
        volume: (z, y, x).
        labels: (z, y, x), 0 is background.
        structures: masks (z, y, x) by name.
        voxel_size: nm, (z, y, x); None draws no scale bar.
        diameters: nm or voxels, of the granules by label, for the pointer.
    """
    _, dy, dx = voxel_size or [_UNKNOWN_SIDE] * 3
    image, plane = volume[z], labels[z]
    height, width = image.shape
    unit = "voxels" if voxel_size is None else "nm"
    outlines = []
    for label in np.unique(plane[plane > 0]).tolist():
        rows, columns = np.nonzero(plane == label)
        top, left = int(rows.min()), int(columns.min())
        box = plane[top : rows.max() + 1, left : columns.max() + 1] == label
        text = f"Granule {label}: {number(diameters.get(label))} {unit} across"
        outlines.append(Outline(_path(box, (top, left), (dy, dx)), text))
    return Slice(
        z,
        width * dx,
        height * dy,
        _picture(image, plane > 0),
        outlines,
        {name: _path(mask[z], (0, 0), (dy, dx)) for name, mask in structures.items()},
        0.0 if voxel_size is None else _round_length(width * dx / 5),
    )


def _picture(image: Array, granules: Array) -> str:
    """A grey image as a `data:` address."""
    low, high = contrast_limits(image, granules)
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1) * 255
    picture = Image.fromarray(grey.astype(np.uint8))
    picture.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _path(mask: Array, corner: tuple[int, int], side: tuple[float, float]) -> str:
    """The outline of a mask through the middle between its voxels and the others.

    Args:
        mask: (h, w).
        corner: (y, x) of its first voxel in the slice.
        side: (y, x) of a voxel, units of the drawing.
    """
    parts = []
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        # The contour's coordinates are those of centres, one voxel further for the padding.
        points = approximate_polygon(contour, 0.25) + np.array(corner) - 0.5
        whole = np.rint(points * side).astype(int)
        steps = np.diff(whole, axis=0)
        start = f"M{whole[0, 1]} {whole[0, 0]}"
        parts.append(start + "l" + " ".join(f"{x} {y}" for y, x in steps.tolist()) + "z")
    return "".join(parts)


def _round_length(most: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))
