"""Where things can be: the map of the cytoplasm, and whether there is room at a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import ORGANELLES, Cell, Lac
from isgseg.phantom.character import Numbers
from isgseg.phantom.fields import Array
from isgseg.phantom.settings import PhantomSettings

Classes = npt.NDArray[np.uint8]
STRIDE = 4  # voxels between the points of the map below
Table = npt.NDArray[np.bool_]  # (256,), for each class whether it is one of a set


def table_of(*names: str) -> Table:
    """Looks classes up by number: `table_of("membrane")[organelles]` is where membrane is."""
    table = np.zeros(256, dtype=bool)
    table[[ORGANELLES[name] for name in names]] = True
    return table


CYTOSOL = table_of("cytoplasm", "reticulum")
TO_THE_RIM = table_of("cytoplasm", "reticulum", "membrane")
CELL = table_of("cytoplasm", "reticulum", "membrane", "mitochondrion")
MEDIUM = table_of("outside")


@dataclass(frozen=True)
class Cytoplasm:
    """A coarse map of the cytoplasm: every fourth voxel, and a margin around the volume.

    Attributes:
        points: (n, 3), (z, y, x) in voxels.
        depth: (n,), voxels below the plasma membrane.
        voxels: size of the whole cytoplasm within the volume.
    """

    points: npt.NDArray[np.float64]
    depth: Array
    voxels: float

    def draw(
        self, rng: np.random.Generator, weight: npt.NDArray[np.float64] | None = None
    ) -> npt.NDArray[np.float64]:
        """A random place in the cytoplasm; `weight` is a running sum over the points."""
        if weight is None:
            index = int(rng.integers(len(self.points)))
        else:
            index = int(np.searchsorted(weight, rng.uniform(0, weight[-1])))
        place: npt.NDArray[np.float64] = self.points[index] + rng.uniform(-0.5, 0.5, 3) * STRIDE
        return place


@dataclass(frozen=True)
class Scene:
    """A cell while it is filled.

    Attributes:
        volume: (z, y, x), LAC per voxel.
        labels: (z, y, x), number of the granule, 0 elsewhere.
        organelles: (z, y, x), class map, see ORGANELLES.
        cytoplasm: where to put things.
        lac: what each thing absorbs.
        voxel_size: nm.
        settings: ranges of what each object draws for itself.
        numbers: drawn for the cell.
    """

    volume: Array
    labels: npt.NDArray[np.uint16]
    organelles: Classes
    cytoplasm: Cytoplasm
    lac: Lac
    voxel_size: float
    settings: PhantomSettings
    numbers: Numbers

    def near_membrane(self) -> npt.NDArray[np.float64]:
        """Running sum of how likely each point of the map is for what lies under the membrane."""
        depth = self.numbers["membrane_depth"] / self.voxel_size
        return np.cumsum(np.exp(-self.cytoplasm.depth / depth).astype(float))

    @property
    def cubic_um(self) -> float:
        """Cytoplasm within the volume, cubic micrometres."""
        return self.cytoplasm.voxels * (self.voxel_size / 1000) ** 3

    def contrast(self, share: float) -> float:
        """The value that lies `share` of the way from the cytosol to the median granule."""
        return self.lac.cytoplasm + share * (self.lac.granule - self.lac.cytoplasm)


def map_cytoplasm(cells: Sequence[Cell], shape: tuple[int, ...], margin: int) -> Cytoplasm:
    """Sample the cells' geometry on a coarse grid that reaches `margin` voxels outside `shape`."""
    grid = [np.arange(-margin, n + margin, STRIDE, dtype=np.float32) for n in shape]
    depth = np.full([len(c) for c in grid], -np.inf, dtype=np.float32)
    taken = np.zeros(depth.shape, dtype=bool)
    for cell in cells:
        outline = cell.outline.depth(*grid)
        own = (outline > 0) & ~taken
        taken |= own
        own &= cell.nucleus.depth(*grid) < -2
        depth[own] = outline[own]
    index = np.nonzero(depth > 2)
    points = np.stack([c[i] for c, i in zip(grid, index, strict=True)], axis=1).astype(float)
    inside = ((points >= 0) & (points < shape)).all(axis=1)
    return Cytoplasm(points, depth[index], float(inside.sum()) * STRIDE**3)


def is_free(
    organelles: Classes,
    centre: npt.NDArray[np.float64],
    radius: float,
    allowed: Table = CYTOSOL,
) -> bool:
    """Whether a sphere lies in what is allowed, by its centre and 14 points of its surface.

    Points outside the volume are judged by the nearest voxel inside.
    """
    places = np.rint(centre + radius * _DIRECTIONS).astype(int)
    z, y, x = np.clip(places, 0, np.array(organelles.shape) - 1).T
    return bool(allowed[organelles[z, y, x]].all())


_DIRECTIONS = np.array(
    [[0, 0, 0]]
    + [[s if a == k else 0 for k in range(3)] for a in range(3) for s in (-1, 1)]
    + [[i / 3**0.5, j / 3**0.5, k / 3**0.5] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
)
