"""Which parts of a slice the network has to see, so that it says the same as of the whole slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.data.normalization import Normalizer

EMPTY = 0.7  # of the cytoplasm's value: measured cells have their nucleus at .9, the medium at .43


@dataclass(frozen=True)
class Tile:
    """A rectangle of a slice, in pixels.

    Attributes:
        rows: what the network sees.
        columns: likewise.
        core: y0, x0, y1, x1, half-open: the window owns the objects whose centre lies in it. The
            cores of a slice's windows do not overlap.
        share: of what the network sees that is occupied.
    """

    rows: slice
    columns: slice
    core: tuple[float, float, float, float]
    share: float = 1.0


WHOLE = Tile(slice(None), slice(None), (-inf, -inf, inf, inf))


def occupied(slices: npt.NDArray[np.uint8], normalizer: Normalizer) -> npt.NDArray[np.bool_]:
    """Pixels that may belong to a cell: those whose 5 x 5 mean is not well below the cytoplasm.

    Only the normalization `mode` says what grey the cytoplasm has; with any other all are.

    Args:
        slices: (C, H, W), that an image shows; of each pixel the brightest counts.
        normalizer: what made them.

    Returns:
        (H, W).
    """
    if normalizer.method != "mode":
        return np.ones(slices.shape[1:], dtype=bool)
    mean = ndi.uniform_filter(slices.max(axis=0).astype(np.float32), 5)
    return np.asarray(mean > normalizer(np.array(EMPTY * normalizer.high)))


def plan(
    occupied: npt.NDArray[np.bool_],
    margin: int | Sequence[int],
    unit: int | Sequence[int],
    limit: int | Sequence[int],
) -> list[Tile]:
    """Windows that together hold all that is occupied, with a margin around.

    One window where its sides stay within the limit, else overlapping tiles.

    Args:
        occupied: (H, W).
        margin: pixels around an object that bear on what the network says of it; of both axes, or
            of y and x, as the next two.
        unit: windows begin at multiples of it, pixels.
        limit: the longest side of a window, pixels, as far as margin and unit leave room.

    Returns:
        None at all where nothing is occupied.
    """
    spans = []
    numbers = np.stack([np.broadcast_to(value, 2) for value in (margin, unit, limit)], axis=1)
    for axis in (0, 1):
        lines = np.flatnonzero(occupied.any(axis=1 - axis))
        if not len(lines):
            return []
        each = numbers[axis].tolist()
        spans.append(_spans(int(lines[0]), int(lines[-1]) + 1, occupied.shape[axis], *each))
    return [
        Tile(rows, columns, (y0, x0, y1, x1), float(occupied[rows, columns].mean()))
        for (rows, (y0, y1)), (columns, (x0, x1)) in product(*spans)
        if occupied[_within(y0, y1), _within(x0, x1)].any()
    ]


def _spans(
    first: int, last: int, length: int, margin: int, unit: int, limit: int
) -> list[tuple[slice, tuple[float, float]]]:
    """Along one axis, the windows over the pixels first to last, and what each owns."""

    def seen(low: float, high: float) -> slice:
        start = (int(low) - margin) // unit * unit
        stop = -(-(int(high) + margin) // unit) * unit
        return slice(max(start, 0), min(stop, length))

    whole = seen(first, last)
    if whole.stop - whole.start <= limit:
        return [(whole, (-inf, inf))]
    step = max((limit - 2 * margin) // unit - 2, 1) * unit
    bounds = [-inf, *range(first + step, last, step), inf]
    return [(seen(max(low, first), min(high, last)), (low, high)) for low, high in pairwise(bounds)]


def _within(low: float, high: float) -> slice:
    """The pixels between two bounds, which may be infinite."""
    return slice(*(None if abs(bound) == inf else int(bound) for bound in (low, high)))


def inside(boxes: npt.NDArray[Any], core: tuple[float, float, float, float]) -> Any:
    """Args: boxes (N, 4) xyxy in pixels of the slice. Returns (N,) bool: the centre is in core."""
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    y0, x0, y1, x1 = core
    return (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
