"""Files to layers and back: voxel size, table and manifest stay in step; nothing is replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_session import SIZE, scene

from isgseg.analysis.granules import granule_table, write_table
from isgseg.errors import InputError
from isgseg.io.volumes import read_labels, read_volume, write_volume
from isgseg.napari import steps
from isgseg.napari.reading import get_reader
from isgseg.napari.samples import phantom_cell
from isgseg.napari.session import OFFERED, Session
from isgseg.napari.writing import write_labels


def read(path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    reader = get_reader(str(path))
    assert reader is not None
    return reader(str(path))


def run_folder(folder: Path) -> Path:
    """What isgseg-predict leaves: labels, table and manifest; the tomogram is elsewhere."""
    volume = np.random.default_rng(0).normal(1, 0.1, scene().shape).astype(np.float32)
    write_volume(folder / "cells" / "cell.mrc", volume, SIZE)
    write_volume(folder / "cells" / "cell_organelles.mrc", (scene() > 0).astype(np.uint8), SIZE)
    write_volume(folder / "run" / "cell_labels.tif", scene(), SIZE)
    table = granule_table(scene(), volume, SIZE, score=np.array([0.9, 0.8, 0.7, 0, 0.6]))
    write_table(folder / "run" / "cell_granules.csv", table)
    manifest = {
        "created_by": "isgseg-predict",
        "volume": str(folder / "cells" / "cell.mrc"),
        "thresholds": {"score": 0.4, "mask": 0.5, "object": 0.55},
    }
    (folder / "run" / "cell_labels.json").write_text(json.dumps(manifest))
    return folder / "run"


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint16])
def test_a_tomogram_stays_on_the_disk_and_has_its_scale(dtype: type, tmp_path: Path) -> None:
    data: np.ndarray = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    path = write_volume(tmp_path / "cell.mrc", data, SIZE)
    ((mapped, settings, kind),) = read(path)
    assert kind == "image"
    assert isinstance(mapped, np.memmap) or isinstance(mapped.base, np.memmap)
    assert np.array_equal(mapped, read_volume(path).data)
    assert settings["scale"] == pytest.approx(SIZE)
    assert settings["units"] == ("nm",) * 3


def test_compressed_and_odd_files_are_read_as_the_commands_read_them(tmp_path: Path) -> None:
    data = np.ones((2, 3, 4), np.float32)
    path = write_volume(tmp_path / "cell.rec.gz", data, SIZE)
    assert np.array_equal(read(path)[0][0], data)
    path = write_volume(tmp_path / "bytes.map", data.astype(np.int8), None)
    assert read(path)[0][1]["scale"] == (1.0, 1.0, 1.0)
    (tmp_path / "broken.mrc").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.mrc"):
        read(tmp_path / "broken.mrc")


def test_an_mrc_of_swapped_axes_is_the_same_mapped(tmp_path: Path) -> None:
    import mrcfile

    data = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    with mrcfile.new(tmp_path / "cell.mrc") as file:
        file.set_data(data)
        file.voxel_size = (100, 200, 300)
        file.header.mapc, file.header.maps = 3, 1
    whole = read_volume(tmp_path / "cell.mrc")
    ((mapped, settings, _),) = read(tmp_path / "cell.mrc")
    assert np.array_equal(mapped, whole.data)
    assert settings["scale"] == whole.voxel_size


def test_a_run_folder_opens_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    layers = read(run_folder(tmp_path))
    assert [kind for _, _, kind in layers] == ["image", "labels", "labels"]
    names = [settings["name"] for _, settings, _ in layers]
    assert names == ["cell", "cell_organelles", "cell_labels"]
    features = layers[2][1]["features"]
    assert features["label"].tolist() == features["index"].tolist() == [1, 2, 3, 5]
    assert layers[2][1]["metadata"]["isgseg"]["threshold"] == 0.55


def test_candidates_beside_the_labels_are_offered(tmp_path: Path) -> None:
    run = run_folder(tmp_path)
    others = np.zeros(scene().shape, np.uint16)
    others[2:5, 2:5, 2:5] = 6
    write_volume(run / "cell_candidates.tif", others, SIZE)
    rows = granule_table(others, None, SIZE, score=np.full(6, 0.3)).assign(best=0.4)
    write_table(run / "cell_candidates.csv", rows)
    _, _, (labels, settings, _) = read(run)
    known = settings["metadata"]["isgseg"]
    assert known["table"]["label"].tolist() == [1, 2, 3, 5, 6]
    session = Session(labels, SIZE, table=known["table"], offered=known["offered"], threshold=0.55)
    assert session.state(6) == OFFERED
    session.apply(steps.take_in(session, 6))
    assert (labels == 6).sum() == 27
    write_table(run / "cell_candidates.csv", rows.assign(label=3))  # of other labels
    assert "offered" not in read(run)[2][1]["metadata"]["isgseg"]


@pytest.mark.parametrize("suffix", ["zarr-0.4", "zarr-0.5"])
def test_labels_in_ome_zarr_open_with_their_table_and_are_reviewed(
    suffix: str, tmp_path: Path
) -> None:
    pytest.importorskip("zarr", reason="the extra zarr is not installed")
    path, version = tmp_path / "cell_labels.zarr", suffix.partition("-")[2]
    write_volume(path, scene(), SIZE, labels=True, version=version)
    write_table(tmp_path / "cell_granules.csv", granule_table(scene(), None, SIZE))
    ((data, settings, kind),) = read(path)
    assert kind == "labels"
    assert np.array_equal(data, scene())
    assert settings["name"] == "cell_labels"
    assert settings["scale"] == pytest.approx(SIZE)
    assert settings["features"]["label"].tolist() == [1, 2, 3, 5]
    session = Session(np.array(data), SIZE, file=path)
    session.apply(steps.delete(session, [5]))
    session.close()
    assert (tmp_path / "cell_labels.review.jsonl").is_file()
    again = Session(np.array(read(path)[0][0]), SIZE, file=path)
    assert again.resumed == 1
    assert 5 not in again.table.index
    again.close()
    assert [kind for _, _, kind in read(tmp_path)] == ["labels"]


def test_what_is_nothing_of_isgseg_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert get_reader(str(tmp_path / "empty")) is None
    assert get_reader("picture.png") is None
    assert get_reader(["a.mrc", "b.mrc"]) is None


def test_saved_labels_have_their_table_and_manifest_and_the_original_is_kept(
    tmp_path: Path,
) -> None:
    folder = run_folder(tmp_path)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    data, settings, _ = read(folder)[2]
    data[data == 1] = 0
    path = folder / "cell_labels.tif"
    written = write_labels(str(path), data, settings)
    assert str(path) in written
    saved = read_labels(path)
    assert np.array_equal(saved.data, data)
    assert saved.voxel_size == pytest.approx(SIZE)
    ((_, again, _),) = read(path)
    assert again["features"]["label"].tolist() == [2, 3, 5]
    assert again["features"]["score"].tolist() == [0.8, 0.7, 0.6]
    manifest = json.loads((folder / "cell_labels.json").read_text())
    assert manifest["granules"] == 3
    assert manifest["thresholds"]["object"] == 0.55
    for name, content in before.items():
        stem, _, suffix = name.partition(".")
        assert (folder / f"{stem}.original.{suffix}").read_bytes() == content
    write_labels(str(path), scene(), settings)
    kept = folder / "cell_labels.original.tif"
    assert kept.read_bytes() == before["cell_labels.tif"]


def test_what_is_no_label_volume_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no label volume"):
        write_labels(str(tmp_path / "cell_labels.tif"), np.zeros((3, 3), int), {})
    assert not list(tmp_path.iterdir())


def test_the_sample_is_a_cell_with_its_granules() -> None:
    (volume, _, _), (organelles, _, _), (labels, settings, kind) = phantom_cell()
    assert volume.shape == labels.shape == organelles.shape
    assert kind == "labels"
    assert len(settings["features"]) == len(np.unique(labels)) - 1 > 20


def test_npe2_finds_the_manifest_valid() -> None:
    pytest.importorskip("npe2", reason="the extra napari is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", "isgseg"],
        capture_output=True,
        text=True,
        check=False,
    )
    said = run.stdout + run.stderr
    if "not found" in said or "No plugin" in said or "Could not find" in said:
        pytest.skip("isgseg was installed before it had a manifest: pip install -e . again")
    assert run.returncode == 0, said
