"""The voxels of granules as a list, and what they touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.io.formats import Array

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# Half of the neighbours that share a face, an edge or a corner: the others are their opposites.
HALF = [o for o in product((-1, 0, 1), repeat=3) if o > (0, 0, 0)]
FACES = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (-1, 0, 0), (0, -1, 0), (0, 0, -1)]


@dataclass(frozen=True)
class GranuleVoxels:
    """All voxels of all granules, those of one granule in a row.

    Attributes:
        places: (V, 3), (z, y, x).
        starts: (N,) where each granule's voxels begin, in the order of the labels.
        labels: (N,) which granules there are.
        shape: (z, y, x) of the volume.
    """

    places: npt.NDArray[np.int32]
    starts: Ints
    labels: Array
    shape: tuple[int, ...]

    @cached_property
    def counts(self) -> Ints:
        """(N,) how many voxels each granule has."""
        return np.diff(self.starts, append=len(self.places))

    @cached_property
    def owners(self) -> Ints:
        """(V,) for each voxel which granule has it, counted from 0."""
        return np.repeat(np.arange(len(self.starts)), self.counts)

    def sums(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N,) the sum of a value of each voxel over a granule's voxels."""
        return np.bincount(self.owners, values, len(self.starts)).astype(np.float64, copy=False)

    def means(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N,) the mean of a value of each voxel over a granule's voxels."""
        return self.sums(values) / self.counts

    def any_of_each(self, flags: Bools) -> Bools:
        """(N,) whether any voxel of a granule has its flag set."""
        if not len(self.starts):
            return np.zeros(0, bool)
        return np.logical_or.reduceat(flags, self.starts)

    def least_of_each(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(N,) the smallest value of a granule's voxels."""
        return np.minimum.reduceat(values, self.starts) if len(self.starts) else np.zeros(0)


def granule_voxels(labels: Array) -> GranuleVoxels:
    """The voxels of all granules of a label volume (z, y, x)."""
    where = np.nonzero(labels)
    of = labels[where]
    order = np.argsort(of, kind="stable")
    names, starts = np.unique(of[order], return_index=True)
    places = np.stack(where, axis=1).astype(np.int32)[order]
    return GranuleVoxels(places, starts.astype(np.int64), names, labels.shape)


def at_the_edge(voxels: GranuleVoxels) -> Bools:
    """(N,) whether a granule reaches the volume's edge, so that part of it may be missing."""
    last = np.array(voxels.shape) - 1
    return voxels.any_of_each(((voxels.places == 0) | (voxels.places == last)).any(axis=1))


def continues(
    voxels: GranuleVoxels, labels: Array, step: tuple[int, ...], *, beyond: bool
) -> Bools:
    """(V,) whether the voxel one step further belongs to the same granule.

    Args:
        voxels: of the granules.
        labels: (z, y, x), which they are of.
        step: (z, y, x), voxels.
        beyond: the answer where the step leaves the volume.
    """
    there, value = _neighbours(voxels.places, step, labels)
    return np.where(there, value == voxels.labels[voxels.owners], beyond)


def outermost(voxels: GranuleVoxels, labels: Array) -> GranuleVoxels:
    """The voxels that share a face with one that is not of the same granule, or the edge."""
    own = labels[tuple(voxels.places.T)]
    outer = np.zeros(len(own), bool)
    for step in FACES:
        there, value = _neighbours(voxels.places, step, labels)
        outer |= ~there | (value != own)
    counts = np.add.reduceat(outer, voxels.starts) if len(voxels.starts) else np.zeros(0, int)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[: len(counts)]
    return GranuleVoxels(voxels.places[outer], starts.astype(np.int64), voxels.labels, voxels.shape)


def touching_pairs(voxels: GranuleVoxels, labels: Array) -> Ints:
    """(P, 2) pairs of granules of which two voxels share a face or an edge, counted from 0."""
    own = labels[tuple(voxels.places.T)]
    found = []
    for step in HALF:
        if np.abs(step).sum() == 3:
            continue
        there, value = _neighbours(voxels.places, step, labels)
        other = there & (value != 0) & (value != own)
        found.append(np.stack([own[other], value[other]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return np.searchsorted(voxels.labels, pairs).astype(np.int64)


def touches(voxels: GranuleVoxels, mask: Bools, *, inverted: bool = False) -> Bools:
    """(N,) whether a voxel of a granule lies in a mask or shares a face, edge or corner with it.

    Args:
        voxels: of the granules.
        mask: (z, y, x).
        inverted: what is not in the mask counts, but not what lies beyond the volume.
    """
    value = mask[tuple(voxels.places.T)]
    flags = ~value if inverted else value
    for step in [*HALF, *(tuple(-i for i in o) for o in HALF)]:
        there, value = _neighbours(voxels.places, step, mask)
        flags |= there & (~value if inverted else value)
    return voxels.any_of_each(flags)


def _neighbours(
    places: npt.NDArray[np.int32], step: tuple[int, ...], image: Array
) -> tuple[Bools, npt.NDArray[Any]]:
    """(V,) whether there is a voxel one step further, and its value, of the nearest elsewhere."""
    moved = places + np.array(step, np.int32)
    inside = np.clip(moved, 0, np.array(image.shape, np.int32) - 1)
    return (moved == inside).all(axis=1), image[tuple(inside.T)]
