"""Touching granules told apart in 3D, from a mask or from instances that hold several.

Maxima of a smoothed distance map are the granules; a watershed gives each voxel to one of them.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from isgseg.instances.blobfit import MARGIN, fit_blobs
from isgseg.instances.components import Bools, Floats, Ints, Labels
from isgseg.instances.merging import merge_pieces
from isgseg.instances.parts import (
    AROUND,
    FACES,
    Box,
    connected_parts,
    number_in_order,
    with_room,
)
from isgseg.instances.settings import SplitSettings

Ends = list[tuple[bool, bool]]


def split(
    labels_or_mask: Labels,
    inside: npt.NDArray[Any] | None = None,
    *,
    height: float = 0.005,
    sigma: float = 0.5,
    min_voxels: int = 8,
    assign: Literal["watershed", "blobfit"] = "watershed",
) -> Labels:
    """Takes the granules of a mask, or of each instance, apart.

    Each connected part is looked at by itself. Its map, smoothed, has a maximum in each granule,
    with a fall of at least `height` between two of them (h-maxima: Soille 1999, Morphological
    Image Analysis, 6.3.5); voxels follow the map uphill to theirs (watershed). Voxels are taken
    for cubes.

    Args:
        labels_or_mask: (z, y, x) bool, or non-negative integers, 0 background. One value is a
            mask; several are instances, each split by itself.
        inside: (z, y, x) map with a maximum in each granule, such as a network's centre map, 0 to
            1, or for `blobfit` the tomogram; None: the distance to the background, voxels.
        height: see `SplitSettings`, as for the others.
        sigma: see there.
        min_voxels: see there.
        assign: see there.

    Returns:
        (z, y, x) instances from 1, in order of their first voxel; uint16, or uint32 beyond 65,535
        of them. No voxel is lost (of `blobfit`, specks are), and none is added.

    Raises:
        ValueError: a setting is out of range, or shapes differ.

    Example:
        >>> split(np.array([[[1, 1, 1, 0, 1, 1, 1]]])).tolist()
        [[[1, 1, 1, 0, 2, 2, 2]]]
    """
    settings = SplitSettings(height=height, sigma=sigma, min_voxels=min_voxels, assign=assign)
    given = np.asarray(labels_or_mask)
    if given.ndim != 3 or (inside is not None and inside.shape != given.shape):
        other = "" if inside is None else f", inside {inside.shape}"
        raise ValueError(f"one (z, y, x) shape is needed, not {given.shape}{other}")
    blobfit = settings.assign == "blobfit"
    parts, boxes = connected_parts(given, FACES if blobfit else AROUND)
    count = len(boxes)  # a part's first piece keeps its number, others have those from here on
    for number, box in enumerate(boxes, start=1):
        part = parts[box] == number
        if blobfit:
            pieces = _blobs(part, box, given, inside)
        else:
            margin = None if inside is None else _around(inside, box, _reach(settings.sigma))
            pieces = _pieces(part, margin, _ends(box, given.shape), settings)
        of = pieces[part]
        parts = with_room(parts, count + int(of.max()))
        parts[box][part] = np.where(of > 1, of - 1 + count, of * number)
        count += max(int(of.max()) - 1, 0)
    return number_in_order(parts)


def _ends(box: Box, shape: tuple[int, ...]) -> Ends:
    """For each axis whether a box begins, and ends, where the volume of this shape does."""
    return [(side.start == 0, side.stop == length) for side, length in zip(box, shape, strict=True)]


def _pieces(
    part: Bools, inside: npt.NDArray[Any] | None, ends: Ends, settings: SplitSettings
) -> Ints:
    """(z, y, x) one connected part in pieces from 1; what hangs on by a corner is another piece.

    Args:
        part: (z, y, x) in its tight box.
        inside: the map in that box and `_reach` voxels around it.
        ends: for each axis whether the box begins, and ends, where the volume does.
        settings: how to split.
    """
    bodies, _ = ndi.label(part, FACES)
    pieces, count = np.zeros(part.shape, np.int64), 0
    for number, box in enumerate(ndi.find_objects(bodies), start=1):
        body = bodies[box] == number
        margin = None
        if inside is not None:
            reach = 2 * _reach(settings.sigma)
            margin = inside[tuple(slice(side.start, side.stop + reach) for side in box)]
        here = [
            (first and low, last and high)
            for (first, last), (low, high) in zip(ends, _ends(box, part.shape), strict=True)
        ]
        of = _basins(body, margin, here, settings)[body]
        pieces[box][body] = of + count
        count += int(of.max())
    return join_small(pieces, settings.min_voxels)


def _basins(
    body: Bools, inside: npt.NDArray[Any] | None, ends: Ends, settings: SplitSettings
) -> Ints:
    """(z, y, x) a body that faces hold together, in pieces from 1; see `_pieces`."""
    if np.count_nonzero(body) < 2 * settings.min_voxels:
        return body.astype(np.int64)
    padded = np.pad(body, 1)
    height_map = _smoothed(body, inside, ends, settings.sigma) * padded
    _, maxima = ndi.label(local_maxima(height_map, footprint=AROUND), AROUND)
    if maxima < 2:  # of one granule; its seeds cannot be more, and take longer to find
        return body.astype(np.int64)
    seeds = find_seeds(height_map, settings.height)
    if seeds.max() < 2:
        return body.astype(np.int64)
    pieces = watershed(-height_map, seeds, mask=padded, connectivity=FACES)
    return merge_pieces(pieces.astype(np.int64), height_map)[1:-1, 1:-1, 1:-1]


def _blobs(part: Bools, box: Box, given: Labels, inside: npt.NDArray[Any] | None) -> Ints:
    """(z, y, x) one connected part in pieces from 1, as published; see `fit_blobs`."""
    sides = list(zip(box, given.shape, strict=True))
    wide = tuple(slice(max(s.start - MARGIN, 0), min(s.stop + MARGIN, n)) for s, n in sides)
    inner = tuple(
        slice(side.start - outer.start, side.stop - outer.start)
        for side, outer in zip(box, wide, strict=True)
    )
    mask = np.zeros([side.stop - side.start for side in wide], bool)
    mask[inner] = part
    bright = ndi.distance_transform_edt(mask) if inside is None else inside[wide]
    return fit_blobs(mask, bright)[inner]


def find_seeds(height_map: Floats, height: float) -> Ints:
    """(z, y, x) the maxima that rise by `height` above the way to any higher one, from 1.

    A plateau is one maximum, and so are two that are equally high with too shallow a way between.
    """
    low = reconstruction(np.maximum(height_map - height, 0), height_map, footprint=AROUND)
    maxima = local_maxima(low, footprint=AROUND) & (low > 0)
    return np.asarray(ndi.label(maxima, AROUND)[0], np.int64)


def join_small(pieces: Ints, min_voxels: int) -> Ints:
    """Gives pieces below `min_voxels`, the smallest first, to the one they touch most."""
    sizes = np.bincount(pieces.ravel())
    sizes[0] = min_voxels
    boxes: list[Box] = ndi.find_objects(pieces) if (sizes < min_voxels).any() else []
    joined = True
    while joined:
        small = np.flatnonzero((sizes > 0) & (sizes < min_voxels))
        joined = False
        for number in small[np.argsort(sizes[small], kind="stable")].tolist():
            box = boxes[number - 1]
            window = pieces[tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)]
            own = window == number
            around = ndi.binary_dilation(own, AROUND) & ~own
            border = np.bincount(window[around], minlength=2)
            border[0] = 0
            if border.any():
                mate = int(border.argmax())
                window[own] = mate
                sizes[mate] += sizes[number]
                sizes[number] = 0
                boxes[mate - 1] = tuple(
                    slice(min(a.start, b.start), max(a.stop, b.stop))
                    for a, b in zip(boxes[mate - 1], box, strict=True)
                )
                joined = True
                break
    return pieces


def _smoothed(part: Bools, inside: npt.NDArray[Any] | None, ends: Ends, sigma: float) -> Floats:
    """(z + 2, y + 2, x + 2) the map of a part, smoothed, in its box padded by 1.

    A granule goes on beyond the volume: the distance is not to its edge.
    """
    reach = _reach(sigma)
    if inside is None:
        wide = np.zeros([side + 2 * reach for side in part.shape], bool)
        wide[(slice(reach, -reach),) * 3] = part
        for axis, (first, last) in enumerate(ends):
            lines = np.moveaxis(wide, axis, 0)
            if first:
                lines[:reach] = lines[reach]
            if last:
                lines[-reach:] = lines[-reach - 1]
        distance = wide * 1.0 if wide.all() else ndi.distance_transform_edt(wide)
    else:
        distance = np.asarray(inside, np.float64)
    smooth = ndi.gaussian_filter(distance, sigma, mode="nearest", truncate=4)
    return np.asarray(smooth[(slice(reach - 1, 1 - reach or None),) * 3], np.float64)


def _reach(sigma: float) -> int:
    """Voxels around a box that the smoothing needs, at least 1."""
    return max(1, int(4 * sigma + 0.5)) + 1


def _around(volume: npt.NDArray[Any], box: Box, margin: int) -> npt.NDArray[Any]:
    """A box of a volume and what is around it; beyond the volume's edge its outermost voxels."""
    inner = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
    missing = [
        (max(margin - side.start, 0), max(side.stop + margin - length, 0))
        for side, length in zip(box, volume.shape, strict=True)
    ]
    return np.pad(volume[inner], missing, mode="edge")
