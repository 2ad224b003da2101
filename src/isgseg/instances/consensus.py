"""Instances that several segmentations of one volume agree on, such as those along z, y and x.

As empanada merges the stacks of three planes (Conrad and Narayan 2023): instances of different
stacks that overlap well are clustered, clusters that few stacks support are dropped, and a voxel
belongs to a cluster where enough stacks say so. Here a cluster never holds two instances of one
stack, so that two granules that one stack takes for one stay two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy import ndimage as ndi

from isgseg.instances.components import Ints, Labels
from isgseg.instances.overlaps import Overlaps
from isgseg.io.volumes import label_dtype


def merge_instances(
    stacks: Sequence[Labels], *, min_votes: int = 2, min_iou: float = 0.2, min_voxels: float = 0
) -> tuple[Labels, Ints]:
    """Merges segmentations by agreement.

    Args:
        stacks: (z, y, x) non-negative integers each, 0 background.
        min_votes: stacks that must have an instance, and each of its voxels.
        min_iou: instances of two stacks may be one from this IoU on.
        min_voxels: smaller instances are dropped.

    Returns:
        (z, y, x) instances from 1 without holes, each 26-connected; uint16, or uint32 beyond
        65,535 of them. And (N, stacks) the number that each of them has in each stack, 0 where it
        is missing.

    Raises:
        ValueError: fewer stacks than votes, or a single vote; shapes that differ.

    Example:
        >>> merge_instances([np.array([[[1, 1, 0]]]), np.array([[[7, 7, 5]]])])[0].tolist()
        [[[1, 1, 0]]]
    """
    if not 2 <= min_votes <= len(stacks):
        raise ValueError(f"min_votes must be 2 to {len(stacks)}, the stacks, not {min_votes}")
    members = find_clusters(stacks, min_iou)
    members = members[(members > 0).sum(1) >= min_votes]
    labels, kept = keep_largest_components(vote(stacks, members, min_votes), min_voxels)
    return labels.astype(label_dtype(len(kept)), copy=False), members[kept - 1]


def find_clusters(stacks: Sequence[Labels], min_iou: float) -> Ints:
    """Instances of different stacks that are one, the best overlaps first.

    Returns:
        (N, stacks) numbers in each stack, 0 where it has none; in two stacks or more.
    """
    edges: list[tuple[float, tuple[int, int], tuple[int, int]]] = []
    for a, b in combinations(range(len(stacks)), 2):
        pairs = Overlaps.of(stacks[a], stacks[b])
        iou, one, other = pairs.iou, pairs.p_label[pairs.p], pairs.t_label[pairs.t]
        for i in np.flatnonzero(iou >= min_iou):
            edges.append((float(iou[i]), (a, int(one[i])), (b, int(other[i]))))
    clusters: dict[tuple[int, int], dict[int, int]] = {}
    for _, first, second in sorted(edges, key=lambda edge: -edge[0]):
        cluster = clusters.setdefault(first, dict([first]))
        joining = clusters.setdefault(second, dict([second]))
        if cluster.keys().isdisjoint(joining):
            cluster |= joining
            clusters |= dict.fromkeys(joining.items(), cluster)
    rows = {tuple(c.get(i, 0) for i in range(len(stacks))) for c in clusters.values()}
    return np.array(sorted(rows), np.int64).reshape(-1, len(stacks))


def vote(stacks: Sequence[Labels], members: Ints, min_votes: int) -> Labels:
    """(z, y, x) the row of ``members``, from 1, that so many stacks give a voxel to."""
    labels = np.zeros(stacks[0].shape, label_dtype(len(members)))
    tables = [np.zeros(int(stack.max(initial=0)) + 1, labels.dtype) for stack in stacks]
    for table, numbers in zip(tables, members.T, strict=True):
        table[numbers] = np.arange(1, len(members) + 1)
        table[0] = 0
    for z, plane in enumerate(labels):
        given = np.stack([table[stack[z]] for table, stack in zip(tables, stacks, strict=True)])
        for choice in given:
            won = (choice > 0) & ((given == choice).sum(0) >= min_votes)
            plane[won] = choice[won]
    return labels


def keep_largest_components(labels: Labels, min_voxels: float) -> tuple[Labels, Ints]:
    """Keeps the largest connected component of each instance, in place, and numbers them from 1.

    Returns:
        ``labels``, and (N,) the numbers that the instances had.
    """
    kept: list[int] = []
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        window = labels[box]
        components, _ = ndi.label(window == number, np.ones((3, 3, 3)))
        sizes = np.bincount(components.ravel())[1:]
        window[components > 0] = 0
        if sizes.max() >= min_voxels:
            kept.append(number)
            window[components == 1 + int(sizes.argmax())] = len(kept)
    return labels, np.array(kept, np.int64)
