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
_REMEDY = (
    "Each granule needs a number of its own: number the parts, for example with "
    "skimage.measure.label, and separate those that touch"
)


def check_instances(labels: Array, where: str) -> list[str]:
    """Warns where labels seem to be no instances, each object with a number of its own.

    Told are binary masks of several parts, maps of classes, a background that is not 0, and
    numbers that began again after 255. Time grows with the voxels; parts are only counted where a
    label fills little of its box.

    Args:
        labels: (z, y, x), unsigned integers, in the dtype of the file where that is known.
        where: what the warning calls them.

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
    elif len(used) == 1 and (parts := _parts(labels, int(used[0]))) > 1:
        found.append(
            f"there is only one label, {used[0]}, and it has {parts} separate parts: a mask. "
            f"{_REMEDY}"
        )
    if 1 < len(used) <= _MOST_CLASSES:
        found += _scattered_labels(labels, counts, common)
    for reason in found:
        log.warning("%s: %s", where, reason)
    return found


def _scattered_labels(labels: Array, counts: Array, background: int) -> list[str]:
    """What is wrong where labels have parts far from each other; at most one reason."""
    used = int((counts[1:] > 0).sum()) - (background != 0)
    far = [number for number in _far_apart(labels, counts) if number != background]
    if not far:
        return []
    parts = [_parts(labels, number) for number in far[:_LOOKED_AT]]
    if max(parts) < _CLASS_PARTS and (max(parts) < 2 or 2 * len(far) < used):
        return []
    if used >= _MANY:
        return [
            f"{used} of 255 numbers are in use, and {len(far)} of them have parts far from each "
            "other: 8-bit numbers that began again after 255. Save the labels as 16-bit"
        ]
    return [
        f"{len(far)} of {used} labels, such as {far[0]}, have parts far from each other: a map of "
        f"classes? {_REMEDY}"
    ]


def _counts(labels: Array) -> Array:
    """Voxels of each number; empty where numbers are beyond 16 bits, as only instances' are."""
    length = int(labels.max(initial=0)) + 1
    if length > 2**16:
        return np.zeros(1, int)
    counts = np.zeros(length, int)
    for plane in labels:  # numpy counts 64-bit copies
        counts += np.bincount(plane.ravel(), minlength=length)
    return counts


def _far_apart(labels: Array, counts: Array) -> list[int]:
    """The labels that fill little of their box."""
    found = []
    for number, box in enumerate(ndi.find_objects(labels.astype(np.int32, copy=False)), start=1):
        if box is not None:
            volume = np.prod([side.stop - side.start for side in box], dtype=float)
            if counts[number] < _FILLED * volume:
                found.append(number)
    return found


def _parts(labels: Array, number: int) -> int:
    """How many connected parts a label has, voxels that touch by a corner being connected."""
    return int(ndi.label(labels == number, np.ones((3,) * labels.ndim))[1])
