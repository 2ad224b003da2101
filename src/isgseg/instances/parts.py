"""Connected parts of a mask or of numbered instances in 3D, one box at a time."""

from __future__ import annotations

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
    return number_in_order(connected_parts(np.asarray(labels_or_mask), FACES)[0])


def connected_parts(labels: Labels, around: Bools = AROUND) -> tuple[Labels, list[Box]]:
    """The connected parts of each number.

    Args:
        labels: (z, y, x) bool, or non-negative integers. Of 0 and 1 alone, one pass over the
            volume is enough.
        around: (3, 3, 3) which neighbours of a voxel are connected with it.

    Returns:
        (z, y, x) uint16, or uint32 beyond 65,535 parts, from 1; and the tight box of each.
    """
    if int(labels.max(initial=0)) <= 1:
        try:
            parts, _ = ndi.label(labels, around, np.uint16)
        except RuntimeError:  # it has tried 32 bits, and 16 do not hold what it found
            parts, _ = ndi.label(labels, around, np.uint32)
        return parts, ndi.find_objects(parts)
    parts, boxes = np.zeros(labels.shape, np.uint16), list[Box]()
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        own, count = ndi.label(labels[box] == number, around)
        parts = with_room(parts, len(boxes) + count)
        parts[box][own > 0] = own[own > 0] + len(boxes)
        boxes += [within(inner, box) for inner in ndi.find_objects(own)]
    return parts, boxes


def with_room(labels: Labels, number: int) -> Labels:
    """The same labels, of a larger type where they are to hold a number beyond 65,535."""
    return labels.astype(np.promote_types(labels.dtype, label_dtype(number)), copy=False)


def within(inner: Box, outer: Box) -> Box:
    """A box that is given in voxels of another one, in those of the volume."""
    return tuple(
        slice(there.start + side.start, there.start + side.stop)
        for side, there in zip(inner, outer, strict=True)
    )


def number_in_order(labels: Labels) -> Labels:
    """Numbers from 1 without holes, in the order of the first voxel (raster order) of each.

    Args:
        labels: (z, y, x), which are changed. The highest number is about their count, as a table
            of it is made.
    """
    rank = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    count = 0
    for plane in labels:
        inside = plane > 0
        old = plane[inside]
        numbers, first = np.unique(old, return_index=True)
        numbers = numbers[np.argsort(first)]
        new = numbers[rank[numbers] == 0]
        rank[new] = np.arange(count + 1, count + 1 + len(new))
        count += len(new)
        plane[inside] = rank[old]
    return labels.astype(label_dtype(count), copy=False)


def joined(labels: Labels, others: Labels) -> Labels:
    """(z, y, x) both in one volume, each instance with its number; the first have their voxels."""
    kind = np.result_type(labels.dtype, others.dtype)
    return np.where(labels > 0, labels, others).astype(kind, copy=False)
