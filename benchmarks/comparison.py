"""How often intervals and tests of `isgseg-compare` are right, with few cells.

Run `python benchmarks/comparison.py --output benchmarks/results/comparison.json`.

Cells of two conditions are drawn from a distribution of known difference, normal or skewed
(lognormal, log sd .7). Coverage is the share of the intervals of 95 % that hold the true value.
Beside isgseg's intervals stand those of a percentile bootstrap. "p <= .05" is the share of
comparisons called different where nothing differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output
from scipy import stats

from isgseg.analysis.difference import cliffs_delta, compare

Floats = npt.NDArray[np.float64]
Draw = Callable[[int], Floats]
CELLS = ((4, 4), (4, 6), (6, 6), (8, 8))
SHIFT = 1.5  # of the normal distribution's sd; 1 of the lognormal's
REPEATS = 400
PERMUTATIONS = 1999


def main() -> None:
    """Measures coverage and false positives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    add_output(parser)
    args = parser.parse_args()
    result = Result("Intervals and tests between conditions, with few cells", seeds=[0])
    rng = np.random.default_rng(0)
    draws: dict[str, tuple[Draw, float]] = {
        "normal": (lambda n: rng.normal(0, 1, n), SHIFT),
        "lognormal": (lambda n: rng.lognormal(0, 0.7, n), 1.0),
    }
    rows = [
        {"values": name, "cells": f"{few} and {many}"}
        | shares(draw, shift, few, many, args.repeats)
        for name, (draw, shift) in draws.items()
        for few, many in CELLS
    ]
    for column, target in {"difference": ">= 0.92", "Cliff's delta": ">= 0.92"}.items():
        worst = min(rows, key=lambda row: row[column])
        result.add(
            "quality",
            f"comparison: least coverage of the interval of the {column}, of 95 %",
            worst[column],
            target=target,
        )
    most = max(row["p <= .05"] for row in rows)
    result.add("quality", "comparison: false differences at p <= .05, most", most, target="<= 0.07")
    best = max(row["difference, bootstrap"] for row in rows)
    result.add("quality", "comparison: best coverage of bootstraps of the difference", best)
    result.details["table"] = {
        "caption": f"Coverage of intervals of 95 %, and the share of false differences, of "
        f"{args.repeats} comparisons each. `isgseg-compare` has no bootstraps.",
        "columns": list(rows[0]),
        "rows": [[str(value) for value in row.values()] for row in rows],
    }
    result.write(args.output)


def shares(draw: Draw, shift: float, few: int, many: int, repeats: int) -> dict[str, Any]:
    """Coverage of the intervals, and the share of false differences."""
    true_delta = cliffs_delta(draw(4000), draw(4000) + shift)
    held: dict[str, list[bool]] = {
        "difference": [],
        "Cliff's delta": [],
        "difference, bootstrap": [],
        "Cliff's delta, bootstrap": [],
        "p <= .05": [],
    }
    for number in range(repeats):
        first, second = draw(few), draw(many)
        nothing = compare(first, second, PERMUTATIONS, 0.95, number)
        held["p <= .05"].append(nothing.p <= 0.05)
        second = second + shift
        found = compare(first, second, PERMUTATIONS, 0.95, number)
        held["difference"].append(found.difference_low <= shift <= found.difference_high)
        held["Cliff's delta"].append(
            found.cliffs_delta_low <= true_delta <= found.cliffs_delta_high
        )
        low, high = bootstrapped(first, second, lambda a, b, axis: b.mean(axis) - a.mean(axis))
        held["difference, bootstrap"].append(low <= shift <= high)
        low, high = bootstrapped(first, second, delta_along)
        held["Cliff's delta, bootstrap"].append(low <= true_delta <= high)
    return {name: round(float(np.mean(flags)), 3) for name, flags in held.items()}


def bootstrapped(first: Floats, second: Floats, statistic: Any) -> tuple[float, float]:
    """The percentile interval of 95 %."""
    interval = stats.bootstrap(
        (first, second), statistic, n_resamples=999, method="percentile", vectorized=True, rng=0
    ).confidence_interval
    return float(interval.low), float(interval.high)


def delta_along(first: Floats, second: Floats, axis: int) -> Floats:
    """Cliff's delta of many resamples."""
    signs = np.sign(second[..., :, None] - first[..., None, :])
    return np.asarray(signs.mean(axis=(-2, -1)))


if __name__ == "__main__":
    main()
