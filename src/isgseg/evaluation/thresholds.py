"""The operating point: from which score, and which mask probability, a detection is an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError
from isgseg.models.masks import paste
from isgseg.models.settings import Thresholds

DEFAULT = 0.5  # of both thresholds, where no validation has tuned them
MASK_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MIN_IOU = 0.5  # of two masks that are the same object
CRITERIA = ("f1", "count")
SLACK = 0.015  # F1 is flat around its best, where chance decides: this much of it may go

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]


class Matches(NamedTuple):
    """Detections of many images against their ground truth.

    Attributes:
        scores: (N,).
        hits: (N, T) at each mask threshold 1 for a true positive, 0 for a false one, and -1 for a
            mask without a pixel, which is no detection.
        ground_truths: number of true objects.
        mask_thresholds: T of them.
    """

    scores: Floats
    hits: Ints
    ground_truths: int
    mask_thresholds: tuple[float, ...]


def pool_matches(parts: Sequence[Matches]) -> Matches:
    """Matches of several parts as those of one; all have the same mask thresholds."""
    return Matches(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.hits for part in parts]),
        sum(part.ground_truths for part in parts),
        parts[0].mask_thresholds,
    )


@dataclass(frozen=True)
class OperatingPoint:
    """Two thresholds and what they yield; precision, recall and F1 are 0 where undefined."""

    threshold: float
    mask_threshold: float
    precision: float
    recall: float
    f1: float
    detections: int
    ground_truths: int


def match(
    mask_probs: Floats,
    boxes: Floats,
    scores: Floats,
    ground_truths: npt.NDArray[Any],
    same: npt.NDArray[np.bool_],
    mask_thresholds: Sequence[float] = MASK_THRESHOLDS,
) -> npt.NDArray[np.int8]:
    """Which detections of one image hit a true object, by COCO's rule.

    From the highest score down, each takes the object that it overlaps most of those that are left,
    if their masks have an IoU of at least .5. What a score threshold leaves out comes later, so
    that the answer holds at every score threshold.

    Args:
        mask_probs: (N, M, M) mask probabilities.
        boxes: (N, 4) xyxy in pixels: where the masks lie.
        scores: (N,).
        ground_truths: (K, H, W) true masks.
        same: (N, K) whether detection and object are of one class.
        mask_thresholds: T of them.

    Returns:
        (N, T); see `Matches.hits`.
    """
    hits = np.full((len(scores), len(mask_thresholds)), -1, dtype=np.int8)
    free = np.ones((len(ground_truths), len(mask_thresholds)), dtype=bool)
    sizes = ground_truths.sum((1, 2), dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    drawn = paste(mask_probs[order], boxes[order], ground_truths.shape[1:])
    for index, (window, probability) in zip(order, drawn, strict=True):
        masks = (probability.ravel() >= np.array(mask_thresholds)[:, None]).astype(np.float32)
        areas = masks.sum(1)
        hits[index, areas > 0] = 0
        there = ground_truths[:, *window].reshape(len(ground_truths), probability.size)
        near = np.flatnonzero(there.any(1) & same[index])
        if not len(near):
            continue
        shared = there[near].astype(np.float32) @ masks.T
        ious = np.where(free[near], shared / (sizes[near, None] + areas - shared), 0)
        best, columns = ious.argmax(0), np.arange(len(mask_thresholds))
        found = ious[best, columns] >= MIN_IOU
        hits[index, found] = 1
        free[near[best[found]], columns[found]] = False
    return hits


def sweep(matches: Matches, mask_threshold: float) -> tuple[Floats, Ints, Ints]:
    """Counts at every score threshold.

    Args:
        matches: what was found.
        mask_threshold: one of `matches.mask_thresholds`.

    Returns:
        The scores that occur, falling, and how many detections and how many true positives have at
        least that score.
    """
    column = matches.hits[:, matches.mask_thresholds.index(mask_threshold)]
    kept = column >= 0
    order = np.argsort(-matches.scores[kept], kind="stable")
    scores, hits = matches.scores[kept][order], column[kept][order]
    last = np.flatnonzero(np.append(np.diff(scores) < 0, True)[: len(scores)])
    return scores[last], last + 1, hits.cumsum(dtype=np.int64)[last]


def point_at(matches: Matches, threshold: float, mask_threshold: float) -> OperatingPoint:
    """Precision, recall and F1 at two thresholds."""
    column = matches.hits[:, matches.mask_thresholds.index(mask_threshold)]
    kept = (column >= 0) & (matches.scores >= threshold)
    detections, hits = int(kept.sum()), int(column[kept].sum())
    return OperatingPoint(
        threshold=threshold,
        mask_threshold=mask_threshold,
        precision=hits / max(detections, 1),
        recall=hits / max(matches.ground_truths, 1),
        f1=2 * hits / max(detections + matches.ground_truths, 1),
        detections=detections,
        ground_truths=matches.ground_truths,
    )


def best_point(matches: Matches, criterion: str = "f1", floor: float = 0.0) -> OperatingPoint:
    """The thresholds that suit a criterion best, over all scores and all mask thresholds.

    The score threshold lies halfway between the weakest detection that counts and the next one.
    Of equals, the higher score threshold and the mask threshold nearest to .5 are taken; where
    nothing is found, both are .5.

    Args:
        matches: what was found.
        criterion: `f1`, of the mask thresholds that come within `SLACK` of the highest F1 the one
            nearest to .5, and of the score thresholds that come within it of the highest there the
            one that gives most nearly as many detections as true objects: the highest F1 alone
            counts too few, and is hardly higher; `count`, as many detections as true objects, and
            of mask thresholds that come equally near, the one with the highest F1.
        floor: scores below it were never looked at, and the threshold does not fall below it.

    Raises:
        ValueError: an unknown criterion.
    """
    check_criterion(criterion)
    curves = []
    for mask_threshold in sorted(matches.mask_thresholds, key=lambda value: abs(value - DEFAULT)):
        scores, detections, hits = sweep(matches, mask_threshold)
        if hits.any():
            f1 = 2 * hits / (detections + matches.ground_truths)
            curves.append((mask_threshold, scores, detections, f1))
    if criterion == "f1":
        enough = max((f1.max() for *_, f1 in curves), default=0.0) - SLACK
        curves = [curve for curve in curves if curve[-1].max() >= enough][:1]
    best, thresholds = (np.inf, 0.0), (DEFAULT, DEFAULT)
    for mask_threshold, scores, detections, f1 in curves:
        off = np.abs(detections - matches.ground_truths).astype(np.float64)
        if criterion == "f1":
            off[f1 < f1.max() - SLACK] = np.inf
        index = int(np.lexsort((-f1, off))[0])
        value = (float(off[index]), -float(f1[index]))
        if value < best:
            weaker = scores[index + 1] if index + 1 < len(scores) else floor
            best = value
            thresholds = ((float(scores[index]) + float(weaker)) / 2, mask_threshold)
    return point_at(matches, *thresholds)


def check_criterion(criterion: str) -> None:
    """Raises InputError where there is no such criterion."""
    if criterion not in CRITERIA:
        raise InputError(f"model.operating_point is '{criterion}'; choose {' or '.join(CRITERIA)}")


def choose_thresholds(
    tuned: Thresholds | None,
    threshold: float | None = None,
    mask_threshold: float | None = None,
) -> Thresholds:
    """The thresholds to use: those given, else those that were tuned, else .5.

    Args:
        tuned: of the checkpoint.
        threshold: of detections and of granules; None takes those that were tuned.
        mask_threshold: None takes the one that was tuned.

    Raises:
        InputError: what was given is not a number from 0 to 1.
    """
    for key, value in (("threshold", threshold), ("mask_threshold", mask_threshold)):
        number = isinstance(value, Real) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value <= 1):
            raise InputError(
                f"{key}={value} must be a number from 0 to 1, or null (None) for the checkpoint's"
            )
    tuned = tuned or Thresholds(DEFAULT, DEFAULT, DEFAULT)
    mask = tuned.mask if mask_threshold is None else mask_threshold
    if threshold is not None:
        return Thresholds(threshold, mask, threshold)
    return tuned._replace(mask=mask)
