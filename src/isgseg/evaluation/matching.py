"""Scores of label volumes or slices against ground truth: found, missed, split, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isgseg.instances.components import Floats, Ints, Labels
from isgseg.instances.overlaps import Overlaps

IOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PART = 0.1  # a lesser share of an instance is its rim, not a part of it


@dataclass(frozen=True)
class Outcomes:
    """What became of each instance of one side, in the order of their labels.

    Attributes:
        label: (N,) the numbers they have in the array.
        size: (N,) voxels, or pixels in 2D.
        outcome: (N,) the first that holds of
            ``matched``: has a partner at the IoU asked for;
            ``split``: a ground truth in parts, or a prediction that is one of the parts;
            ``merged``: a prediction over several ground-truth objects, or a ground truth that is
            one of them;
            ``false_negative`` (ground-truth objects) or ``false_positive`` (predictions): none of
            these.
        iou: (N,) with the partner, 0 without one.
    """

    label: Ints
    size: Ints
    outcome: npt.NDArray[np.str_]
    iou: Floats

    def diameter(self, voxel_size: Sequence[float]) -> Floats:
        """(N,) nm, of the ball (the disc in 2D) of the same size; voxel_size: nm, per axis."""
        size = self.size * float(np.prod(voxel_size))
        if len(voxel_size) == 3:
            return np.asarray(np.cbrt(6 / np.pi * size), np.float64)
        return np.asarray(np.sqrt(4 / np.pi * size), np.float64)


@dataclass(frozen=True)
class Matching:
    """Predicted instances against true ones at one IoU. No score is ever nan.

    Nothing predicted where nothing is true is perfect: every score is 1. Otherwise a score whose
    denominator is 0 is 0.

    Attributes:
        iou: pairs from this IoU on may match, one to one.
        tp: matched pairs.
        fp: predictions without a partner.
        fn: ground-truth objects without a partner.
        sq: mean IoU of the matched pairs (segmentation quality).
        splits: ground-truth objects with two or more parts: predictions more than half inside the
            ground truth that each cover a tenth of it or more.
        merges: predictions over two or more ground-truth objects: each more than half covered by
            the prediction, and a tenth of it or more.
        ground_truth: what became of each true instance.
        predicted: what became of each predicted instance.
    """

    iou: float
    tp: int
    fp: int
    fn: int
    sq: float
    splits: int
    merges: int
    ground_truth: Outcomes
    predicted: Outcomes

    @property
    def precision(self) -> float:
        """The share of predictions that have a partner."""
        return self._share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """The share of ground-truth objects that have a partner."""
        return self._share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return self._share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def rq(self) -> float:
        """Recognition quality: another name of F1."""
        return self.f1

    @property
    def pq(self) -> float:
        """Panoptic quality (Kirillov et al. 2019)."""
        return self.sq * self.rq

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), what microscopy calls so (Data Science Bowl 2018)."""
        return self._share(self.tp, self.tp + self.fp + self.fn)

    @property
    def count_error(self) -> int:
        """Predicted minus true number of instances."""
        return self.fp - self.fn

    def _share(self, part: int, whole: int) -> float:
        if self.tp + self.fp + self.fn == 0:
            return 1.0
        return part / whole if whole else 0.0


@dataclass(frozen=True)
class IouMatchings:
    """The same arrays matched at several IoU."""

    matchings: tuple[Matching, ...]

    @property
    def mean_average_precision(self) -> float:
        """Mean over the thresholds of TP / (TP + FP + FN)."""
        return float(np.mean([m.average_precision for m in self.matchings]))

    def at(self, iou: float) -> Matching:
        """The matching at one of the thresholds."""
        (found,) = (m for m in self.matchings if m.iou == iou)
        return found


