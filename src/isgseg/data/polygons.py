"""Masks to COCO segmentations that decode to the very same mask, and segmentations back to masks.

pycocotools trusts what it is given: it reads beyond the end of broken run lengths, leaves memory
uninitialised where runs stop short, and never returns from a polygon with coordinates of 1e18.
`run_lengths` hands it nothing unchecked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from scipy import ndimage as ndi

from isgseg.errors import InputError

Point = tuple[int, int]
# A turn to the right first: at a corner where two pixels meet diagonally the outline then stays
# with its own pixel, and no outline crosses itself.
_TURNS = {(1, 0): [(0, 1), (1, 0), (0, -1)], (0, 1): [(-1, 0), (0, 1), (1, 0)]}
_TURNS |= {(-1, 0): [(0, -1), (-1, 0), (0, 1)], (0, -1): [(1, 0), (0, -1), (-1, 0)]}


def encode(mask: npt.NDArray[Any]) -> list[list[int]] | dict[str, Any]:
    """A mask to polygons along pixel edges, or to RLE where it has a hole.

    Contours through pixel centres, as most tools draw them, lose a third of a 5-pixel granule.

    Args:
        mask: (H, W) bool.

    Returns:
        COCO polygons, one for each 4-connected part, or COCO's compressed run lengths as text.
    """
    filled = ndi.binary_fill_holes(mask)
    if np.array_equal(filled, mask):
        parts, count = ndi.label(mask)
        return [outline(parts == part) for part in range(1, count + 1)]
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def outline(mask: npt.NDArray[Any]) -> list[int]:
    """The outline of one 4-connected mask without holes, along pixel edges.

    Args:
        mask: (H, W) bool.

    Returns:
        Flat x, y, x, y, ... of the corners, clockwise on the screen.
    """
    inside = np.pad(np.asarray(mask, dtype=bool), 1)
    steps: dict[Point, list[Point]] = {}
    for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):  # top, right, bottom, left edges
        outside = np.roll(inside, (dx, -dy), axis=(0, 1))  # the pixel on the left of the step
        for y, x in np.argwhere(inside & ~outside).tolist():
            start = (x - 1 + (dy > 0 or dx < 0), y - 1 + (dx < 0 or dy < 0))
            steps.setdefault(start, []).append((dx, dy))
    first = min(steps, key=lambda point: (point[1], point[0]))
    point, direction = first, (1, 0)
    corners: list[int] = []
    while True:
        choices = steps[point]
        turn = next(d for d in _TURNS[direction] if d in choices)
        if turn != direction or not corners:
            corners += point
        choices.remove(turn)
        point, direction = (point[0] + turn[0], point[1] + turn[1]), turn
        if point == first:
            return corners


def run_lengths(segmentation: Any, height: int, width: int, where: str) -> Any:
    """A COCO segmentation as pycocotools' run lengths.

    Args:
        segmentation: polygons, or run lengths as numbers or as COCO's compressed text.
        height: of the image, pixels.
        width: of the image, pixels.
        where: what an error calls the annotation.

    Raises:
        InputError: it is neither; a polygon has fewer than three points, an odd number of
            coordinates, or coordinates that are not finite or far beyond the image; run lengths
            are of another size than the image, or do not cover it exactly.
    """
    if isinstance(segmentation, list):
        for number, polygon in enumerate(segmentation):
            _check_polygon(polygon, height, width, f"{where}: polygon {number}")
        if not segmentation:
            segmentation = {"size": [height, width], "counts": [height * width]}
            return coco_mask.frPyObjects(segmentation, height, width)
        parts = coco_mask.frPyObjects(segmentation, height, width)
        return parts[0] if len(parts) == 1 else coco_mask.merge(parts)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise InputError(
            f"{where}: segmentation is neither polygons, [[x, y, x, y, x, y], ...], nor RLE, with "
            "size and counts; export it as one of these"
        )
    size, counts = segmentation["size"], segmentation["counts"]
    if not isinstance(size, list) or size != [height, width]:
        raise InputError(
            f"{where}: its RLE is of {size}, its image {[height, width]} (h, w); export it anew"
        )
    runs = _runs(counts, where) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise InputError(
            f"{where}: counts of its RLE must be whole numbers from 0, or COCO's compressed text"
        )
    if sum(runs) != height * width:
        raise InputError(
            f"{where}: the runs of its RLE cover {sum(runs)} pixels, its image has {height} x "
            f"{width} = {height * width}; export it anew"
        )
    return coco_mask.frPyObjects({"size": size, "counts": runs}, height, width)


def _check_polygon(polygon: Any, height: int, width: int, where: str) -> None:
    """Raises InputError for a polygon that pycocotools must not see."""
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        raise InputError(f"{where} is not a list of numbers [x, y, x, y, x, y, ...]")
    if len(polygon) == 4:
        raise InputError(
            f"{where} has four numbers: a box or a line, not an outline; give at least three "
            "points, as [x, y, x, y, x, y]"
        )
    if len(polygon) < 6 or len(polygon) % 2:
        raise InputError(
            f"{where} has {len(polygon)} numbers; an outline has an even number of at least six, "
            "[x, y, x, y, x, y, ...]"
        )
    limit = 2 * max(height, width)  # tools draw a little outside, but not by an image's width
    far = [value for value in polygon if not -limit <= value <= limit]  # NaN too
    if far:
        shown = f"{far[0]:g}" if isinstance(far[0], float) else str(far[0])[:30]
        raise InputError(
            f"{where} has the coordinate {shown}, but its image is {width} x {height} pixels; "
            "correct it, or remove the annotation"
        )
    # An outline along pixel edges is at most 2 H W long. Few points cannot be longer.
    longest = 8 * height * width + 1000
    if len(polygon) * limit > longest:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum() > longest:
            raise InputError(f"{where} goes to and fro over its image; draw one outline")


def _runs(text: str, where: str) -> list[int]:
    """COCO's compressed run lengths as numbers.

    Five bits a character from "0" on; the sixth says that the number goes on. From the fourth on,
    a number is the difference from the last but one.

    Raises:
        InputError: it is no such text.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode("utf-8", "surrogatepass"):
        bits = character - 48
        if not 0 <= bits < 64 or shift > 40:
            break
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    else:
        if not shift:
            return runs
    raise InputError(f"{where}: counts of its RLE is no text of COCO's compressed run lengths")


def boxes_of(rles: Sequence[Any]) -> npt.NDArray[np.float64]:
    """Boxes of masks, (N, 4): x, y, width and height, pixels; 0 of masks without a pixel."""
    parts = [coco_mask.toBbox(rles[start : start + 1000]) for start in range(0, len(rles), 1000)]
    return np.concatenate([np.zeros((0, 4)), *parts])


def in_one_piece(rle: Any) -> bool:
    """Whether the pixels of a mask are connected, corners included."""
    return int(ndi.label(coco_mask.decode(rle), np.ones((3, 3)))[1]) == 1
