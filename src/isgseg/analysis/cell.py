"""Everything that is measured of granules in their cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.chance import Pool, make_pool, placements
from isgseg.analysis.columns import granule_balls, granule_columns, without_lengths
from isgseg.analysis.correlations import intensity_measures
from isgseg.analysis.curves import cell_curves
from isgseg.analysis.distances import gaps, surfaces_of
from isgseg.analysis.measures import CellNumbers, Measure, chance_of
from isgseg.analysis.relations import Balls, Frame, about, ball_curves, ball_numbers
from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.analysis.structures import Mask, Structures
from isgseg.analysis.surfaces import Floats, Surface, side_of
from isgseg.analysis.totals import totals, warnings_of
from isgseg.io.formats import Array, VoxelSize


def measure_granules(
    labels: Array,
    table: pd.DataFrame,
    structures: Structures,
    voxel_size: VoxelSize | None,
    settings: RelationSettings,
    chance: ChanceSettings,
) -> tuple[pd.DataFrame, CellNumbers]:
    """Further columns for the table of granules, and the numbers of the cell.

    `docs/analysis.md` defines each. Granules outside of the cell have no numbers that concern it.

    Args:
        labels: (z, y, x), 0 is background.
        table: of `granule_table`.
        structures: of the cell.
        voxel_size: nm, (z, y, x); None: lengths are NaN, and voxels are taken to be cubes.
        settings: limits and steps.
        chance: placements at random.

    Returns:
        A table indexed by label, and the numbers.
    """
    size = voxel_size or (1.0, 1.0, 1.0)
    surfaces = surfaces_of(structures.masks, size)
    balls = granule_balls(table, surfaces, size)
    columns, inside = granule_columns(labels, balls, structures, surfaces, settings, size)
    warnings = [*structures.warnings, *warnings_of(table, columns, structures, voxel_size)]
    measures = totals(table[inside], columns[inside], structures, voxel_size)
    if voxel_size is None:
        return without_lengths(columns), CellNumbers(measures, {}, tuple(warnings))
    measures |= intensity_measures(table[inside], columns[inside], chance)
    own = balls.of(inside)
    pool = _pool(structures, surfaces, size, chance, len(own.radii))
    frame = Frame(_middle(structures, size), _volumes(pool, settings), settings)
    placed, forced = _placed(pool, own, size, chance)
    if forced:
        warnings.append(
            f"Chance levels: {forced:.1%} of the placed balls found no free place and overlap "
            "with other balls or with structures."
        )
    numbers = [ball_numbers(one, frame) for one in placed]
    for name, value in ball_numbers(own, frame).items():
        level = chance_of(value, [one[name] for one in numbers])
        measures[name] = Measure(value, *about(name, settings), level)
    measures["clark_evans"] = _clark_evans(measures["mean_nn_distance"])
    curves = cell_curves(
        ball_curves(own, frame), [ball_curves(one, frame) for one in placed], frame
    )
    return columns, CellNumbers(measures, curves, tuple(warnings))


def _pool(
    structures: Structures,
    surfaces: dict[str, Surface],
    size: VoxelSize,
    chance: ChanceSettings,
    balls: int,
) -> Pool | None:
    """Points of the accessible cytoplasm; None where there is none."""
    accessible = structures.accessible
    if accessible is None or not accessible.any():
        return None
    return make_pool(accessible, surfaces, size, np.random.default_rng([chance.seed, 0]), balls)


def _placed(
    pool: Pool | None, balls: Balls, size: VoxelSize, chance: ChanceSettings
) -> tuple[list[Balls], float]:
    """The same balls at random places, several times, and the share that found none."""
    if pool is None or not len(balls.radii):
        return [], 0.0
    rng, side = np.random.default_rng([chance.seed, 1]), side_of(size)
    placed, forced = [], 0
    for placement in placements(pool, balls.radii, chance.placements, rng):
        at = placement.places
        away = {name: gaps(d[at], balls.radii, side) for name, d in pool.distances.items()}
        placed.append(Balls(pool.points[at], balls.radii, away, pool.position[at], pool.slope[at]))
        forced += placement.forced
    return placed, forced / max(len(placed) * len(balls.radii), 1)


def _volumes(pool: Pool | None, settings: RelationSettings) -> Floats | None:
    """(steps,) the share of the accessible volume at each step of position."""
    if pool is None or np.isnan(pool.position).all():
        return None
    counts, _ = np.histogram(pool.position, np.linspace(0, 1, settings.radial_steps + 1))
    shares: Floats = counts / len(pool.position)
    return shares


def _middle(structures: Structures, size: VoxelSize) -> Floats | None:
    """(3,) the centroid of the nucleus, else of the cell, nm."""
    masks = structures.masks
    for name in ("nucleus", "cell"):
        if name in masks and masks[name].any():
            middle: Floats = centroid(masks[name]) * np.array(size)
            return middle
    return None


def centroid(mask: Mask) -> Floats:
    """(3,) the centroid of a mask (z, y, x), voxels; its list of voxels is not made."""
    total, found = np.count_nonzero(mask), []
    planes = np.array([np.count_nonzero(plane) for plane in mask])
    found.append(np.arange(len(planes)) @ planes / total)
    flat = sum(plane.astype(np.int32) for plane in mask)
    found.append(np.arange(flat.shape[0]) @ flat.sum(axis=1) / total)
    found.append(np.arange(flat.shape[1]) @ flat.sum(axis=0) / total)
    return np.array(found, float)


def _clark_evans(nearest: Measure) -> Measure:
    """The mean distance of nearest neighbours over that of chance, with the same p.

    Clark and Evans, Ecology 35:445, 1954, with chance placements in place of their formula, which
    knows no edges.
    """
    text = "Mean distance of nearest neighbours over that of chance: below 1 where they cluster."
    level = nearest.chance
    if level is None:
        return Measure(float("nan"), "", text)
    scaled = type(level)(1.0, level.low / level.mean, level.high / level.mean, level.p)
    return Measure(nearest.value / level.mean, "", text, scaled)
