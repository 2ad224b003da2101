"""Chance levels: the same balls, placed at random where granules can be.

Places come from a pool: points at random in the accessible cytoplasm, for which distances from all
structures are found once. A placement then only draws from the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from isgseg.analysis.distances import gaps
from isgseg.analysis.radial import positions_among
from isgseg.analysis.surfaces import Floats, Mask, Surface, side_of
from isgseg.io.formats import VoxelSize

Ints = npt.NDArray[np.int64]
POINTS, POINTS_OF_A_BALL = 30_000, 20  # of the pool: so many, or so many for each ball
TRIES = 200  # draws for a ball before it may overlap with others
BATCH = 256  # balls that are placed together, the largest first


@dataclass(frozen=True)
class Pool:
    """Points at random in the accessible cytoplasm.

    Attributes:
        points: (P, 3), nm, the one with most room first.
        room: (P,) the radius of the largest ball about each that reaches no structure, nm.
        distances: by structure, (P,), nm, to the nearest voxel centre.
        position: (P,) between nucleus and membrane; NaN without them.
        slope: (P,) of position, 1/nm.
    """

    points: Floats
    room: Floats
    distances: dict[str, Floats]
    position: Floats
    slope: Floats


def make_pool(
    accessible: Mask,
    surfaces: Mapping[str, Surface],
    voxel_size: VoxelSize,
    rng: np.random.Generator,
    balls: int,
) -> Pool:
    """Draws points uniformly from accessible voxels, at random within each.

    Args:
        accessible: (z, y, x), at least one voxel.
        surfaces: of all structures, the membrane among them.
        voxel_size: nm, (z, y, x).
        rng: the source of every choice.
        balls: how many will be placed at a time.
    """
    count = max(POINTS, POINTS_OF_A_BALL * balls)
    where = np.flatnonzero(accessible)
    chosen = np.sort(where[rng.integers(len(where), size=count)])  # neighbours: a search is faster
    voxels = np.stack(np.unravel_index(chosen, accessible.shape), axis=1)
    points = (voxels + rng.uniform(-0.5, 0.5, voxels.shape)) * np.array(voxel_size)
    away = {name: surface.away(points) for name, surface in surfaces.items()}
    side, room = side_of(voxel_size), np.full(count, np.inf)
    for each in away.values():  # the gap of a ball of no radius is the room for one
        room = np.minimum(room, gaps(each.distance, np.zeros(count), side))
    position, slope = positions_among(away, count, side)
    order = np.argsort(-room, kind="stable")
    return Pool(
        points[order],
        room[order],
        {name: each.distance[order] for name, each in away.items()},
        position[order],
        slope[order],
    )


@dataclass(frozen=True)
class Placement:
    """Where each ball is.

    Attributes:
        places: (N,) of each ball the point of the pool.
        forced: how many balls had no room, or overlap with others after all tries.
    """

    places: Ints
    forced: int


def place(pool: Pool, radii: Floats, rng: np.random.Generator) -> Placement:
    """Places balls at random where they reach no structure and no other ball, the largest first.

    Args:
        pool: of points.
        radii: (N,), nm.
        rng: the source of every choice.
    """
    fitting = np.searchsorted(-pool.room, -radii, side="right")  # points with room for each ball
    cramped = fitting == 0
    fitting[cramped] = len(pool.points)
    places, forced = np.zeros(len(radii), int), int(cramped.sum())
    order = np.argsort(-radii, kind="stable")
    placed = order[:0]
    for start in range(0, len(order), BATCH):
        left = order[start : start + BATCH]
        # Each round places most of what is left: the last rounds are for crowded cells.
        for _ in range(TRIES):
            places[left] = (rng.random(len(left)) * fitting[left]).astype(int)
            fits = _fits(pool.points[places], radii, placed, left)
            placed, left = np.concatenate([placed, left[fits]]), left[~fits]
            if not len(left):
                break
        forced += len(left)
        placed = np.concatenate([placed, left])
    return Placement(places, forced)


def placements(
    pool: Pool, radii: Floats, count: int, rng: np.random.Generator
) -> Iterator[Placement]:
    """Several placements, each with a generator of its own."""
    for own in rng.spawn(count):
        yield place(pool, radii, own)


def _fits(centres: Floats, radii: Floats, placed: Ints, new: Ints) -> npt.NDArray[np.bool_]:
    """(n,) which new balls overlap with none that is placed, nor with an earlier new one that fits.

    Args:
        centres: (N, 3) of all balls, nm.
        radii: (N,), nm.
        placed: indices of the balls that stay.
        new: indices of those to try.
    """
    both = np.concatenate([placed, new])
    widest = radii[new].max() + radii[both].max()
    near = cKDTree(centres[both]).query_ball_point(centres[new], widest)
    later = np.repeat(np.arange(len(new)), [len(candidates) for candidates in near])
    earlier = np.fromiter(chain.from_iterable(near), int, len(later))
    before = earlier < len(placed) + later
    later, earlier = later[before], earlier[before]
    apart = ((centres[new[later]] - centres[both[earlier]]) ** 2).sum(axis=1)
    overlap = apart < (radii[new[later]] + radii[both[earlier]]) ** 2
    fits = np.ones(len(new), bool)
    for i, j in zip(later[overlap], earlier[overlap] - len(placed), strict=True):
        if j < 0 or fits[j]:  # in the order of the new ones: what the earlier one is, is known
            fits[i] = False
    return fits
