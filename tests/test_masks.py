from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.inference.masks import join_touching, label_slice, number_all
from isgseg.models.masks import draw, paste

SHAPE = (40, 50)
Floats = npt.NDArray[np.float32]


def disc_grid(size: int = 28) -> Floats:
    """A disc that fills its box, as a mask head would give it."""
    y, x = (np.indices((size, size)) + 0.5) / size - 0.5
    return np.asarray(y**2 + x**2 <= 0.25, dtype=np.float32)


def disc(cy: float, cx: float, radius: float) -> npt.NDArray[np.bool_]:
    y, x = np.indices(SHAPE) + 0.5
    return np.asarray((y - cy) ** 2 + (x - cx) ** 2 <= radius**2)


def box(cy: float, cx: float, radius: float) -> list[float]:
    return [cx - radius, cy - radius, cx + radius, cy + radius]


def stack(*boxes: list[float]) -> tuple[Floats, Floats]:
    return np.stack([disc_grid()] * len(boxes)), np.array(boxes, np.float32)


@pytest.mark.parametrize("radius", [1.5, 2.0, 3.3, 6.0])
@pytest.mark.parametrize("shift", [0.0, 0.3, 0.5])
def test_small_discs_are_drawn_where_they_are(radius: float, shift: float) -> None:
    drawn = draw(*stack(box(20 + shift, 25 - shift, radius)), SHAPE)[0]
    ground_truth = disc(20 + shift, 25 - shift, radius)
    assert (drawn & ground_truth).sum() / (drawn | ground_truth).sum() > 0.85


def test_paste_stays_within_the_slice() -> None:
    ((window, probability),) = paste(*stack([-5.0, -5, 5, 5]), SHAPE)
    assert (window[0].start, window[1].start) == (0, 0)
    assert probability.shape == (window[0].stop, window[1].stop)
    outside = draw(*stack([60, 60, 70, 70]), SHAPE)
    assert not outside.any()


def test_masks_drawn_together_are_drawn_as_alone() -> None:
    random = np.random.default_rng(0)
    middle, half = random.uniform(-5, 50, (150, 2)), random.uniform(0, 12, (150, 2))
    boxes = np.hstack([middle - half, middle + half]).astype(np.float32)
    mask_probs = random.random((150, 14, 14))
    together = list(paste(mask_probs, boxes, SHAPE))
    assert len(together) == 150
    for number, (window, probability) in enumerate(together):
        one = slice(number, number + 1)
        ((own, drawn),) = paste(mask_probs[one], boxes[one], SHAPE)
        assert own == window
        np.testing.assert_array_equal(drawn, probability)
    assert list(paste(mask_probs[:0], boxes[:0], SHAPE)) == []


def test_touching_granules_stay_apart() -> None:
    mask_probs, boxes = stack(box(20, 15, 5), box(20, 24, 5))
    labels, scores = label_slice(mask_probs, boxes, np.array([0.8, 0.9]), SHAPE)
    assert labels.max() == 2
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    for number, cx in ((1, 24), (2, 15)):
        ground_truth = disc(20, cx, 5)
        own = labels == number
        assert (own & ground_truth).sum() / (own | ground_truth).sum() > 0.85


def test_a_second_detection_of_the_same_granule_goes() -> None:
    mask_probs, boxes = stack(box(20, 20, 5), box(20.5, 20, 5))
    assert label_slice(mask_probs, boxes, np.array([0.7, 0.9]), SHAPE)[0].max() == 1


def test_a_detection_that_swallows_two_stronger_ones_goes() -> None:
    mask_probs, boxes = stack(box(20, 16, 4), box(20, 24, 4), box(20, 20, 9))
    labels, scores = label_slice(mask_probs, boxes, np.array([0.9, 0.8, 0.7]), SHAPE)
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert labels[13].max() == 0


def test_weak_and_tiny_detections_go() -> None:
    mask_probs, boxes = stack(box(10, 10, 5), box(30, 30, 1.2))
    scores = np.array([0.4, 0.9])
    assert label_slice(mask_probs, boxes, scores, SHAPE, threshold=0.5)[0].max() == 1
    assert label_slice(mask_probs, boxes, scores, SHAPE, threshold=0.3)[0].max() == 2
    assert label_slice(mask_probs, boxes, scores, SHAPE, threshold=0.5, min_pixels=20)[0].max() == 0


def test_mask_threshold_decides_the_size() -> None:
    soft = np.linspace(0, 1, 28, dtype=np.float32)[None].repeat(28, 0)[None]
    boxes = np.array([[10.0, 10, 30, 30]])
    low, high = (
        (label_slice(soft, boxes, np.ones(1), SHAPE, mask_threshold=t)[0] > 0).sum()
        for t in (0.25, 0.75)
    )
    assert low > 2.5 * high


def test_max_overlap_decides_who_is_the_same() -> None:
    mask_probs, boxes = stack(box(20, 18, 5), box(20, 23, 5))
    scores = np.array([0.9, 0.8])
    assert label_slice(mask_probs, boxes, scores, SHAPE, max_overlap=0.2)[0].max() == 1
    assert label_slice(mask_probs, boxes, scores, SHAPE, max_overlap=0.8)[0].max() == 2


def test_no_detection_is_an_empty_slice() -> None:
    labels, scores = label_slice(np.zeros((0, 28, 28)), np.zeros((0, 4)), np.zeros(0), SHAPE)
    assert labels.shape == SHAPE
    assert not labels.any()
    assert len(scores) == 0


def test_touching_granules_join_with_the_best_score() -> None:
    labels = np.zeros((6, 9), np.int32)
    labels[1:3, 1:3] = 3
    labels[3:5, 3:5] = 1  # by a corner
    labels[1:3, 6:8] = 2
    joined, scores = join_touching(labels, np.array([0.9, 0.6, 0.7], np.float32))
    assert np.array_equal(joined > 0, labels > 0)
    assert joined[1, 1] == joined[3, 3] != joined[1, 6]
    assert scores[joined[1, 1] - 1] == pytest.approx(0.9)
    assert scores[joined[1, 6] - 1] == pytest.approx(0.6)
    nothing, none = join_touching(np.zeros((6, 9), np.int32), np.zeros(0, np.float32))
    assert not nothing.any()
    assert len(none) == 0


def test_numbers_never_wrap() -> None:
    sections = np.zeros((70, 1, 1000), np.uint16)
    sections[:, 0, :] = np.arange(1, 1001)
    labels = np.stack(list(number_all(sections, [1000] * 70)))
    assert labels.dtype == np.uint32
    assert np.array_equal(np.unique(labels), np.arange(1, 70_001))
    few = np.stack(list(number_all(sections[:2], [1000, 1000])))
    assert few.dtype == np.uint16
    assert few.max() == 2000
