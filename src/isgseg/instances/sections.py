"""Sections of label slices as tables: their measures, where they overlap, what hangs together."""

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
Bools = npt.NDArray[np.bool_]

# What is known of a piece (8-connected) of a section; of a section too, but for ``piece``.
PIECE = np.dtype(
    [(name, np.int64) for name in ("z", "piece", "label", "area")]
    + [(name, np.float64) for name in ("y", "x", "score")]
)


def find_pieces(labels: Labels) -> Ints:
    """(y, x) the 8-connected pieces of the sections, numbered from 1 in raster order."""
    return np.asarray(measure.label(labels.astype(np.int64), connectivity=2), np.int64)


def measure_pieces(z: int, pieces: Ints, labels: Labels, scores: npt.ArrayLike | None) -> Table:
    """(P,) of ``PIECE``: what is known of the pieces of slice ``z``."""
    where = np.flatnonzero(pieces)
    of = pieces.ravel()[where] - 1
    table = np.zeros(of.max(initial=-1) + 1, PIECE)
    table["z"], table["piece"], table["score"] = z, np.arange(1, len(table) + 1), 1
    table["label"][of] = labels.ravel()[where]
    table["area"] = np.bincount(of, minlength=len(table))
    for name, position in zip("yx", np.divmod(where, pieces.shape[1]), strict=True):
        table[name] = np.bincount(of, position, len(table)) / table["area"]
    if scores is not None:
        given = np.asarray(scores, np.float64)
        if table["label"].max(initial=0) > len(given):
            raise ValueError(f"slice {z} has label {table['label'].max()}, but {len(given)} scores")
        table["score"] = given[table["label"] - 1]
    return table


def count_pairs(seen: Ints, pieces: Ints, grown: Ints) -> Ints:
    """(E, 4) piece of ``seen``, piece of ``pieces``, pixels they share, pixels shared if grown."""
    where = np.flatnonzero((seen > 0) & (grown > 0))
    base = int(grown.max(initial=0)) + 1
    keys, inverse, contact = np.unique(
        seen.ravel()[where] * base + grown.ravel()[where], return_inverse=True, return_counts=True
    )
    overlap = np.bincount(inverse[pieces.ravel()[where] > 0], minlength=len(keys))
    return np.column_stack([keys // base, keys % base, overlap, contact])


def sums(groups: Ints, values: Floats) -> Floats:
    """(groups,) the sum of the values in each group; group -1 is left out."""
    return np.bincount(groups[groups >= 0], values[groups >= 0]).astype(np.float64)


def join_sections(pieces: Table) -> tuple[Table, Ints]:
    """The sections, their area and centroid over all pieces; and (P,) the section of each piece."""
    names = np.column_stack([pieces["z"], pieces["label"]])
    _, first, inverse = np.unique(names, axis=0, return_index=True, return_inverse=True)
    section = inverse.ravel()
    sections = pieces[first]
    sections["area"] = np.bincount(section, pieces["area"], len(first))
    for name in "yx":
        moment = np.bincount(section, pieces[name] * pieces["area"], len(first))
        sections[name] = moment / sections["area"]
    return sections, section


def merge_pairs(pairs: Ints, section: Ints) -> Ints:
    """(E, 4) pairs of pieces as pairs of sections, overlap and contact summed."""
    ends, inverse = np.unique(section[pairs[:, :2]], axis=0, return_inverse=True)
    sums = [np.bincount(inverse.ravel(), pairs[:, i], len(ends)) for i in (2, 3)]
    return np.column_stack([ends, *sums]).astype(np.int64)


def find_bodies(pieces: Table, a: Ints, b: Ints, chain: Ints) -> Ints:
    """(P,) the connected body of each piece, in order of first appearance; -1 for specks.

    A mask may be in pieces. One that touches nothing else of its chain, in one slice only, is a
    speck and no granule; through several slices it is an instance of its own.
    """
    count = len(pieces)
    graph = coo_array((np.ones(len(a)), (a, b)), (count, count))
    body = connected_components(graph, directed=False)[1].astype(np.int64)
    area = np.bincount(body, pieces["area"])
    slices = np.bincount(np.unique(np.column_stack([body, pieces["z"]]), axis=0)[:, 0])
    owner = np.zeros(len(area), np.int64)
    owner[body] = chain
    order = np.lexsort((-area, owner))
    largest = order[np.unique(owner[order], return_index=True)[1]]
    kept = slices > 1
    kept[largest] = True
    # connected_components numbers by first appearance, and that order stays.
    return np.asarray(np.where(kept, np.cumsum(kept) - 1, -1)[body], np.int64)
