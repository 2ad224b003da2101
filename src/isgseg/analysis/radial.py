"""Where between the nucleus and the plasma membrane: positions, and profiles over them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from isgseg.analysis.distances import MEMBRANE
from isgseg.analysis.surfaces import BEHIND_SURFACE, Away, Floats


def positions_among(away: Mapping[str, Away], count: int, side: float) -> tuple[Floats, Floats]:
    """The `positions` of points, all NaN where there is no nucleus or no membrane.

    Args:
        away: by structure, how far from it the points are.
        count: of the points.
        side: of a voxel, nm.
    """
    if "nucleus" in away and MEMBRANE in away:
        return positions(away["nucleus"], away[MEMBRANE], side)
    return np.full(count, np.nan), np.full(count, np.nan)


def positions(nucleus: Away, membrane: Away, side: float) -> tuple[Floats, Floats]:
    """Where points lie between the nucleus, 0, and the plasma membrane, 1.

    The distance from the nucleus over the sum of those from nucleus and membrane.

    Args:
        nucleus: how far from it the points are.
        membrane: how far from that of the cell.
        side: of a voxel, nm.

    Returns:
        (N,) positions, NaN where one of the two is not there; and (N,) by how much they change per
        nm in the direction in which they change most.
    """
    inner, outer = (
        np.maximum(away.distance - BEHIND_SURFACE * side, 0) for away in (nucleus, membrane)
    )
    whole = inner + outer
    with np.errstate(invalid="ignore", divide="ignore"):
        position = inner / whole
        change = outer[:, None] * nucleus.direction - inner[:, None] * membrane.direction
        slope = np.linalg.norm(change, axis=1) / whole**2
    unknown = ~np.isfinite(whole) | (whole == 0)
    return np.where(unknown, np.nan, position), np.where(unknown, np.nan, slope)


def radial_profile(
    position: Floats, slope: Floats, radii: Floats, volume: Floats, steps: int
) -> Floats:
    """The density of granules in equal steps of position, over their mean density.

    Granules count as balls; within one the position is taken to change steadily, so that the shares
    of a ball in the steps are those of a ball between parallel planes.

    Args:
        position: (N,), 0 to 1.
        slope: (N,) of position at the balls' centres, 1/nm.
        radii: (N,), nm.
        volume: (steps,) accessible volume of each step, in any unit.
        steps: how many.

    Returns:
        (steps,), 1 where granules are as dense as in the whole; NaN where there is no volume.
    """
    edges = np.linspace(0, 1, steps + 1)
    reach = np.maximum(radii * slope, 1e-9)
    height = np.clip((edges - position[:, None]) / reach[:, None], -1, 1)
    below = (2 + 3 * height - height**3) / 4  # of a unit ball, below a plane at that height
    below[:, 0], below[:, -1] = 0, 1
    filled = (radii[:, None] ** 3 * np.diff(below, axis=1)).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = filled / filled.sum() / (volume / volume.sum())
    return np.where(volume > 0, share, np.nan)
