"""What fills the cytoplasm beside granules: mitochondria, lipid droplets, vacuoles, specks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import ORGANELLES, Cell, Lac
from isgseg.phantom.fields import Array
from isgseg.phantom.shapes import Ellipsoid, blend, ellipsoid, soft_weight

Classes = npt.NDArray[np.uint8]
STRIDE = 4  # voxels between the points of the map below


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
    organelles: Classes, centre: npt.NDArray[np.float64], radius: float, *, cytosol_only: bool
) -> bool:
    """Whether a sphere lies in cytoplasm, by its centre and 14 points of its surface.

    Points outside the volume are judged by the nearest voxel inside.
    """
    places = np.rint(centre + radius * _DIRECTIONS).astype(int)
    z, y, x = np.clip(places, 0, np.array(organelles.shape) - 1).T
    allowed = _CYTOSOL if cytosol_only else _CELL
    return bool(np.isin(organelles[z, y, x], allowed).all())


def paint_organelles(
    rng: np.random.Generator,
    volume: Array,
    organelles: Classes,
    cytoplasm: Cytoplasm,
    lac: Lac,
    voxel_size: float,
    *,
    mitochondria: float,
    mitochondrion_thickness: tuple[float, float],
    lipid_density: float,
    lipid_diameter: tuple[float, float],
    vacuole_density: float,
    vacuole_diameter: tuple[float, float],
) -> None:
    """Paint the larger organelles into `volume` and `organelles`, both (z, y, x), in place.

    Args:
        rng: the source of every choice.
        volume: LAC per voxel.
        organelles: class map, see ORGANELLES.
        cytoplasm: where to put them.
        lac: what each absorbs.
        voxel_size: nm.
        mitochondria: fraction of the cytoplasm's volume.
        mitochondrion_thickness: (low, high) nm; each takes its own, as all diameters here.
        lipid_density: droplets per cubic micrometre of cytoplasm.
        lipid_diameter: (low, high) nm.
        vacuole_density: vacuoles per cubic micrometre of cytoplasm.
        vacuole_diameter: (low, high) nm.
    """
    if not len(cytoplasm.points):
        return
    cubic_um = cytoplasm.voxels * (voxel_size / 1000) ** 3
    for _ in range(rng.poisson(vacuole_density * cubic_um)):
        body = _find_place(rng, organelles, cytoplasm, vacuole_diameter, voxel_size)
        if body:
            # A vacuole is watery inside; its own membrane shows as a faint rim.
            rim = lac.cytoplasm + 0.3 * (lac.organelle - lac.cytoplasm)
            fill = lac.outside + rng.uniform(0.3, 0.8) * (lac.cytoplasm - lac.outside)
            _paint_body(volume, organelles, body, rim, "vacuole", 0)
            _paint_body(volume, organelles, body, fill, "vacuole", 1.3)
    for _ in range(rng.poisson(lipid_density * cubic_um)):
        body = _find_place(rng, organelles, cytoplasm, lipid_diameter, voxel_size)
        if body:
            value = lac.lipid * rng.uniform(0.85, 1.1)
            _paint_body(volume, organelles, body, value, "lipid_droplet", 0)
    wanted = mitochondria * cytoplasm.voxels
    painted, tries = 0, 0
    while painted < wanted and tries < 20 + cytoplasm.voxels / 5000:
        tries += 1
        painted += _paint_mitochondrion(
            rng, volume, organelles, cytoplasm, lac, mitochondrion_thickness, voxel_size
        )


def paint_specks(
    rng: np.random.Generator,
    volume: Array,
    organelles: Classes,
    cytoplasm: Cytoplasm,
    lac: Lac,
    voxel_size: float,
    *,
    density: float,
    diameter: tuple[float, float],
) -> None:
    """Scatter small bright spots that are no granules and carry no label, in place.

    Args:
        rng: the source of every choice.
        volume: (z, y, x), LAC per voxel.
        organelles: (z, y, x), class map.
        cytoplasm: where to put them.
        lac: their value lies between the cytoplasm's and the granules'.
        voxel_size: nm.
        density: per cubic micrometre of cytoplasm.
        diameter: (low, high) nm.
    """
    if not len(cytoplasm.points):
        return
    cubic_um = cytoplasm.voxels * (voxel_size / 1000) ** 3
    for _ in range(rng.poisson(density * cubic_um)):
        centre = cytoplasm.draw(rng)
        radius = rng.uniform(*diameter) / voxel_size / 2
        if is_free(organelles, centre, radius + 1, cytosol_only=False):
            value = lac.cytoplasm + rng.uniform(0.3, 1.2) * (lac.granule - lac.cytoplasm)
            body = ellipsoid(rng, centre, radius, 1.6)
            _paint_body(volume, organelles, body, value, "speck", 0)


def _find_place(
    rng: np.random.Generator,
    organelles: Classes,
    cytoplasm: Cytoplasm,
    diameter: tuple[float, float],
    voxel_size: float,
) -> Ellipsoid | None:
    """A round body in free cytoplasm; None where twenty tries found no room."""
    # Small ones are the most frequent: the square of a uniform number.
    low, high = diameter
    radius = (low + (high - low) * rng.uniform() ** 2) / voxel_size / 2
    for _ in range(20):
        centre = cytoplasm.draw(rng)
        if is_free(organelles, centre, radius + 2, cytosol_only=True):
            return ellipsoid(rng, centre, radius, 1.15)
    return None


def _paint_body(
    volume: Array, organelles: Classes, body: Ellipsoid, lac: float, name: str, shrink: float
) -> None:
    box = body.box(volume.shape, margin=1)
    if box is None:
        return
    q = body.q(box) * np.float32(body.radius / max(body.radius - shrink, 0.5))
    blend(volume[box], soft_weight(q, body.radius, 1), lac)
    if not shrink:
        organelles[box][q <= 1] = ORGANELLES[name]


def _paint_mitochondrion(
    rng: np.random.Generator,
    volume: Array,
    organelles: Classes,
    cytoplasm: Cytoplasm,
    lac: Lac,
    thickness: tuple[float, float],
    voxel_size: float,
) -> int:
    """Paint one winding tube as a string of balls; return the number of voxels it took."""
    radius = rng.uniform(*thickness) / voxel_size / 2
    value = lac.cytoplasm + rng.uniform(0.6, 1.15) * (lac.organelle - lac.cytoplasm)
    place = cytoplasm.draw(rng)
    heading = rng.standard_normal(3)
    turn = rng.standard_normal(3) * 0.05
    painted = 0
    steps = int(rng.gamma(2.0, 15.0)) + 2
    trail: list[tuple[Ellipsoid, float]] = []
    shade = 0.0
    for _ in range(steps):
        turn = 0.9 * turn + 0.06 * rng.standard_normal(3)
        heading = heading / np.linalg.norm(heading) + turn
        if not is_free(organelles, place, radius + 1, cytosol_only=True):
            break
        width = radius * (1 + 0.08 * np.sin(len(trail) / 3))
        # Cristae and matrix do not resolve, but leave a mitochondrion uneven along its length.
        shade = 0.7 * shade + 0.035 * rng.standard_normal()
        trail.append((Ellipsoid(place, np.full(3, width), np.eye(3)), value * (1 + shade)))
        place = place + heading / np.linalg.norm(heading) * max(1.0, radius / 4)
    for ball, value in trail:
        box = ball.box(volume.shape, margin=1)
        if box is None:
            continue
        q = ball.q(box)
        # The maximum over the balls keeps the tube's edge one voxel soft.
        weight = soft_weight(q, radius, 1)
        np.maximum(
            volume[box],
            np.where(weight > 0, lac.cytoplasm + weight * (value - lac.cytoplasm), 0),
            out=volume[box],
        )
        mask = (q <= 1) & (organelles[box] != ORGANELLES["mitochondrion"])
        organelles[box][mask] = ORGANELLES["mitochondrion"]
        painted += int(mask.sum())
    return painted


_DIRECTIONS = np.array(
    [[0, 0, 0]]
    + [[s if a == k else 0 for k in range(3)] for a in range(3) for s in (-1, 1)]
    + [[i / 3**0.5, j / 3**0.5, k / 3**0.5] for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)]
)
_CYTOSOL = [ORGANELLES["cytoplasm"], ORGANELLES["reticulum"]]
_CELL = [*_CYTOSOL, ORGANELLES["membrane"], ORGANELLES["mitochondrion"]]
