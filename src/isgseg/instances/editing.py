"""Edits of a label volume by hand: delete, merge, split, add. What changes is told, not done.

An `Edit` is voxels and their new labels, so that whoever applies it can undo it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage as ndi
from skimage.segmentation import watershed

from isgseg.errors import InputError
from isgseg.instances.components import Bools, Ints, Labels
from isgseg.instances.parts import AROUND, FACES, Box
from isgseg.instances.split import split

HEIGHTS = (0.05, 0.005)  # of `split`, tried one after the other
Boxes = Mapping[int, Box]
Place = Sequence[float]


@dataclass(frozen=True)
class Edit:
    """Voxels of a label volume and what becomes of them.

    Attributes:
        where: z, y and x of (V,) voxels.
        values: (V,) their new labels.
    """

    where: tuple[Ints, Ints, Ints]
    values: Ints

    def apply(self, labels: Labels) -> None:
        """Makes the edit, in place."""
        labels[self.where] = self.values


def delete(labels: Labels, numbers: Sequence[int], boxes: Boxes) -> Edit:
    """Granules become background.

    Args:
        labels: (z, y, x), 0 background.
        numbers: of the granules.
        boxes: bounding boxes by number, at least as large as the granules.
    """
    return _joined([_set(labels, number, boxes[number], 0) for number in numbers])


def merge(labels: Labels, numbers: Sequence[int], boxes: Boxes) -> Edit:
    """Several granules become one, which has the first number.

    Args:
        labels: see `delete`, as for boxes.
        numbers: at least two.
        boxes: see there.

    Raises:
        InputError: fewer than two are named.
    """
    if len(set(numbers)) < 2:
        raise InputError("choose two granules or more to merge; Ctrl-click adds one to the others")
    keep, *others = dict.fromkeys(numbers)
    return _joined([_set(labels, number, boxes[number], keep) for number in others])


def split_by_shape(labels: Labels, number: int, box: Box, new: int) -> Edit:
    """A granule is split where `isgseg.instances.split` sees several.

    The largest piece keeps the number, the others have the numbers from `new` on.

    Args:
        labels: (z, y, x).
        number: of the granule.
        box: its bounding box.
        new: the first number that is free.

    Raises:
        InputError: its shape is that of one granule.
    """
    mask = labels[box] == number
    for height in HEIGHTS:
        pieces = split(mask, height=height).astype(np.int64)
        if pieces.max(initial=0) > 1:
            return _pieces(pieces, box, number, new)
    raise InputError(
        f"granule {number} has the shape of one granule; to split it all the same, choose "
        "a point in each part"
    )


def split_between(labels: Labels, number: int, box: Box, points: Sequence[Place], new: int) -> Edit:
    """A granule is split between points, each of which is in another part.

    A watershed of the distance to the background grows from the points, so that the parts meet at
    a constriction and each is connected.

    Args:
        labels: (z, y, x).
        number: of the granule.
        box: its bounding box.
        points: (z, y, x) of each, voxels; one beside the granule is moved to its nearest voxel.
        new: the first number that is free; the part of the first point keeps its number.

    Raises:
        InputError: there are fewer than two points, or two are in one voxel.
    """
    mask = labels[box] == number
    voxels = np.argwhere(mask)
    corner = np.array([side.start for side in box])
    seeds = np.zeros(mask.shape, np.int64)
    for count, point in enumerate(points, start=1):
        nearest = voxels[np.linalg.norm(voxels + corner - np.asarray(point), axis=1).argmin()]
        seeds[tuple(nearest)] = count
    if len(points) < 2 or len(np.unique(seeds)) <= len(points):
        raise InputError(f"choose a point in each part of granule {number}, two or more")
    depth = ndi.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    pieces = watershed(-depth, seeds, mask=mask, connectivity=FACES).astype(np.int64)
    rest, _ = ndi.label(mask & (pieces == 0), AROUND)  # what hangs on by a corner alone
    pieces[rest > 0] = len(points) + rest[rest > 0]
    return _pieces(_joined_to_seeds(pieces, len(points)), box, number, new, keep=1)


def ball(labels: Labels, centre: Place, radius: Sequence[float], number: int) -> Edit:
    """A new granule, a ball, on the background alone: what others have they keep.

    Args:
        labels: (z, y, x).
        centre: (z, y, x), voxels.
        radius: (z, y, x), voxels.
        number: that is free.

    Raises:
        InputError: no voxel of the background is there.
    """
    low = [max(int(np.floor(c - r)), 0) for c, r in zip(centre, radius, strict=True)]
    high = [
        min(int(np.ceil(c + r)) + 1, side)
        for c, r, side in zip(centre, radius, labels.shape, strict=True)
    ]
    box = tuple(slice(a, max(b, a)) for a, b in zip(low, high, strict=True))
    grid = np.ogrid[box]
    away = sum(
        ((axis - c) / max(r, 0.5)) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)
    )
    return add(labels, np.asarray(away <= 1), box, number)


def add(labels: Labels, mask: Bools, box: Box, number: int) -> Edit:
    """A new granule of any shape, on the background alone.

    Args:
        labels: (z, y, x).
        mask: in the box.
        box: of the volume.
        number: that is free.

    Raises:
        InputError: no voxel of the background is there.
    """
    where = np.nonzero(mask & (labels[box] == 0))
    if not len(where[0]):
        raise InputError("there is no background for a new granule here")
    return _edit(where, box, np.full(len(where[0]), number))


def check_free(labels: Labels, number: int) -> int:
    """A number, where the type of the labels can hold it.

    Raises:
        InputError: it cannot.
    """
    if number > np.iinfo(labels.dtype).max:
        raise InputError(
            f"granule {number} does not fit {labels.dtype}; save the labels as 32-bit, and open "
            "these"
        )
    return number


def _set(labels: Labels, number: int, box: Box, value: int) -> Edit:
    where = np.nonzero(labels[box] == number)
    return _edit(where, box, np.full(len(where[0]), value))


def _pieces(pieces: Ints, box: Box, number: int, new: int, keep: int | None = None) -> Edit:
    """Pieces from 1 as an edit: the one to keep, or the largest, keeps the number."""
    keep = int(np.bincount(pieces[pieces > 0]).argmax()) if keep is None else keep
    others = [piece for piece in range(1, int(pieces.max()) + 1) if piece != keep]
    value = np.zeros(int(pieces.max()) + 1, np.int64)
    value[others] = np.arange(new, new + len(others))
    where = np.nonzero((pieces > 0) & (pieces != keep))
    return _edit(where, box, value[pieces[where]])


def _joined_to_seeds(pieces: Ints, count: int) -> Ints:
    """Pieces beyond `count` go to the neighbour that they touch most."""
    for extra in range(count + 1, int(pieces.max(initial=0)) + 1):
        around = ndi.binary_dilation(pieces == extra, AROUND) & (pieces <= count) & (pieces > 0)
        touched = np.bincount(pieces[around], minlength=2)
        pieces[pieces == extra] = int(touched.argmax()) if touched.any() else 1
    return pieces


def _edit(where: tuple[Ints, ...], box: Box, values: Ints) -> Edit:
    z, y, x = (index + side.start for index, side in zip(where, box, strict=True))
    return Edit((z, y, x), values)


def _joined(edits: Sequence[Edit]) -> Edit:
    z, y, x = (np.concatenate([edit.where[axis] for edit in edits]) for axis in range(3))
    return Edit((z, y, x), np.concatenate([edit.values for edit in edits]))
