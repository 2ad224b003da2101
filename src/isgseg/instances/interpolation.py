"""The shape of a granule in slices where it was not detected, between those where it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

from isgseg.instances.components import Bools, Components, Floats, Labels


def fill_gap(
    out: Sequence[Labels], window: Sequence[Components], before: int, after: int, number: int
) -> None:
    """Write ``number`` into the slices between two masks: shape-based interpolation.

    The shape is where the average of their signed distances is positive (Raya and Udupa 1990);
    where both overlap it always is, so the fill joins them. Only background is written, and only
    where nothing but these two is above and below, so that fills do not compete.

    Args:
        out: of the slices between, (y, x) each.
        window: gap + 2 slices (y, x) of components, from that of ``before`` to that of ``after``.
        before: the component in the first of them.
        after: the component in the last of them.
        number: what to write.
    """
    boxes = [find_objects(w, n)[n - 1] for w, n in ((window[0], before), (window[-1], after))]
    y, x = (
        slice(min(p.start for p in pair), max(p.stop for p in pair))
        for pair in zip(*boxes, strict=True)
    )
    ends = [(window[0][y, x], before), (window[-1][y, x], after)]
    free = np.logical_and.reduce(
        [(w == 0) | (w == n) for w, n in ends] + [w[y, x] == 0 for w in window[1:-1]]
    )
    below, above = (_signed_distance(w == n) for w, n in ends)
    for i, plane in enumerate(out, start=1):
        share = i / (len(window) - 1)
        part = plane[y, x]
        part[free & ((1 - share) * below + share * above > 0) & (part == 0)] = number


def _signed_distance(mask: Bools) -> Floats:
    """(y, x) pixels to the border of the mask, positive inside; outside the array is background."""
    padded = np.pad(mask, 1)
    distance = distance_transform_edt(padded) - distance_transform_edt(~padded)
    return np.asarray(distance[1:-1, 1:-1], np.float64)
