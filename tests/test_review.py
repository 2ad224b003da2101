"""Which granules are doubtful, and where isgseg-predict says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Compose, balls
from PIL import Image
from test_predict import SIZE, options

from isgseg.analysis.contact_sheet import contact_sheet
from isgseg.analysis.granules import granule_table
from isgseg.analysis.review import in_order, review_offered, review_table
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume, read_labels, write_volume
from isgseg.predict import predict


def ball(labels: np.ndarray, number: int, centre: tuple[int, ...], radius: float) -> None:
    grid = np.indices(labels.shape)
    away = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
    labels[away <= radius**2] = number


@pytest.fixture
def labels() -> np.ndarray:
    made = np.zeros((24, 60, 60), np.uint16)
    for number, place in enumerate(((12, 10, 10), (12, 10, 30), (12, 10, 50), (12, 30, 10)), 1):
        ball(made, number, place, 4.5)
    return made


def test_a_cell_of_sure_and_round_granules_raises_no_doubt(labels: np.ndarray) -> None:
    table = granule_table(labels, score=np.full(4, 0.99), supporting_slices=np.full(4, 9))
    assert review_table(labels, table, 0.5)["suspicion"].max() < 0.1
    assert (review_table(labels, table, 0.5)["reason"] == "").all()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: ball(made, 9, (0, 40, 40), 4.5), "at the border"),
        (lambda made: made[12:13].__setitem__((0, slice(40, 44), slice(40, 44)), 9), "in 1 slice"),
        (lambda made: ball(made, 9, (12, 42, 42), 12), "large: "),
        (lambda made: ball(made, 9, (12, 42, 42), 1), "small: "),
        (lambda made: made[8:16, 40:42].__setitem__(np.s_[:, :, 30:50], 9), "odd shape"),
        (
            lambda made: [ball(made, 9, (12, 42, x), 4.5) for x in (30, 38)],  # type: ignore[func-returns-value]
            "may be 2 granules",
        ),
    ],
)
def test_what_is_odd_comes_first_with_its_reason(
    labels: np.ndarray, change: object, reason: str
) -> None:
    change(labels)  # type: ignore[operator]
    doubts = review_table(labels)
    assert in_order(doubts)[0] == 9
    assert reason in doubts["reason"][9]


def test_a_score_near_the_threshold_is_doubtful_and_a_high_one_is_not(labels: np.ndarray) -> None:
    table = granule_table(labels, score=np.array([0.5, 0.7, 0.99, 0.8]))
    doubts = review_table(labels, table, 0.5)
    assert in_order(doubts) == [1, 2, 4, 3]
    assert doubts["reason"][1] == "score 0.50, threshold 0.50"


def test_both_halves_of_a_granule_name_each_other(labels: np.ndarray) -> None:
    labels[(labels == 2) & (np.indices(labels.shape)[2] > 30)] = 7
    doubts = review_table(labels)
    assert "one granule with 7" in doubts["reason"][2]
    assert "one granule with 2" in doubts["reason"][7]
    ball(labels, 8, (12, 39, 10), 4.5)  # touches 4, and both are round
    assert "one granule with" not in review_table(labels)["reason"][8]


def test_the_sheet_shows_the_volume_without_granules_too(tmp_path: Path) -> None:
    empty = np.zeros((3, 20, 20), np.uint16)
    table = granule_table(empty).assign(suspicion=0.0, reason="")
    path = contact_sheet(np.ones(empty.shape), empty, table, tmp_path / "sheet.png")
    assert Image.open(path).width > 500
    with pytest.raises(ValueError, match="but the volume"):
        contact_sheet(np.ones((2, 20, 20)), empty, table, path)


def test_predict_writes_doubts_and_a_sheet_also_of_what_is_there(
    trained: Path, tmp_path: Path, config: Compose
) -> None:
    data = (balls(7, 30)[0] * 100).astype(np.float32)
    cell = write_volume(tmp_path / "cell.mrc", data, SIZE)
    folder = tmp_path / "labels"
    arguments = options(trained, cell, f"output_dir={folder}")
    predict(config("predict", *arguments))
    table, sheet = folder / "cell_granules.csv", folder / "cell_review.png"
    assert "suspicion" not in pd.read_csv(table)
    assert not sheet.exists()
    labels = (folder / "cell_labels.tif").read_bytes()
    predict(config("predict", *arguments, "review=true"))
    read = pd.read_csv(table)
    assert len(read) > 0
    assert read["suspicion"].between(0, 1).all()
    assert sheet.exists()
    assert (folder / "cell_labels.tif").read_bytes() == labels
    written = sheet.stat().st_mtime_ns
    predict(config("predict", *arguments, "review=true"))
    assert sheet.stat().st_mtime_ns == written


def test_what_nearly_reached_the_threshold_is_looked_at_first() -> None:
    labels = np.zeros((24, 60, 60), np.uint16)
    for number, x in ((3, 10), (8, 22), (9, 34)):
        ball(labels, number, (12, 10, x), 4.5)
    labels[12, 30:32, 10:30] = 11  # as good a score, and no ball
    best = np.zeros(11)
    best[[2, 7, 8, 10]] = 0.2, 0.49, 0.45, 0.49
    table = granule_table(labels, score=best)
    doubts = review_offered(labels, table, 0.5)
    assert in_order(doubts)[0] == 8
    assert doubts["suspicion"][3] < 0.5 * doubts["suspicion"][8]
    assert doubts["suspicion"][11] < doubts["suspicion"][8]
    assert "after all" in doubts["reason"][8]


def test_candidates_are_kept_for_the_review_and_the_labels_are_the_same(
    trained: Path, tmp_path: Path, config: Compose
) -> None:
    data = (balls(7, 30)[0] * 100).astype(np.float32)
    cell = write_volume(tmp_path / "cell.mrc", data, SIZE)
    folder = tmp_path / "labels"
    network = Predictor.from_checkpoint(trained / "isg_mask_rcnn_final.pth", progress=False)
    least = float(np.median(network.segment(Volume(data, SIZE)).best)) + 1e-4
    alone = options(trained, cell, f"output_dir={tmp_path / 'alone'}", f"threshold={least}")
    both = options(trained, cell, f"output_dir={folder}", f"threshold={least}")
    predict(config("predict", *alone))
    predict(config("predict", *both, "review=true"))
    labels = read_labels(folder / "cell_labels.tif").data
    assert np.array_equal(labels, read_labels(tmp_path / "alone" / "cell_labels.tif").data)
    others = read_labels(folder / "cell_candidates.tif").data
    rows = pd.read_csv(folder / "cell_candidates.csv")
    assert len(rows) > 0
    assert rows["best"].max() < least
    assert rows["suspicion"].between(0, 1).all()
    assert sorted(np.unique(others))[1:] == rows["label"].tolist()
    assert rows["label"].min() == labels.max() + 1
    assert not (labels[others > 0] > 0).any()
    predict(config("predict", *both, "overwrite=true"))  # without a review they are out of date
    assert not (folder / "cell_candidates.tif").exists()
    assert not (folder / "cell_candidates.csv").exists()
