"""Pieces of a split that are one granule after all: there is no constriction, and one ball fits."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from isgseg.instances.components import Floats, Ints

# Two balls whose centres are nearer than this share of the sum of their radii are one: what is
# packed keeps more, and the halves of a cut ball have .5.
APART = 0.7
# Pieces are granules where balls of their volume cover them with this IoU; of a slab, cut by the
# edge of an image or drawn badly, they are not.
ROUND = 0.5
# A neck is a constriction where the map falls to this share of the lower maximum.
NECK = 0.75
# Each pair of neighbouring voxels once: 13 of 26 directions.
DIRECTIONS = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


def merge_pieces(pieces: Ints, height_map: Floats) -> Ints:
    """Merges neighbouring pieces, those whose centres are nearest first.

    Args:
        pieces: (z, y, x) from 1, 0 background.
        height_map: (z, y, x), by which they were told apart.

    Returns:
        (z, y, x) the pieces; one that was merged has the lower of two numbers.
    """
    necks = find_necks(pieces, height_map)
    if not necks:
        return pieces
    voxels = np.argwhere(pieces)
    of = pieces[pieces > 0]
    heights = height_map[pieces > 0]
    members = {int(number): voxels[of == number] for number in np.unique(of)}
    peak = {number: float(heights[of == number].max()) for number in members}
    balls = {number: _ball(member) for number, member in members.items()}
    merged = pieces.copy()
    apart = {(a, b): _distance(balls[a], balls[b]) for a, b in necks}
    while candidates := [
        (distance, pair)
        for pair, neck in necks.items()
        if (distance := apart[pair]) is not None and neck >= NECK * min(peak[i] for i in pair)
    ]:
        keep, gone = min(candidates)[1]
        merged[merged == gone] = keep
        members[keep] = np.concatenate([members[keep], members.pop(gone)])
        balls[keep] = _ball(members[keep])
        peak[keep] = max(peak[keep], peak.pop(gone))
        renamed: dict[tuple[int, int], float] = {}
        for pair, neck in necks.items():
            a, b = sorted(keep if i == gone else i for i in pair)
            if a != b:
                renamed[a, b] = max(neck, renamed.get((a, b), 0.0))
        necks = renamed
        apart = {
            (a, b): _distance(balls[a], balls[b]) if keep in (a, b) else apart[a, b]
            for a, b in necks
        }
    return merged


def find_necks(pieces: Ints, height_map: Floats) -> dict[tuple[int, int], float]:
    """For each two pieces that touch, the greatest height at which they do, the lower one first."""
    met, heights = [], []
    for step in DIRECTIONS:
        here = tuple(
            slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, pieces.shape, strict=True)
        )
        there = tuple(
            slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, pieces.shape, strict=True)
        )
        a, b = pieces[here], pieces[there]
        meet = (a != b) & (a > 0) & (b > 0)
        met.append(np.sort(np.stack([a[meet], b[meet]], 1), 1))
        heights.append(np.minimum(height_map[here][meet], height_map[there][meet]))
    pairs, inverse = np.unique(np.concatenate(met), axis=0, return_inverse=True)
    highest = np.zeros(len(pairs))
    np.maximum.at(highest, inverse.ravel(), np.concatenate(heights))
    return dict(zip(map(tuple, pairs.tolist()), highest.tolist(), strict=True))


class Ball(NamedTuple):
    """The ball of as many voxels as a piece has.

    Attributes:
        centre: (3,) of the voxels.
        radius: voxels.
        fit: its IoU with them.
        voxels: how many.
    """

    centre: Floats
    radius: float
    fit: float
    voxels: int


def _distance(one: Ball, other: Ball) -> float | None:
    """Of the centres of two pieces over the sum of their radii; None: they are two granules."""
    apart = float(np.linalg.norm(one.centre - other.centre) / (one.radius + other.radius))
    fit = (one.fit * one.voxels + other.fit * other.voxels) / (one.voxels + other.voxels)
    return None if apart >= APART and fit >= ROUND else round(apart, 6)


def ball_fit(voxels: Ints) -> float:
    """The IoU of voxels, (N, 3), with the ball of as many at their centre; 1 is a ball."""
    return _ball(voxels).fit


def _ball(voxels: Ints) -> Ball:
    """Of voxels, (N, 3)."""
    centre = voxels.mean(0)
    radius = float(np.cbrt(0.75 / np.pi * len(voxels)))
    inside = int((np.linalg.norm(voxels - centre, axis=1) <= radius).sum())
    return Ball(centre, radius, inside / (2 * len(voxels) - inside), len(voxels))
