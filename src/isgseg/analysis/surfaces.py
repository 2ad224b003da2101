"""Distances of points from the surface of a mask, without a distance map of the whole volume.

A distance map of a whole cell takes half a minute and gigabytes. What is asked is known beforehand:
the granules, and a sample of the cytoplasm. A k-d tree of the surface's voxels answers it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from isgseg.io.formats import VoxelSize

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
# The nearest voxel centre of an oblique plane lies so many voxels behind the plane, as seen from a
# point at random, and so many before the surface, as seen from the nearest voxel of a ball.
# Measured on planes of random direction; of a plane along the axes both are .5.
BEHIND_SURFACE = 0.2
BETWEEN_VOXELS = 0.5
LEAF = 64  # points of a leaf of the tree: the fastest of 8 to 64


@dataclass(frozen=True)
class Away:
    """How far points are from a structure.

    Attributes:
        distance: (N,) to its nearest voxel centre, nm; 0 inside, infinite where it has no voxel.
        direction: (N, 3) unit vectors that lead away from it; 0 inside.
    """

    distance: Floats
    direction: Floats


@dataclass(frozen=True)
class Surface:
    """The surface of a structure.

    Attributes:
        mask: (z, y, x), the structure.
        inverted: the structure is what is not in the mask; the volume's edge has no surface.
        tree: of the centres of the structure's voxels that have a neighbour outside, nm.
        voxel_size: nm, (z, y, x).
    """

    mask: Mask
    inverted: bool
    tree: Any
    voxel_size: VoxelSize

    def away(self, points: Floats) -> Away:
        """How far the nearest voxel centre of the structure is, and in which direction.

        Args:
            points: (N, 3), (z, y, x), nm; voxel 0 has its centre at 0.
        """
        distance, away = np.full(len(points), np.inf), np.zeros((len(points), 3))
        inside = self.contains(points)
        distance[inside] = 0
        if self.tree is not None and not inside.all():
            outside = ~inside
            distance[outside], nearest = self.tree.query(points[outside], workers=-1)
            vectors = points[outside] - self.tree.data[nearest]
            away[outside] = vectors / np.maximum(distance[outside], 1e-9)[:, None]
        return Away(distance, away)

    def contains(self, points: Floats) -> Mask:
        """(N,) whether the voxel of each point is in the structure; points as in `distance`."""
        inside = values_at(self.mask, points, self.voxel_size)
        return ~inside if self.inverted else inside


def surface_of(mask: Mask, voxel_size: VoxelSize, *, inverted: bool = False) -> Surface:
    """The surface of a mask, or of all that is not in it.

    Args:
        mask: (z, y, x).
        voxel_size: nm, (z, y, x).
        inverted: take what is not in the mask.
    """
    voxels = boundary(mask, inverted)
    tree = None
    if len(voxels):
        # Voxels lie on a grid, many in one plane: splits at medians and shrunk boxes take twenty
        # times longer to search.
        tree = cKDTree(
            voxels * np.array(voxel_size), LEAF, balanced_tree=False, compact_nodes=False
        )
    return Surface(mask, inverted, tree, voxel_size)


def boundary(mask: Mask, inverted: bool = False) -> npt.NDArray[np.intp]:
    """(N, 3) the voxels of a mask that share a face with one outside; inverted, the others do."""
    edge = np.zeros(mask.shape, bool)
    for axis in range(3):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        change = mask[tuple(first)] != mask[tuple(second)]
        edge[tuple(first)] |= change
        edge[tuple(second)] |= change
    edge &= ~mask if inverted else mask
    return np.argwhere(edge)


def values_at(image: npt.NDArray[Any], points: Floats, voxel_size: VoxelSize) -> npt.NDArray[Any]:
    """(N,) the values of the voxels in which points lie; the nearest ones for points outside.

    Args:
        image: (z, y, x).
        points: (N, 3), (z, y, x), nm.
        voxel_size: nm, (z, y, x).
    """
    index = np.rint(points / np.array(voxel_size)).astype(int)
    z, y, x = np.clip(index, 0, np.array(image.shape) - 1).T
    return np.asarray(image[z, y, x])


def side_of(voxel_size: VoxelSize) -> float:
    """The side of the cube of a voxel's volume, nm."""
    return float(np.cbrt(np.prod(voxel_size)))
