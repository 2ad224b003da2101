"""Mitochondria: winding tubes, some of them cut to what looks like a granule."""

from __future__ import annotations

import numpy as np

from isgseg.phantom.cell import ORGANELLES
from isgseg.phantom.places import Scene, is_free
from isgseg.phantom.shapes import Ellipsoid, soft_weight

Trail = list[tuple[Ellipsoid, float]]


def paint_mitochondria(rng: np.random.Generator, scene: Scene) -> None:
    """Paint mitochondria until they fill their share of the cytoplasm, in place."""
    cytoplasm = scene.cytoplasm
    if not len(cytoplasm.points):
        return
    wanted = scene.numbers["mitochondria"] * cytoplasm.voxels
    painted, tries = 0, 0
    while painted < wanted and tries < 20 + cytoplasm.voxels / 5000:
        tries += 1
        painted += _paint_trail(scene, _wind(rng, scene))


def _wind(rng: np.random.Generator, scene: Scene) -> Trail:
    """One tube as a string of balls, each with its LAC."""
    radius = rng.uniform(*scene.settings.mitochondrion_thickness) / scene.voxel_size / 2
    value = scene.lac.between(rng.uniform(0.5, 1.15))
    place = scene.cytoplasm.draw(rng)
    heading = rng.standard_normal(3)
    turn = rng.standard_normal(3) * 0.05
    beads, phase = rng.uniform(0.03, 0.25), rng.uniform(1.5, 4)  # some are strings of beads
    trail: Trail = []
    shade = 0.0
    for _ in range(int(rng.gamma(2.0, 15.0)) + 2):
        turn = 0.9 * turn + 0.06 * rng.standard_normal(3)
        heading = heading / np.linalg.norm(heading) + turn
        if not is_free(scene.organelles, place, radius + 1):
            break
        width = radius * (1 + beads * np.sin(len(trail) / phase))
        # Cristae and matrix do not resolve, but leave a mitochondrion uneven along its length.
        shade = 0.7 * shade + 0.035 * rng.standard_normal()
        trail.append((Ellipsoid(place, np.full(3, width), np.eye(3)), value * (1 + shade)))
        place = place + heading / np.linalg.norm(heading) * max(1.0, radius / 4)
    return trail


def _paint_trail(scene: Scene, trail: Trail) -> int:
    """Paint one tube; return the number of voxels it took."""
    painted, cytosol = 0, scene.lac.cytoplasm
    for ball, value in trail:
        box = ball.box(scene.volume.shape, margin=1)
        if box is None:
            continue
        q = ball.q(box)
        # The maximum over the balls keeps the tube's edge one voxel soft.
        weight = soft_weight(q, ball.radius, 1)
        tube = np.where(weight > 0, cytosol + weight * (value - cytosol), 0)
        np.maximum(scene.volume[box], tube, out=scene.volume[box])
        mask = (q <= 1) & (scene.organelles[box] != ORGANELLES["mitochondrion"])
        scene.organelles[box][mask] = ORGANELLES["mitochondrion"]
        painted += int(mask.sum())
    return painted
