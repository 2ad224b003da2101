"""Detections of one slice to a label slice, without ever holding all their masks at full size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.instances.components import Labels
from isgseg.io.volumes import label_dtype
from isgseg.models.masks import paste


def label_slice(
    mask_probs: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    shape: tuple[int, int],
    *,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    max_overlap: float = 0.5,
    min_pixels: int = 1,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Detections to labels: touching granules stay apart, and each has one number.

    From the highest score down, a detection is dropped if it shares more than `max_overlap` of its
    own or of a stronger detection's pixels with that one: the same granule twice, or two granules
    taken as one. Pixels that are still shared go to the higher mask probability. Of each granule
    only the largest connected part stays.

    Args:
        mask_probs: (N, M, M) mask probabilities.
        boxes: (N, 4) xyxy in pixels: where the masks lie.
        scores: (N,).
        shape: (H, W) of the slice.
        threshold: weaker detections are left out.
        mask_threshold: pixels at or above it belong to the granule.
        max_overlap: largest share of pixels that two granules may have in common.
        min_pixels: smaller granules are left out.

    Returns:
        (H, W) labels from 1 and 0 for background, and the score of each label.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    labels = np.zeros(shape, dtype=np.int32)
    best = np.zeros(shape, dtype=np.float32)
    taken: list[float] = []  # scores
    areas = np.zeros(len(order), dtype=np.int64)  # pixels of those that are taken
    drawn = paste(mask_probs[order], boxes[order], shape)
    for score, (window, probability) in zip(scores[order].tolist(), drawn, strict=True):
        mask = probability >= mask_threshold
        area, count = int(np.count_nonzero(mask)), len(taken)
        if area < min_pixels:
            continue
        shared = np.bincount(labels[window][mask], minlength=count + 1)[1:]
        if (shared > max_overlap * np.minimum(area, areas[:count])).any():
            continue
        areas[count] = area
        taken.append(score)
        mask &= probability > best[window]
        labels[window][mask] = len(taken)
        best[window][mask] = probability[mask]
    return _clean(labels, np.array(taken, dtype=np.float32), min_pixels)


def join_touching(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The connected components (8-neighbourhood) of all granules, each with their best score.

    Args:
        labels: (H, W) from 1.
        scores: (N,) of each label.

    Returns:
        As `label_slice`.
    """
    joined, count = ndi.label(labels, np.ones((3, 3)))
    best = np.zeros(count + 1, dtype=np.float32)
    inside = labels > 0
    np.maximum.at(best, joined[inside], scores[labels[inside] - 1])
    return joined, best[1:]


def number_all(slices: Iterable[npt.NDArray[Any]], counts: Sequence[int]) -> Iterator[Labels]:
    """Slices with numbers that are unique over all of them.

    Args:
        slices: (y, x) each, numbered from 1 in each slice.
        counts: (z,) the highest number of each slice.

    Returns:
        The slices, of the smallest of uint16 and uint32 that holds all numbers.
    """
    offsets = np.r_[0, np.cumsum(counts, dtype=np.int64)]
    dtype = label_dtype(int(offsets[-1]))
    for plane, offset in zip(slices, offsets[:-1], strict=True):
        numbered = plane.astype(dtype)
        numbered[numbered > 0] += offset.astype(dtype)
        yield numbered


def _clean(
    labels: npt.NDArray[np.int32], scores: npt.NDArray[np.float32], min_pixels: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Keeps the largest part of every label and numbers those that are left from 1."""
    clean = np.zeros_like(labels)
    kept: list[float] = []
    for number, window in enumerate(ndi.find_objects(labels), start=1):
        if window is None:
            continue
        parts, _ = ndi.label(labels[window] == number)
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() >= min_pixels:
            kept.append(float(scores[number - 1]))
            clean[window][parts == 1 + int(np.argmax(sizes))] = len(kept)
    return clean, np.array(kept, dtype=np.float32)
