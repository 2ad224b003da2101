"""Insulin granules: how many, where, how large, and painting them with a label each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.phantom.cell import ORGANELLES
from isgseg.phantom.fields import Array
from isgseg.phantom.places import TO_THE_RIM, Classes, Scene, is_free
from isgseg.phantom.shapes import Ellipsoid, blend, ellipsoid, soft_weight

Labels = npt.NDArray[np.uint16]
SQUEEZE = (0.75, 0.98)  # distance of touching granules over the sum of their radii
PACKED = 0.9  # probability that a granule of a packed cluster touches another
GAP = 2.2  # voxels at least between granules that do not touch
# No measurement: fitted so that sections of every width have the contrast of real ones.
CONTRAST_POWER = -0.5


@dataclass(frozen=True)
class Granule:
    """One granule: its shape, its LAC per voxel, and the width of its edge in voxels."""

    body: Ellipsoid
    lac: float
    edge: float


def place_granules(rng: np.random.Generator, scene: Scene) -> list[Granule]:
    """Place granules cluster by cluster in free cytoplasm, up to the membrane.

    Args:
        rng: the source of every choice.
        scene: what is there already; granules avoid all but cytosol, ER and membrane.
    """
    cytoplasm, lac, voxel_size = scene.cytoplasm, scene.lac, scene.voxel_size
    numbers, diameter = scene.numbers, scene.settings.granule_diameter
    if not len(cytoplasm.points):
        return []
    # The map reaches outside the volume, and so do granules: the field cuts some of them.
    density, mean_diameter = numbers["granule_density"], numbers["granule_mean_diameter"]
    elongation, roughness = numbers["granule_elongation"], numbers["granule_roughness"]
    count = rng.poisson(density * len(cytoplasm.points) * 64 * (voxel_size / 1000) ** 3)
    near = scene.near_membrane()
    centres = np.zeros((count, 3))
    radii = np.zeros(count)
    granules: list[Granule] = []
    cluster: list[int] = []
    left, tries, clinging = 0, 0, 0.0
    origin = np.zeros(3)
    while len(granules) < count and tries < 40 * count:
        tries += 1
        if not left:
            cluster, left = [], int(rng.geometric(1 / numbers["cluster_size"]))
            weight = near if rng.uniform() < numbers["membrane_fraction"] else None
            origin = cytoplasm.draw(rng, weight)
            # Some clusters are packed, most are loose; `touching` is the mean.
            touching = numbers["touching"]
            packed = rng.uniform() < touching
            clinging = PACKED if packed else touching * (1 - PACKED) / max(1 - touching, 0.1)
        radius = _draw_diameter(rng, diameter, mean_diameter) / voxel_size / 2
        touches = bool(cluster) and rng.uniform() < clinging
        if touches:
            mate = cluster[int(rng.integers(len(cluster)))]
            centre = centres[mate] + _direction(rng) * (radii[mate] + radius) * rng.uniform(
                *SQUEEZE
            )
        elif cluster:
            centre = origin + rng.standard_normal(3) * numbers["cluster_spread"] / voxel_size
        else:
            centre = origin
        n = len(granules)
        distance = np.linalg.norm(centres[:n] - centre, axis=1)
        room = (radii[:n] + radius) * SQUEEZE[0]
        if not touches:
            room = (radii[:n] + radius) * elongation**0.5 + GAP
        if (distance < room).any() or not is_free(
            scene.organelles, centre, 0.9 * radius, TO_THE_RIM
        ):
            # A cluster in a tight corner is given up now and then, or the loop would not end.
            left = 0 if not cluster or rng.uniform() < 0.05 else left
            continue
        contrast = np.exp(numbers["granule_contrast_spread"] * rng.standard_normal())
        contrast *= (2 * radius * voxel_size / mean_diameter) ** CONTRAST_POWER
        value = lac.cytoplasm + (lac.granule - lac.cytoplasm) * float(contrast)
        edge = rng.uniform(2.0, 3.5) if rng.uniform() < numbers["granule_halo"] else 1.0
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


def _draw_diameter(rng: np.random.Generator, diameter: Sequence[float], mean: float) -> float:
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
