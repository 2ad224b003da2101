from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from conftest import Compose, balls, real_data

from isgseg.labelling import Labelling, grey_of, label_volume
from isgseg.model.checkpoint import load_module
from isgseg.predict import predict
from isgseg.volume import read_labels, read_volume, write_volume

SIZE = (30.0, 30.0, 30.0)


@pytest.fixture(scope="module")
def volume() -> np.ndarray[Any, Any]:
    """Seven slices as the network knows them: cylinders at 1.6 on 1.0, with blank ends."""
    data = balls(7, 30)[0]
    data[:, :, :8] += 0.6
    return data * 100


@pytest.fixture
def cell(tmp_path: Path, volume: np.ndarray[Any, Any]) -> Path:
    return write_volume(tmp_path / "cell.mrc", volume.astype(np.float32), SIZE)


def options(trained: Path, volumes: object, *more: str) -> list[str]:
    return [
        f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
        f"volumes={volumes}",
        "normalization={method:window,low:0,high:255}",
        "precision=32-true",
        "progress=false",
        "device=cpu",
        *more,
    ]


@pytest.mark.parametrize("suffix", ["tif", "mrc"])
def test_labels_have_the_shape_and_voxel_size_of_the_volume(
    trained: Path, cell: Path, config: Compose, suffix: str
) -> None:
    (path,) = predict(config("predict", *options(trained, cell, f"format={suffix}")))
    assert path.name == f"cell_labels.{suffix}"
    labels = read_labels(path)
    assert labels.data.shape == (7, 64, 64)
    assert labels.voxel_size == pytest.approx(SIZE)
    assert labels.data.dtype == np.uint16
    if suffix == "tif":
        with tifffile.TiffFile(path) as tif:
            assert tif.imagej_metadata is not None
            assert tif.imagej_metadata["spacing"] > 0
    else:
        with mrcfile.open(path) as mrc:
            assert float(mrc.voxel_size.x) == pytest.approx(300.0)


def test_each_granule_has_one_number_through_all_slices(
    trained: Path, cell: Path, config: Compose
) -> None:
    (path,) = predict(config("predict", *options(trained, cell)))
    found = read_labels(path).data
    truth = balls(7, 30)[1]
    assert set(np.unique(found)) == set(range(int(found.max()) + 1))
    owners = []
    for number in range(1, int(truth.max()) + 1):
        inside = found[truth == number]
        values, counts = np.unique(inside[inside > 0], return_counts=True)
        assert len(values) > 0, "a granule was missed"
        assert counts.max() > 0.8 * counts.sum()
        owners.append(int(values[counts.argmax()]))
    assert len(set(owners)) == len(owners)
    assert not found[0].any()
    assert not found[-1].any()


def test_a_volume_without_granules_is_all_background(
    trained: Path, tmp_path: Path, config: Compose
) -> None:
    noise = np.random.default_rng(0).normal(100, 5, (3, 64, 64)).astype(np.float32)
    empty = write_volume(tmp_path / "empty.mrc", noise, None)
    (path,) = predict(config("predict", *options(trained, empty)))
    labels = read_labels(path)
    assert labels.data.shape == noise.shape
    assert not labels.data.any()
    assert labels.voxel_size is None


def test_the_threshold_decides_how_many(trained: Path, volume: np.ndarray[Any, Any]) -> None:
    module = load_module(trained / "isg_mask_rcnn_final.pth")
    module.hparams["facts"]["normalization"] = {"method": "window", "low": 0, "high": 255}
    grey = grey_of(module, volume, "cell")

    def voxels(threshold: float, **settings: Any) -> int:
        granules = label_volume(
            module,
            volume,
            grey,
            threshold=threshold,
            labelling=Labelling(**settings),
            precision="32-true",
            progress=False,
        )
        return int((granules.labels > 0).sum())

    some = voxels(0.5)
    assert some > voxels(0.9999)
    assert some > voxels(0.5, mask_threshold=0.9)
    assert voxels(0.5, min_pixels=500) == 0
    assert voxels(0.5, min_diameter=60) == 0


