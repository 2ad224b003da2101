"""Pieces of a split that are one granule after all: there is no constriction, and one ball fits."""

from __future__ import annotations

from itertools import product

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
    merged = pieces.copy()
    while candidates := [
        (distance, pair)
        for pair, neck in necks.items()
        if neck >= NECK * min(peak[i] for i in pair)
        and (distance := _distance(members, pair)) is not None
    ]:
        keep, gone = min(candidates)[1]
        merged[merged == gone] = keep
        members[keep] = np.concatenate([members[keep], members.pop(gone)])
        peak[keep] = max(peak[keep], peak.pop(gone))
        renamed: dict[tuple[int, int], float] = {}
        for pair, neck in necks.items():
            a, b = sorted(keep if i == gone else i for i in pair)
            if a != b:
                renamed[a, b] = max(neck, renamed.get((a, b), 0.0))
        necks = renamed
    return merged


def find_necks(pieces: Ints, height_map: Floats) -> dict[tuple[int, int], float]:
    """For each two pieces that touch, the greatest height at which they do, the lower one first."""
    found: dict[tuple[int, int], float] = {}
    for step in DIRECTIONS:
        here = tuple(
            slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, pieces.shape, strict=True)
        )
        there = tuple(
            slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, pieces.shape, strict=True)
        )
        a, b = pieces[here], pieces[there]
        meet = (a != b) & (a > 0) & (b > 0)
        if not meet.any():
            continue
        neck = np.minimum(height_map[here][meet], height_map[there][meet])
        pairs = np.sort(np.stack([a[meet], b[meet]], 1), 1)
        for (i, j), height in zip(pairs.tolist(), neck.tolist(), strict=True):
            found[i, j] = max(height, found.get((i, j), 0.0))
    return found


def _distance(members: dict[int, Ints], pair: tuple[int, int]) -> float | None:
    """Of the centres of two pieces over the sum of their radii; None: they are two granules."""
    (centre, radius, fit), (other, other_radius, other_fit) = (_ball(members[i]) for i in pair)
    sizes = [len(members[i]) for i in pair]
    distance = float(np.linalg.norm(centre - other) / (radius + other_radius))
    is_round = np.average([fit, other_fit], weights=sizes) >= ROUND
    return None if distance >= APART and is_round else round(distance, 6)


def ball_fit(voxels: Ints) -> float:
    """The IoU of voxels, (N, 3), with the ball of as many at their centre; 1 is a ball."""
    return _ball(voxels)[2]


def _ball(voxels: Ints) -> tuple[Floats, float, float]:
    """(3,) the centre and the radius of the ball of as many voxels, and its IoU with them."""
    centre = voxels.mean(0)
    radius = float(np.cbrt(0.75 / np.pi * len(voxels)))
    inside = int((np.linalg.norm(voxels - centre, axis=1) <= radius).sum())
    return centre, radius, inside / (2 * len(voxels) - inside)
