"""Cells, their nuclei and their nucleoli: where each is, and of which shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from isgseg.phantom.character import Numbers
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
    "body": 15,  # lysosomes and endosomes
    "ring": 16,  # multivesicular bodies: a bright shell around a grey core
    "debris": 17,  # of the medium
    "bleb": 18,
}
CHUNK = 16  # slices painted at once: bounds the temporaries to some ten times 15 MB


@dataclass(frozen=True)
class Body:
    """A bumpy ellipsoid, turned in the plane of a slice and narrower at one end.

    Attributes:
        centre: (z, y, x), voxels.
        axes: semi-axes (z, along, across), voxels.
        turn: of the axis `along` from y towards x, radians.
        taper: by which part of its width the body is narrower at one end, and wider at the other.
        bumps: fields that push the surface in and out, each with its height in voxels.
    """

    centre: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    turn: float = 0.0
    taper: float = 0.0
    bumps: tuple[tuple[SmoothField, float], ...] = ()

    def window(self, *coordinates: Array) -> tuple[slice, ...]:
        """Slices of three ascending coordinate vectors that hold the body and a margin."""
        margin = 8 + 4 * sum(height for _, height in self.bumps)
        wide = max(self.axes[1], self.axes[2] * (1 + self.taper))
        return tuple(
            slice(*np.searchsorted(c, [centre - axis - margin, centre + axis + margin]))
            for c, centre, axis in zip(
                coordinates, self.centre, (self.axes[0], wide, wide), strict=True
            )
        )

    def depth(self, z: Array, y: Array, x: Array) -> Array:
        """Voxels below the surface (negative outside) on the grid of three vectors.

        Exact for a sphere; elsewhere the first-order distance to the level set.
        """
        dz, dy, dx = (
            (c - m).astype(np.float32) for c, m in zip((z, y, x), self.centre, strict=True)
        )
        sin, cos = np.float32(np.sin(self.turn)), np.float32(np.cos(self.turn))
        along = (cos * dy[:, None] + sin * dx) / np.float32(self.axes[1])
        across = (cos * dx - sin * dy[:, None]) / np.float32(self.axes[2])
        if self.taper:
            across /= np.maximum(1 + np.float32(self.taper) * along, np.float32(0.15))
        tall = (dz / np.float32(self.axes[0]))[:, None, None]
        a, b, c = (np.float32(1 / n**2) for n in self.axes)
        flat, slope = along**2 + across**2, b * along**2 + c * across**2
        radius = np.sqrt(flat + tall**2 + np.float32(1e-6))
        gradient = np.sqrt(slope + a * tall**2 + np.float32(1e-9)) / radius
        depth: Array = (1 - radius) / gradient
        for field, height in self.bumps:
            depth += np.float32(height) * field(z, y, x)
        return depth


@dataclass(frozen=True)
class Cell:
    """A cell: its outline, its nucleus, the nucleoli inside that, and how bright it is.

    Attributes:
        outline: of the cell.
        nucleus: of its nucleus.
        nucleoli: bodies inside the nucleus.
        brightness: factor on everything in the cell.
    """

    outline: Body
    nucleus: Body
    nucleoli: tuple[Body, ...]
    brightness: float = 1.0


@dataclass(frozen=True)
class Lac:
    """Linear absorption coefficients per voxel of one synthetic cell."""

    outside: float
    cytoplasm: float
    nucleus: float
    organelle: float
    granule: float
    lipid: float

    def between(self, share: float) -> float:
        """The value that lies `share` of the way from the cytosol to the organelles."""
        return self.cytoplasm + share * (self.organelle - self.cytoplasm)


def make_cells(rng: np.random.Generator, shape: Sequence[int], numbers: Numbers) -> list[Cell]:
    """Lay out the main cell in the middle of the field and its neighbours around it.

    Args:
        rng: the source of every choice.
        shape: (z, y, x), voxels. Only z is cut: a slab holds the middle of the same cell.
        numbers: of the cell, see `PhantomSettings`.
    """
    width = (shape[1] + shape[2]) / 2
    # Surfaces draw more numbers in a higher volume: with their own, slab and cell agree.
    surface = rng.spawn(1)[0]
    middle = np.array(shape, dtype=float) / 2
    radius = numbers["cell_diameter"] * width / 2
    fraction = numbers["nucleus_diameter"]

    def cell(centre: npt.NDArray[np.float64], size: float, turn: float) -> Cell:
        stretch = 1 + (numbers["cell_stretch"] - 1) * rng.uniform(0.6, 1.2)
        axes = size * np.array([numbers["cell_elongation"], stretch, 1]) / stretch**0.5
        taper = numbers["cell_taper"] * rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
        taper = float(np.clip(taper, -0.9, 0.9))
        outline = _bumpy(
            surface, centre, axes, numbers["cell_roughness"] * size, shape, turn, taper
        )
        scale = fraction * rng.uniform(0.85, 1.15, 3)
        shift = rng.uniform(-0.7, 0.7, 3) * (1 - scale) * axes * [0.3, 1, 1]
        if taper * shift[1] < 0:
            shift[1] *= -1  # the nucleus lies in the wider end
        place = centre + _turned(shift, turn)
        nucleus = _bumpy(
            surface, place, scale * axes, 0.07 * scale[1] * size, shape, turn, 0.4 * taper
        )
        spots = [_nucleolus(rng, surface, nucleus, shape) for _ in range(int(numbers["nucleoli"]))]
        brightness = 1 + numbers["cell_brightness"] * (rng.standard_normal() + 0.4)
        return Cell(outline, nucleus, tuple(spots), float(np.clip(brightness, 0.75, 1.45)))

    turn = rng.uniform(-0.6, 0.6) + (np.pi / 2 if rng.uniform() < 0.3 else 0)
    main = cell(middle + rng.uniform(-0.08, 0.08, 3) * width * [0.5, 1, 1], radius, turn)
    cells = [replace(main, brightness=1.0)]
    angle = rng.uniform(0, 2 * np.pi)
    count = int(numbers["neighbours"])
    for n in range(count):
        size = radius * rng.uniform(0.55, 1.0)
        direction = angle + 2 * np.pi * (n + rng.uniform(-0.25, 0.25)) / max(count, 1)
        # Cells lie against each other: the gap is small or negative, and the first one wins.
        lean = np.cos(direction - turn) ** 2
        reach = radius * (lean * numbers["cell_stretch"] ** 0.5 + 1 - lean)
        distance = reach + size * rng.uniform(0.75, 1.05)
        height = rng.uniform(-0.3, 0.3) * width
        offset = np.array([height, distance * np.cos(direction), distance * np.sin(direction)])
        cells.append(cell(middle + offset, size, direction + rng.uniform(-0.8, 0.8)))
    return cells


def _bumpy(
    rng: np.random.Generator,
    centre: npt.NDArray[np.float64],
    axes: npt.NDArray[np.float64],
    height: float,
    shape: Sequence[int],
    turn: float = 0.0,
    taper: float = 0.0,
) -> Body:
    """A body with broad bumps of `height` and finer ones of a quarter of it, in voxels."""
    low, high = (-16.0,) * 3, tuple(float(n + 16) for n in shape)
    broad = smooth_field(rng, max(0.45 * float(axes[2]), 4.0), low, high)
    fine = smooth_field(rng, max(0.08 * float(axes[2]), 3.0), low, high)
    return Body(centre, axes, turn, taper, ((broad, height), (fine, 0.25 * height)))


def _nucleolus(
    rng: np.random.Generator,
    surface: np.random.Generator,
    nucleus: Body,
    shape: Sequence[int],
) -> Body:
    direction = rng.standard_normal(3)
    direction *= rng.uniform(0.1, 0.6) / np.linalg.norm(direction)
    axes = nucleus.axes[2] * rng.uniform(0.15, 0.4) * rng.uniform(0.7, 1.4, 3)
    centre = nucleus.centre + _turned(direction * nucleus.axes, nucleus.turn)
    return _bumpy(surface, centre, axes, 0.12 * float(axes[2]), shape, nucleus.turn)


def _turned(offset: npt.NDArray[np.float64], turn: float) -> npt.NDArray[np.float64]:
    """(z, along, across) to (z, y, x)."""
    z, along, across = offset
    sin, cos = np.sin(turn), np.cos(turn)
    return np.array([z, cos * along - sin * across, sin * along + cos * across])
