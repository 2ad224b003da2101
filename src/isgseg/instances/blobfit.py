"""Touching granules told apart as published: balls about bright points, grown within the mask.

The method of Li et al. 2022, PLOS ONE 17:e0269887 (blob_separation_v6_batch.py), written anew for
comparisons. It decides by single voxels of the tomogram, and splits whole granules now and then:
`isgseg.instances.split` does better on masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.instances.components import Bools, Floats, Ints

MARGIN = 5  # voxels around the box of a component
SIGMAS = range(1, 10)  # voxels: the tomogram is smoothed by each
LEAST_RADIUS = 1.5  # voxels
FILLED = 0.8  # a ball grows while so much of it is mask
LEAST_VOXELS = 15  # a component without a ball must have more


def fit_blobs(part: Bools, volume: npt.NDArray[Any]) -> Ints:
    """One component in pieces: each voxel goes to the ball that it is nearest to.

    Args:
        part: (z, y, x), which voxels of the box are the component's.
        volume: (z, y, x) of the tomogram, bright where granules are.

    Returns:
        (z, y, x) pieces from 1, 0 background. A component of up to `LEAST_VOXELS` in which no ball
        is found is dropped.
    """
    centres, radii = find_balls(part, np.asarray(volume, np.float64))
    pieces = np.zeros(part.shape, np.int64)
    if not len(centres):
        pieces[part] = part.sum() > LEAST_VOXELS
        return pieces
    places = np.argwhere(part)
    ratio = np.linalg.norm(places[:, None] - centres[None], axis=2) / radii
    nearest = ratio.argmin(1)
    pieces[part] = np.unique(nearest, return_inverse=True)[1] + 1
    return pieces


def find_balls(part: Bools, volume: Floats) -> tuple[Ints, Floats]:
    """(N, 3) centres and (N,) radii in voxels; the brightest point first, none inside another's."""
    points = _maxima(volume)
    depth = ndi.distance_transform_edt(ndi.binary_dilation(part))
    points = points[np.argsort(-volume[tuple(points.T)], kind="stable")]
    deepest = depth[tuple(points.T)].max(initial=0)
    points = points[depth[tuple(points.T)] > 0]
    places = np.argwhere(part)
    steps, volumes = _shells(int(deepest) + 3)
    centres: list[Any] = []
    radii: list[float] = []
    for point in points:
        if centres and (np.linalg.norm(np.array(centres) - point, axis=1) < radii).any():
            continue
        distances = np.sort(np.linalg.norm(places - point, axis=1))
        filled = np.searchsorted(distances, steps, side="right") / volumes >= FILLED
        if filled.any():  # counted, as published: a ball that fills twice is taken for smaller
            centres.append(point)
            radii.append(float(steps[min(int(filled.sum()), len(steps) - 1)]))
    return np.array(centres, np.int64).reshape(-1, 3), np.array(radii, np.float64)


def _maxima(volume: Floats) -> Ints:
    """(N, 3) voxels off the box's faces that no neighbour surpasses, at each smoothing."""
    inner = (slice(1, -1),) * 3
    found = np.zeros(volume.shape, bool)
    for sigma in SIGMAS:
        smooth = ndi.gaussian_filter(volume, sigma)
        highest = ndi.maximum_filter(smooth, 3, mode="nearest")
        found[inner] |= ((smooth == highest) & (smooth > smooth.min()))[inner]
    return np.argwhere(found)


def _shells(largest: int) -> tuple[Floats, Ints]:
    """Radii at which a digital ball grows, above the least, and its voxels at each."""
    side = largest + 1
    squares = np.sort((np.indices((2 * side + 1,) * 3) - side).reshape(3, -1).T ** 2 @ np.ones(3))
    steps = np.unique(squares)
    steps = steps[np.sqrt(steps) > LEAST_RADIUS]
    return np.sqrt(steps), np.searchsorted(squares, steps, side="right")