def test_thresholds_are_the_checkpoints_unless_given(
    trained: Path, cell: Path, config: Compose, tmp_path: Path
) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    counts = {}
    for name, thresholds, more in (
        ("half", {"threshold": 0.5, "mask_threshold": 0.5}, ()),
        ("high", {"threshold": 1.0, "mask_threshold": 0.5}, ()),
        ("given", {"threshold": 1.0, "mask_threshold": 0.5}, ("threshold=0.5",)),
        ("thin", {"threshold": 0.5, "mask_threshold": 0.9}, ()),
        ("full", {"threshold": 0.5, "mask_threshold": 0.9}, ("labelling.mask_threshold=0.5",)),
    ):
        content["hyper_parameters"]["thresholds"] = thresholds
        folder = tmp_path / name
        folder.mkdir()
        torch.save(content, folder / "isg_mask_rcnn_final.pth")
        out = f"output_dir={folder}"
        (path,) = predict(config("predict", *options(folder, cell, out, *more)))
        counts[name] = np.count_nonzero(read_labels(path).data)
    assert counts["high"] == 0
    assert 0 < counts["thin"] < counts["half"] == counts["given"] == counts["full"]


def test_a_bright_voxel_changes_no_granule_in_another_slice(
    trained: Path, volume: np.ndarray[Any, Any]
) -> None:
    module = load_module(trained / "isg_mask_rcnn_final.pth")
    module.hparams["facts"]["normalization"] = {"method": "mode", "low": None, "high": None}
    bright = volume.copy()
    bright[0, 2, 2] = 1e6
    before, after = (
        label_volume(module, data, grey_of(module, data, "cell"), progress=False).labels
        for data in (volume, bright)
    )
    assert np.mean((before[1:] > 0) != (after[1:] > 0)) < 0.001


