"""What fills the cytoplasm beside mitochondria and granules, and is easily taken for granules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from isgseg.phantom.cell import ORGANELLES
from isgseg.phantom.places import (
    CELL,
    CYTOSOL,
    MEDIUM,
    TO_THE_RIM,
    Scene,
    Table,
    is_free,
    table_of,
)
from isgseg.phantom.shapes import Ellipsoid, blend, ellipsoid, soft_weight

Place = npt.NDArray[np.float64]
BLEB = table_of("bleb")
TRIES = 20  # places tried for one object


def paint_vacuoles(rng: np.random.Generator, scene: Scene) -> None:
    """Watery vacuoles with a faint rim, some with a bright dot at the wall, in place."""
    lac = scene.lac
    for body in _bodies(rng, scene, "vacuole_density", scene.settings.vacuole_diameter):
        fill = lac.outside + rng.uniform(0.2, 0.8) * (lac.cytoplasm - lac.outside)
        paint_body(scene, body, lac.between(0.3), "vacuole")
        paint_body(scene, body, fill, "vacuole", shrink=1.3)
        if rng.uniform() < 0.3 and body.radius > 3.5:
            offset = rng.standard_normal(3)
            offset *= (body.radius - 2) / np.linalg.norm(offset)
            dot = ellipsoid(rng, body.centre + offset, min(2.5, body.radius / 2), 1.3)
            paint_body(scene, dot, scene.contrast(rng.uniform(0.5, 1.3)), "vacuole")


def paint_rings(rng: np.random.Generator, scene: Scene) -> None:
    """Multivesicular bodies: a bright shell around a core like cytosol, in place."""
    lac = scene.lac
    for body in _bodies(rng, scene, "ring_density", scene.settings.ring_diameter):
        core = lac.cytoplasm * rng.uniform(0.9, 1.1)
        paint_body(scene, body, scene.contrast(rng.uniform(0.25, 0.9)), "ring")
        paint_body(scene, body, core, "ring", shrink=rng.uniform(1.5, 3.0))
        for _ in range(rng.poisson(0.004 * body.radius**3)):  # vesicles within
            offset = rng.standard_normal(3)
            offset *= 0.6 * body.radius * rng.uniform() ** 0.33 / np.linalg.norm(offset)
            dot = ellipsoid(rng, body.centre + offset, rng.uniform(1.0, 2.2), 1.3)
            paint_body(scene, dot, scene.contrast(rng.uniform(0.3, 0.9)), "ring")


def paint_lipid(rng: np.random.Generator, scene: Scene) -> None:
    """Lipid droplets: round, sharp, brighter than granules, in place."""
    for body in _bodies(rng, scene, "lipid_density", scene.settings.lipid_diameter):
        paint_body(scene, body, scene.lac.lipid * rng.uniform(0.85, 1.1), "lipid_droplet")


def paint_bodies(rng: np.random.Generator, scene: Scene, granules: Sequence[Place]) -> None:
    """Lysosomes and endosomes: roundish, of every size and of most brightnesses, in place.

    Args:
        rng: the source of every choice.
        scene: what to paint into; granules are spared.
        granules: centres of the granules, among which some of the bodies lie.
    """
    low, high = scene.settings.body_contrast
    spread = scene.numbers["cluster_spread"] / scene.voxel_size
    near, share = scene.near_membrane(), scene.numbers["membrane_fraction"]
    heart, left = np.zeros(3), 0
    for _ in range(_count(rng, scene, "body_density")):
        if not left:  # they come in groups, as granules do
            left = int(rng.geometric(0.25))
            heart = scene.cytoplasm.draw(rng, near if rng.uniform() < share else None)
            if len(granules) and rng.uniform() < scene.numbers["body_mingling"]:
                heart = granules[int(rng.integers(len(granules)))]
        left -= 1
        radius = _radius(rng, scene, scene.settings.body_diameter)
        for _ in range(TRIES // 4):
            centre = heart + rng.standard_normal(3) * spread
            if is_free(scene.organelles, centre, 0.8 * radius, TO_THE_RIM):
                body = ellipsoid(rng, centre, radius, 1.6, 0.4)
                value = scene.contrast(low + (high - low) * rng.beta(1.0, 1.6))
                paint_body(scene, body, value, "body", edge=rng.uniform(1, 3))
                break


def paint_specks(rng: np.random.Generator, scene: Scene) -> None:
    """Small bright spots that are no granules and carry no label, in place."""
    near = scene.near_membrane()
    for _ in range(_count(rng, scene, "speck_density")):
        centre = scene.cytoplasm.draw(rng, near if rng.uniform() < 0.5 else None)
        radius = rng.uniform(*scene.settings.speck_diameter) / scene.voxel_size / 2
        if is_free(scene.organelles, centre, radius + 1, CELL):
            body = ellipsoid(rng, centre, radius, 1.6)
            paint_body(scene, body, scene.contrast(rng.uniform(0.3, 1.2)), "speck")


def paint_blebs(rng: np.random.Generator, scene: Scene) -> None:
    """Vesicles that bud from the cells into the medium, in place."""
    surface = np.flatnonzero(scene.cytoplasm.depth < 12)
    if not len(surface):
        return
    for _ in range(_count(rng, scene, "blebs")):
        radius = rng.uniform(150, 700) / scene.voxel_size / 2
        point = scene.cytoplasm.points[surface[int(rng.integers(len(surface)))]]
        body = ellipsoid(rng, point + rng.standard_normal(3) * radius, radius, 1.4, 0.5)
        share = rng.uniform(0.1, 1.0)
        fill = scene.lac.outside + share * (scene.lac.cytoplasm - scene.lac.outside)
        paint_body(scene, body, scene.lac.between(0.2), "bleb", over=MEDIUM)
        paint_body(scene, body, fill, "bleb", shrink=1.5, over=BLEB)


def paint_debris(rng: np.random.Generator, scene: Scene) -> None:
    """What floats in the medium: bright vesicles, empty rings and scraps, in place."""
    shape = np.array(scene.volume.shape)
    medium = float((scene.organelles[:, ::8, ::8] == ORGANELLES["outside"]).mean())
    cubic_um = medium * scene.volume.size * (scene.voxel_size / 1000) ** 3
    low, high = scene.lac.outside, scene.lac.granule
    for _ in range(rng.poisson(scene.numbers["debris_density"] * cubic_um)):
        radius = _radius(rng, scene, scene.settings.debris_diameter)
        centre = rng.uniform(-radius, shape + radius)
        if not is_free(scene.organelles, centre, radius, MEDIUM):
            continue
        kind = rng.uniform()
        if kind < 0.3:  # an empty vesicle, of which the wall is seen
            body = ellipsoid(rng, centre, 1.4 * radius, 1.2)
            value = low + rng.uniform(0.1, 0.4) * (high - low)
            paint_body(scene, body, value, "debris", over=MEDIUM)
            paint_body(scene, body, low * rng.uniform(0.7, 1.1), "debris", shrink=1.6)
        else:
            body = ellipsoid(rng, centre, radius, 1.3 if kind < 0.75 else 4.0)
            value = low + rng.uniform(0.15, 1.3) ** 1.3 * (high - low)
            paint_body(scene, body, value, "debris", edge=rng.uniform(1, 3), over=MEDIUM)


def paint_body(
    scene: Scene,
    body: Ellipsoid,
    lac: float,
    name: str,
    *,
    shrink: float = 0.0,
    edge: float = 1.0,
    over: Table | None = None,
) -> None:
    """Paint one body, but over no granule.

    Args:
        scene: what to paint into.
        body: its shape.
        lac: its value per voxel.
        name: its class.
        shrink: voxels by which it is smaller: the core of what was painted before.
        edge: width of its edge, voxels.
        over: classes that it may cover; None: all but granules.
    """
    box = body.box(scene.volume.shape, margin=edge)
    if box is None:
        return
    q = body.q(box) * np.float32(body.radius / max(body.radius - shrink, 0.5))
    classes = scene.organelles[box]
    open_to_it = classes != ORGANELLES["granule"]
    if over is not None:
        open_to_it &= over[classes]
    blend(scene.volume[box], soft_weight(q, body.radius, edge) * open_to_it, lac)
    if not shrink:
        classes[(q <= 1) & open_to_it] = ORGANELLES[name]


def _count(rng: np.random.Generator, scene: Scene, density: str) -> int:
    if not len(scene.cytoplasm.points):
        return 0
    return int(rng.poisson(scene.numbers[density] * scene.cubic_um))


def _radius(rng: np.random.Generator, scene: Scene, diameter: Sequence[float]) -> float:
    """Voxels. Small ones are the most frequent: the square of a uniform number."""
    low, high = diameter
    return float((low + (high - low) * rng.uniform() ** 2) / scene.voxel_size / 2)


def _bodies(
    rng: np.random.Generator, scene: Scene, density: str, diameter: Sequence[float]
) -> Iterator[Ellipsoid]:
    """Round bodies in free cytosol, drawn one at a time; those without room are left out."""
    for _ in range(_count(rng, scene, density)):
        body = _find_place(rng, scene, diameter)
        if body is not None:
            yield body


def _find_place(
    rng: np.random.Generator, scene: Scene, diameter: Sequence[float]
) -> Ellipsoid | None:
    """A round body in free cytosol; None where no place has room."""
    radius = _radius(rng, scene, diameter)
    for _ in range(TRIES):
        centre = scene.cytoplasm.draw(rng)
        if is_free(scene.organelles, centre, radius + 2, CYTOSOL):
            return ellipsoid(rng, centre, radius, 1.2)
    return None
