"""Matchings of several volumes as one, and matchings as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from isgseg.evaluation.diameters import DiameterBins
from isgseg.evaluation.matching import IouMatchings, Matching, Outcomes

_COUNTS = ("ground_truth", "false_negatives", "predicted", "false_positives")


def pool_thresholds(parts: Sequence[IouMatchings]) -> IouMatchings:
    """All instances of several volumes scored together, at each of the IoU they share."""
    levels = zip(*(part.matchings for part in parts), strict=True)
    return IouMatchings(tuple(pool_matchings(level) for level in levels))


def pool_matchings(parts: Sequence[Matching]) -> Matching:
    """All instances of several volumes as one matching, in which labels are no longer unique."""
    tp, fp, fn, splits, merges = (
        sum(getattr(part, name) for part in parts)
        for name in ("tp", "fp", "fn", "splits", "merges")
    )
    quality = sum(part.sq * part.tp for part in parts)
    return Matching(
        iou=parts[0].iou,
        tp=tp,
        fp=fp,
        fn=fn,
        sq=quality / tp if tp else float(fp + fn == 0),
        splits=splits,
        merges=merges,
        ground_truth=_pool_outcomes([part.ground_truth for part in parts]),
        predicted=_pool_outcomes([part.predicted for part in parts]),
    )


def pool_bins(parts: Sequence[DiameterBins | None]) -> DiameterBins | None:
    """The sums of bins that have the same edges; None where one volume's are not known."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    counts = (np.sum([getattr(part, name) for part in known], axis=0) for name in _COUNTS)
    return DiameterBins(known[0].edges, *counts)


def as_numbers(found: IouMatchings, bins: DiameterBins | None) -> dict[str, Any]:
    """Scores as JSON holds them.

    All are at IoU .5 but for `mean_average_precision`, over all thresholds, and `f1_at`, at each.
    `count_error` is predicted minus true instances, `count_error_relative` its share of the true
    ones (of one where there is none); in pooled scores the errors of volumes cancel.

    Args:
        found: .5 is one of its IoU.
        bins: None where diameters are not known.
    """
    half = found.at(0.5)
    true = half.tp + half.fn
    return {
        "true": true,
        "predicted": half.tp + half.fp,
        **{name: getattr(half, name) for name in ("tp", "fp", "fn")},
        **{name: getattr(half, name) for name in ("precision", "recall", "f1", "pq", "sq", "rq")},
        "mean_average_precision": found.mean_average_precision,
        "count_error": half.count_error,
        "count_error_relative": half.count_error / max(true, 1),
        "splits": half.splits,
        "merges": half.merges,
        "f1_at": {f"{matching.iou:g}": matching.f1 for matching in found.matchings},
        "by_diameter": None if bins is None else _rows(bins),
    }


def _rows(bins: DiameterBins) -> list[dict[str, Any]]:
    """One a bin; an open end is None."""
    edges = [float(edge) if np.isfinite(edge) else None for edge in bins.edges]
    counts = {name: getattr(bins, name).tolist() for name in _COUNTS}
    return [
        {"from_nm": low, "to_nm": high} | {name: values[i] for name, values in counts.items()}
        for i, (low, high) in enumerate(pairwise(edges))
    ]


def _pool_outcomes(parts: Sequence[Outcomes]) -> Outcomes:
    return Outcomes(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("label", "size", "outcome", "iou")
        )
    )
