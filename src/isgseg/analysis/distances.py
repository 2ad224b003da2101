"""How far granules are from the structures of their cell, and where between them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from isgseg.analysis.surfaces import (
    BEHIND_SURFACE,
    BETWEEN_VOXELS,
    Floats,
    Mask,
    Surface,
    side_of,
    surface_of,
)
from isgseg.analysis.voxels import GranuleVoxels, outermost, touches
from isgseg.io.formats import Array, VoxelSize

MEMBRANE = "membrane"  # what the mask of the cell ends at


def surfaces_of(masks: Mapping[str, Mask], voxel_size: VoxelSize) -> dict[str, Surface]:
    """The surface of each structure; that of the cell is its membrane, seen from inside.

    Args:
        masks: by name, (z, y, x).
        voxel_size: nm, (z, y, x).
    """
    return {
        MEMBRANE if name == "cell" else name: surface_of(mask, voxel_size, inverted=name == "cell")
        for name, mask in masks.items()
    }


def gaps(distances: Floats, radii: Floats, side: float) -> Floats:
    """From the surface of balls to that of a structure: nm, 0 where they overlap.

    Args:
        distances: (N,) from the balls' centres to the nearest voxel centre of the structure, nm.
        radii: (N,), nm.
        side: of a voxel, nm.
    """
    return np.maximum(distances - radii - BEHIND_SURFACE * side, 0)


def contact_columns(
    voxels: GranuleVoxels, labels: Array, surfaces: Mapping[str, Surface], voxel_size: VoxelSize
) -> pd.DataFrame:
    """What follows from the granules' own voxels.

    - `near_<structure>`: nm, from the nearest voxel of the granule to that of the structure, less
      the halves of the two voxels; 0 where they overlap. Of faces that touch it is half a voxel.
    - `contact_<structure>`: whether they share a voxel, or a voxel's face, edge or corner.

    Args:
        voxels: of all granules.
        labels: (z, y, x).
        surfaces: by name.
        voxel_size: nm, (z, y, x).

    Returns:
        A table indexed by label.
    """
    table = pd.DataFrame(index=pd.Index(voxels.labels, name="label"))
    outer = outermost(voxels, labels)
    points = outer.places * np.array(voxel_size)
    for name, surface in surfaces.items():
        distance = surface.away(points).distance
        least = outer.least_of_each(distance) - BETWEEN_VOXELS * side_of(voxel_size)
        table[f"near_{name}"] = known(np.maximum(least, 0))
        # Where the structure has no voxel, nothing is known of it, contacts neither.
        contact = touches(outer, surface.mask, inverted=surface.inverted).astype(float)
        table[f"contact_{name}"] = np.where(np.isfinite(least), contact, np.nan)
    return table


def known(values: Floats) -> Floats:
    """The values with NaN for infinity: the distance from what is not there."""
    return np.where(np.isfinite(values), values, np.nan)
