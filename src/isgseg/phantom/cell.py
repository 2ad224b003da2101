"""Cells, their nuclei and their cytoplasm: where each is, and painting them into a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.phantom.fields import Array, SmoothField, smooth_field

ORGANELLES: dict[str, int] = {
    "outside": 0,
    "cytoplasm": 1,
    "membrane": 2,
    "nucleus": 3,
    "envelope": 4,
    "nucleolus": 5,
    "reticulum": 6,
    "mitochondrion": 7,
    "lipid_droplet": 8,
    "vacuole": 9,
    "speck": 10,
    "granule": 11,
    "bead": 12,
    "capillary": 13,
    "blank": 14,
}
CHUNK = 16  # slices painted at once: bounds the temporaries to some ten times 15 MB


@dataclass(frozen=True)
class Body:
    """A bumpy ellipsoid.

    Attributes:
        centre: (z, y, x), voxels.
        axes: semi-axes (z, y, x), voxels.
        bumps: fields that push the surface in and out, each with its height in voxels.
    """

    centre: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    bumps: tuple[tuple[SmoothField, float], ...] = ()

    def window(self, *coordinates: Array) -> tuple[slice, ...]:
        """Slices of three ascending coordinate vectors that hold the body and a margin."""
        margin = 8 + 4 * sum(height for _, height in self.bumps)
        return tuple(
            slice(*np.searchsorted(c, [centre - axis - margin, centre + axis + margin]))
            for c, centre, axis in zip(coordinates, self.centre, self.axes, strict=True)
        )

    def depth(self, z: Array, y: Array, x: Array) -> Array:
        """Voxels below the surface (negative outside) on the grid of three vectors.

        Exact for a sphere; elsewhere the first-order distance to the level set.
        """
        offsets = [c - m for c, m in zip((z, y, x), self.centre, strict=True)]
        squares = [(o / a) ** 2 for o, a in zip(offsets, self.axes, strict=True)]
        slopes = [s / a**2 for s, a in zip(squares, self.axes, strict=True)]
        radius = np.sqrt(_outer_sum(squares) + 1e-6)
        gradient = np.sqrt(_outer_sum(slopes) + 1e-9) / radius
        depth: Array = (1 - radius) / gradient
        for field, height in self.bumps:
            depth += np.float32(height) * field(z, y, x)
        return depth


@dataclass(frozen=True)
class Cell:
    """A cell: its outline, its nucleus, and the nucleoli inside that."""

    outline: Body
    nucleus: Body
    nucleoli: tuple[Body, ...]


@dataclass(frozen=True)
class Lac:
    """Linear absorption coefficients per voxel of one synthetic cell."""

    outside: float
    cytoplasm: float
    nucleus: float
    organelle: float
    granule: float
    lipid: float


def make_cells(
    rng: np.random.Generator,
    shape: Sequence[int],
    *,
    diameter: float,
    elongation: float,
    roughness: float,
    neighbours: int,
    nucleus_diameter: float,
    nucleoli: int,
) -> list[Cell]:
    """Lay out the main cell in the middle of the field and its neighbours around it.

    Args:
        rng: the source of every choice.
        shape: (z, y, x), voxels. Only z is cut: a slab holds the middle of the same cell.
        diameter: of the main cell, as a fraction of the field's width.
        elongation: height of a cell (z) over its width.
        roughness: height of the outline's bumps, as a fraction of the cell's radius.
        neighbours: number of further cells, most of them cut by the field.
        nucleus_diameter: as a fraction of the cell's.
        nucleoli: in each nucleus.
    """
    width = (shape[1] + shape[2]) / 2
    # Surfaces draw more numbers in a higher volume: with their own, slab and cell agree.
    surface = rng.spawn(1)[0]
    middle = np.array(shape, dtype=float) / 2
    radius = diameter * width / 2

    def cell(centre: npt.NDArray[np.float64], size: float) -> Cell:
        axes = size * np.array([elongation, rng.uniform(0.94, 1.08), rng.uniform(0.94, 1.08)])
        outline = _bumpy(surface, centre, axes, roughness * size, shape)
        scale = nucleus_diameter * rng.uniform(0.9, 1.1, 3)
        shift = rng.uniform(-0.6, 0.6, 3) * (1 - scale) * axes * [0.3, 1, 1]
        nucleus = _bumpy(surface, centre + shift, scale * axes, 0.05 * scale[1] * size, shape)
        spots = tuple(_nucleolus(rng, surface, nucleus, shape) for _ in range(nucleoli))
        return Cell(outline, nucleus, spots)

    cells = [cell(middle + rng.uniform(-0.05, 0.05, 3) * width * [0.5, 1, 1], radius)]
    angle = rng.uniform(0, 2 * np.pi)
    for n in range(neighbours):
        size = radius * rng.uniform(0.6, 1.0)
        # Cells lie against each other: the gap is small or negative, and the first one wins.
        distance = radius + size * rng.uniform(0.82, 1.0)
        turn = angle + 2 * np.pi * (n + rng.uniform(-0.25, 0.25)) / max(neighbours, 1)
        height = rng.uniform(-0.3, 0.3) * width
        offset = np.array([height, distance * np.sin(turn), distance * np.cos(turn)])
        cells.append(cell(middle + offset, size))
    return cells


def paint_cells(
    rng: np.random.Generator,
    volume: Array,
    organelles: npt.NDArray[np.uint8],
    cells: Sequence[Cell],
    lac: Lac,
    *,
    texture: float,
    reticulum: float,
) -> None:
    """Paint cells into `volume` and `organelles`, both (z, y, x), in place.

    Args:
        rng: the source of the texture.
        volume: LAC per voxel.
        organelles: class map, see ORGANELLES.
        cells: the first one wins where two overlap.
        lac: what each part absorbs.
        texture: standard deviation of the mottling, as a fraction of the value.
        reticulum: fraction of the cytoplasm near the nucleus taken by thin sheets of ER.
    """
    shape = volume.shape
    low, high = (0.0, 0.0, 0.0), tuple(float(n) for n in shape)
    fine, coarse, sheets = (smooth_field(rng, s, low, high) for s in (2.5, 9.0, 5.0))
    y, x = (np.arange(n, dtype=np.float32) for n in shape[1:])
    volume[:] = lac.outside
    for start in range(0, shape[0], CHUNK):
        z = np.arange(start, min(start + CHUNK, shape[0]), dtype=np.float32)
        block = volume[start : start + CHUNK]
        classes = organelles[start : start + CHUNK]
        mottle: Array = 1 + np.float32(texture) * (0.6 * fine(z, y, x) + 0.8 * coarse(z, y, x))
        sheet: Array = np.abs(sheets(z, y, x))
        for cell in cells:
            box = cell.outline.window(z, y, x)
            grid = (z[box[0]], y[box[1]], x[box[2]])
            if all(len(c) for c in grid):
                _paint_cell(
                    block[box], classes[box], cell, grid, mottle[box], sheet[box], lac, reticulum
                )


def _paint_cell(
    block: Array,
    classes: npt.NDArray[np.uint8],
    cell: Cell,
    grid: tuple[Array, Array, Array],
    mottle: Array,
    sheet: Array,
    lac: Lac,
    reticulum: float,
) -> None:
    """Paint one cell into one box of the volume, in place."""
    depth = cell.outline.depth(*grid)
    inside = (depth > 0) & (classes == ORGANELLES["outside"])
    membrane = inside & (depth < 1.7)
    block[inside] = lac.cytoplasm * mottle[inside]
    classes[inside] = ORGANELLES["cytoplasm"]
    rim = lac.cytoplasm + 0.55 * (lac.organelle - lac.cytoplasm)
    # Folds and docked vesicles make bright bits of membrane that are easily taken for granules.
    block[membrane] = rim * (1 + 3 * np.clip(mottle[membrane] - 1, -0.02, 0.1))
    classes[membrane] = ORGANELLES["membrane"]

    inside &= depth > 3
    below = cell.nucleus.depth(*grid)
    # ER is densest around the nucleus; |field| < t holds for 0.8 t of a unit normal field.
    width = 1.25 * reticulum * np.exp(np.clip(below, -200, 0) / 80)
    er = inside & (below < -3) & (sheet < width)
    block[er] += 0.5 * (lac.organelle - lac.cytoplasm)
    classes[er] = ORGANELLES["reticulum"]

    nucleus = inside & (below > 0)
    # Chromatin is clumped, and denser along the envelope.
    clump = 1.8 * (mottle[nucleus] - 1) + 0.05 * np.exp(-below[nucleus] / 8)
    block[nucleus] = lac.nucleus * (1 + clump)
    classes[nucleus] = ORGANELLES["nucleus"]
    envelope = inside & (np.abs(below) < 1.0)
    block[envelope] = rim
    classes[envelope] = ORGANELLES["envelope"]
    for body in cell.nucleoli:
        spot = nucleus & (body.depth(*grid) > 0) & (below > 2)
        block[spot] = (lac.cytoplasm + 0.25 * (lac.organelle - lac.cytoplasm)) * mottle[spot]
        classes[spot] = ORGANELLES["nucleolus"]


def _bumpy(
    rng: np.random.Generator,
    centre: npt.NDArray[np.float64],
    axes: npt.NDArray[np.float64],
    height: float,
    shape: Sequence[int],
) -> Body:
    """A body with broad bumps of `height` and finer ones of a quarter of it, in voxels."""
    low, high = (-16.0,) * 3, tuple(float(n + 16) for n in shape)
    broad = smooth_field(rng, max(0.45 * float(axes[1]), 4.0), low, high)
    fine = smooth_field(rng, max(0.08 * float(axes[1]), 3.0), low, high)
    return Body(centre, axes, ((broad, height), (fine, 0.25 * height)))


def _nucleolus(
    rng: np.random.Generator,
    surface: np.random.Generator,
    nucleus: Body,
    shape: Sequence[int],
) -> Body:
    direction = rng.standard_normal(3)
    direction *= rng.uniform(0.1, 0.6) / np.linalg.norm(direction)
    axes = nucleus.axes[1] * rng.uniform(0.15, 0.32) * rng.uniform(0.8, 1.25, 3)
    centre = nucleus.centre + direction * nucleus.axes
    return _bumpy(surface, centre, axes, 0.12 * float(axes[1]), shape)


def _outer_sum(vectors: Sequence[npt.NDArray[np.floating]]) -> Array:
    a, b, c = (v.astype(np.float32) for v in vectors)
    total: Array = a[:, None, None] + b[:, None] + c
    return total
