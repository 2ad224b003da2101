"""Whether a label volume numbers its objects: what a mask or a map of classes looks like."""

from __future__ import annotations

import logging

import numpy as np
from scipy import ndimage as ndi

from isgseg.io.formats import Array

log = logging.getLogger(__name__)

_MOST_CLASSES = 255  # beyond as many labels, they are instances
_LOOKED_AT = 3  # labels that are taken apart: each takes as long as its box is large
_FILLED = 0.1  # share of its box that a compact object fills; a ball fills .52
_CLASS_PARTS = 5  # one label of so many parts, far apart, is a class
_MANY = 250  # of 255 numbers: 8 bits have been too few
_PART = 8  # voxels; less is a crumb of its granule
_SMALL = 2**18  # voxels of a box whose parts are counted
_TORN = 0.05  # share of the numbers that may have several parts
REMEDY = (
    "Each granule needs a number of its own: number the parts, for example with "
    "skimage.measure.label, and separate those that touch"
)


def check_instances(labels: Array, where: str, remedy: str = REMEDY) -> list[str]:
    """Warns where labels seem to be no instances, each object with a number of its own.

    Told are binary masks of several parts, maps of classes, numbers with parts that do not touch,
    a background that is not 0, and numbers that began again after 255. Time grows with the voxels;
    parts are counted in small boxes, and in large ones where a label fills little of them.

    Args:
        labels: (z, y, x), unsigned integers, in the dtype of the file where that is known.
        where: what the warning calls them.
        remedy: what the warning says is to be done.

    Returns:
        What was warned of.
    """
    counts = _counts(labels)
    used = np.flatnonzero(counts[1:]) + 1
    if not len(used):
        return []
    found = []
    common = int(counts.argmax())
    if common != 0:
        found.append(
            f"the most frequent value is {common}, not 0; 0 is background. If {common} is the "
            "background, make it 0"
        )
    elif (parts := mask_parts(labels)) > 1:
        found.append(
            f"there is only one label, {used[0]}, and it has {parts} separate parts: a mask. "
            f"{remedy}"
        )
    if len(used) > 1:
        found += _scattered_labels(labels, counts, common, remedy)
    for reason in found:
        log.warning("%s: %s", where, reason)
    return found


def mask_parts(labels: Array) -> int:
    """How many parts a mask, one number for all, has; 0 where there are more numbers, or none.

    Voxels that touch by a corner are connected.
    """
    number = int(labels.max(initial=0))
    if number == 0 or any(((plane > 0) & (plane != number)).any() for plane in labels):
        return 0
    return _parts(labels, number)


def _scattered_labels(labels: Array, counts: Array, background: int, remedy: str) -> list[str]:
    """What is wrong where labels have parts far from each other; at most one reason."""
    used = int((counts[1:] > 0).sum()) - (background != 0)
    torn, far = (
        [number for number in numbers if number != background]
        for numbers in _distant(labels, counts)
    )
    many = len(torn) > _TORN * used
    if used <= _MOST_CLASSES and far:
        parts = [_parts(labels, number) for number in far[:_LOOKED_AT]]
        classes = max(parts) >= _CLASS_PARTS or (max(parts) > 1 and 2 * len(far) >= used)
        if used >= _MANY and (classes or many):
            return [
                f"{used} of 255 numbers are in use, and {len(far)} of them have parts far from "
                "each other: 8-bit numbers that began again after 255. Save the labels as 16-bit"
            ]
        if classes:
            return [
                f"{len(far)} of {used} labels, such as {far[0]}, have parts far from each other: "
                f"a map of classes? {remedy}"
            ]
    if many:
        return [
            f"{len(torn)} of {used} labels, such as {torn[0]}, have parts of {_PART} voxels or "
            f"more that do not touch. {remedy}"
        ]
    return []


def _counts(labels: Array) -> Array:
    """Voxels of each number; empty where numbers are beyond 16 bits, as only instances' are."""
    length = int(labels.max(initial=0)) + 1
    if length > 2**16:
        return np.zeros(1, int)
    counts = np.zeros(length, int)
    for plane in labels:  # numpy counts 64-bit copies
        counts += np.bincount(plane.ravel(), minlength=length)
    return counts


def _distant(labels: Array, counts: Array) -> tuple[list[int], list[int]]:
    """The labels with several parts, none of them a crumb; and those that fill little of a box."""
    torn, far = [], []
    for number, box in enumerate(ndi.find_objects(labels.astype(np.int32, copy=False)), start=1):
        if box is None:
            continue
        volume = float(np.prod([side.stop - side.start for side in box], dtype=float))
        fills = counts[number] >= _FILLED * volume
        if not fills:
            far.append(number)
        if volume > _SMALL:
            if not fills:
                torn.append(number)
        elif counts[number] >= 2 * _PART:
            components, count = ndi.label(labels[box] == number, np.ones((3,) * labels.ndim))
            if count > 1 and (np.bincount(components.ravel())[1:] >= _PART).sum() > 1:
                torn.append(number)
    return torn, far


def _parts(labels: Array, number: int) -> int:
    """How many connected parts a label has, voxels that touch by a corner being connected."""
    return int(ndi.label(labels == number, np.ones((3,) * labels.ndim))[1])
