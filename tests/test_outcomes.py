from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import Array

from isgseg.evaluation.matching import match_instances
from isgseg.evaluation.outcomes import Failure, failure_figure, outcome_table, worst_failures

SIZE = (60.0, 30.0, 30.0)


def box(labels: Array, number: int, start: tuple[int, int, int], side: int) -> None:
    labels[tuple(slice(a, a + side) for a in start)] = number


@pytest.fixture
def scene() -> tuple[Array, Array, Array]:
    """Prediction, ground truth and grey values.

    Two ground-truth objects merged, one missed, one found, one invented.
    """
    ground_truth, predicted = np.zeros((2, 30, 80, 80), np.uint16)
    box(ground_truth, 1, (10, 10, 10), 6)
    box(predicted, 4, (10, 10, 10), 6)
    box(ground_truth, 2, (10, 50, 10), 8)
    box(ground_truth, 3, (10, 50, 18), 8)
    predicted[10:19, 50:58, 10:26] = 5
    box(ground_truth, 7, (2, 70, 70), 7)
    box(predicted, 6, (20, 10, 60), 4)
    return predicted, ground_truth, np.where(ground_truth > 0, 2.0, 1.0).astype(np.float32)


def worst(scene: tuple[Array, Array, Array], count: int = 12) -> list[Failure]:
    table = outcome_table(match_instances(*scene[:2]), *scene, SIZE)
    return worst_failures(table, *scene, SIZE, count=count, name="cell.mrc")


def test_the_table_holds_both_sides(scene: tuple[Array, Array, Array]) -> None:
    table = outcome_table(match_instances(*scene[:2]), *scene, SIZE)
    assert table[["side", "label", "outcome"]].to_numpy().tolist() == [
        ["ground_truth", 1, "matched"],
        ["ground_truth", 2, "merged"],
        ["ground_truth", 3, "merged"],
        ["ground_truth", 7, "false_negative"],
        ["predicted", 4, "matched"],
        ["predicted", 5, "merged"],
        ["predicted", 6, "false_positive"],
    ]
    assert table["mean_intensity"].tolist()[-1] == 1.0


def test_the_largest_failures_come_first_and_each_once(scene: tuple[Array, Array, Array]) -> None:
    failures = worst(scene)
    assert [failure.title.split(",")[0] for failure in failures] == [
        "merged: predicted 5",  # the two ground-truth objects of it are in its image
        "missed: ground truth 7",
        "spurious: predicted 6",
    ]
    assert [failure.size for failure in failures] == [n * 54000 for n in (1152, 343, 64)]
    assert len(worst(scene, count=2)) == 2


def test_a_crop_has_its_failure_at_the_centre_and_what_is_around(
    scene: tuple[Array, Array, Array],
) -> None:
    merged, false_negatives, false_positives = worst(scene)
    assert "cell.mrc (14, 54, 18)" in merged.title
    for failure, labels, number in (
        (merged, merged.predicted, 5),
        (false_negatives, false_negatives.ground_truth, 7),
        (false_positives, false_positives.predicted, 6),
    ):
        assert labels[failure.centre] == number
        assert failure.ground_truth.shape == failure.predicted.shape == failure.volume.shape
    # 9 slices of 60 nm are its longest side: 9 slices and 18 pixels to each side, where there are.
    assert merged.ground_truth.shape == (19, 18 + 1 + 18, 18 + 1 + 18)
    assert false_negatives.ground_truth.shape == (5 + 1 + 8, 16 + 1 + 6, 16 + 1 + 6)


@pytest.mark.parametrize("count", [1, 3])
def test_the_image_shows_ground_truth_green_and_prediction_magenta(
    scene: tuple[Array, Array, Array], tmp_path: Path, count: int
) -> None:
    path = failure_figure(worst(scene, count), tmp_path / "new" / "failures.png")
    red, green, blue = np.moveaxis(matplotlib.image.imread(path)[..., :3], -1, 0)
    assert ((green > 0.9) & (red < 0.1) & (blue < 0.1)).sum() > 100
    assert ((green < 0.1) & (red > 0.9) & (blue > 0.9)).sum() > 100
    assert [file.name for file in path.parent.iterdir()] == ["failures.png"]


def test_no_voxel_size_gives_pixels(scene: tuple[Array, Array, Array]) -> None:
    table = outcome_table(match_instances(*scene[:2]), *scene, None)
    failures = worst_failures(table, *scene, None, count=12, name="cell")
    assert failures[1].title == "missed: ground truth 7, 8.7 px\ncell (5, 73, 73)"
