"""The shape of each granule: how elongated it is and which way, its surface, and its sphericity.

A granule of 5 to 13 voxels is a coarse thing to measure. What the voxel grid alone does to a ball
is known in closed form, for voxels of any sides, and is taken off. Where that is not enough, the
number is NaN. `benchmarks/shape.py` measures what is left.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import SphericalVoronoi

from isgseg.analysis.voxels import HALF, GranuleVoxels, at_the_edge, continues, granule_voxels
from isgseg.io.formats import Array

Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

COLUMNS = ("aspect_ratio", "axis_z", "axis_y", "axis_x", "surface_um2", "sphericity")

# The largest `grid_scatter` of a ball whose numbers are given: 4.2 and 5.9 cubic voxels across.
SCATTER_FOR_SURFACE = 0.05
SCATTER_FOR_ASPECT = 0.025
NOISE = 1.3  # balls and ellipsoids of 1.05 to 1.4 are then off by less than 3 %, to either side
THINNEST = 3.0  # voxels across the shortest axis; thinner plates and rods are read too round


def shape_columns(labels: Array, voxel_size: Sequence[float] | None = None) -> pd.DataFrame:
    """The shape of each granule; see `COLUMNS`.

    - `aspect_ratio`: longest over shortest axis of the ellipsoid with the same second moments; 1
      where the granule is no more elongated than the grid makes a ball
    - `axis_z`, `axis_y`, `axis_x`: unit vector along the longest axis, with its largest component
      positive; NaN where the aspect ratio is 1, since a ball has no axis
    - `surface_um2`: by Crofton's formula, see `surfaces`
    - `sphericity`: surface of the ball of the same volume over the surface; 1 is a ball, and values
      up to 1.03 are scatter

    All are NaN where a granule touches the volume's edge, and where it is so small or thin that
    the number would be off by more than 3 % for a ball, or scatter by more than 5 %. That is below
    4.2 voxels across for surface and sphericity, and below 5.9 for the aspect ratio and the axis
    (of cubic voxels; more of others).

    Args:
        labels: (z, y, x), unsigned integers, 0 is background.
        voxel_size: nm, (z, y, x); None takes the voxels as cubes, and leaves `surface_um2` NaN.

    Returns:
        One row a granule; the index is the label, rising.
    """
    if voxel_size is None:
        log.warning("no voxel size: shapes are measured as if the voxels were cubes")
    side = np.ones(3) if voxel_size is None else np.array(voxel_size, dtype=np.float64)
    voxels = granule_voxels(labels)
    table = pd.DataFrame(
        np.nan, index=pd.Index(voxels.labels, name="label"), columns=list(COLUMNS), dtype=np.float64
    )
    if table.empty:
        return table
    spread, axes = np.linalg.eigh(second_moments(voxels, side))
    diameter = np.cbrt(6 / math.pi * voxels.counts * side.prod())
    scatter = grid_scatter(diameter, side)
    thick = 2 * np.sqrt(5 * spread[:, 0]) >= THINNEST * np.cbrt(side.prod())
    whole = ~at_the_edge(voxels) & thick

    known = whole & (scatter <= SCATTER_FOR_ASPECT)
    ratio = aspect_ratios(spread, scatter)
    table["aspect_ratio"] = np.where(known, ratio, np.nan)
    longest = axes[:, :, 2] * largest_sign(axes[:, :, 2])
    table[["axis_z", "axis_y", "axis_x"]] = np.where(
        (known & (ratio > 1))[:, None], longest, np.nan
    )

    known = whole & (scatter <= SCATTER_FOR_SURFACE)
    surface = surfaces(voxels, labels, side)
    table["sphericity"] = np.where(known, math.pi * diameter**2 / surface, np.nan)
    if voxel_size is not None:
        table["surface_um2"] = np.where(known, surface / 1e6, np.nan)
    return table


def second_moments(voxels: GranuleVoxels, side: Floats) -> Floats:
    """The second central moments of each granule as a body made of whole voxels.

    The voxels' centres alone give less, by the voxel's own moment: its side squared over 12.

    Args:
        voxels: of N granules.
        side: nm, (z, y, x).

    Returns:
        (N, 3, 3), nm2; a fifth of the squared radius in each direction, for a ball.
    """
    offset = [
        (places - voxels.means(places)[voxels.owners]) * length
        for places, length in zip(voxels.places.T, side, strict=True)
    ]
    moments = np.empty((len(voxels.labels), 3, 3))
    for i, j in itertools.combinations_with_replacement(range(3), 2):
        moments[:, i, j] = moments[:, j, i] = voxels.means(offset[i] * offset[j])
    return moments + np.diag(side**2 / 12)


def aspect_ratios(spread: Floats, scatter: Floats) -> Floats:
    """Longest over shortest axis, less what the voxel grid adds to it.

    The logarithms of the three axes, less their mean, are a vector that is 0 for a ball. The grid
    adds noise to it. Noise only ever lengthens a vector, so that digitized balls of 7 voxels have
    a ratio of 1.06. The expected square of the noise is subtracted from the square of the length,
    as is done for the magnitudes of magnetic resonance (Gudbjartsson and Patz 1995). It is taken
    `NOISE` times: where the difference would be negative it is 0, which leaves balls a little long.

    Args:
        spread: (N, 3) eigenvalues of the second moments, rising.
        scatter: (N,) of `grid_scatter`.

    Returns:
        (N,) at least 1.
    """
    axes = np.log(spread) / 2
    length2 = ((axes - axes.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    # The grid moves the boundary. The moments feel it at 5/2 of the volume's relative change along
    # the normal; 2/3 of the square of that is a change of shape, the rest one of size.
    noise2 = NOISE * (5 / 2) ** 2 * (2 / 3) * scatter**2
    kept = np.sqrt(np.clip(1 - noise2 / np.maximum(length2, 1e-12), 0, None))
    return np.asarray(np.exp((axes[:, 2] - axes[:, 0]) * kept))


def grid_scatter(diameter: Floats, side: Floats) -> Floats:
    """Relative standard deviation of the number of voxels in a ball that is placed at random.

    The variance is a sum over the reciprocal lattice, of which the leading term is taken; see
    Kendall 1948, On the number of lattice points inside a random oval.

    Args:
        diameter: (N,) nm.
        side: nm, (z, y, x).

    Returns:
        (N,) for cubes .87 over the squared diameter in voxels.
    """
    cube = np.cbrt(side.prod())
    waves = np.array(list(itertools.product(range(-20, 21), repeat=3))) / (side / cube)
    length = np.linalg.norm(waves, axis=1)
    reach = 20 * cube / side.max()  # all waves up to this length are among them
    near = length[(length > 0) & (length <= reach)]
    waves4 = (near**-4.0).sum() + 4 * math.pi / reach
    return np.asarray(math.sqrt(4.5 * waves4) / math.pi**2 * (cube / diameter) ** 2)


def surfaces(voxels: GranuleVoxels, labels: Array, side: Floats) -> Floats:
    """The surface of each granule by Crofton's formula, from lines in 13 directions.

    The number of times that lines of one direction cross a surface measures the area that it turns
    towards them; the mean over all directions is half of the surface. The lines run through voxel
    centres to the 26 neighbours, each direction weighted by its share of the sphere (Ohser and
    Muecklich 2000; Lehmann and Legland 2012).

    A line that only grazes a granule can pass between two centres and miss it. Of a ball of any
    size the lines miss `pi * step**2 / 12` of the area that they should see. That is added: it is
    2.7 % of the surface at 5 voxels across.

    Args:
        voxels: of N granules.
        labels: (z, y, x), which they are of.
        side: nm, (z, y, x).

    Returns:
        (N,) nm2.
    """
    area = np.zeros(len(voxels.labels))
    for step, share in zip(HALF, direction_shares(side), strict=True):
        length = float(np.linalg.norm(side * step))
        left = voxels.sums(~continues(voxels, labels, step, beyond=False))  # entered as often
        seen = left * side.prod() / length + math.pi * length**2 / 12
        area += 4 * share * seen
    return area


def direction_shares(side: Floats) -> Floats:
    """(13,) the share of all directions that is nearest to each of `HALF`, or to its opposite."""
    steps = np.array(HALF) * side
    units = steps / np.linalg.norm(steps, axis=1, keepdims=True)
    areas = SphericalVoronoi(np.concatenate([units, -units])).calculate_areas()
    return np.asarray(areas[: len(HALF)] / (2 * math.pi))


def largest_sign(vectors: Floats) -> Floats:
    """(N, 1) the sign of the largest component of each vector, (N, 3)."""
    largest = np.abs(vectors).argmax(axis=1)[:, None]
    return np.sign(np.take_along_axis(vectors, largest, axis=1))
