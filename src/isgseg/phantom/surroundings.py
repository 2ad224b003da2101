"""What else is in the field: a bead, the capillary's wall, blank bands."""

from __future__ import annotations

import numpy as np

from isgseg.phantom.cell import CHUNK, ORGANELLES
from isgseg.phantom.fields import Array
from isgseg.phantom.granules import Labels
from isgseg.phantom.places import Classes
from isgseg.phantom.shapes import Ellipsoid, blend, soft_weight


def paint_bead(
    rng: np.random.Generator,
    volume: Array,
    labels: Labels,
    organelles: Classes,
    *,
    diameter: float,
    lac: float,
) -> None:
    """Paint a bead with a bright rim at the field's edge, over whatever is there, in place.

    Args:
        rng: the source of its place.
        volume: (z, y, x), LAC per voxel.
        labels: (z, y, x), emptied where the bead is.
        organelles: (z, y, x), class map.
        diameter: voxels.
        lac: per voxel, of the rim; the inside has less than half of it.
    """
    depth, height, width = volume.shape
    angle = rng.uniform(0, 2 * np.pi)
    ring = 0.47 + 0.17 * rng.uniform(-1, 1)
    centre = np.array(
        [
            rng.uniform(0, depth),
            np.clip(0.5 + ring * np.sin(angle), 0.02, 0.98) * height,
            np.clip(0.5 + ring * np.cos(angle), 0.02, 0.98) * width,
        ]
    )
    radius = min(diameter, 0.45 * min(height, width)) / 2
    rim = max(2.0, rng.uniform(0.04, 0.2) * radius)
    body = Ellipsoid(centre, np.full(3, radius), np.eye(3))
    box = body.box(volume.shape, margin=1)
    if box is None:
        return
    q = body.q(box)
    blend(volume[box], soft_weight(q, radius, 1), lac)
    inner = radius - rim
    blend(volume[box], soft_weight(q * np.float32(radius / inner), inner, 1.5), 0.4 * lac)
    labels[box][q <= 1] = 0
    organelles[box][q <= 1] = ORGANELLES["bead"]


def paint_capillary(
    rng: np.random.Generator,
    volume: Array,
    labels: Labels,
    organelles: Classes,
    *,
    lac: float,
    outside: float,
) -> None:
    """Paint the wall of a glass capillary that stands along z and passes an edge, in place.

    Args:
        rng: the source of its place.
        volume: (z, y, x), LAC per voxel.
        labels: (z, y, x), emptied on the wall and beyond it.
        organelles: (z, y, x), class map.
        lac: per voxel, of the wall.
        outside: LAC per voxel of the air beyond the wall.
    """
    _, height, width = volume.shape
    field = (height + width) / 2
    angle = rng.uniform(0, 2 * np.pi)
    radius = field * rng.uniform(0.8, 1.6)
    reach = field * rng.uniform(0.42, 0.5)  # from the field's centre to the wall
    tilt = rng.uniform(-0.04, 0.04)
    wall = rng.uniform(0.008, 0.018) * field + 1
    y, x = np.ogrid[:height, :width]
    for z in range(volume.shape[0]):
        shift = reach - radius + tilt * (z - volume.shape[0] / 2)
        dy = y - height / 2 - shift * np.sin(angle)
        dx = x - width / 2 - shift * np.cos(angle)
        beyond = (np.hypot(dy, dx) - radius).astype(np.float32)
        volume[z][beyond > 0] = outside
        band = np.clip(wall / 2 + 0.5 - np.abs(beyond - wall / 2), 0, 1)
        blend(volume[z], band, lac)
        labels[z][beyond > 0] = 0
        organelles[z][beyond > 0] = ORGANELLES["outside"]
        organelles[z][(beyond > 0) & (beyond < wall)] = ORGANELLES["capillary"]


def blank_edges(
    rng: np.random.Generator,
    volume: Array,
    labels: Labels,
    organelles: Classes,
    *,
    width: float,
) -> None:
    """Blank a band along one or two edges of every slice, as alignment leaves behind, in place.

    Args:
        rng: the source of the edges and of the fill: zero, the volume's mean, or much brighter.
        volume: (z, y, x), LAC per voxel.
        labels: (z, y, x), emptied in the band.
        organelles: (z, y, x), class map.
        width: of the band, as a fraction of the field.
    """
    fill = float(rng.choice([0.0, 1.0, 2.5])) * float(volume[::CHUNK].mean())
    edges = rng.permutation(4)[: int(rng.integers(1, 3))]
    for edge in edges:
        axis, far = 1 + int(edge) // 2, bool(edge % 2)
        size = max(1, round(width * volume.shape[axis] * rng.uniform(0.6, 1.0)))
        index = [slice(None)] * 3
        index[axis] = slice(-size, None) if far else slice(size)
        band = tuple(index)
        volume[band] = fill
        labels[band] = 0
        organelles[band] = ORGANELLES["blank"]
