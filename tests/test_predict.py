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

from isgseg.errors import InputError
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume, read_labels, read_volume, write_volume
from isgseg.predict import predict

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
    ground_truth = balls(7, 30)[1]
    assert set(np.unique(found)) == set(range(int(found.max()) + 1))
    owners = []
    for number in range(1, int(ground_truth.max()) + 1):
        inside = found[ground_truth == number]
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
    def voxels(threshold: float, **settings: Any) -> int:
        predictor = Predictor.from_checkpoint(
            trained / "isg_mask_rcnn_final.pth",
            threshold=threshold,
            normalization={"method": "window", "low": 0, "high": 255},
            segmentation=settings,
            precision="32-true",
            progress=False,
        )
        return int((predictor.segment(Volume(volume, None)).labels > 0).sum())

    some = voxels(0.5)
    assert some > voxels(0.9999)
    assert some > voxels(0.5, mask_threshold=0.9)
    assert voxels(0.5, min_pixels=500) == 0
    assert voxels(0.5, min_diameter_nm=60) == 0


def test_thresholds_are_the_checkpoints_unless_given(
    trained: Path, cell: Path, config: Compose, tmp_path: Path
) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    counts = {}
    for name, thresholds, more in (
        ("half", (0.5, 0.5, 0.5), ()),
        ("high", (1.0, 0.5, 1.0), ()),
        ("given", (1.0, 0.5, 1.0), ("threshold=0.5",)),
        ("thin", (0.5, 0.9, 0.5), ()),
        ("full", (0.5, 0.9, 0.5), ("segmentation.mask_threshold=0.5",)),
    ):
        content["thresholds"] = dict(zip(("score", "mask", "object"), thresholds, strict=True))
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
    predictor = Predictor.from_checkpoint(
        trained / "isg_mask_rcnn_final.pth", normalization={"method": "mode"}, progress=False
    )
    bright = volume.copy()
    bright[0, 2, 2] = 1e6
    before, after = (predictor.segment(Volume(data, None)).labels for data in (volume, bright))
    assert np.mean((before[1:] > 0) != (after[1:] > 0)) < 0.001


