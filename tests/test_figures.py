from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from isgseg.analysis.figures import (
    contrast_limits,
    granule_figure,
    label_colours,
    overlay,
    richest_slice,
)
from isgseg.errors import InputError


@pytest.fixture
def cell() -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Cytoplasm of .0101 with noise, three granules of .0145, a blank band and a huge bead."""
    rng = np.random.default_rng(0)
    volume = rng.normal(0.0101, 0.0005, (5, 80, 100)).astype(np.float32)
    labels = np.zeros(volume.shape, np.uint16)
    for number, (z, y, x) in enumerate([(2, 20, 60), (2, 30, 70), (3, 60, 80)], start=1):
        labels[z : z + 2, y : y + 6, x : x + 6] = number
    volume[labels > 0] = 0.0145
    volume[:, :10] = 0
    volume[:, 30:, :50] = 0.06
    return volume, labels


def test_a_bead_and_a_blank_band_do_not_set_the_contrast(
    cell: tuple[npt.NDArray[Any], npt.NDArray[Any]],
) -> None:
    volume, labels = cell
    for mask in (labels[3] > 0, np.zeros(labels[3].shape, bool)):
        low, high = contrast_limits(volume[3], mask)
        cytoplasm = (0.0101 - low) / (high - low)
        assert 0.3 < cytoplasm < 0.7
        assert high < 0.03
    low, high = contrast_limits(volume[3], labels[3] > 0)
    assert 0.75 < (0.0145 - low) / (high - low) <= 1


def test_contrast_of_a_constant_image() -> None:
    low, high = contrast_limits(np.full((9, 9), 7), np.zeros((9, 9), bool))
    assert low < 7 < high


def test_richest_slice(cell: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> None:
    assert richest_slice(cell[1]) == 3
    assert richest_slice(np.zeros((7, 4, 4), np.uint16)) == 3


@pytest.mark.parametrize("voxel_size", [None, (30, 30, 30), (60, 60, 30), (3000, 3000, 3000)])
def test_figure_is_a_image_in_place(
    tmp_path: Path,
    cell: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    voxel_size: tuple[float, ...] | None,
) -> None:
    path = granule_figure(*cell, voxel_size, tmp_path / "new" / "cell.png", name="cell.mrc")
    image = matplotlib.image.imread(path)
    assert image.shape[1] > 2000
    coloured = np.ptp(image[..., :3], axis=2) > 0.2
    left, middle, right = np.array_split(coloured, 3, axis=1)
    assert not left.any()
    assert middle.any()
    assert right.any()
    assert [file.name for file in path.parent.iterdir()] == ["cell.png"]


def test_figure_without_granules(tmp_path: Path) -> None:
    empty = np.zeros((3, 20, 30), np.uint16)
    assert granule_figure(empty, empty, None, tmp_path / "a.png").is_file()


def test_figure_errors(tmp_path: Path, cell: tuple[npt.NDArray[Any], npt.NDArray[Any]]) -> None:
    volume, labels = cell
    with pytest.raises(ValueError, match=r"\(4, 80, 100\) but the volume is \(5, 80, 100\)"):
        granule_figure(volume, labels[:4], None, tmp_path / "a.png")
    with pytest.raises(ValueError, match="no slice 5; choose one of 0 to 4"):
        granule_figure(volume, labels, None, tmp_path / "a.png", z=5)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        granule_figure(volume, labels, None, tmp_path / "file" / "a.png")
    with pytest.raises(ValueError, match="not supported"):
        granule_figure(volume, labels, None, tmp_path / "a.xyz")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_label_keeps_its_colour_and_background_is_transparent() -> None:
    first = label_colours(np.array([[0, 1, 2], [3, 3, 70_000]]))
    second = label_colours(np.array([[70_000, 9, 0]]))
    np.testing.assert_array_equal(first[1, 2], second[0, 0])
    np.testing.assert_array_equal(first[1, 0], first[1, 1])
    assert first[0, 0, 3] == second[0, 2, 3] == 0
    assert (first[..., 3] == [[0, 1, 1], [1, 1, 1]]).all()


def test_nearby_numbers_have_distinct_colours() -> None:
    rgb = label_colours(np.arange(1, 2001)[None])[0, :, :3]
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    for apart in range(1, 31):
        assert np.linalg.norm(rgb[apart:] - rgb[:-apart], axis=1).min() > 0.08


def square(size: int, *corners: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    masks = np.zeros((len(corners), size, size), bool)
    for mask, (y, x, side) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = True
    return masks


def test_overlay_outlines_ground_truth_green_prediction_magenta_both_white() -> None:
    image = np.random.default_rng(0).integers(90, 110, (800, 800)).astype(np.uint8)
    target = square(800, (10, 10, 8), (100, 100, 8))
    prediction = square(800, (50, 50, 8), (100, 100, 8))
    drawn = overlay(image, target, prediction)
    assert drawn.shape == (800, 800, 3)
    assert drawn.dtype == np.uint8
    colour = np.ptp(drawn.astype(int), axis=2) > 0
    assert colour.sum() == 2 * 28  # the outline of an 8 x 8 square
    assert drawn[10, 10:18].tolist() == [[0, 255, 0]] * 8
    assert drawn[50, 50:58].tolist() == [[255, 0, 255]] * 8
    assert drawn[100, 100:108].tolist() == [[255, 255, 255]] * 8
    assert not colour[11:17, 11:17].any()


def test_overlay_enlarges_small_images_by_whole_factors() -> None:
    image = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    drawn = overlay(image, square(64, (10, 10, 5)), square(64))
    assert drawn.shape == (768, 768, 3)
    green = (drawn == (0, 255, 0)).all(axis=2)
    assert green.sum() == 4 * 60 - 4
    assert green[120, 120:180].all()


def test_overlay_without_masks_is_grey() -> None:
    image = overlay(np.random.default_rng(0).random((256, 256)), square(256), square(256))
    assert (np.ptp(image, axis=2) == 0).all()
    assert image.std() > 20


def test_overlay_masks_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"\(0, 64, 64\).*\(32, 32\)"):
        overlay(np.zeros((32, 32)), square(32), square(64))
