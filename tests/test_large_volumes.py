"""Volumes that stay on the disk: the same labels and tables, with a few slices in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import tifffile
from conftest import Compose, balls
from pandas.testing import assert_frame_equal
from scipy import ndimage as ndi

from isgseg.analysis.granules import granule_table
from isgseg.data.normalization import Normalization
from isgseg.errors import InputError
from isgseg.inference.manifest import hash_labels, hash_of_file
from isgseg.inference.predictor import Predictor
from isgseg.inference.segmentation import SliceSegmenter
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.runs import RunLabels
from isgseg.instances.split import split
from isgseg.instances.split_runs import split_runs
from isgseg.io.on_disk import OnDisk
from isgseg.io.volumes import Volume, open_volume, read_labels, read_volume, write_volume
from isgseg.models.settings import Thresholds

Array = npt.NDArray[Any]
SIZE = (30.0, 36.8, 31.0)
SMALL = 4000  # voxels of a window, so that there are many


class Bright:
    """A `SliceModel`: what is bright in a slice is a granule, in a box of its own."""

    def detect(
        self, slices: Any, normalizer: Any, threshold: float, zoom: Any = (1.0, 1.0)
    ) -> Iterator[dict[str, Array]]:
        for z in range(len(slices)):
            boxes = ndi.find_objects(ndi.label(normalizer(slices[z]) > 170)[0])
            n = len(boxes)
            yield {
                "masks": np.ones((n, 4, 4), np.float32),
                "mask_boxes": np.array([[x.start, y.start, x.stop, y.stop] for y, x in boxes])
                .reshape(n, 4)
                .astype(np.float32),
                "scores": np.linspace(1, 0.6, n, dtype=np.float32),
            }


def predictor(**settings: Any) -> Predictor:
    thresholds = Thresholds(0.5, 0.5, 0.5)
    chosen = SegmentationSettings(**settings)
    method = SliceSegmenter(Bright(), thresholds, chosen, learnt=SIZE)
    return Predictor(method, None, thresholds, Normalization(method="percentile", low=1, high=99))


def random_labels(seed: int, shape: tuple[int, int, int] = (40, 30, 33)) -> Array:
    """Blobs that touch, each in one part."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    grid = np.indices(shape)
    for number in range(1, 30):
        centre = [random.uniform(0, side) for side in shape]
        radii = random.uniform(2, 7, 3)
        ball = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1
        labels[ball & (labels == 0)] = number
    return labels


def as_runs(labels: Array) -> RunLabels:
    return RunLabels.of(labels, labels.shape[1:], labels.dtype)


def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RunLabels.windows
    monkeypatch.setattr(RunLabels, "windows", lambda labels: whole(labels, SMALL))


def test_runs_are_the_labels() -> None:
    labels = random_labels(0)
    runs = as_runs(labels)
    assert runs.shape == labels.shape
    assert runs.max() == labels.max()
    assert np.array_equal(np.asarray(runs), labels)
    assert np.array_equal(runs[-1], labels[-1])
    assert np.array_equal(runs[3:20:5], labels[3:20:5])
    assert hash_labels(runs) == hash_labels(labels)
    with pytest.raises(ValueError, match="a slice of"):
        runs.append(labels[0][1:])


def test_windows_hold_each_instance_once_and_whole() -> None:
    labels = random_labels(1)
    together = np.zeros_like(labels)
    windows = list(as_runs(labels).windows(SMALL))
    assert len(windows) > 5
    for low, window in windows:
        place = together[low : low + len(window)]
        assert not np.intersect1d(together, window[window > 0]).any()
        place[window > 0] = window[window > 0]
    assert np.array_equal(together, labels)


