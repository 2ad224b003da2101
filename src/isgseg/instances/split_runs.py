"""Instances as runs, each taken apart by its shape; a window of slices is in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isgseg.instances.components import Ints, Labels
from isgseg.instances.runs import RunLabels
from isgseg.instances.split import split
from isgseg.io.volumes import label_dtype


def split_runs(
    labels: RunLabels, *, height: float, sigma: float, min_voxels: int
) -> tuple[RunLabels, Ints]:
    """As `split` takes instances apart by the distance to the background, window by window.

    Args:
        labels: (z, y, x) instances from 1; each hangs together.
        height: see `isgseg.instances.settings.SplitSettings`, as for the others.
        sigma: see there.
        min_voxels: see there.

    Returns:
        The pieces from 1, in order of their first voxel. And (N,) the number that each of them was
        part of.
    """
    found: list[tuple[int, RunLabels]] = []
    parents: list[Ints] = [np.zeros(1, np.int64)]
    count = 0
    for low, window in labels.windows():
        # An empty slice on either side: only the volume's own ends are ends.
        pad = (int(low > 0), int(low + len(window) < len(labels)))
        padded = np.pad(window, (pad, (0, 0), (0, 0)))
        pieces = split(padded, height=height, sigma=sigma, min_voxels=min_voxels)
        pieces = pieces[pad[0] : pad[0] + len(window)]
        parent = np.zeros(int(pieces.max(initial=0)) + 1, np.int64)
        numbered = RunLabels(window.shape[1:], np.uint32)
        for piece, whole in zip(pieces, window, strict=True):
            parent[piece] = whole
            numbered.append(np.where(piece > 0, piece.astype(np.uint32) + np.uint32(count), 0))
        found.append((low, numbered))
        parents.append(parent[1:])
        count += len(parent) - 1
    rank = np.zeros(count + 1, np.int64)
    shape, dtype = labels.shape[1:], label_dtype(count)
    together = RunLabels.of(_together(found, len(labels), shape), shape, np.uint32)
    for z in range(len(together)):
        new = together.in_order(z)
        new = new[rank[new] == 0]
        rank[new[new > 0]] = rank.max() + np.arange(1, np.count_nonzero(new) + 1)
    pieces_in_order = RunLabels.of((rank[plane] for plane in together), shape, dtype)
    parent_of = np.zeros(count + 1, np.int64)
    parent_of[rank] = np.concatenate(parents)
    return pieces_in_order, parent_of[1:]


def _together(
    found: list[tuple[int, RunLabels]], depth: int, shape: tuple[int, ...]
) -> Iterator[Labels]:
    """The slices of all windows, which share no voxels."""
    for z in range(depth):
        plane = np.zeros(shape, np.uint32)
        for low, numbered in found:
            if low <= z < low + len(numbered):
                plane += numbered[z - low]
        yield plane
