"""Insulin granules: how many, where, how large, and painting them with a label each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.phantom.cell import ORGANELLES, Lac
from isgseg.phantom.fields import Array
from isgseg.phantom.organelles import Classes, Cytoplasm, is_free
from isgseg.phantom.shapes import Ellipsoid, blend, ellipsoid, soft_weight

Labels = npt.NDArray[np.uint16]
SQUEEZE = (0.75, 0.98)  # distance of touching granules over the sum of their radii
GAP = 2.2  # voxels at least between granules that do not touch


@dataclass(frozen=True)
class Granule:
    """One granule: its shape, its LAC per voxel, and the width of its edge in voxels."""

    body: Ellipsoid
    lac: float
    edge: float


def place_granules(
    rng: np.random.Generator,
    organelles: Classes,
    cytoplasm: Cytoplasm,
    lac: Lac,
    voxel_size: float,
    *,
    density: float,
    diameter: tuple[float, float],
    mean_diameter: float,
    elongation: float,
    roughness: float,
    contrast_spread: float,
    halo: float,
    membrane_fraction: float,
    membrane_depth: float,
    cluster_size: float,
    cluster_spread: float,
    touching: float,
) -> list[Granule]:
    """Place granules cluster by cluster in free cytoplasm.

    Args:
        rng: the source of every choice.
        organelles: (z, y, x), class map; granules avoid all but cytosol and ER.
        cytoplasm: where to put them.
        lac: `lac.granule` is the median granule's value.
        voxel_size: nm.
        density: per cubic micrometre of cytoplasm.
        diameter: (low, high) nm, of the sphere of the same volume.
        mean_diameter: nm; the diameters follow a beta distribution with this mean.
        elongation: largest ratio of two axes.
        roughness: nm, standard deviation of the surface's height.
        contrast_spread: standard deviation of the logarithm of a granule's contrast.
        halo: fraction of the granules with a soft edge.
        membrane_fraction: fraction of the clusters under the plasma membrane.
        membrane_depth: nm, over which the density below the membrane falls to 1/e.
        cluster_size: mean number of granules a cluster.
        cluster_spread: nm, standard deviation of a cluster along each axis.
        touching: probability that a further granule of a cluster touches one of its own.
    """
    if not len(cytoplasm.points):
        return []
    # The map reaches outside the volume, and so do granules: the field cuts some of them.
    count = rng.poisson(density * len(cytoplasm.points) * 64 * (voxel_size / 1000) ** 3)
    share = np.exp(-cytoplasm.depth / (membrane_depth / voxel_size))
    near = np.cumsum(share.astype(float))
    centres = np.zeros((count, 3))
    radii = np.zeros(count)
    granules: list[Granule] = []
    cluster: list[int] = []
    left, tries = 0, 0
    origin = np.zeros(3)
    while len(granules) < count and tries < 40 * count:
        tries += 1
        if not left:
            cluster, left = [], int(rng.geometric(1 / cluster_size))
            weight = near if rng.uniform() < membrane_fraction else None
            origin = cytoplasm.draw(rng, weight)
        radius = _draw_diameter(rng, diameter, mean_diameter) / voxel_size / 2
        touches = bool(cluster) and rng.uniform() < touching
        if touches:
            mate = cluster[int(rng.integers(len(cluster)))]
            centre = centres[mate] + _direction(rng) * (radii[mate] + radius) * rng.uniform(
                *SQUEEZE
            )
        elif cluster:
            centre = origin + rng.standard_normal(3) * cluster_spread / voxel_size
        else:
            centre = origin
        n = len(granules)
        distance = np.linalg.norm(centres[:n] - centre, axis=1)
        room = (radii[:n] + radius) * SQUEEZE[0]
        if not touches:
            room = (radii[:n] + radius) * elongation**0.5 + GAP
        if (distance < room).any() or not is_free(
            organelles, centre, radius + 1, cytosol_only=True
        ):
            # A cluster in a tight corner is given up now and then, or the loop would not end.
            left = 0 if not cluster or rng.uniform() < 0.05 else left
            continue
        # The power is no measurement: it is fitted so that sections have the contrast of real ones,
        # of which small sections, though blurred more, are not that much paler.
        contrast = np.exp(contrast_spread * rng.standard_normal())
        contrast *= (2 * radius * voxel_size / mean_diameter) ** -0.25
        value = lac.cytoplasm + (lac.granule - lac.cytoplasm) * float(contrast)
        edge = rng.uniform(2.0, 3.5) if rng.uniform() < halo else 1.0
        body = ellipsoid(rng, centre, radius, elongation, roughness / voxel_size)
        granules.append(Granule(body, value, edge))
        centres[n], radii[n] = centre, radius
        cluster.append(n)
        left -= 1
    return granules


def paint_granules(
    volume: Array, labels: Labels, organelles: Classes, granules: list[Granule]
) -> None:
    """Paint granules into three (z, y, x) arrays in place; number n + 1 marks granules[n].

    Where two squeezed granules overlap, a voxel goes to the one it lies deeper in.

    Raises:
        ValueError: more granules than the labels' type can number.
    """
    if len(granules) > np.iinfo(labels.dtype).max:
        raise ValueError(f"{len(granules)} granules do not fit labels of type {labels.dtype}")
    for number, granule in enumerate(granules, start=1):
        body = granule.body
        box = body.box(volume.shape, margin=granule.edge)
        if box is None:
            continue
        q = body.q(box)
        pieces = q <= 1
        own = largest_piece(pieces)
        q[pieces & ~own] = 3  # crumbs that the uneven surface broke off
        weight = soft_weight(q, body.radius, granule.edge)
        blend(volume[box], weight, granule.lac)
        for other in np.unique(labels[box][own]):
            if other:
                shared = labels[box] == other
                own &= ~(shared & (granules[other - 1].body.q(box) <= q))
        labels[box][own] = number
        organelles[box][own] = ORGANELLES["granule"]


def renumber(labels: Labels, organelles: Classes) -> None:
    """Keep each label's largest piece and number the labels from 1 without gaps, in place."""
    number = 0
    for label, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        own = labels[box] == label
        kept = largest_piece(own)
        number += 1
        labels[box][own] = 0
        labels[box][kept] = number
        organelles[box][own & ~kept] = ORGANELLES["cytoplasm"]


def largest_piece(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest piece of a mask whose voxels share faces."""
    pieces, count = ndi.label(mask)
    if count < 2:
        return mask
    largest: npt.NDArray[np.bool_] = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    return largest


def _draw_diameter(rng: np.random.Generator, diameter: tuple[float, float], mean: float) -> float:
    low, high = diameter
    if high <= low:
        return low
    # Many small ones and a long tail: with a = 0.4 the sections' sizes are those of real slices.
    share = float(np.clip((mean - low) / (high - low), 0.02, 0.98))
    return low + (high - low) * float(rng.beta(0.4, 0.4 * (1 - share) / share))


def _direction(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    vector = rng.standard_normal(3)
    unit: npt.NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
