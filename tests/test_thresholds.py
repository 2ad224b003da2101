from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from isgseg.errors import InputError
from isgseg.evaluation.coco import MatchMetric, coco_metric, read_scores
from isgseg.evaluation.thresholds import (
    SLACK,
    Matches,
    best_point,
    choose_thresholds,
    match,
    point_at,
    sweep,
)
from isgseg.models.masks import draw
from isgseg.models.settings import Thresholds

Array = npt.NDArray[np.float32]


def made(scores: list[float], hits: list[int], ground_truths: int) -> Matches:
    """Matches at the mask threshold .5 alone."""
    column = np.array(hits, np.int8).reshape(-1, 1)
    return Matches(np.array(scores, np.float32), column, ground_truths, (0.5,))


def test_the_best_f1_and_the_unbiased_count_of_a_list_made_by_hand() -> None:
    matches = made([0.2, 0.9, 0.8, 0.6, 0.5, 0.4], [0, 1, 1, 0, 1, 0], ground_truths=5)
    # F1 after 1..6 detections: 2/6, 4/7, 4/8, 6/9, 6/10, 6/11
    best = best_point(matches)
    assert best.threshold == pytest.approx(0.45)
    assert (best.precision, best.recall, best.f1) == (3 / 4, 3 / 5, 6 / 9)
    assert (best.detections, best.ground_truths) == (4, 5)
    count = best_point(matches, "count")
    assert count.threshold == pytest.approx(0.3)
    assert (count.detections, count.f1) == (5, 6 / 10)


def test_detections_of_one_score_are_kept_or_left_out_together() -> None:
    matches = made([0.9, 0.7, 0.7, 0.7, 0.3], [1, 1, 0, 0, 0], ground_truths=2)
    scores, detections, hits = sweep(matches, 0.5)
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    assert detections.tolist() == [1, 4, 5]
    assert hits.tolist() == [1, 2, 2]
    assert best_point(matches, "count").detections == 1  # 4 is farther from 2


def test_of_equal_f1_the_higher_score_threshold_is_taken() -> None:
    assert best_point(made([0.9, 0.8, 0.7], [1, 0, 1], ground_truths=1)).threshold == pytest.approx(
        0.85
    )


def test_the_threshold_stays_above_what_was_looked_at() -> None:
    perfect = made([0.9, 0.25], [1, 1], ground_truths=2)
    assert best_point(perfect, floor=0.05).threshold == pytest.approx(0.15)
    assert best_point(perfect, floor=0.05).f1 == 1


def test_the_mask_threshold_is_tuned_too() -> None:
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    hits = np.array([[0, 1, 1], [0, 0, 1], [1, -1, 1]], np.int8)
    matches = Matches(scores, hits, 3, (0.4, 0.5, 0.6))
    assert best_point(matches).mask_threshold == 0.6
    assert best_point(matches).f1 == 1
    assert best_point(matches, "count").mask_threshold == 0.6  # .4 finds three too, one of them
    assert point_at(matches, 0.0, 0.5).detections == 2  # a mask without a pixel is none
    equal = Matches(scores, np.ones((3, 3), np.int8), 3, (0.4, 0.5, 0.6))
    assert best_point(equal).mask_threshold == 0.5


@pytest.mark.parametrize(("lost", "expected"), [(1, 0.5), (5, 0.7)])
def test_a_mask_threshold_far_from_half_must_bring_more_than_chance(
    lost: int, expected: float
) -> None:
    hits = np.ones((100, 2), np.int8)
    hits[:lost, 0] = 0
    matches = Matches(np.full(100, 0.9, np.float32), hits, 100, (0.5, 0.7))
    assert best_point(matches).mask_threshold == expected


@pytest.mark.parametrize("criterion", ["f1", "count"])
@pytest.mark.parametrize(
    "matches",
    [made([], [], 3), made([], [], 0), made([0.9, 0.1], [0, 0], 3), made([0.9], [0], 0)],
    ids=["no detection", "nothing", "no hit", "no ground truth"],
)
def test_where_nothing_is_found_both_thresholds_are_the_default(
    matches: Matches, criterion: str
) -> None:
    point = best_point(matches, criterion)
    assert (point.threshold, point.mask_threshold) == (0.5, 0.5)
    assert (point.precision, point.recall, point.f1) == (0, 0, 0)


def test_an_unknown_criterion_is_named() -> None:
    with pytest.raises(ValueError, match=r"model\.operating_point is 'best'; choose f1 or count"):
        best_point(made([], [], 0), "best")


def test_of_thresholds_of_nearly_the_best_f1_the_one_with_the_least_biased_count_is_taken() -> None:
    hits = [1] * 80 + [1, 0] * 7 + [0] * 6 + [0] * 50
    matches = made(np.linspace(0.9, 0.1, len(hits)).tolist(), hits, ground_truths=100)
    highest = 2 * 81 / 181  # after 81 detections; after 94: 2 * 87 / 194, after 95 2 * 87 / 195
    best = best_point(matches)
    assert best.detections > 90
    assert highest - SLACK <= best.f1 < highest
    assert best_point(matches, "count").detections == 100


def test_thresholds_that_are_given_go_before_the_checkpoints() -> None:
    tuned = Thresholds(0.3, 0.4, 0.8)
    assert choose_thresholds(tuned) == (0.3, 0.4, 0.8)
    assert choose_thresholds(tuned, None, 0.0) == (0.3, 0.0, 0.8)
    assert choose_thresholds(None) == (0.5, 0.5, 0.5)
    assert choose_thresholds(tuned, 0.7) == (0.7, 0.4, 0.7)


