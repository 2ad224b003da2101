"""Shapes of digitized bodies whose shape is known; `benchmarks/shape.py` has many more of them."""

from __future__ import annotations

import logging
import math

import numpy as np
import numpy.typing as npt
import pytest
from test_granules import ball

from isgseg.analysis.shape import (
    COLUMNS,
    direction_shares,
    grid_scatter,
    second_moments,
    shape_columns,
    surfaces,
)
from isgseg.analysis.voxels import HALF, granule_voxels

CUBES, LONG = (30.0, 30.0, 30.0), (60.0, 30.0, 30.0)
Labels = npt.NDArray[np.uint16]


def ellipsoid(
    semi: tuple[float, float, float], turn: npt.NDArray[np.float64], size: tuple[float, ...]
) -> Labels:
    """One of semi-axes in nm, turned, in the middle of a box with room around it."""
    shape = [2 * math.ceil(max(semi) / side) + 5 for side in size]
    grid = np.indices(shape).reshape(3, -1).T
    offset = (grid - (np.array(shape) - 1) / 2 - 0.21) * size
    return np.asarray(((offset @ turn / semi) ** 2).sum(1) <= 1, np.uint16).reshape(shape)


def balls(diameter: float, size: tuple[float, ...], count: int, seed: int = 0) -> Labels:
    """Balls of a diameter in nm at random offsets from the grid, apart from each other."""
    rng = np.random.default_rng(seed)
    box = [math.ceil(diameter / side) + 4 for side in size]
    parts = []
    for label in range(1, count + 1):
        middle = (np.array(box) - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
        parts.append(ball(tuple(box), tuple(middle), diameter / 2, size).astype(np.uint16) * label)
    return np.concatenate(parts, axis=2)


@pytest.mark.parametrize("size", [CUBES, LONG, (30.0, 45.0, 36.0)])
@pytest.mark.parametrize("voxels_across", [5, 7, 10])
def test_balls_have_no_bias_that_matters(size: tuple[float, ...], voxels_across: int) -> None:
    diameter = voxels_across * math.cbrt(math.prod(size))
    table = shape_columns(balls(diameter, size, 60), size)
    truth = {"surface_um2": math.pi * diameter**2 / 1e6, "sphericity": 1.0}
    if voxels_across > 5:
        truth["aspect_ratio"] = 1.0
    for column, value in truth.items():
        ratio = table[column] / value
        assert abs(ratio.mean() - 1) < 0.03, column
        assert ratio.std() < 0.05, column


@pytest.mark.parametrize("size", [CUBES, LONG])
def test_what_is_too_small_is_not_told(size: tuple[float, ...]) -> None:
    side = math.cbrt(math.prod(size))
    assert shape_columns(balls(3.5 * side, size, 20), size).isna().all(axis=None)
    small = shape_columns(balls(5.2 * side, size, 20), size)
    assert small[["aspect_ratio", "axis_z"]].isna().all(axis=None)
    assert small[["surface_um2", "sphericity"]].notna().all(axis=None)


@pytest.mark.parametrize("size", [CUBES, LONG])
@pytest.mark.parametrize("longest", [(1, 0, 0), (0, 1, 0), (0.6, 0, -0.8), (1, 1, 1)])
def test_an_ellipsoid_has_its_axes_and_its_surface(
    size: tuple[float, ...], longest: tuple[float, ...]
) -> None:
    semi = (420.0, 300.0, 300.0)
    direction = np.array(longest) / np.linalg.norm(longest)
    turn = np.linalg.qr(np.column_stack([direction, np.eye(3)]))[0]
    (row,) = shape_columns(ellipsoid(semi, turn, size), size).to_dict("records")
    assert row["aspect_ratio"] == pytest.approx(1.4, rel=0.02)
    axis = np.array([row["axis_z"], row["axis_y"], row["axis_x"]])
    assert np.linalg.norm(axis) == pytest.approx(1)
    assert abs(axis @ direction) > 0.999
    assert axis[np.abs(axis).argmax()] > 0
    eccentricity = math.sqrt(1 - (300 / 420) ** 2)
    surface = 2 * math.pi * 300**2 * (1 + 1.4 / eccentricity * math.asin(eccentricity)) / 1e6
    error = 0.01 if size == CUBES else 0.025  # long voxels have fewer directions across
    assert row["surface_um2"] == pytest.approx(surface, rel=error)
    sphere = math.pi * (2 * math.cbrt(420 * 300 * 300)) ** 2 / 1e6
    assert row["sphericity"] == pytest.approx(sphere / surface, rel=error)


def test_moments_of_a_block_are_those_of_the_solid() -> None:
    labels = np.zeros((8, 12, 12), np.uint8)
    labels[2:4, 3:7, 1:9] = 5
    size = np.array([40.0, 30.0, 20.0])
    (moments,) = second_moments(granule_voxels(labels), size)
    np.testing.assert_allclose(moments, np.diag((np.array([2, 4, 8]) * size) ** 2 / 12), atol=1e-9)


def test_weights_of_directions_are_those_of_the_cube_and_sum_to_one() -> None:
    shares = direction_shares(np.ones(3))
    steps = np.abs(HALF).sum(axis=1)
    # Ohser and Muecklich 2000: of one of the two opposite directions.
    for kind, share in {1: 0.04578, 2: 0.03698, 3: 0.03519}.items():
        assert shares[steps == kind] / 2 == pytest.approx(share, abs=1e-5)
    assert direction_shares(np.array([60.0, 30, 36])).sum() == pytest.approx(1)


@pytest.mark.parametrize("size", [CUBES, LONG])
def test_the_scatter_of_volumes_is_as_calculated(size: tuple[float, ...]) -> None:
    side = np.array(size)
    measured, expected = [], []
    swings = np.linspace(6, 8, 13, endpoint=False)  # about the mean, once in a voxel
    for seed, diameter in enumerate(swings * np.cbrt(side.prod())):
        count = granule_voxels(balls(diameter, size, 40, seed)).counts
        measured.append(count.var() / count.mean() ** 2)
        expected.append(grid_scatter(np.array([diameter]), side)[0] ** 2)
    assert np.mean(measured) == pytest.approx(np.mean(expected), rel=0.2)


def test_touching_granules_are_measured_apart_and_any_label_will_do() -> None:
    one = balls(300, CUBES, 1)
    alone = shape_columns(one, CUBES).iloc[0]
    both = np.concatenate([one[:, :, :-2] * 3, one[:, :, 2:].astype(np.uint32) * 70_000], axis=2)
    table = shape_columns(both, CUBES)
    assert table.index.tolist() == [3, 70_000]
    for _, row in table.iterrows():
        np.testing.assert_allclose(row, alone, rtol=1e-9)


@pytest.mark.parametrize("side", range(6))
def test_at_the_border_nothing_is_told(side: int) -> None:
    labels = ball((17, 17, 17), (8, 8, 8), 150, CUBES).astype(np.uint16)
    assert shape_columns(labels, CUBES)["sphericity"].notna().all()
    cut = np.moveaxis(labels, side % 3, 0)
    cut = cut[6:] if side < 3 else cut[:-6]
    table = shape_columns(np.moveaxis(cut, 0, side % 3), CUBES)
    assert len(table) == 1
    assert table.isna().all(axis=None)


def test_plates_are_not_told() -> None:
    labels = np.zeros((6, 30, 30), np.uint8)
    labels[2:4, 2:25, 2:25] = 1
    assert shape_columns(labels, CUBES).isna().all(axis=None)


def test_without_a_voxel_size_voxels_are_cubes(caplog: pytest.LogCaptureFixture) -> None:
    labels = balls(300, CUBES, 3)
    with caplog.at_level(logging.WARNING):
        table = shape_columns(labels)
    assert "as if the voxels were cubes" in caplog.text
    assert table["surface_um2"].isna().all()
    known = shape_columns(labels, CUBES)
    for column in COLUMNS:
        if column != "surface_um2":
            np.testing.assert_allclose(table[column], known[column], err_msg=column)


def test_no_granules_is_an_empty_table() -> None:
    table = shape_columns(np.zeros((3, 4, 5), np.uint16), CUBES)
    assert len(table) == 0
    assert table.columns.tolist() == list(COLUMNS)


def test_surface_is_independent_of_what_else_is_there() -> None:
    labels = balls(300, CUBES, 4)
    voxels = granule_voxels(labels)
    together = surfaces(voxels, labels, np.array(CUBES))
    for row, name in enumerate(voxels.labels):
        one = np.where(labels == name, labels, 0)
        assert surfaces(granule_voxels(one), one, np.array(CUBES)) == pytest.approx(together[row])
