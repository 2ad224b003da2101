"""Masks of detections, small arrays of probabilities, drawn into the pixels of their boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Region = tuple[slice, slice]


def paste(
    probabilities: npt.NDArray[Any], box: npt.NDArray[Any], shape: tuple[int, int]
) -> tuple[Region, npt.NDArray[np.float32]]:
    """Draws one mask grid into the pixels of its own box.

    Each pixel's centre is looked up in the grid, bilinearly, with zeros around it, so that a
    granule of a few pixels keeps its place to a fraction of a pixel.

    Args:
        probabilities: (M, M) probabilities.
        box: (4,) xyxy in pixels: where the grid lies.
        shape: (H, W) of the slice.

    Returns:
        The window in the slice, and the probabilities in it.
    """
    x0, y0, x1, y1 = (float(value) for value in box)
    rows = _samples(y0, y1, shape[0], probabilities.shape[0])
    columns = _samples(x0, x1, shape[1], probabilities.shape[1])
    return (rows[0], columns[0]), rows[1] @ probabilities.astype(np.float32) @ columns[1].T


def _samples(
    low: float, high: float, length: int, cells: int
) -> tuple[slice, npt.NDArray[np.float32]]:
    """Pixels of one axis that a box covers, and the (pixels, cells) weights that sample them."""
    cell = max(high - low, 1e-3) / cells
    first = min(max(int(np.floor(low - cell / 2)), 0), length)
    last = max(min(int(np.ceil(high + cell / 2)), length), first)
    position = (np.arange(first, last) + 0.5 - low) / cell - 0.5
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells)))
    return slice(first, last), weights.astype(np.float32)


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
    for mask, probabilities, box in zip(masks, mask_probs, boxes, strict=True):
        window, probability = paste(probabilities, box, shape)
        mask[window] = probability >= threshold
    return masks