@pytest.mark.parametrize("seed", range(4))
def test_splitting_by_windows_is_splitting(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    labels = random_labels(seed)
    linked = np.where((labels > 0) & (labels % 2 == 0), labels - 1, labels)  # some of two
    small_windows(monkeypatch)
    how: dict[str, Any] = {"height": 0.05, "sigma": 0.5, "min_voxels": 8}
    runs, parent = split_runs(as_runs(linked), **how)
    expected = split(linked, **how)
    assert np.array_equal(np.asarray(runs), expected)
    assert runs.dtype == expected.dtype
    assert np.array_equal(np.r_[0, parent][expected], linked)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tables_by_windows_are_the_same(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    labels = random_labels(5)
    grey = np.random.default_rng(0).normal(1000, 99, labels.shape).astype(dtype)
    score = np.linspace(0, 1, int(labels.max()))
    expected = granule_table(labels, grey, SIZE, score=score)
    for number, mean in zip(expected["label"], expected["mean_intensity"], strict=True):
        assert mean == pytest.approx(grey[labels == number].mean(dtype=float), rel=1e-12)
    small_windows(monkeypatch)
    found = granule_table(as_runs(labels), grey, SIZE, score=score)
    assert_frame_equal(found, expected, check_exact=True)
    nothing = np.zeros((4, 5, 6), np.uint16)
    assert_frame_equal(granule_table(as_runs(nothing), nothing), granule_table(nothing, nothing))


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".ome.tif", ".npy", ".zarr"])
@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_files_by_slices_are_those_of_arrays(tmp_path: Path, suffix: str, dtype: Any) -> None:
    labels = random_labels(2).astype(dtype)
    for data, name in ((labels, "array"), (as_runs(labels), "runs")):
        write_volume(tmp_path / f"{name}{suffix}", data, SIZE)
    array, runs = (read_volume(tmp_path / f"{name}{suffix}") for name in ("array", "runs"))
    assert np.array_equal(runs.data, labels)
    assert runs.data.dtype == array.data.dtype
    assert runs.voxel_size == array.voxel_size
    assert hash_of_file(tmp_path / f"runs{suffix}") == hash_labels(labels)
    if suffix == ".mrc":
        with (
            mrcfile.open(tmp_path / "array.mrc") as one,
            mrcfile.open(tmp_path / "runs.mrc") as two,
        ):
            for name in ("nz", "mz", "cella", "dmin", "dmax", "dmean", "mode", "ispg"):
                assert one.header[name] == two.header[name], name
            assert two.header.rms == pytest.approx(float(one.header.rms), rel=1e-5)
            assert mrcfile.validate(tmp_path / "runs.mrc")
    elif suffix == ".tif" and dtype == np.uint16:
        with tifffile.TiffFile(tmp_path / "runs.tif") as tif:
            assert tif.imagej_metadata is not None
            assert tif.imagej_metadata["slices"] == len(labels)
    with pytest.raises(InputError, match="cannot hold"):
        write_volume(tmp_path / "many.mrc", as_runs(labels.astype(np.uint32) * 70_000), SIZE)


@pytest.mark.parametrize(
    ("suffix", "settings", "size"),
    [
        (".mrc", {}, SIZE),
        (".tif", {}, SIZE),
        (".npy", {}, SIZE),
        (".zarr", {}, SIZE),
        (".mrc", {"split": False}, None),
        (".mrc", {"link": False}, SIZE),
        (".mrc", {"axes": "zy"}, SIZE),
        (".mrc", {}, (60.0, 36.8, 31.0)),  # resampled across slices
    ],
)
def test_from_the_disk_labels_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, settings: Any, size: Any
) -> None:
    small_windows(monkeypatch)
    grey = (balls(25, 3)[0] * 1000).astype(np.uint16)
    volume = open_volume(write_volume(tmp_path / f"cell{suffix}", grey, SIZE))
    assert isinstance(volume.data, OnDisk)
    here, there = (predictor(**settings).segment(Volume(d, size)) for d in (grey, volume.data))
    assert isinstance(here.labels, np.ndarray)
    assert isinstance(there.labels, np.ndarray) == ("axes" in settings)
    assert here.labels.max() > 3
    assert np.array_equal(np.asarray(there.labels), here.labels)
    assert there.labels.dtype == here.labels.dtype
    tables = [
        granule_table(found.labels, data, SIZE, score=found.score, supporting_slices=found.slices)
        for found, data in ((here, grey), (there, volume.data))
    ]
    assert_frame_equal(*tables, check_exact=True)


