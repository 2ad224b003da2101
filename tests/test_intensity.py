"""Grey values of bodies whose grey values are known."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from test_granules import ball

from isgseg.analysis.intensity import COLUMNS, intensity_columns, mode, sample
from isgseg.errors import InputError

SIZE = (30.0, 30.0, 30.0)
INSIDE, OUTSIDE = 0.0145, 0.0101


def cell() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.float32]]:
    """Two granules of one value each in a cytoplasm of a third."""
    labels = np.zeros((20, 24, 40), np.uint16)
    labels[ball(labels.shape, (9, 11, 10), 150, SIZE)] = 2
    labels[ball(labels.shape, (9, 11, 28), 120, SIZE)] = 9
    volume = np.full(labels.shape, OUTSIDE, np.float32)
    volume[labels == 2], volume[labels == 9] = INSIDE, 2 * OUTSIDE
    return labels, volume


def test_constant_balls_exactly() -> None:
    labels, volume = cell()
    table = intensity_columns(labels, volume, SIZE, np.ones(labels.shape, bool))
    assert table.index.tolist() == [2, 9]
    assert table.columns.tolist() == list(COLUMNS)
    assert table["core_intensity"].tolist() == pytest.approx([INSIDE, 2 * OUTSIDE])
    assert table["intensity_sd"].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert table["contrast"].tolist() == pytest.approx([INSIDE / OUTSIDE, 2])
    assert table["lac_mean"].tolist() == pytest.approx([INSIDE / 0.03, 2 * OUTSIDE / 0.03])
    assert table["lac_core"].tolist() == pytest.approx(table["lac_mean"].tolist())


def test_the_standard_deviation_is_that_of_numpy() -> None:
    labels, _ = cell()
    volume = np.random.default_rng(0).normal(10, 1, labels.shape).astype(np.float32)
    table = intensity_columns(labels, volume)
    for label in (2, 9):
        values = volume[labels == label].astype(np.float64)
        assert table.loc[label, "intensity_sd"] == pytest.approx(values.std())


def test_the_core_is_what_a_distance_transform_says() -> None:
    labels, _ = cell()
    labels[9, 11, 14] = 9  # touching: another granule is outside too
    volume = np.random.default_rng(0).random(labels.shape, dtype=np.float32)
    table = intensity_columns(labels, volume)
    for label in (2, 9):
        depth = ndimage.distance_transform_edt(labels == label)
        assert table.loc[label, "core_intensity"] == pytest.approx(volume[depth > 1].mean())


def test_a_granule_without_a_core_is_all_core_and_one_at_the_edge_has_one() -> None:
    labels = np.zeros((6, 8, 8), np.uint16)
    labels[2:4, 2:4, 2:4] = 1
    labels[0:2, 5:8, 5:8] = 2  # its one inner voxel in z is at the volume's edge
    volume = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    table = intensity_columns(labels, volume)
    assert table.loc[1, "core_intensity"] == pytest.approx(volume[labels == 1].mean())
    assert table.loc[2, "core_intensity"] == pytest.approx(volume[0, 6:8, 6:8].mean())


def test_the_core_of_a_blurred_ball_is_near_the_value_at_its_centre() -> None:
    radius, sigma = 6.0, 1.2
    truth = ball((25, 25, 25), (12, 12, 12), radius, (1, 1, 1))
    volume = ndimage.gaussian_filter(truth.astype(np.float64), sigma)
    u = radius / (math.sqrt(2) * sigma)
    centre = math.erf(u) - 2 / math.sqrt(math.pi) * u * math.exp(-(u**2))
    table = intensity_columns(truth.astype(np.uint8), volume)
    assert volume[12, 12, 12] == pytest.approx(centre, abs=1e-3)
    assert volume[truth].mean() < table["core_intensity"].iloc[0] < centre


def test_contrast_is_to_the_mode_of_the_cytoplasm_alone() -> None:
    labels, _ = cell()
    rng = np.random.default_rng(0)
    volume = rng.normal(100, 5, labels.shape)
    volume[:, :, 20:] += 40  # another half, brighter
    left = np.zeros(labels.shape, bool)
    left[:, :, :20] = True
    table = intensity_columns(labels, volume, SIZE, left)
    expected = [volume[labels == label].mean() / 100 for label in (2, 9)]
    assert table["contrast"].tolist() == pytest.approx(expected, rel=0.02)
    for nothing in (None, np.zeros(labels.shape, bool)):
        assert intensity_columns(labels, volume, SIZE, nothing)["contrast"].isna().all()


def test_no_contrast_to_a_value_that_is_not_positive(caplog: pytest.LogCaptureFixture) -> None:
    labels, volume = cell()
    with caplog.at_level(logging.WARNING):
        table = intensity_columns(labels, volume - 1, SIZE, np.ones(labels.shape, bool))
    assert table["contrast"].isna().all()
    assert "not positive" in caplog.text


@pytest.mark.parametrize("bright", [0.0, 0.2, 0.4])
def test_the_mode_is_where_most_values_are(bright: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.0101, 0.0005, 50_000)
    values[: int(bright * len(values))] = rng.normal(0.0145, 0.001, int(bright * len(values)))
    assert mode(values) == pytest.approx(0.0101, rel=0.01)
    assert mode(np.full(5, 3.0)) == 3
    assert mode(np.array([2.5])) == 2.5


def test_a_sample_of_a_large_mask_is_even_and_no_larger_than_asked() -> None:
    volume = np.arange(60_000, dtype=np.float32).reshape(30, 40, 50)
    mask = volume % 2 == 0
    drawn = sample(volume, mask, 5000)
    assert 4500 < len(drawn) < 5500
    assert (drawn % 2 == 0).all()
    assert drawn.mean() == pytest.approx(volume.mean(), rel=0.03)
    np.testing.assert_array_equal(sample(volume, mask), volume[mask])


@pytest.mark.parametrize(
    ("scale", "dtype", "size", "lac", "told"),
    [
        (1, np.float32, SIZE, "auto", True),
        (1, np.float32, SIZE, False, False),
        (1, np.float32, None, "auto", False),  # no voxel size
        (1, np.float32, (60.0, 30.0, 30.0), "auto", False),  # whose side?
        (33, np.float32, SIZE, "auto", False),  # 1/um already
        (60, np.float32, SIZE, "auto", False),  # 0 to 1
        (10_000, np.uint8, SIZE, "auto", False),
        (60, np.float32, SIZE, True, True),
    ],
)
def test_when_values_are_taken_for_a_lac(
    scale: float, dtype: Any, size: Any, lac: Any, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    labels, volume = cell()
    with caplog.at_level(logging.INFO):
        table = intensity_columns(labels, (scale * volume).astype(dtype), size, None, lac)
    assert table["lac_mean"].notna().all() == told
    assert ("LAC per voxel" in caplog.text) == (told and lac == "auto")
    if told:
        assert table["lac_mean"].iloc[0] == pytest.approx(scale * INSIDE / 0.03, rel=1e-3)


@pytest.mark.parametrize("size", [None, (60.0, 30.0, 30.0)])
def test_lac_true_needs_cubic_voxels(size: Any) -> None:
    labels, volume = cell()
    with pytest.raises(InputError, match="lac=true, but the voxel size is"):
        intensity_columns(labels, volume, size, lac=True)


def test_no_granules_and_other_shapes() -> None:
    empty = intensity_columns(np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 5)), SIZE)
    assert len(empty) == 0
    assert empty.columns.tolist() == list(COLUMNS)
    with pytest.raises(ValueError, match=r"\(3, 4, 5\), but another array is \(3, 4, 6\)"):
        intensity_columns(np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 6)))
