from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from skimage.measure import regionprops_table

from isgseg.analysis.granules import granule_table, summary


def ball(
    shape: tuple[int, ...], centre: tuple[float, ...], radius: float, nm: tuple[float, ...]
) -> npt.NDArray[np.bool_]:
    """Voxels whose centres are within `radius` nm of `centre`, in voxels."""
    grid = np.indices(shape, dtype=float)
    offset = [(axis - middle) * size for axis, middle, size in zip(grid, centre, nm, strict=True)]
    return np.asarray(sum(o**2 for o in offset) <= radius**2)


def two_boxes() -> npt.NDArray[np.uint16]:
    labels = np.zeros((6, 8, 10), np.uint16)
    labels[1:3, 2:5, 3:7] = 9
    labels[4:6, 0, 0] = 2
    return labels


def test_ball_has_its_analytic_size_in_nm() -> None:
    nm = (20.0, 10.0, 12.5)
    labels = ball((30, 60, 50), (14, 31, 22), 200, nm).astype(np.uint16)
    (row,) = granule_table(labels, voxel_size=nm).to_dict("records")
    assert row["volume_nm3"] == pytest.approx(4 / 3 * math.pi * 200**3, rel=0.01)
    assert row["volume_um3"] == pytest.approx(row["volume_nm3"] / 1e9)
    assert row["equivalent_diameter_nm"] == pytest.approx(400, rel=0.004)
    assert row["equivalent_diameter_px"] == pytest.approx(400 / math.cbrt(math.prod(nm)), rel=0.004)
    assert [row[f"centroid_{axis}"] for axis in "zyx"] == pytest.approx([14, 31, 22])
    assert [row[f"centroid_{axis}_nm"] for axis in "zyx"] == pytest.approx([280, 310, 275])
    assert row["slices"] == 21
    assert not row["touches_border"]


def test_boxes_exactly() -> None:
    volume = np.arange(480, dtype=np.float32).reshape(6, 8, 10)
    labels = two_boxes()
    table = granule_table(labels, volume, (30, 30, 30))
    assert table["label"].tolist() == [2, 9]
    assert table["voxels"].tolist() == [2, 24]
    assert table[["z0", "y0", "x0", "z1", "y1", "x1"]].to_numpy().tolist() == [
        [4, 0, 0, 6, 1, 1],
        [1, 2, 3, 3, 5, 7],
    ]
    assert table["slices"].tolist() == [2, 2]
    assert table["touches_border"].tolist() == [True, False]
    assert table["mean_intensity"].tolist() == pytest.approx(
        [volume[labels == 2].mean(), volume[labels == 9].mean()]
    )


@pytest.mark.parametrize("side", range(6))
def test_every_side_is_a_border(side: int) -> None:
    labels = np.zeros((5, 5, 5), np.uint16)
    where: list[int] = [2, 2, 2]
    where[side % 3] = 0 if side < 3 else 4
    labels[tuple(where)] = 1
    assert granule_table(labels)["touches_border"].tolist() == [True]


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_agrees_with_scikit_image(dtype: str) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.integers(1, 300, (20, 30, 40)) * (rng.random((20, 30, 40)) < 0.2)).astype(dtype)
    volume = rng.random(labels.shape, dtype=np.float32)
    names = {
        "label": "label",
        "area": "voxels",
        "intensity_mean": "mean_intensity",
        **{f"centroid-{i}": f"centroid_{axis}" for i, axis in enumerate("zyx")},
        **{f"bbox-{i}": name for i, name in enumerate(("z0", "y0", "x0", "z1", "y1", "x1"))},
    }
    properties = ("label", "area", "intensity_mean", "centroid", "bbox")
    expected: dict[str, Any] = regionprops_table(labels, volume, properties=properties)
    table = granule_table(labels, volume)
    for theirs, ours in names.items():
        np.testing.assert_allclose(table[ours], expected[theirs], rtol=1e-5, err_msg=ours)


def test_more_labels_than_16_bits_and_sparse_ones() -> None:
    labels = np.arange(70_000, dtype=np.uint32).reshape(7, 100, 100)
    labels[0, 0, 0] = 4_000_000_000
    table = granule_table(labels)
    assert len(table) == 70_000
    assert table["voxels"].eq(1).all()
    assert table["label"].iloc[-1] == 4_000_000_000


def test_without_voxel_size_nm_stay_empty(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = granule_table(two_boxes())
    assert "no voxel size" in caplog.text
    empty = table.columns[table.isna().all()].tolist()
    assert empty == [
        *(f"centroid_{axis}_nm" for axis in "zyx"),
        "volume_nm3",
        "volume_um3",
        "equivalent_diameter_nm",
        "mean_intensity",
        "score",
        "supporting_slices",
    ]
    assert table["equivalent_diameter_px"].notna().all()


def test_what_is_known_of_labels_is_in_their_rows() -> None:
    labels = np.array([[[3, 0, 1]]], np.uint16)
    table = granule_table(
        labels, score=np.array([0.1, 0.2, 0.3]), supporting_slices=np.array([4, 5, 6])
    )
    assert table["label"].tolist() == [1, 3]
    assert table["score"].tolist() == [0.1, 0.3]
    assert table["supporting_slices"].tolist() == [4, 6]
    with pytest.raises(ValueError, match="label 3, but values of 2 granules"):
        granule_table(labels, score=np.array([0.1, 0.2]))


def test_no_granules_is_an_empty_table() -> None:
    empty = granule_table(np.zeros((3, 4, 5), np.uint16), np.ones((3, 4, 5)), (30, 30, 30))
    assert len(empty) == 0
    full = granule_table(two_boxes(), np.ones((6, 8, 10)), (30, 30, 30))
    assert empty.columns.tolist() == full.columns.tolist()
    assert summary(empty) == {"count": 0}


def test_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"\(6, 8, 10\) but the volume is \(6, 8, 9\)"):
        granule_table(two_boxes(), np.zeros((6, 8, 9)))


def test_summary() -> None:
    numbers = summary(granule_table(two_boxes(), voxel_size=(100, 100, 100)))
    assert numbers["count"] == 2
    assert numbers["volume_um3_mean"] == pytest.approx(0.013)
    assert numbers["volume_um3_min"] == pytest.approx(0.002)
    assert numbers["equivalent_diameter_nm_max"] == pytest.approx(100 * math.cbrt(24 * 6 / math.pi))
    assert set(summary(granule_table(two_boxes()))) == {"count"} | {
        f"{column}_{name}"
        for column in ("voxels", "equivalent_diameter_px")
        for name in ("mean", "median", "min", "max")
    }
