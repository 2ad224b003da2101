"""The columns of the table of granules that say how they lie to structures and to each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from isgseg.analysis.distances import contact_columns, gaps, known
from isgseg.analysis.neighbours import clusters, nearest_neighbours
from isgseg.analysis.radial import positions_among
from isgseg.analysis.relations import Balls
from isgseg.analysis.settings import RelationSettings
from isgseg.analysis.structures import Mask, Structures
from isgseg.analysis.surfaces import Surface, side_of, values_at
from isgseg.analysis.voxels import granule_voxels, touching_pairs
from isgseg.io.formats import Array, VoxelSize

LENGTHS = ("gap_", "near_", "nn_distance", "nn_gap", "cluster")  # columns that need a voxel size


def granule_balls(table: pd.DataFrame, surfaces: Mapping[str, Surface], size: VoxelSize) -> Balls:
    """Granules as balls at their centroids.

    Args:
        table: of `granule_table`.
        surfaces: of the structures.
        size: nm, (z, y, x), of a voxel.
    """
    centres = table[[f"centroid_{axis}" for axis in "zyx"]].to_numpy(float) * np.array(size)
    side = side_of(size)
    radii = table["equivalent_diameter_px"].to_numpy(float) * side / 2
    away = {name: surface.away(centres) for name, surface in surfaces.items()}
    between = {name: gaps(each.distance, radii, side) for name, each in away.items()}
    position, slope = positions_among(away, len(table), side)
    return Balls(centres, radii, between, position, slope)


def granule_columns(
    labels: Array,
    balls: Balls,
    structures: Structures,
    surfaces: Mapping[str, Surface],
    settings: RelationSettings,
    size: VoxelSize,
) -> tuple[pd.DataFrame, Mask]:
    """Further columns of the table; `docs/analysis.md` defines them.

    Args:
        labels: (z, y, x), 0 is background.
        balls: the granules, in the order of their labels.
        structures: of the cell.
        surfaces: of the structures.
        settings: limits.
        size: nm, (z, y, x), of a voxel.

    Returns:
        A table indexed by label; and (N,) which granules are in the cell, all where no mask says.
    """
    voxels = granule_voxels(labels)
    contacts = contact_columns(voxels, labels, surfaces, size)
    table = pd.DataFrame(index=contacts.index)
    table["cell"] = np.nan
    inside = np.ones(len(table), bool)
    if structures.cells is not None:
        table["cell"] = values_at(structures.cells, balls.centres, size).astype(float)
        inside = (table["cell"] == structures.number).to_numpy()
    for name in surfaces:
        table[f"gap_{name}"] = known(balls.gaps[name])
        table[[f"near_{name}", f"contact_{name}"]] = contacts[[f"near_{name}", f"contact_{name}"]]
    table["position"] = balls.position
    table.loc[~inside, table.columns.drop("cell")] = np.nan
    own, names = balls.of(inside), table.index.to_numpy()[inside]
    neighbours = nearest_neighbours(own.centres, own.radii)
    other = neighbours.nearest >= 0
    nearest = np.where(other, names[neighbours.nearest] if len(names) else 0, np.nan)
    for name, values in {
        "nn_label": nearest,
        "nn_distance": neighbours.distance,
        "nn_gap": neighbours.gap,
        "cluster": clusters(own.centres, own.radii, settings.cluster_gap).astype(float),
    }.items():
        table[name] = np.nan
        table.loc[inside, name] = values
    pairs = touching_pairs(voxels, labels)
    table["touching"] = np.bincount(pairs.ravel(), minlength=len(table))
    return table, inside


def without_lengths(columns: pd.DataFrame) -> pd.DataFrame:
    """The columns with NaN in those that are lengths, or need one."""
    lengths = [name for name in columns.columns if name.startswith(LENGTHS)]
    return columns.assign(**dict.fromkeys(lengths, np.nan))
