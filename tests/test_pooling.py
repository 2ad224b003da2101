from __future__ import annotations

import numpy as np
import pytest

from isgseg.evaluation.diameters import DiameterBins, bin_by_diameter
from isgseg.evaluation.matching import match_thresholds
from isgseg.evaluation.pooling import as_numbers, pool_bins, pool_thresholds


def cubes(*starts: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Cubes of 6 voxels side by side along x."""
    labels = np.zeros((10, 10, 60), np.uint16)
    for number, x in enumerate(starts, start=1):
        labels[2:8, 2:8, x : x + 6] = number
    return labels


def test_pooled_volumes_score_as_one_volume_that_holds_both() -> None:
    first = cubes(0, 21), cubes(0, 20, 40)
    second = cubes(2, 20, 40, 50), cubes(0, 20)
    parts = [match_thresholds(*pair) for pair in (first, second)]
    ground_truth = np.concatenate([first[1], np.where(second[1], second[1] + 100, 0)])
    predicted = np.concatenate([first[0], np.where(second[0], second[0] + 100, 0)])
    whole = match_thresholds(predicted, ground_truth)
    pooled, expected = as_numbers(pool_thresholds(parts), None), as_numbers(whole, None)
    assert pooled.pop("f1_at") == expected.pop("f1_at")
    assert pooled == pytest.approx(expected)
    bins = pool_bins([bin_by_diameter(p.at(0.5), (30, 30, 30), [0, 200, 300]) for p in parts])
    assert bins is not None
    assert bins.ground_truth.tolist() == [0, 5]
    assert bins.false_positives.tolist() == [0, 2]
    assert pool_bins([bins, None]) is None


def test_nothing_at_all_is_perfect_and_finite() -> None:
    empty = match_thresholds(cubes(), cubes())
    numbers = as_numbers(pool_thresholds([empty, empty]), None)
    assert numbers["f1"] == numbers["pq"] == numbers["mean_average_precision"] == 1
    assert numbers["count_error"] == numbers["count_error_relative"] == 0
    false_positives = as_numbers(
        pool_thresholds([empty, match_thresholds(cubes(0, 20), cubes())]), None
    )
    assert false_positives["f1"] == false_positives["sq"] == 0
    assert false_positives["count_error_relative"] == 2


def test_bins_without_an_end_have_none() -> None:
    ints = np.array([1, 2])
    bins = DiameterBins(np.array([0, 150, np.inf]), ints, ints, ints, ints)
    rows = as_numbers(match_thresholds(cubes(0), cubes(0)), bins)["by_diameter"]
    assert [(row["from_nm"], row["to_nm"]) for row in rows] == [(0, 150), (150, None)]
    assert rows[1]["false_negatives"] == 2
