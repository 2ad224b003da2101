"""Painting cells, their nuclei and their cytoplasm into a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import CHUNK, ORGANELLES, Body, Cell, Lac
from isgseg.phantom.character import Numbers
from isgseg.phantom.fields import Array, smooth_field

Classes = npt.NDArray[np.uint8]
Grid = tuple[Array, Array, Array]  # ascending coordinates along z, y and x
HAZE_KNOT, SHADE_KNOT = 25.0, 70.0  # voxels between the knots of the medium's and the slow changes


def paint_cells(
    rng: np.random.Generator,
    volume: Array,
    organelles: Classes,
    owners: Classes,
    cells: Sequence[Cell],
    lac: Lac,
    voxel_size: float,
    numbers: Numbers,
) -> None:
    """Paint cells into `volume`, `organelles` and `owners`, all (z, y, x), in place.

    Args:
        rng: the source of the texture.
        volume: LAC per voxel.
        organelles: class map, see ORGANELLES.
        owners: 0 in the medium, n + 1 in `cells[n]`.
        cells: the first one wins where two overlap.
        lac: what each part absorbs.
        voxel_size: nm.
        numbers: of the cell, see `PhantomSettings`.
    """
    shape = volume.shape
    low, high = (0.0, 0.0, 0.0), tuple(float(n) for n in shape)
    spacings = (2.5, 9.0, 5.0, HAZE_KNOT)
    fine, coarse, sheets, fog = (smooth_field(rng, s, low, high) for s in spacings)
    y, x = (np.arange(n, dtype=np.float32) for n in shape[1:])
    texture, gap = np.float32(numbers["texture"]), numbers["envelope_gap"] / voxel_size
    haze = np.float32(numbers["haze"] * lac.cytoplasm)
    for start in range(0, shape[0], CHUNK):
        z = np.arange(start, min(start + CHUNK, shape[0]), dtype=np.float32)
        part = slice(start, start + CHUNK)
        block, classes, owner = volume[part], organelles[part], owners[part]
        mottle: Array = 1 + texture * (0.6 * fine(z, y, x) + 0.8 * coarse(z, y, x))
        sheet: Array = np.abs(sheets(z, y, x))
        # Out-of-focus material only adds to the medium.
        block[:] = lac.outside + haze * np.abs(fog(z, y, x))
        for number, cell in enumerate(cells, start=1):
            box = cell.outline.window(z, y, x)
            grid = (z[box[0]], y[box[1]], x[box[2]])
            if all(len(c) for c in grid):
                inside = _paint_cell(
                    block[box], classes[box], cell, grid, mottle[box], sheet[box], lac, gap, numbers
                )
                owner[box][inside] = number


def shade_cells(
    rng: np.random.Generator,
    volume: Array,
    owners: Classes,
    cells: Sequence[Cell],
    shading: float,
) -> None:
    """Give each cell its brightness, and all a slow change over the field, in place.

    Args:
        rng: the source of the slow change.
        volume: (z, y, x), LAC per voxel.
        owners: (z, y, x), as `paint_cells` leaves it.
        cells: each with its brightness.
        shading: standard deviation of the slow change, as a fraction of the value.
    """
    shape = volume.shape
    slow = smooth_field(rng, SHADE_KNOT, (0.0, 0.0, 0.0), tuple(float(n) for n in shape))
    y, x = (np.arange(n, dtype=np.float32) for n in shape[1:])
    factor = np.array([1.0, *(cell.brightness for cell in cells)], dtype=np.float32)
    for start in range(0, shape[0], CHUNK):
        z = np.arange(start, min(start + CHUNK, shape[0]), dtype=np.float32)
        block = volume[start : start + CHUNK]
        block *= factor[owners[start : start + CHUNK]]
        if shading:
            block *= 1 + np.float32(shading) * slow(z, y, x)


def _paint_cell(
    block: Array,
    classes: Classes,
    cell: Cell,
    grid: Grid,
    mottle: Array,
    sheet: Array,
    lac: Lac,
    gap: float,
    numbers: Numbers,
) -> npt.NDArray[np.bool_]:
    """Paint one cell into one box of the volume, in place; return where it is."""
    depth = cell.outline.depth(*grid)
    whole: npt.NDArray[np.bool_] = (depth > 0) & (classes == ORGANELLES["outside"])
    inside = whole.copy()
    membrane = inside & (depth < 1.7)
    block[inside] = lac.cytoplasm * mottle[inside]
    classes[inside] = ORGANELLES["cytoplasm"]
    rim = lac.between(0.45)
    # Folds and docked vesicles make bright bits of membrane that are easily taken for granules.
    block[membrane] = rim * (1 + 3 * np.clip(mottle[membrane] - 1, -0.02, 0.1))
    classes[membrane] = ORGANELLES["membrane"]

    inside &= depth > 3
    below = _depth_around(cell.nucleus, grid)
    # ER is densest around the nucleus; |field| < t holds for 0.8 t of a unit normal field.
    width = 1.25 * numbers["reticulum"] * np.exp(np.clip(below, -200, 0) / 80)
    er = inside & (below < -3) & (sheet < width)
    block[er] += 0.5 * (lac.organelle - lac.cytoplasm)
    classes[er] = ORGANELLES["reticulum"]

    nucleus = inside & (below > 0)
    # Chromatin is clumped, and denser along the envelope.
    clump = 1.5 * (mottle[nucleus] - 1) + 0.04 * np.exp(-below[nucleus] / 8)
    block[nucleus] = lac.nucleus * (1 + clump)
    classes[nucleus] = ORGANELLES["nucleus"]
    bright = lac.between(numbers["envelope"])
    envelope = inside & (np.abs(below) < 1.0)
    block[envelope] = bright * (0.5 + 0.5 * mottle[envelope])
    classes[envelope] = ORGANELLES["envelope"]
    if gap > 2.5:  # a sheet of ER follows the envelope: a double line
        second = inside & (np.abs(below + gap) < 0.8)
        block[second] = lac.between(0.8 * numbers["envelope"]) * mottle[second]
        classes[second] = ORGANELLES["reticulum"]
    for body in cell.nucleoli:
        box = body.window(*grid)
        spot = nucleus[box] & (below[box] > 2)
        if spot.any():
            spot &= body.depth(*_part(grid, box)) > 0
            block[box][spot] = lac.between(0.25) * mottle[box][spot]
            classes[box][spot] = ORGANELLES["nucleolus"]
    return whole


def _depth_around(body: Body, grid: Grid) -> Array:
    """Voxels below the surface; bumps are left out where it is too far away for them to matter."""
    depth = replace(body, bumps=()).depth(*grid)
    box = body.window(*grid)
    if depth[box].size:
        depth[box] = body.depth(*_part(grid, box))
    return depth


def _part(grid: Grid, box: tuple[slice, ...]) -> Grid:
    z, y, x = (c[s] for c, s in zip(grid, box, strict=True))
    return z, y, x