def test_existing_labels_are_not_overwritten(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    arguments = options(trained, cell, f"output_dir={tmp_path / 'labels'}")
    (path,) = predict(config("predict", *arguments))
    with pytest.raises(FileExistsError, match=r"cell_labels\.tif exists; set overwrite=true"):
        predict(config("predict", *arguments))
    path.unlink()
    with pytest.raises(FileExistsError, match=r"cell_granules\.csv exists; set overwrite=true"):
        predict(config("predict", *arguments))
    predict(config("predict", *arguments, "overwrite=true"))


@pytest.mark.parametrize("labelling", ["linked", "slices", "consensus"])
def test_labels_and_table_agree(
    trained: Path, tmp_path: Path, config: Compose, labelling: str
) -> None:
    zyx = np.indices((64, 64, 64))
    grey = np.random.default_rng(0).normal(100, 5, zyx.shape[1:]).astype(np.float32)
    for centre in ((12, 20, 20), (30, 45, 25), (50, 30, 48)):  # discs across any axis
        grey[((zyx.T - centre) ** 2).sum(-1).T <= 36] += 60
    cell = write_volume(tmp_path / "cell.mrc", grey, SIZE)
    half = ["threshold=0.5", "labelling.mask_threshold=0.5"]
    arguments = options(trained, cell, f"labelling={labelling}", "labelling.min_votes=2", *half)
    (path,) = predict(config("predict", *arguments))
    labels = read_labels(path).data
    table = pd.read_csv(path.with_name("cell_granules.csv"))
    numbers, voxels = np.unique(labels[labels > 0], return_counts=True)
    assert len(numbers) > 0
    assert table["label"].tolist() == numbers.tolist()
    assert table["voxels"].tolist() == voxels.tolist()
    least = 0.5 if labelling == "slices" else 0.25  # one slice reaches .5, the others half of it
    assert table["score"].between(least, 1).all()
    for row in table.to_dict("records"):
        where = np.argwhere(labels == row["label"])
        centroid = where.mean(0)
        assert [row[f"centroid_{axis}"] for axis in "zyx"] == pytest.approx(centroid)
        assert row["centroid_y_nm"] == pytest.approx(30 * centroid[1])
        assert row["volume_nm3"] == pytest.approx(len(where) * 27_000)
        edge = (where == 0) | (where == np.array(labels.shape) - 1)
        assert row["touches_border"] == edge.any()
    if labelling == "linked":
        assert (table["supporting_slices"] <= table["slices"]).all()
    if labelling == "slices":
        assert (table["supporting_slices"] == 1).all()


def test_what_linking_drops_is_told(
    trained: Path, cell: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (path,) = predict(config("predict", *options(trained, cell, "labelling.min_slices=8")))
    assert not read_labels(path).data.any()
    assert len(pd.read_csv(path.with_name("cell_granules.csv"))) == 0
    dropped = re.search(r"cell\.mrc: dropped (\d+) granules", caplog.text)
    assert dropped
    assert int(dropped[1]) >= 6


def test_two_volumes_of_one_name_are_refused(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    other = write_volume(tmp_path / "other" / "cell.mrc", np.ones((2, 8, 8), np.float32), None)
    with pytest.raises(ValueError, match="would both be written"):
        predict(config("predict", *options(trained, f"[{cell},{other}]")))


def test_a_bad_volume_does_not_keep_the_others_back(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    (tmp_path / "bad.mrc").write_bytes(b"no volume")
    folder = tmp_path / "labels"
    with pytest.raises(ValueError, match=r"1 of 2 volumes were not labelled: bad\.mrc"):
        predict(config("predict", *options(trained, f"{tmp_path}/*.mrc", f"output_dir={folder}")))
    assert {path.name for path in folder.iterdir()} == {"cell_labels.tif", "cell_granules.csv"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=png", "choose tif or mrc"),
        ("volumes=nowhere.mrc", "nowhere"),
        ("normalization={method:median}", "choose one of mode, window, percentile"),
        ("precision=64", "choose auto"),
    ],
)
def test_bad_settings_are_named(
    trained: Path,
    cell: Path,
    config: Compose,
    override: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises((ValueError, OSError)) as caught:
        predict(config("predict", *options(trained, cell), override))
    assert message in str(caught.value) + caplog.text


def test_other_voxel_sizes_are_warned_of(
    trained: Path,
    volume: np.ndarray[Any, Any],
    tmp_path: Path,
    config: Compose,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import torch

    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    content["hyper_parameters"]["facts"]["voxel_size"] = [30.0, 30.0, 30.0]
    torch.save(content, tmp_path / "isg_mask_rcnn_final.pth")
    coarse = write_volume(tmp_path / "coarse.mrc", volume[:1].astype(np.float32), (60.0,) * 3)
    predict(config("predict", *options(tmp_path, coarse)))
    assert "granules will look 2 times as large or small" in caplog.text


def test_unwritable_output_is_named(
    trained: Path, cell: Path, tmp_path: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="were not labelled"):
        predict(config("predict", *options(trained, cell, f"output_dir={tmp_path}/file/labels")))
    assert "file/labels" in caplog.text


@pytest.mark.slow
def test_public_files_of_other_programs_get_labels_or_a_refusal(
    trained: Path, tmp_path: Path, config: Compose
) -> None:
    files = [*sorted(real_data("mrc_files").iterdir()), real_data("sxt_lac_cell.mrc")]
    for path in files:
        arguments = options(trained, path, f"output_dir={tmp_path}", "format=mrc", "overwrite=true")
        arguments.remove("normalization={method:window,low:0,high:255}")
        (target,) = predict(config("predict", *arguments))
        original, labels = read_volume(path), read_labels(target)
        assert labels.data.shape == original.data.shape
        assert (labels.voxel_size is None) == (original.voxel_size is None)
        if original.voxel_size is not None:
            assert labels.voxel_size == pytest.approx(original.voxel_size, rel=1e-4)


def test_the_console_script_labels(trained: Path, cell: Path, tmp_path: Path) -> None:
    arguments = options(trained, cell, f"output_dir={tmp_path}", f"paths.root={tmp_path}/out")
    subprocess.run([sys.executable, "-m", "isgseg.predict", *arguments], check=True)
    assert read_labels(tmp_path / "cell_labels.tif").data.any()
