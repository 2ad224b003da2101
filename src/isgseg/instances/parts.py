"""Connected parts of a mask or of numbered instances in 3D, one box at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage as ndi

from isgseg.instances.components import Bools, Labels
from isgseg.io.volumes import label_dtype

AROUND = np.ones((3, 3, 3), bool)
FACES = ndi.generate_binary_structure(3, 1)
Box = tuple[slice, ...]


def components(labels_or_mask: Labels) -> Labels:
    """Numbers the connected parts of a mask, or of each number; granules that touch stay one.

    Args:
        labels_or_mask: (z, y, x) bool, or non-negative integers, 0 background. Voxels that share
            a face are connected.

    Returns:
        As `split`.
    """
    given = np.asarray(labels_or_mask)
    out = np.zeros(given.shape, np.uint32)
    for number, (box, part) in enumerate(connected_parts(given, FACES), start=1):
        out[box][part] = number
    return number_in_order(out)


def connected_parts(labels: Labels, around: Bools = AROUND) -> Iterator[tuple[Box, Bools]]:
    """The connected parts of each number: a tight box, and (z, y, x) which voxels of it.

    Args:
        labels: (z, y, x) bool, or non-negative integers. Of 0 and 1 alone, one pass over the
            volume is enough.
        around: (3, 3, 3) which neighbours of a voxel are connected with it.
    """
    highest = int(labels.max(initial=0))
    if highest <= 1:
        parts, _ = ndi.label(labels, around)
        for number, box in enumerate(ndi.find_objects(parts), start=1):
            yield box, parts[box] == number
        return
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        parts, _ = ndi.label(labels[box] == number, around)
        for index, inner in enumerate(ndi.find_objects(parts), start=1):
            place = tuple(
                slice(outer.start + side.start, outer.start + side.stop)
                for outer, side in zip(box, inner, strict=True)
            )
            yield place, parts[inner] == index


def number_in_order(labels: Labels) -> Labels:
    """Numbers from 1 without holes, in the order of the first voxel (raster order) of each."""
    flat = labels.ravel()
    where = np.flatnonzero(flat)
    numbers, first, inverse = np.unique(flat[where], return_index=True, return_inverse=True)
    rank = np.empty(len(numbers), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(numbers) + 1)
    out = np.zeros(labels.shape, label_dtype(len(numbers)))
    out.ravel()[where] = rank[inverse]
    return out


def joined(labels: Labels, others: Labels) -> Labels:
    """(z, y, x) both in one volume, each instance with its number; the first have their voxels."""
    kind = np.result_type(labels.dtype, others.dtype)
    return np.where(labels > 0, labels, others).astype(kind, copy=False)
