from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchmetrics.functional.detection import panoptic_quality

from isgseg.evaluation.diameters import bin_by_diameter
from isgseg.evaluation.matching import IOUS, Matching, match_instances, match_thresholds

Labels = npt.NDArray[Any]


def squares(*corners: tuple[int, int], side: int = 10, shape: tuple[int, int] = (40, 80)) -> Labels:
    labels = np.zeros(shape, np.uint16)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


def random_pair(seed: int, ndim: int = 3) -> tuple[Labels, Labels]:
    """Ground truth, and a prediction that moves, drops, splits, merges and invents instances."""
    rng = np.random.default_rng(seed)
    shape = (12, 48, 48)[3 - ndim :]
    grid = np.indices(shape)

    def draw(centres: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> Labels:
        labels = np.zeros(shape, np.uint32)
        for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
            offset = (grid.T - centre).T
            labels[(offset**2).sum(0) <= radius**2] = 3 * number
        return labels

    centres = rng.random((25, ndim)) * shape
    radii = rng.uniform(1.5, 5, 25)
    ground_truth = draw(centres, radii)
    moved = draw(centres + rng.normal(0, 1.2, centres.shape), radii * rng.uniform(0.8, 1.2, 25))
    moved[moved == 9] = 12
    moved[moved == 15] = 0
    moved[(moved == 21) & (grid[-1] % 2 == 0)] = 1000
    return moved, ground_truth


def reference(
    predicted: Labels, ground_truth: Labels, threshold: float
) -> tuple[int, int, int, float]:
    """StarDist's definition on the full table: most pairs at the threshold, then most IoU."""
    p = [predicted == n for n in np.unique(predicted) if n]
    t = [ground_truth == n for n in np.unique(ground_truth) if n]
    iou = np.array([[(a & b).sum() / (a | b).sum() for a in p] for b in t]).reshape(len(t), len(p))
    if not iou.size:
        return 0, len(p), len(t), 0.0
    cost = -(iou >= threshold).astype(float) - iou / (2 * min(iou.shape))
    i, j = linear_sum_assignment(cost)
    matched = iou[i, j] >= threshold
    tp = int(matched.sum())
    return tp, len(p) - tp, len(t) - tp, float(iou[i, j][matched].sum())


def scores(m: Matching) -> list[float]:
    names = "precision", "recall", "f1", "sq", "rq", "pq", "average_precision"
    return [getattr(m, name) for name in names]


@pytest.mark.parametrize("shift", range(11))
def test_a_shifted_square_has_a_known_iou(shift: int) -> None:
    iou = (10 - shift) / (10 + shift)
    ground_truth, predicted = squares((5, 5)), squares((5, 5 + shift))
    for threshold in IOUS:
        found = match_instances(predicted, ground_truth, threshold)
        assert found.tp == (iou >= threshold)
        assert found.sq == pytest.approx(iou if iou >= threshold else 0)
        assert found.pq == found.sq * found.f1


def test_discs_and_balls_of_known_iou() -> None:
    grid = np.indices((41, 41, 41)) - 20
    radius = np.sqrt((grid**2).sum(0))
    inner, outer = (radius <= 12).astype(np.uint8), (radius <= 16).astype(np.uint8)
    assert match_instances(inner, outer, 0.3).sq == pytest.approx((12 / 16) ** 3, abs=0.02)
    assert match_instances(inner[20], outer[20], 0.3).sq == pytest.approx((12 / 16) ** 2, abs=0.02)
    assert match_instances(inner, outer, 0.5).tp == 0


def test_scores_of_a_small_case() -> None:
    ground_truth = squares((0, 0), (0, 20), (0, 40))
    predicted = squares((0, 0), (0, 22), (20, 0), (20, 20))
    found = match_instances(predicted, ground_truth)
    assert (found.tp, found.fp, found.fn, found.count_error) == (2, 2, 1, 1)
    assert found.precision == 0.5
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == found.rq == pytest.approx(4 / 7)
    assert found.sq == pytest.approx((1 + 8 / 12) / 2)
    assert found.pq == pytest.approx(found.sq * found.rq)
    assert found.average_precision == pytest.approx(2 / 5)
    assert found.ground_truth.outcome.tolist() == ["matched", "matched", "false_negative"]
    assert found.predicted.outcome.tolist() == [
        "matched",
        "matched",
        "false_positive",
        "false_positive",
    ]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_dense_definition(seed: int, ndim: int, threshold: float) -> None:
    predicted, ground_truth = random_pair(seed, ndim)
    found = match_instances(predicted, ground_truth, threshold)
    tp, fp, fn, total = reference(predicted, ground_truth, threshold)
    assert (found.tp, found.fp, found.fn) == (tp, fp, fn)
    assert found.sq * found.tp == pytest.approx(total)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_equals_the_panoptic_quality_of_torchmetrics(seed: int, ndim: int) -> None:
    predicted, ground_truth = random_pair(seed, ndim)
    # Each voxel's category, 1 in a granule, and its instance.
    predicted_ids, ground_truth_ids = (
        torch.tensor(np.stack([labels > 0, labels], axis=-1).astype(np.int64))[None]
        for labels in (predicted, ground_truth)
    )
    scores = panoptic_quality(
        predicted_ids,
        ground_truth_ids,
        things={1},
        stuffs={0},
        return_sq_and_rq=True,
        return_per_class=True,
    )
    found = match_instances(
        predicted, ground_truth, np.nextafter(0.5, 1)
    )  # it takes IoU > .5, in float32
    assert 0 < found.tp < found.tp + found.fp + found.fn
    assert [found.pq, found.sq, found.rq] == pytest.approx(scores[0].tolist(), rel=1e-6)


def test_below_half_the_best_assignment_counts() -> None:
    # The middle prediction fits the left ground truth best, yet only there is it of use to the
    # right one.
    ground_truth, predicted = np.zeros((1, 40), int), np.zeros((1, 40), int)
    ground_truth[0, 0:10], ground_truth[0, 10:20] = 1, 2
    predicted[0, 0:3], predicted[0, 3:16] = 1, 2
    found = match_instances(predicted, ground_truth, 0.25)
    assert found.tp == 2
    assert found.predicted.iou.tolist() == pytest.approx([3 / 10, 6 / 17])


def test_perfect_labels_under_any_numbers() -> None:
    _, ground_truth = random_pair(0)
    table = np.random.default_rng(1).permutation(2**20)[: int(ground_truth.max()) + 1] + 2**31
    found = match_instances(np.where(ground_truth > 0, table[ground_truth], 0), ground_truth)
    assert scores(found) == [1] * 7
    assert (found.splits, found.merges, found.count_error) == (0, 0, 0)
    assert (found.ground_truth.outcome == "matched").all()


def test_splits_and_merges() -> None:
    ground_truth = squares((0, 0), (0, 20), (0, 30), (20, 0))
    predicted = ground_truth.copy()
    predicted[0:10, 4:10] = 7  # one ground truth in two parts of 40 and 60 %
    predicted[predicted == 3] = 2  # two ground-truth objects under one prediction
    found = match_instances(predicted, ground_truth, iou=0.7)
    assert (found.splits, found.merges) == (1, 1)
    assert found.ground_truth.outcome.tolist() == ["split", "merged", "merged", "matched"]
    assert found.predicted.outcome.tolist() == ["split", "merged", "matched", "split"]
    # A ground truth can have a partner and be split all the same.
    easier = match_instances(predicted, ground_truth, iou=0.5)
    assert (easier.splits, easier.merges) == (1, 1)
    assert easier.ground_truth.outcome.tolist()[0] == "matched"


def test_a_sliver_is_no_part() -> None:
    ground_truth = squares((0, 0))
    predicted = ground_truth.copy()
    predicted[0, 0:9] = 2  # 9 %
    assert match_instances(predicted, ground_truth).splits == 0
    assert match_instances(ground_truth, predicted).merges == 0
    predicted[0, 9] = 2  # 10 %
    assert match_instances(predicted, ground_truth).splits == 1
    assert match_instances(ground_truth, predicted).merges == 1


def test_nothing_against_nothing_is_perfect() -> None:
    nothing = np.zeros((4, 5, 6), np.uint8)
    found = match_thresholds(nothing, nothing)
    assert found.mean_average_precision == 1
    for matching in found.matchings:
        assert scores(matching) == [1] * 7
    assert scores(match_instances(nothing[:0], nothing[:0])) == [1] * 7


def test_something_against_nothing_is_zero() -> None:
    nothing, something = squares(), squares((3, 3))
    for predicted, ground_truth in ((nothing, something), (something, nothing)):
        found = match_instances(predicted, ground_truth)
        assert scores(found) == [0] * 7
        assert abs(found.count_error) == 1


def test_thresholds_are_single_matchings() -> None:
    predicted, ground_truth = random_pair(4)
    found = match_thresholds(predicted, ground_truth)
    assert [m.iou for m in found.matchings] == list(IOUS)
    for matching in found.matchings:
        single = match_instances(predicted, ground_truth, matching.iou)
        assert scores(matching) == scores(single)
    expected = np.mean([m.tp / (m.tp + m.fp + m.fn) for m in found.matchings])
    assert found.mean_average_precision == pytest.approx(expected)


def test_slices_count_as_one_volume() -> None:
    _, ground_truth = random_pair(2)
    found = match_instances(ground_truth, ground_truth)
    assert (found.ground_truth.label == np.unique(ground_truth)[1:]).all()
    assert (found.ground_truth.size == np.unique(ground_truth, return_counts=True)[1][1:]).all()


def test_false_negatives_and_false_positives_by_diameter() -> None:
    ground_truth = np.zeros((20, 40, 40), np.uint8)
    ground_truth[2:4, 2:4, 2:4] = 1  # 8 voxels: 2.5 voxels across
    ground_truth[6:16, 6:16, 6:16] = 2  # 1,000 voxels: 12.4
    predicted = np.where(ground_truth == 2, 9, 0)
    predicted[2:8, 30:36, 30:36] = 4  # 216 voxels: 7.4
    found = match_instances(predicted, ground_truth)
    bins = bin_by_diameter(found, (20, 30, 40), [100, 200, 300])  # x 28.8 nm: 72, 357 and 214 nm
    assert bins.ground_truth.tolist() == [1, 1]
    assert bins.false_negatives.tolist() == [1, 0]
    assert bins.predicted.tolist() == [0, 2]
    assert bins.false_positives.tolist() == [0, 1]
    np.testing.assert_allclose(found.ground_truth.diameter((20, 30, 40)), [71.56, 357.8], rtol=1e-3)
    flat = match_instances(squares((0, 0)), squares((0, 0)))
    np.testing.assert_allclose(flat.ground_truth.diameter((2, 3)), [np.sqrt(4 / np.pi * 600)])


@pytest.mark.parametrize("edges", [[1], [2, 1], [1, 1], [[1, 2]]])
def test_edges_must_rise(edges: Any) -> None:
    found = match_instances(squares(), squares())
    with pytest.raises(ValueError, match="rising"):
        bin_by_diameter(found, (1, 1), edges)


def test_what_cannot_be_compared() -> None:
    labels = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=r"\(4, 5\), ground truth \(5, 4\)"):
        match_instances(labels, labels.T)
    with pytest.raises(ValueError, match="ground_truth must be integers, not float64"):
        match_instances(labels, labels.astype(float))
    with pytest.raises(ValueError, match="predicted must be integers, not bool"):
        match_instances(labels > 0, labels)
    with pytest.raises(ValueError, match="labels -1 to -1"):
        match_instances(labels.astype(int) - 1, labels)
    for iou in (0, -1, 1.1):
        with pytest.raises(ValueError, match=str(iou)):
            match_instances(labels, labels, iou)
    with pytest.raises(ValueError, match="threshold"):
        match_thresholds(labels, labels, [])
