"""The difference of two conditions in one measure: test, effects and their intervals.

Granules of one cell share its state, its imaging and its labels; they are not independent. A test
over granules finds a difference between any two cells. Here each cell is one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One measure in two conditions.

    Attributes:
        mean_reference: of the cells of the reference, in the unit of the measure.
        mean: of the cells of the other condition.
        difference: `mean - mean_reference`.
        difference_low: lower end of its interval; -inf where there are too few cells for one.
        difference_high: upper end.
        cliffs_delta: from -1 to 1: how much oftener a cell of the other condition has the larger
            value than one of the reference, of all pairs of cells.
        cliffs_delta_low: lower end of its interval.
        cliffs_delta_high: upper end.
        p: of the permutation test, two-sided.
        smallest_p: the least that `p` can be with so many cells.
        exact: whether all ways to share out the cells were counted.
    """

    mean_reference: float
    mean: float
    difference: float
    difference_low: float
    difference_high: float
    cliffs_delta: float
    cliffs_delta_low: float
    cliffs_delta_high: float
    p: float
    smallest_p: float
    exact: bool


def compare(
    reference: Values, other: Values, permutations: int, confidence: float, seed: int
) -> Difference:
    """Compares two conditions in one measure.

    The p value is that of a permutation test of the difference of means. It assumes that without an
    effect cells could be exchanged between the conditions, and no distribution.

    Args:
        reference: (N,) one value a cell, finite, N >= 2.
        other: (M,) the same, M >= 2.
        permutations: the test counts all ways to share out the cells where there are not more than
            this; else it draws this many.
        confidence: of the intervals, such as .95.
        seed: of what is drawn.
    """
    ways = math.comb(len(reference) + len(other), len(other))
    exact = ways <= permutations
    if np.ptp(np.concatenate([reference, other])) == 0:  # scipy would compare rounding errors
        p = 1.0
    else:
        p = stats.permutation_test(
            (other, reference),
            _difference_of_means,
            n_resamples=permutations,
            vectorized=True,
            batch=1000,
            rng=np.random.default_rng(seed),
        ).pvalue
    low, high = shift_interval(reference, other, permutations, confidence, seed)
    delta = cliffs_delta(reference, other)
    delta_low, delta_high = cliffs_delta_interval(delta, len(reference), len(other), confidence)
    return Difference(
        mean_reference=float(reference.mean()),
        mean=float(other.mean()),
        difference=float(other.mean() - reference.mean()),
        difference_low=low,
        difference_high=high,
        cliffs_delta=delta,
        cliffs_delta_low=delta_low,
        cliffs_delta_high=delta_high,
        p=float(p),
        smallest_p=min(1.0, 2 / (ways if exact else permutations + 1)),
        exact=exact,
    )


def _difference_of_means(first: Values, second: Values, axis: int) -> Values:
    return np.asarray(first.mean(axis=axis) - second.mean(axis=axis))


def shift_interval(
    reference: Values, other: Values, permutations: int, confidence: float, seed: int
) -> tuple[float, float]:
    """The shifts between two conditions that their permutation test does not reject.

    A shift d is rejected where `other - d` differs from `reference` at 1 - confidence. The test's
    statistic under each exchange of k cells for k others reaches the observed one at one d, the
    mean of the k that leave `other` minus the mean of the k that come; the ends of the interval are
    quantiles of these d. Source: Tritchler, J. Am. Stat. Assoc. 79:200 (1984); Ernst, Stat. Sci.
    19:676 (2004).

    Returns:
        Low and high end, in the unit of the values; infinite where there are so few cells that no
        shift can be rejected.
    """
    values = np.concatenate([reference, other])
    number, size = len(values), len(other)
    if math.comb(number, size) <= permutations:
        chosen = np.array(list(combinations(range(number), size)))
    else:
        random = np.random.default_rng(seed)
        chosen = random.permuted(np.tile(np.arange(number), (permutations, 1)), axis=1)[:, :size]
    after = np.zeros((len(chosen), number), bool)
    np.put_along_axis(after, chosen, True, axis=1)
    before = np.arange(number) >= len(reference)
    come, leave = after & ~before, before & ~after
    exchanged = come.sum(axis=1)
    some = exchanged > 0
    shifts = np.sort((leave[some] @ values - come[some] @ values) / exchanged[some])
    # Of the ways, the observed one among them, this many may be as extreme as a rejected shift.
    rejected = math.floor((1 - confidence) / 2 * (len(shifts) + 1) + 1e-9)
    if rejected < 1:
        return -math.inf, math.inf
    return float(shifts[rejected - 1]), float(shifts[-rejected])


def cliffs_delta(reference: Values, other: Values) -> float:
    """Share of pairs of cells in which `other` is larger, less that in which it is smaller.

    Source: Cliff, Psychol. Bull. 114:494 (1993).
    """
    return float(np.sign(other[:, None] - reference[None, :]).mean())


def cliffs_delta_interval(
    delta: float, reference: int, other: int, confidence: float
) -> tuple[float, float]:
    """An interval of Cliff's delta that holds for few cells, and where no two values overlap.

    Source: method 5 of Newcombe, Stat. Med. 25:559 (2006), for (delta + 1) / 2.

    Args:
        delta: as observed.
        reference: number of cells of the reference.
        other: number of cells of the other condition.
        confidence: such as .95.
    """
    z = stats.norm.ppf((1 + confidence) / 2)
    observed, average = (delta + 1) / 2, (reference + other) / 2 - 1
    tiny = 1e-9  # 0 and 1 are roots too, which are not meant

    def outside(theta: float) -> float:
        spread = 1 + average * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * spread / (reference * other)
        return float((observed - theta) ** 2 - z**2 * variance)

    low, high = 0.0, 1.0
    if observed > tiny:
        low = optimize.brentq(outside, 0, min(observed, 1 - tiny))
    if observed < 1 - tiny:
        high = optimize.brentq(outside, max(observed, tiny), 1)
    return 2 * low - 1, 2 * high - 1