def test_a_method_that_needs_the_whole_volume_says_how_much_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    volume = open_volume(write_volume(tmp_path / "cell.mrc", balls(5, 3)[0], SIZE))
    predictor(axes="zyx").segment(volume, "cell.mrc")
    assert "cell.mrc: this method needs the volume as a whole, about 0.0 GB" in caplog.text
    monkeypatch.setattr("isgseg.io.formats.available_memory", lambda: 1000)
    with pytest.raises(InputError, match=r"cell\.mrc: its voxels take .* GB of memory are free"):
        predictor(axes="zyx").segment(volume, "cell.mrc")
    predictor().segment(volume, "cell.mrc")  # a few slices are enough


def test_memory_is_a_few_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = RunLabels.windows
    monkeypatch.setattr(RunLabels, "windows", lambda labels: windows(labels, 2**17))
    labels = balls(3, 3, side=96, count=3)[1][1]
    path, peaks = tmp_path / "cell.npy", {}
    window = Normalization(method="window", low=900, high=1700)
    for depth in (10, 40, 160):  # what the first imports does not count
        rises = (np.arange(depth) % 20 < 12)[:, None, None]
        np.save(path, np.where(rises & (labels > 0), 1600, 1000).astype(np.float32))
        tracemalloc.start()
        volume = open_volume(path)
        found = predictor()
        found.normalization = window  # percentiles are of all voxels up to four million
        granules = found.segment(volume, "cell")
        table = granule_table(granules.labels, volume.data)
        write_volume(tmp_path / "labels.tif", granules.labels, None)
        peaks[depth] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(table) == -(-depth // 20) * 3
    assert peaks[160] < 1.3 * peaks[40]


def test_a_file_that_is_cut_meanwhile_is_named(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "cell.mrc", balls(9, 3)[0], SIZE)
    data = open_volume(path).data
    path.write_bytes(path.read_bytes()[: 2 * data[0].nbytes])
    with pytest.raises(InputError, match=r"cell\.mrc: slice 4 cannot be read: the file ends"):
        data[4]


def test_mrc_bytes_and_tiffs_of_imagej_are_read_from_the_disk(tmp_path: Path) -> None:
    unsigned = np.arange(3 * 40 * 50, dtype=np.int64).reshape(3, 40, 50).astype(np.uint8)
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(unsigned.view(np.int8))
        mrc.header.dmin, mrc.header.dmax = 0, 255
    signed = (np.arange(3 * 40 * 50).reshape(3, 40, 50) - 3000).astype(np.int16)
    stored = (signed.astype(np.int32) + 32768).astype(np.uint16)
    metadata = {"axes": "ZYX", "c0": -32768, "c1": 1, "cf": 0, "vunit": "Gray Value"}
    tifffile.imwrite(tmp_path / "b.tif", stored, imagej=True, metadata=metadata)
    big = np.arange(60.0).reshape(3, 4, 5).astype(">f4")
    tifffile.imwrite(tmp_path / "c.tif", big, byteorder=">", photometric="minisblack")
    for name, expected in (("a.mrc", unsigned), ("b.tif", signed), ("c.tif", big)):
        data = open_volume(tmp_path / name).data
        assert isinstance(data, OnDisk)
        assert np.array_equal(data[:], expected)
        assert data.dtype == expected.dtype.newbyteorder("=")
        assert np.array_equal(read_volume(tmp_path / name).data, expected)


@pytest.mark.parametrize("version", ["zarr", "zarr-0.4"])
def test_predict_writes_an_ome_zarr_of_labels(
    trained: Path, tmp_path: Path, config: Compose, version: str
) -> None:
    import json

    from test_zarr import model_of

    from isgseg.predict import predict

    zarr = pytest.importorskip("zarr")
    grey = balls(7, 30)[0]
    grey[:, :, :8] += 0.6
    cell = write_volume(tmp_path / "cell.zarr", (grey * 100).astype(np.uint16), SIZE)

    def made(format: str) -> Path:
        cfg = config(
            "predict",
            f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
            f"volumes={cell}",
            "normalization={method:window,low:0,high:255}",
            "precision=32-true",
            "progress=false",
            "device=cpu",
            f"format={format}",
            f"output_dir={tmp_path / format}",
        )
        return predict(cfg)[0]

    path = made(version)
    assert path.name == "cell_labels.zarr"
    model_of(path, labels=True, version="0.4" if version == "zarr-0.4" else "0.5")
    labels = read_labels(path)
    assert labels.voxel_size == pytest.approx(SIZE)
    assert labels.data.max() >= 4
    assert np.array_equal(labels.data, read_labels(made("tif")).data)
    manifest = json.loads((path.parent / "cell_labels.json").read_text())
    assert zarr.open_group(str(path), mode="r").attrs["isgseg"] == manifest
    table = pd.read_csv(path.parent / "cell_granules.csv")
    assert len(table) == labels.data.max()
    before = (path / "0").stat().st_mtime_ns
    assert made(version) == path
    assert (path / "0").stat().st_mtime_ns == before


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_go_into_the_image_and_touch_nothing_else(tmp_path: Path, version: Any) -> None:
    import json

    from test_zarr import model_of

    from isgseg.io.ome_zarr_labels import add_labels, check_place_for_labels
    from isgseg.io.ome_zarr_writing import write_zarr

    zarr = pytest.importorskip("zarr")
    labels = as_runs(random_labels(0))
    image = tmp_path / "cell.zarr"
    write_zarr(image, labels, SIZE, version=version)
    nuclei = image / "labels" / "nuclei"
    attributes = {"labels": ["nuclei"], "kept": 1}
    content = {"ome": {"version": "0.5", **attributes}} if version == "0.5" else attributes
    zarr.create_group(
        str(image / "labels"), zarr_format=3 if version == "0.5" else 2, attributes=content
    )
    write_zarr(nuclei, labels, SIZE, labels=True, version=version, source="../../")
    before = {p: p.read_bytes() for p in image.rglob("*") if p.is_file()}

    check_place_for_labels(image, "me", overwrite=False)
    place = add_labels(image, labels, SIZE, {"isgseg": {"created_by": "me"}})
    model_of(place, labels=True, version=version)
    assert np.array_equal(read_labels(place).data, np.asarray(labels))
    changed = {p for p, raw in before.items() if p.read_bytes() != raw}
    listed = image / "labels" / ("zarr.json" if version == "0.5" else ".zattrs")
    assert changed == {listed}
    inner = json.loads(listed.read_text())
    inner = inner["attributes"]["ome"] if version == "0.5" else inner
    assert (inner["labels"], inner["kept"]) == (["nuclei", "granules"], 1)

    with pytest.raises(InputError, match="set overwrite=true"):
        check_place_for_labels(image, "me", overwrite=False)
    check_place_for_labels(image, "me", overwrite=True)
    add_labels(image, labels, SIZE, {"isgseg": {"created_by": "another"}})
    with pytest.raises(InputError, match="never replaced"):
        check_place_for_labels(image, "me", overwrite=True)
    with pytest.raises(InputError, match="is no OME-Zarr image"):
        check_place_for_labels(tmp_path, "me", overwrite=True)


def test_predict_into_a_zarr(trained: Path, tmp_path: Path, config: Compose) -> None:
    from isgseg.predict import predict

    grey = balls(7, 30)[0]
    grey[:, :, :8] += 0.6
    cell = write_volume(tmp_path / "cell.zarr", (grey * 100).astype(np.uint16), SIZE)
    options = [
        f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
        "normalization={method:window,low:0,high:255}",
        "progress=false",
        "device=cpu",
        "into_zarr=true",
    ]
    (path,) = predict(config("predict", f"volumes={cell}", *options))
    inside = read_labels(cell / "labels" / "granules")
    assert np.array_equal(inside.data, read_labels(path).data)
    other = write_volume(tmp_path / "cell2.mrc", grey, SIZE)
    with pytest.raises(InputError, match=r"cell2\.mrc is no OME-Zarr image"):
        predict(config("predict", f"volumes={other}", *options))