def test_a_second_run_keeps_what_is_complete_and_makes_what_is_missing(
    trained: Path, cell: Path, tmp_path: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "labels"
    other = write_volume(tmp_path / "other.mrc", read_volume(cell).data, SIZE)
    both = options(trained, f"[{cell},{other}]", f"output_dir={folder}")
    (path,) = predict(config("predict", *options(trained, cell, f"output_dir={folder}")))
    files = [path, folder / "cell_granules.csv", folder / "cell_labels.json"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    kept, made = predict(config("predict", *both))
    assert (kept, made) == (path, folder / "other_labels.tif")
    assert "kept" in caplog.text
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before
    path.unlink()  # as if killed before the labels, which are written last
    assert predict(config("predict", *both)) == [kept, made]
    assert path.read_bytes() == before[path][0]


def test_results_made_otherwise_are_replaced_on_demand_only(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    arguments = options(trained, cell, f"output_dir={tmp_path / 'labels'}")
    (path,) = predict(config("predict", *arguments))
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"cell_labels\.tif exists.* another threshold"):
        predict(config("predict", *arguments, "threshold=1"))
    assert path.read_bytes() == before
    predict(config("predict", *arguments, "threshold=1", "overwrite=true"))
    assert not read_labels(path).data.any()


@pytest.mark.parametrize("name", ["cell_labels.tif", "cell_granules.csv", "cell_labels.json"])
def test_files_of_others_are_never_replaced(
    trained: Path, cell: Path, tmp_path: Path, config: Compose, name: str
) -> None:
    theirs = tmp_path / "labels" / name
    theirs.parent.mkdir()
    theirs.write_text("by hand")
    arguments = options(trained, cell, f"output_dir={theirs.parent}")
    with pytest.raises(FileExistsError, match=rf"{name} exists; set overwrite=true or another"):
        predict(config("predict", *arguments))
    with pytest.raises(FileExistsError, match=rf"{name} was not written by isgseg-predict"):
        predict(config("predict", *arguments, "overwrite=true"))
    assert theirs.read_text() == "by hand"
    assert len(list(theirs.parent.iterdir())) == 1


def test_labels_that_were_corrected_by_hand_are_not_replaced(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    arguments = options(trained, cell, f"output_dir={tmp_path / 'labels'}")
    (path,) = predict(config("predict", *arguments))
    labels = read_labels(path)
    labels.data[3, :4, :4] = labels.data.max() + 1
    write_volume(path, labels.data, labels.voxel_size)
    corrected = path.read_bytes()
    with pytest.raises(FileExistsError, match="was changed after isgseg-predict wrote it"):
        predict(config("predict", *arguments, "threshold=0.9", "overwrite=true"))
    assert path.read_bytes() == corrected


def test_one_volume_out_of_memory_is_one_failed_volume(
    trained: Path,
    cell: Path,
    tmp_path: Path,
    config: Compose,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = read_volume(cell).data
    names = ("a", "b", "c")
    for name in names:
        write_volume(tmp_path / "in" / f"{name}.mrc", data, SIZE)
    segment = Predictor.segment

    def fails(self: Predictor, volume: Volume, name: str = "") -> Any:
        if name == "a.mrc":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if name == "b.mrc":
            raise KeyError("a bug of ours")
        return segment(self, volume, name)

    monkeypatch.setattr(Predictor, "segment", fails)
    folder = tmp_path / "labels"
    arguments = options(trained, f"{tmp_path}/in/*.mrc", f"output_dir={folder}")
    with pytest.raises(InputError, match=r"2 of 3 .*a\.mrc \(not enough memory.*b\.mrc \(KeyError"):
        predict(config("predict", *arguments))
    assert (folder / "c_labels.tif").is_file()
    assert "Traceback" in caplog.text  # of the bug, in the log
    assert [path.name for path in sorted(folder.glob("[ab]_*"))] == [
        "a_predict_unfinished.json",
        "b_predict_unfinished.json",
    ]


def test_two_predictions_of_one_name_at_once_are_told(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    from isgseg.io.folders import locked

    folder = tmp_path / "labels"
    with (
        locked(folder, ".cell_labels.tif.lock"),
        pytest.raises(InputError, match="another process is writing"),
    ):
        predict(config("predict", *options(trained, cell, f"output_dir={folder}")))
    (_path,) = predict(config("predict", *options(trained, cell, f"output_dir={folder}")))
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("segmentation", ["linked", "slices", "consensus"])
def test_labels_and_table_agree(
    trained: Path, tmp_path: Path, config: Compose, segmentation: str
) -> None:
    zyx = np.indices((64, 64, 64))
    normalizer = np.random.default_rng(0).normal(100, 5, zyx.shape[1:]).astype(np.float32)
    for centre in ((12, 20, 20), (30, 45, 25), (50, 30, 48)):  # discs across any axis
        normalizer[((zyx.T - centre) ** 2).sum(-1).T <= 36] += 60
    cell = write_volume(tmp_path / "cell.mrc", normalizer, SIZE)
    half = ["threshold=0.5", "segmentation.mask_threshold=0.5"]
    arguments = options(
        trained, cell, f"segmentation={segmentation}", "segmentation.min_votes=2", *half
    )
    (path,) = predict(config("predict", *arguments))
    labels = read_labels(path).data
    table = pd.read_csv(path.with_name("cell_granules.csv"))
    numbers, voxels = np.unique(labels[labels > 0], return_counts=True)
    assert len(numbers) > 0
    assert table["label"].tolist() == numbers.tolist()
    assert table["voxels"].tolist() == voxels.tolist()
    least = 0.5 if segmentation == "slices" else 0.25  # one slice reaches .5, the others half of it
    assert table["score"].between(least, 1).all()
    for row in table.to_dict("records"):
        where = np.argwhere(labels == row["label"])
        centroid = where.mean(0)
        assert [row[f"centroid_{axis}"] for axis in "zyx"] == pytest.approx(centroid)
        assert row["centroid_y_nm"] == pytest.approx(30 * centroid[1])
        assert row["volume_nm3"] == pytest.approx(len(where) * 27_000)
        edge = (where == 0) | (where == np.array(labels.shape) - 1)
        assert row["touches_border"] == edge.any()
    if segmentation == "linked":
        assert (table["supporting_slices"] <= table["slices"]).all()
    if segmentation == "slices":
        assert (table["supporting_slices"] == 1).all()


def test_what_linking_drops_is_told(
    trained: Path, cell: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (path,) = predict(config("predict", *options(trained, cell, "segmentation.min_slices=8")))
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
    with pytest.raises(
        ValueError, match=r"1 of 2 volumes were not labelled: \S*bad\.mrc \(.*cannot be read"
    ):
        predict(config("predict", *options(trained, f"{tmp_path}/*.mrc", f"output_dir={folder}")))
    names = {"cell_labels.tif", "cell_granules.csv", "cell_labels.json"}
    told = {"predict_summary.csv", "bad_predict_unfinished.json"}
    assert {path.name for path in folder.iterdir()} == names | told


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("format=png", "must be tif, mrc, zarr or zarr-0.4"),
        ("volumes=nowhere.mrc", "nowhere"),
        ("normalization={method:median}", "must be mode, window, percentile or slice"),
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


def test_other_voxel_sizes_are_told(
    trained: Path,
    volume: np.ndarray[Any, Any],
    tmp_path: Path,
    config: Compose,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import torch

    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    content["hyper_parameters"]["metadata"]["voxel_size"] = [30.0, 30.0, 30.0]
    torch.save(content, tmp_path / "isg_mask_rcnn_final.pth")
    caplog.set_level("INFO")
    coarse = write_volume(tmp_path / "coarse.mrc", volume[:1].astype(np.float32), (60.0,) * 3)
    predict(config("predict", *options(tmp_path, coarse)))
    assert "voxels of [60.0, 60.0, 60.0] nm (z, y, x) are resampled" in caplog.text


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