def match_instances(predicted: Labels, ground_truth: Labels, iou: float = 0.5) -> Matching:
    """Match predicted with true instances one to one, most first, then best.

    From IoU .5 on (strictly above) no choice is left; below, groups of candidates are solved by
    linear assignment (as StarDist's ``matching`` does on the full table).

    Args:
        predicted: (z, y, x) or (y, x) non-negative integers, 0 background, any numbers.
        ground_truth: the same.
        iou: 0 < iou <= 1.

    Raises:
        ValueError: shapes differ, labels are no non-negative integers below 2**32, or ``iou`` is
            out of range.

    Example:
        >>> found = match_instances(np.array([[1, 1, 0, 5]]), np.array([[7, 7, 7, 0]]))
        >>> found.tp, found.fp, found.fn, round(found.sq, 2), found.precision
        (1, 1, 0, 0.67, 0.5)
    """
    return match_pairs(Overlaps.of(predicted, ground_truth), iou)


def match_thresholds(
    predicted: Labels, ground_truth: Labels, thresholds: Sequence[float] = IOUS
) -> IouMatchings:
    """``match_instances`` at each of several IoU, counting overlaps once.

    Raises:
        ValueError: as ``match_instances``, or no thresholds.
    """
    if not len(thresholds):
        raise ValueError("at least one threshold is needed")
    overlaps = Overlaps.of(predicted, ground_truth)
    return IouMatchings(tuple(match_pairs(overlaps, iou) for iou in thresholds))


def match_pairs(pairs: Overlaps, threshold: float) -> Matching:
    """The best partners at this IoU.

    Raises:
        ValueError: the IoU is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"iou must be above 0 and at most 1, not {threshold}")
    p, t, iou = pairs.p, pairs.t, pairs.iou
    candidates = np.flatnonzero(iou >= threshold)
    chosen = candidates[_assign(p[candidates], t[candidates], iou[candidates])]
    of_ground_truth, of_predicted = pairs.shared / pairs.t_size[t], pairs.shared / pairs.p_size[p]
    part = (of_predicted > 0.5) & (of_ground_truth >= PART)
    member = (of_ground_truth > 0.5) & (of_predicted >= PART)
    part &= np.bincount(t[part], minlength=len(pairs.t_label))[t] > 1
    member &= np.bincount(p[member], minlength=len(pairs.p_label))[p] > 1

    def outcomes(index: Ints, label: Ints, size: Ints, otherwise: str) -> Outcomes:
        outcome = np.full(len(label), otherwise, "<U14")
        quality = np.zeros(len(label))
        outcome[index[member]] = "merged"
        outcome[index[part]] = "split"
        outcome[index[chosen]] = "matched"
        quality[index[chosen]] = iou[chosen]
        return Outcomes(label, size, outcome, quality)

    tp, fp, fn = len(chosen), len(pairs.p_label) - len(chosen), len(pairs.t_label) - len(chosen)
    return Matching(
        iou=threshold,
        tp=tp,
        fp=fp,
        fn=fn,
        sq=float(iou[chosen].mean()) if tp else float(fp + fn == 0),
        splits=len(np.unique(t[part])),
        merges=len(np.unique(p[member])),
        ground_truth=outcomes(t, pairs.t_label, pairs.t_size, "false_negative"),
        predicted=outcomes(p, pairs.p_label, pairs.p_size, "false_positive"),
    )


def _assign(p: Ints, t: Ints, iou: Floats) -> Ints:
    """Indices of the pairs to keep: each p and t once, most pairs first, then most IoU."""
    if not len(p):
        return np.zeros(0, np.int64)
    rows, columns = p.max() + 1, t.max() + 1
    graph = coo_array((np.ones(len(p)), (p, rows + t)), (rows + columns, rows + columns))
    group = connected_components(graph, directed=False)[1][p]
    order = np.argsort(group, kind="stable")
    kept: list[int] = []
    for pairs in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(pairs) == 1:
            kept.append(int(pairs[0]))
            continue
        p_here, i = np.unique(p[pairs], return_inverse=True)
        t_here, j = np.unique(t[pairs], return_inverse=True)
        # One more pair outweighs every gain in IoU.
        value = np.zeros((len(p_here), len(t_here)))
        value[i, j] = 1 + iou[pairs] / (2 * min(value.shape))
        index = np.full(value.shape, -1)
        index[i, j] = pairs
        best = index[linear_sum_assignment(value, maximize=True)]
        kept += best[best >= 0].tolist()
    return np.sort(np.array(kept, np.int64))
