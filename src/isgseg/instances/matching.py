"""Scores of label volumes or slices against the truth: what was found, missed, split, merged.

One pass counts how many voxels each pair of labels shares; everything else is arithmetic on these
pairs, of which there are about as many as instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Labels = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
PART = 0.1  # a lesser share of an instance is its rim, not a part of it


@dataclass(frozen=True)
class Fates:
    """What became of each instance of one side, in the order of their labels.

    Attributes:
        label: (N,) the numbers they have in the array.
        size: (N,) voxels, or pixels in 2D.
        fate: (N,) the first that holds of
            ``matched``: has a partner at the IoU asked for;
            ``split``: a truth in parts, or a prediction that is one of the parts;
            ``merged``: a prediction over several truths, or a truth that is one of them;
            ``missed`` (truths) or ``spurious`` (predictions): none of these.
        iou: (N,) with the partner, 0 without one.
    """

    label: Ints
    size: Ints
    fate: npt.NDArray[np.str_]
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
        fn: truths without a partner.
        sq: mean IoU of the matched pairs (segmentation quality).
        splits: truths with two or more parts: predictions more than half inside the truth that each
            cover a tenth of it or more.
        merges: predictions over two or more truths: each more than half covered by the prediction,
            and a tenth of it or more.
        truth: what became of each true instance.
        predicted: what became of each predicted instance.
    """

    iou: float
    tp: int
    fp: int
    fn: int
    sq: float
    splits: int
    merges: int
    truth: Fates
    predicted: Fates

    @property
    def precision(self) -> float:
        """The share of predictions that have a partner."""
        return self._share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """The share of truths that have a partner."""
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
class Thresholds:
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


@dataclass(frozen=True)
class DiameterBins:
    """Instances found and not found, by diameter; the first and the last bin are open.

    Attributes:
        edges: (B + 1,) nm.
        truth: (B,) true instances.
        missed: (B,) those among them without a partner.
        predicted: (B,) predicted instances.
        spurious: (B,) those among them without a partner.
    """

    edges: Floats
    truth: Ints
    missed: Ints
    predicted: Ints
    spurious: Ints


def match_instances(predicted: Labels, truth: Labels, iou: float = 0.5) -> Matching:
    """Match predicted with true instances one to one, most first, then best.

    From IoU .5 on (strictly above) no choice is left; below, groups of candidates are solved by
    linear assignment (as StarDist's ``matching`` does on the full table).

    Args:
        predicted: (z, y, x) or (y, x) non-negative integers, 0 background, any numbers.
        truth: the same.
        iou: 0 < iou <= 1.

    Raises:
        ValueError: shapes differ, labels are no non-negative integers below 2**32, or ``iou`` is
            out of range.

    Example:
        >>> found = match_instances(np.array([[1, 1, 0, 5]]), np.array([[7, 7, 7, 0]]))
        >>> found.tp, found.fp, found.fn, round(found.sq, 2), found.precision
        (1, 1, 0, 0.67, 0.5)
    """
    return Overlaps.of(predicted, truth).match(iou)


def match_thresholds(
    predicted: Labels, truth: Labels, thresholds: Sequence[float] = THRESHOLDS
) -> Thresholds:
    """``match_instances`` at each of several IoU, counting overlaps once.

    Raises:
        ValueError: as ``match_instances``, or no thresholds.
    """
    if not len(thresholds):
        raise ValueError("at least one threshold is needed")
    overlaps = Overlaps.of(predicted, truth)
    return Thresholds(tuple(overlaps.match(iou) for iou in thresholds))


def bin_by_diameter(
    matching: Matching, voxel_size: Sequence[float], edges: npt.ArrayLike
) -> DiameterBins:
    """Count found and missed instances by diameter.

    Args:
        matching: of volumes or slices.
        voxel_size: nm, (z, y, x) for volumes, (y, x) for slices.
        edges: (B + 1,) nm, rising; smaller and larger instances count in the first and last bin.

    Raises:
        ValueError: ``edges`` are fewer than two or do not rise.
    """
    limits = np.asarray(edges, np.float64)
    if limits.ndim != 1 or len(limits) < 2 or (np.diff(limits) <= 0).any():
        raise ValueError(f"edges must be two or more rising numbers, not {edges!r}")

    def count(fates: Fates) -> tuple[Ints, Ints]:
        place = np.searchsorted(limits[1:-1], fates.diameter(voxel_size), side="right")
        lost = place[fates.fate != "matched"]
        every, without = (np.bincount(p, minlength=len(limits) - 1) for p in (place, lost))
        return every.astype(np.int64), without.astype(np.int64)

    return DiameterBins(limits, *count(matching.truth), *count(matching.predicted))


