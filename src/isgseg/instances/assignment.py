"""Which masks of neighbouring slices follow each other: the best links of the whole volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from isgseg.instances.components import Bools, Floats, Ints, Table

# What a weak link counts in the assignment: less than any strong one.
WEAK = 0.05
# How many candidate links the assignment takes at a time, if they fall into groups.
BLOCK = 1000


def find_links(
    masks: Table,
    joints: Ints,
    *,
    voxel_size: Sequence[float],
    min_overlap: float,
    max_distance: float,
) -> tuple[Ints, Floats, Bools]:
    """The best set of links in which no mask has two successors or predecessors.

    Args:
        masks: (S,) of ``COMPONENT``.
        joints: (E, 4) earlier and later mask, overlap and contact in pixels.
        voxel_size: (z, y, x), nm.
        min_overlap: as in ``LinkSettings``, as the next.
        max_distance: see there.

    Returns:
        (S,) the next mask or -1; (S,) the area in which the two meet, pixels; (S,) whether
        the link is weak: they touch, but overlap too little.
    """
    a, b, overlap, contact = joints.T
    area = masks["area"]
    smaller, larger = np.minimum(area[a], area[b]), np.maximum(area[a], area[b])
    steps = masks["z"][b] - masks["z"][a]
    _, dy, dx = voxel_size
    y, x = masks["y"] * dy, masks["x"] * dx
    distance = np.hypot(y[a] - y[b], x[a] - x[b])
    radius = np.sqrt(larger * dy * dx / np.pi)
    share = overlap / smaller
    strong = (share >= min_overlap * steps) & (distance <= max_distance * radius)
    # Over the smaller area, because caps shrink fast; and over the union, because of several
    # masks under a large one the largest is its own.
    value = (share + overlap / (smaller + larger - overlap)) / 2 * 0.5 ** (steps - 1)
    value = np.where(strong, value, WEAK * np.minimum(contact / smaller, 1))
    usable = strong | (steps == 1)
    after = _assign(a[usable], b[usable], value[usable], len(masks))
    chosen = after[a] == b
    neck, weak = area.astype(np.float64), np.zeros(len(masks), np.bool_)
    # A jump of the centroid is a constriction too: less overlaps than the smaller mask.
    met = np.where(steps == 1, np.sqrt(smaller * overlap), smaller)
    neck[a[chosen]] = met[chosen]
    weak[a[chosen & ~strong]] = True
    return after, neck, weak


def _assign(a: Ints, b: Ints, value: Floats, count: int) -> Ints:
    """(count,) for each ``a`` its ``b`` or -1, each used once, of the greatest sum of values."""
    after = np.full(count, -1)
    graph = coo_array((np.ones(len(a)), (a, count + b)), (2 * count, 2 * count))
    group = connected_components(graph, directed=False)[1][a]
    order = np.argsort(group, kind="stable")
    # The solver's time grows with the square of the rows: some hundred whole groups at a time.
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = begins[np.searchsorted(begins, np.arange(BLOCK, begins.max(initial=0) + 1, BLOCK))]
    for pairs in np.split(order, np.unique(cuts)) if len(a) else []:
        rows, i = np.unique(a[pairs], return_inverse=True)
        columns, j = np.unique(b[pairs], return_inverse=True)
        # Each may also stay alone; the solver wants a full matching and no cost of 0.
        every = np.arange(len(rows))
        cost = np.r_[2 - value[pairs], np.full(len(rows), 2.0)]
        place = np.r_[i, every], np.r_[j, len(columns) + every]
        table = coo_array((cost, place), (len(rows), len(columns) + len(rows)))
        chosen = min_weight_full_bipartite_matching(table.tocsr())[1]
        after[rows] = np.r_[columns, np.full(len(rows), -1)][chosen]
    return after
