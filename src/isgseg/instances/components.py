"""Masks of label slices as tables: their measures, where they overlap, what hangs together."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage import measure

Labels = npt.NDArray[Any]
Table = npt.NDArray[np.void]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Components = npt.NDArray[np.int32]  # of a slice: half of the memory to go through
Bools = npt.NDArray[np.bool_]

# What is known of a component (8-connected) of a mask; of a mask too, but for ``component``.
COMPONENT = np.dtype(
    [(name, np.int64) for name in ("z", "component", "label", "area")]
    + [(name, np.float64) for name in ("y", "x", "score")]
)


def find_components(labels: Labels) -> Components:
    """(y, x) the 8-connected components of the masks, numbered from 1 in raster order."""
    labels = labels.astype(np.int64 if labels.dtype.itemsize > 4 else np.int32)
    return np.asarray(measure.label(labels, connectivity=2), np.int32)


def grow(components: Components) -> Components:
    """(y, x) the components, and each background pixel beside one as the highest beside it."""
    rows = components.copy()
    np.maximum(rows[1:], components[:-1], out=rows[1:])
    np.maximum(rows[:-1], components[1:], out=rows[:-1])
    grown = rows.copy()
    np.maximum(grown[:, 1:], rows[:, :-1], out=grown[:, 1:])
    np.maximum(grown[:, :-1], rows[:, 1:], out=grown[:, :-1])
    return np.where(components, components, grown)


def measure_components(
    z: int, components: Components, labels: Labels, scores: npt.ArrayLike | None
) -> Table:
    """(P,) of ``COMPONENT``: what is known of the components of slice ``z``."""
    where = np.flatnonzero(components)
    of = components.ravel()[where] - 1
    table = np.zeros(of.max(initial=-1) + 1, COMPONENT)
    table["z"], table["component"], table["score"] = z, np.arange(1, len(table) + 1), 1
    table["label"][of] = labels.ravel()[where]
    table["area"] = np.bincount(of, minlength=len(table))
    for name, position in zip("yx", np.divmod(where, components.shape[1]), strict=True):
        table[name] = np.bincount(of, position, len(table)) / table["area"]
    if scores is not None:
        given = np.asarray(scores, np.float64)
        if table["label"].max(initial=0) > len(given):
            raise ValueError(f"slice {z} has label {table['label'].max()}, but {len(given)} scores")
        table["score"] = given[table["label"] - 1]
    return table


def count_pairs(seen: Components, components: Components, grown: Components) -> Ints:
    """(E, 4): component of ``seen``, one of ``components``, pixels shared, the same if grown."""
    where = np.flatnonzero((seen > 0) & (grown > 0))
    base = int(grown.max(initial=0)) + 1
    both = seen.ravel()[where].astype(np.int64) * base + grown.ravel()[where]
    keys, inverse, contact = np.unique(both, return_inverse=True, return_counts=True)
    overlap = np.bincount(inverse[components.ravel()[where] > 0], minlength=len(keys))
    return np.column_stack([keys // base, keys % base, overlap, contact])


def sums(groups: Ints, values: Floats) -> Floats:
    """(groups,) the sum of the values in each group; group -1 is left out."""
    return np.bincount(groups[groups >= 0], values[groups >= 0]).astype(np.float64)


def join_masks(components: Table) -> tuple[Table, Ints]:
    """The masks, their area and centroid over all components.

    And (P,) the mask of each component.
    """
    names = np.column_stack([components["z"], components["label"]])
    _, first, inverse = np.unique(names, axis=0, return_index=True, return_inverse=True)
    mask = inverse.ravel()
    masks = components[first]
    masks["area"] = np.bincount(mask, components["area"], len(first))
    for name in "yx":
        moment = np.bincount(mask, components[name] * components["area"], len(first))
        masks[name] = moment / masks["area"]
    return masks, mask


def merge_pairs(pairs: Ints, mask: Ints) -> Ints:
    """(E, 4) pairs of components as pairs of masks, overlap and contact summed."""
    ends, inverse = np.unique(mask[pairs[:, :2]], axis=0, return_inverse=True)
    sums = [np.bincount(inverse.ravel(), pairs[:, i], len(ends)) for i in (2, 3)]
    return np.column_stack([ends, *sums]).astype(np.int64)


def connect_components(components: Table, a: Ints, b: Ints, track: Ints) -> Ints:
    """(P,) the connected instance of each component, in order of first appearance; -1 for specks.

    A mask may be in components. One that touches nothing else of its track, in one slice only, is a
    speck and no granule; through several slices it is an instance of its own.
    """
    count = len(components)
    graph = coo_array((np.ones(len(a)), (a, b)), (count, count))
    instance = connected_components(graph, directed=False)[1].astype(np.int64)
    area = np.bincount(instance, components["area"])
    slices = np.bincount(np.unique(np.column_stack([instance, components["z"]]), axis=0)[:, 0])
    owner = np.zeros(len(area), np.int64)
    owner[instance] = track
    order = np.lexsort((-area, owner))
    largest = order[np.unique(owner[order], return_index=True)[1]]
    kept = slices > 1
    kept[largest] = True
    # connected_components numbers by first appearance, and that order stays.
    return np.asarray(np.where(kept, np.cumsum(kept) - 1, -1)[instance], np.int64)
