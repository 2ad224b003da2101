"""Masks of detections, small arrays of probabilities, drawn into the pixels of their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Region = tuple[slice, slice]
Floats = npt.NDArray[np.float32]
TOGETHER = 64  # masks whose weights are in memory at once


def paste(
    mask_probs: npt.NDArray[Any], boxes: npt.NDArray[Any], shape: tuple[int, int]
) -> Iterator[tuple[Region, Floats]]:
    """Draws each mask grid into the pixels of its own box.

    Each pixel's centre is looked up in the grid, bilinearly, with zeros around it, so that a
    granule of a few pixels keeps its place to a fraction of a pixel.

    Args:
        mask_probs: (N, M, M) probabilities.
        boxes: (N, 4) xyxy in pixels: where the grids lie.
        shape: (H, W) of the slice.

    Returns:
        Of each the window in the slice, and the probabilities in it.
    """
    for start in range(0, len(mask_probs), TOGETHER):
        grids = mask_probs[start : start + TOGETHER].astype(np.float32)
        x0, y0, x1, y1 = boxes[start : start + TOGETHER].astype(np.float64).T
        rows, down = _samples(y0, y1, shape[0], grids.shape[1])
        columns, across = _samples(x0, x1, shape[1], grids.shape[2])
        for y, x, row_weights, grid, column_weights in zip(
            rows, columns, down, grids, across, strict=True
        ):
            drawn = row_weights[: y.stop - y.start] @ grid @ column_weights[: x.stop - x.start].T
            yield (y, x), drawn


def _samples(
    low: npt.NDArray[np.float64], high: npt.NDArray[np.float64], length: int, cells: int
) -> tuple[list[slice], Floats]:
    """Along one axis, the pixels that boxes cover, and the weights of the cells that they sample.

    Args:
        low: (N,) where boxes begin, pixels.
        high: (N,) where they end.
        length: of the axis, pixels.
        cells: of the grids.

    Returns:
        The pixels of each box, and (N, pixels, cells); those of short boxes come first.
    """
    cell = np.maximum(high - low, 1e-3) / cells
    first = np.floor(low - cell / 2).clip(0, length).astype(int)
    last = np.maximum(np.minimum(np.ceil(high + cell / 2), length).astype(int), first)
    pixels = first[:, None] + np.arange((last - first).max()) + 0.5
    position = (pixels - low[:, None]) / cell[:, None] - 0.5
    weights = np.maximum(0, 1 - np.abs(position[:, :, None] - np.arange(cells)))
    return [*map(slice, first.tolist(), last.tolist())], weights.astype(np.float32)


def draw(
    mask_probs: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    shape: tuple[int, int],
    threshold: float = 0.5,
) -> npt.NDArray[np.bool_]:
    """All masks at full size, for scores and images of patches.

    Args:
        mask_probs: (N, M, M) probabilities.
        boxes: (N, 4) xyxy in pixels: where the masks lie.
        shape: (H, W).
        threshold: pixels at or above it belong to the mask.

    Returns:
        (N, H, W), each column of a mask in one piece, as COCO's run lengths go.
    """
    masks = np.zeros((len(mask_probs), *shape[::-1]), dtype=bool).transpose(0, 2, 1)
    for mask, (window, probability) in zip(masks, paste(mask_probs, boxes, shape), strict=True):
        mask[window] = probability >= threshold
    return masks