@pytest.mark.parametrize("value", [2, -0.1, float("nan"), "half", True, [0.5]])
def test_thresholds_are_shares(value: Any) -> None:
    with pytest.raises(InputError, match=r"^threshold=.* must be a number from 0 to 1"):
        choose_thresholds(None, value)
    with pytest.raises(InputError, match=r"^mask_threshold=.* must be a number from 0 to 1"):
        choose_thresholds(None, None, value)


def square(*corners: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """(N, 32, 32) squares, each given by its first pixel (y, x) and its side."""
    masks = np.zeros((len(corners), 32, 32), np.uint8)
    for mask, (y, x, side) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = 1
    return masks


def mask_probs(
    *boxes: tuple[float, float, float, float], value: float = 1.0
) -> tuple[Array, Array]:
    """Detections that fill their boxes, xyxy."""
    full = np.full((len(boxes), 28, 28), value, np.float32)
    return full, np.array(boxes, np.float32).reshape(-1, 4)


def test_each_object_is_matched_once_and_by_the_strongest() -> None:
    ground_truths = square((4, 4, 8), (4, 20, 8))
    found = mask_probs((4, 4, 12, 12), (5, 4, 13, 12), (20, 4, 28, 12), (4, 20, 12, 28))
    scores = np.array([0.5, 0.8, 0.9, 0.7])
    hits = match(*found, scores, ground_truths, np.ones((4, 2), bool), (0.5,))
    assert hits[:, 0].tolist() == [0, 1, 1, 0]  # the second takes the first object before its turn


def test_a_detection_takes_the_object_it_overlaps_most_and_half_is_enough() -> None:
    ground_truths = square((4, 4, 8), (4, 8, 8))
    hits = match(
        *mask_probs((8, 4, 16, 12)), np.ones(1), ground_truths, np.ones((1, 2), bool), (0.5,)
    )
    assert hits.tolist() == [[1]]
    for width, hit in ((4.0, 1), (3.4, 0)):
        found = mask_probs((4, 4, 4 + width, 12))
        one = match(*found, np.ones(1), square((4, 4, 8)), np.ones((1, 1), bool), (0.5,))
        assert one.tolist() == [[hit]]


def test_another_class_is_no_match_and_a_mask_without_a_pixel_no_detection() -> None:
    ground_truths, found = square((4, 4, 8)), mask_probs((4, 4, 12, 12), value=0.45)
    for same, hit in ((True, 1), (False, 0)):
        hits = match(*found, np.ones(1), ground_truths, np.array([[same]]), (0.4, 0.5))
        assert hits.tolist() == [[hit, -1]]


def image(seed: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Squares, and detections near them: doubles, misses and false positives among them."""
    random = np.random.default_rng(seed)
    corners = [(y, x, int(random.integers(3, 7))) for y in range(0, 32, 8) for x in range(0, 32, 8)]
    ground_truths = square(*corners[:12])
    boxes = []
    for y, x, side in (*corners[3:], *corners[3:9]):
        x0, y0, x1, y1 = np.array([x, y, x + side, y + side]) + random.normal(0, 0.8, 4)
        boxes.append((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)))
    full, where = mask_probs(*boxes)
    masks = draw(full, where, (32, 32))
    found = {
        "boxes": torch.from_numpy(where),
        "mask_boxes": torch.from_numpy(where),
        "scores": torch.from_numpy(random.permutation(len(boxes)).astype(np.float32) / 100),
        "labels": torch.ones(len(boxes), dtype=torch.int64),
        "mask_probs": torch.from_numpy(full),
        "masks": torch.from_numpy(masks),
    }
    box = [[x, y, x + side, y + side] for y, x, side in corners[:12]]
    ground_truth = {
        "boxes": torch.tensor(box).float(),
        "labels": torch.ones(12, dtype=torch.int64),
        "masks": torch.from_numpy(ground_truths).bool(),
    }
    return found, ground_truth


def test_matches_are_those_of_coco() -> None:
    """With all detections of an image, COCO's recall at IoU .5 is hits over true objects."""
    recalls = []
    for seed in range(10):
        found, ground_truth = image(seed)
        coco = coco_metric()
        coco.update([found], [ground_truth])
        matches = MatchMetric()
        matches.update([found], [ground_truth])
        got = matches.compute()
        ours = point_at(got, 0.0, 0.5)
        precision, recall = [], []
        for score in got.scores:
            point = point_at(got, float(score), 0.5)
            precision.append(point.precision)
            recall.append(point.recall)
        at = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0)
            for level in np.linspace(0, 1, 101)
        ]
        assert np.mean(at) == pytest.approx(read_scores(coco)["segm_map_50"], abs=1e-6)
        recalls.append(ours.recall)
    assert 0.3 < np.mean(recalls) < 0.75


def test_an_empty_image_lowers_precision_by_what_is_found_there() -> None:
    found, ground_truth = image(0)
    metric = MatchMetric()
    metric.update([found], [ground_truth])
    alone = point_at(metric.compute(), 0.0, 0.5)
    empty = {name: value[:0] for name, value in ground_truth.items()}
    metric.update([found], [empty])
    both = point_at(metric.compute(), 0.0, 0.5)
    assert both.precision == pytest.approx(alone.precision / 2)
    assert both.recall == alone.recall
    nothing = {name: value[:0] for name, value in found.items()}
    metric.update([nothing], [empty])
    assert point_at(metric.compute(), 0.0, 0.5) == both
    metric.reset()
    metric.update([nothing], [empty])
    assert point_at(metric.compute(), 0.0, 0.5).ground_truths == 0
