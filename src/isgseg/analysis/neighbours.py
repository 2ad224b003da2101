"""How granules lie to each other: nearest neighbours, clusters, pairs over distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FIRST = 8  # neighbours asked for at first; a larger and more distant ball may have a smaller gap


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbour of each ball.

    Attributes:
        nearest: (N,) which ball has the nearest centre, counted from 0; -1 where there is no other.
        distance: (N,) of the two centres, nm; NaN where there is no other.
        gap: (N,) the smallest gap between the surface and that of any other ball, nm, negative
            where balls overlap; NaN where there is no other.
    """

    nearest: Ints
    distance: Floats
    gap: Floats


def nearest_neighbours(centres: Floats, radii: Floats) -> Neighbours:
    """Nearest neighbours by centres and by surfaces.

    Args:
        centres: (N, 3), nm.
        radii: (N,), nm.
    """
    count = len(centres)
    if count < 2:
        unknown = np.full(count, np.nan)
        return Neighbours(np.full(count, -1), unknown, unknown.copy())
    tree = cKDTree(centres)
    nearest, distance, gap = np.zeros(count, int), np.zeros(count), np.full(count, np.inf)
    left, asked = np.arange(count), FIRST
    while len(left):
        asked = min(asked, count - 1)
        found, others = tree.query(centres[left], k=asked + 1)
        found, others = _without_self(found, others, left)
        nearest[left], distance[left] = others[:, 0], found[:, 0]
        gap[left] = (found - radii[left, None] - radii[others]).min(axis=1)
        # A ball that was not asked for is at least as far as the last one, and no larger than any.
        least = found[:, -1] - radii[left] - radii.max()
        left = left[least < gap[left]] if asked < count - 1 else left[:0]
        asked *= 4
    return Neighbours(nearest, distance, gap)


def _without_self(found: Floats, others: Ints, own: Ints) -> tuple[Floats, Ints]:
    """(n, k) of (n, k + 1) neighbours: those that are not the ball itself, or the nearest k."""
    keep = others != own[:, None]
    keep[keep.all(axis=1), -1] = False  # of balls at one place, itself may not be among them
    return found[keep].reshape(len(own), -1), others[keep].reshape(len(own), -1)


def clusters(centres: Floats, radii: Floats, most: float) -> Ints:
    """(N,) the number of each ball's cluster, from 1: balls with gaps of at most `most` nm.

    Args:
        centres: (N, 3), nm.
        radii: (N,), nm.
        most: nm.
    """
    count = len(centres)
    if not count:
        return np.zeros(0, int)
    pairs = cKDTree(centres).query_pairs(most + 2 * radii.max(), output_type="ndarray")
    first, second = pairs.T
    distance = np.linalg.norm(centres[first] - centres[second], axis=1)
    near = distance - radii[first] - radii[second] <= most
    ones = np.ones(int(near.sum()), bool)
    graph = coo_array((ones, (first[near], second[near])), shape=(count, count))
    _, of = connected_components(graph, directed=False)
    return np.asarray(of + 1, np.int64)


def pair_counts(centres: Floats, edges: Floats) -> Floats:
    """(N - 1,) pairs of centres in each shell of distance.

    Args:
        centres: (M, 3), nm.
        edges: (N,), rising, nm; the first is 0.
    """
    if len(centres) < 2:
        return np.zeros(len(edges) - 1)
    pairs = cKDTree(centres).query_pairs(edges[-1], output_type="ndarray")
    first, second = pairs.T
    distance = np.linalg.norm(centres[first] - centres[second], axis=1)
    # query_pairs takes the last edge in, as histogram does.
    return np.histogram(distance, edges)[0].astype(float)


def polarity(centres: Floats, middle: Floats) -> float:
    """The length of the mean unit vector from the middle to the centres: 0 all round, 1 one side.

    Args:
        centres: (N, 3), nm.
        middle: (3,), nm.
    """
    if not len(centres):
        return float("nan")
    vectors = centres - middle
    length = np.maximum(np.linalg.norm(vectors, axis=1), 1e-9)
    return float(np.linalg.norm((vectors / length[:, None]).mean(axis=0)))