@dataclass(frozen=True)
class Overlaps:
    """All pairs of labels that share voxels.

    Attributes:
        p: (E,) index of the prediction; t: (E,) index of the truth; shared: (E,) voxels.
        p_label, p_size, t_label, t_size: (P,) and (T,) of each prediction and truth.
    """

    p: Ints
    t: Ints
    shared: Ints
    p_label: Ints
    p_size: Ints
    t_label: Ints
    t_size: Ints

    @classmethod
    def of(cls, predicted: Labels, truth: Labels) -> Overlaps:
        """Counts them, slice by slice.

        Raises:
            ValueError: shapes differ, or labels are no non-negative integers below 2**32.
        """
        keys, shared = _count_pairs(predicted, truth)
        p, t = (
            (keys >> np.uint64(32)).astype(np.int64),
            (keys & np.uint64(2**32 - 1)).astype(np.int64),
        )
        p_label, p_index = np.unique(p, return_inverse=True)
        t_label, t_index = np.unique(t, return_inverse=True)
        p_size = np.bincount(p_index, shared, len(p_label)).astype(np.int64)
        t_size = np.bincount(t_index, shared, len(t_label)).astype(np.int64)
        # Label 0 took part as the rest of each instance; here it goes.
        p_skip, t_skip = int((p_label == 0).any()), int((t_label == 0).any())
        both = (p > 0) & (t > 0)
        return cls(
            (p_index - p_skip)[both],
            (t_index - t_skip)[both],
            shared[both],
            p_label[p_skip:],
            p_size[p_skip:],
            t_label[t_skip:],
            t_size[t_skip:],
        )

    @property
    def iou(self) -> Floats:
        """(E,) of each pair: voxels shared over voxels of either."""
        whole = self.p_size[self.p] + self.t_size[self.t] - self.shared
        return np.asarray(self.shared / whole, np.float64)

    def match(self, threshold: float) -> Matching:
        """The best partners at this IoU."""
        if not 0 < threshold <= 1:
            raise ValueError(f"iou must be above 0 and at most 1, not {threshold}")
        p, t, iou = self.p, self.t, self.iou
        candidates = np.flatnonzero(iou >= threshold)
        chosen = candidates[_assign(p[candidates], t[candidates], iou[candidates])]
        of_truth, of_predicted = self.shared / self.t_size[t], self.shared / self.p_size[p]
        part = (of_predicted > 0.5) & (of_truth >= PART)
        member = (of_truth > 0.5) & (of_predicted >= PART)
        part &= np.bincount(t[part], minlength=len(self.t_label))[t] > 1
        member &= np.bincount(p[member], minlength=len(self.p_label))[p] > 1

        def fates(index: Ints, label: Ints, size: Ints, otherwise: str) -> Fates:
            fate = np.full(len(label), otherwise, "<U8")
            quality = np.zeros(len(label))
            fate[index[member]] = "merged"
            fate[index[part]] = "split"
            fate[index[chosen]] = "matched"
            quality[index[chosen]] = iou[chosen]
            return Fates(label, size, fate, quality)

        tp, fp, fn = len(chosen), len(self.p_label) - len(chosen), len(self.t_label) - len(chosen)
        return Matching(
            iou=threshold,
            tp=tp,
            fp=fp,
            fn=fn,
            sq=float(iou[chosen].mean()) if tp else float(fp + fn == 0),
            splits=len(np.unique(t[part])),
            merges=len(np.unique(p[member])),
            truth=fates(t, self.t_label, self.t_size, "missed"),
            predicted=fates(p, self.p_label, self.p_size, "spurious"),
        )


def _count_pairs(predicted: Labels, truth: Labels) -> tuple[npt.NDArray[np.uint64], Ints]:
    """(E,) keys ``prediction << 32 | truth``, not both 0, and (E,) how many voxels have them."""
    if predicted.shape != truth.shape:
        raise ValueError(f"shapes differ: predicted {predicted.shape}, truth {truth.shape}")
    for name, labels in (("predicted", predicted), ("truth", truth)):
        if labels.dtype.kind not in "ui":
            raise ValueError(f"{name} must be integers, not {labels.dtype}")
        if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= 2**32):
            raise ValueError(
                f"{name} has labels {labels.min()} to {labels.max()}: not 0 to 2**32 - 1"
            )
    keys: list[npt.NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    counts: list[Ints] = [np.zeros(0, np.int64)]
    # Slice by slice, so that the sorting is of one slice's foreground only.
    slices = zip(predicted, truth, strict=True) if predicted.ndim > 2 else [(predicted, truth)]
    for p, t in slices:
        some = (p > 0) | (t > 0)
        key = p[some].astype(np.uint64) << np.uint64(32) | t[some].astype(np.uint64)
        found, count = np.unique(key, return_counts=True)
        keys.append(found)
        counts.append(count)
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(inverse, np.concatenate(counts), len(unique))
    return unique, total.astype(np.int64)


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
