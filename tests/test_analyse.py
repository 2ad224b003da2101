from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from isgseg.analyse import analyse
from isgseg.config import CONFIG_DIR
from isgseg.errors import InputError
from isgseg.io.volumes import write_volume

SHAPE = (8, 40, 50)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A tomogram with two granules and its labels, as overrides of the command line."""
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:5, 10:14, 10:15] = 1
    labels[4:8, 30:34, 20:24] = 2
    volume = np.where(labels > 0, 0.0145, 0.0101).astype(np.float32)
    write_volume(tmp_path / "cell.mrc", volume, (30, 30, 30))
    write_volume(tmp_path / "cell_labels.tif", labels, None)
    return [
        f"volume={tmp_path}/cell.mrc",
        f"labels={tmp_path}/cell_labels.tif",
        f"output_dir={tmp_path}/out",
    ]


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose("analyse", overrides=list(overrides))


def test_table_and_figure(
    tmp_path: Path, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        paths = analyse(config(*files))
    folder = tmp_path / "out"
    names = ["cell_granules.csv", "cell_granules.png", "cell_summary.json"]
    assert paths == dict(
        zip(["table", "figure", "summary"], map(folder.joinpath, names), strict=True)
    )
    table = pd.read_csv(paths["table"])
    assert table["label"].tolist() == [1, 2]
    assert table["volume_nm3"].tolist() == [60 * 30**3, 64 * 30**3]
    assert table["mean_intensity"].tolist() == pytest.approx([0.0145] * 2)
    assert table["touches_border"].tolist() == [False, True]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert "count: 2" in caplog.text
    assert str(paths["table"]) in caplog.text
    assert str(paths["figure"]) in caplog.text


@pytest.mark.parametrize(
    ("override", "nm3"), [("voxel_size=[20,10,10]", 2000), ("voxel_size=36.8", 36.8**3)]
)
def test_voxel_size_of_the_command_line_wins(files: list[str], override: str, nm3: float) -> None:
    table = pd.read_csv(analyse(config(*files, override))["table"])
    assert table["volume_nm3"].tolist() == pytest.approx([60 * nm3, 64 * nm3])


def test_voxel_size_of_the_labels_where_the_volume_has_none(
    tmp_path: Path, files: list[str]
) -> None:
    write_volume(tmp_path / "cell.npy", np.ones(SHAPE, np.float32), None)
    labels = np.zeros(SHAPE, np.uint16)
    labels[0, 0, 0] = 5
    write_volume(tmp_path / "cell_labels.tif", labels, (10, 10, 10))
    table = pd.read_csv(analyse(config(*files, f"volume={tmp_path}/cell.npy"))["table"])
    assert table["volume_nm3"].tolist() == [1000]


def test_voxel_sizes_that_disagree_are_reported(
    tmp_path: Path, files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_volume(tmp_path / "cell_labels.tif", np.zeros(SHAPE, np.uint16), (10, 10, 10))
    analyse(config(*files))
    assert "voxel size (30.0, 30.0, 30.0) nm in" in caplog.text
    assert "(10.0, 10.0, 10.0) nm in" in caplog.text


def test_no_granules(tmp_path: Path, files: list[str]) -> None:
    write_volume(tmp_path / "cell_labels.tif", np.zeros(SHAPE, np.uint16), None)
    paths = analyse(config(*files))
    assert len(pd.read_csv(paths["table"])) == 0
    assert paths["figure"].is_file()


def test_mistakes_write_nothing(tmp_path: Path, files: list[str]) -> None:
    write_volume(tmp_path / "other.npy", np.zeros((8, 40, 49), np.uint16), None)
    for override, reason in {
        f"labels={tmp_path}/other.npy": r"cell\.mrc is \(8, 40, 50\).*other\.npy are \(8, 40, 49\)",
        f"volume={tmp_path}": "is a folder; name a file in it",
        f"labels={tmp_path}/none.mrc": r"none\.mrc: no such file",
        f"labels={tmp_path}/cell.mrc": "not whole numbers",
        "slice=8": "no slice 8; choose one of 0 to 7",
        "slice=middle": "no slice middle",
        "slice=1.0": r"no slice 1\.0",
        "slice=true": "no slice True",
        "voxel_size=0": "voxel_size=0: give nm",
        "voxel_size=[30,30]": r"voxel_size=\[30, 30\]",
        "voxel_size=[30,30,nm]": "one positive number",
    }.items():
        with pytest.raises(InputError, match=reason):
            analyse(config(*files, override))
    assert not (tmp_path / "out").exists()


def test_cells_of_one_folder_do_not_overwrite_each_other(tmp_path: Path, files: list[str]) -> None:
    first = analyse(config(*files))
    before = {path: path.read_bytes() for path in first.values()}
    (tmp_path / "cell2.mrc").write_bytes((tmp_path / "cell.mrc").read_bytes())
    second = analyse(config(*files, f"volume={tmp_path}/cell2.mrc"))
    assert not set(first.values()) & set(second.values())
    assert {path: path.read_bytes() for path in first.values()} == before


@pytest.mark.parametrize("name", ["cell_granules.csv", "cell_granules.png", "cell_summary.json"])
def test_results_are_replaced_only_when_asked(tmp_path: Path, files: list[str], name: str) -> None:
    mine = tmp_path / "out" / name
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"{name} exists; set overwrite=true"):
        analyse(config(*files))
    assert [(path.name, path.read_text()) for path in mine.parent.iterdir()] == [(name, "mine")]
    analyse(config(*files, "overwrite=true"))
    assert mine.read_bytes() != b"mine"


def test_shapes_and_grey_values_are_in_the_table_and_the_summary(
    tmp_path: Path, files: list[str]
) -> None:
    write_volume(tmp_path / "whole.tif", np.ones(SHAPE, np.uint8), None)
    paths = analyse(config(*files, f"structures.cell={tmp_path}/whole.tif"))
    table = pd.read_csv(paths["table"])
    assert table["core_intensity"].tolist() == pytest.approx([0.0145] * 2)
    assert table["contrast"].tolist() == pytest.approx([0.0145 / 0.0101] * 2)
    assert table["lac_mean"].tolist() == pytest.approx([0.0145 / 0.03] * 2)
    measures = json.loads(paths["summary"].read_text())["measures"]
    assert measures["median_sphericity"]["value"] == pytest.approx(table["sphericity"].median())
    assert measures["median_contrast"]["value"] == pytest.approx(0.0145 / 0.0101)
    assert "of 1 granules that do not touch" in measures["median_lac"]["about"]


def test_lac_true_needs_a_voxel_size(tmp_path: Path, files: list[str]) -> None:
    write_volume(tmp_path / "bare.npy", np.ones(SHAPE, np.float32), None)
    with pytest.raises(InputError, match="lac=true, but the voxel size is None"):
        analyse(config(*files, f"volume={tmp_path}/bare.npy", "lac=true"))
    assert not list((tmp_path / "out").glob("bare*"))


def test_meshes_parquet_and_no_lac_when_asked(tmp_path: Path, files: list[str]) -> None:
    pytest.importorskip("pyarrow")
    paths = analyse(config(*files, "meshes=true", "parquet=true", "lac=false"))
    assert paths["meshes"] == tmp_path / "out" / "cell_granules.ply"
    assert paths["meshes"].read_bytes().startswith(b"ply\n")
    table = pd.read_parquet(paths["parquet"])
    pd.testing.assert_frame_equal(table, pd.read_csv(paths["table"]), check_dtype=False, rtol=1e-6)
    assert table["lac_mean"].isna().all()
    with pytest.raises(FileExistsError, match=r"cell_granules\.csv exists"):
        analyse(config(*files, "parquet=true"))


def test_parquet_without_its_library_says_so_before_anything_is_written(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pyarrow" else find(name)
    )
    with pytest.raises(InputError, match=r"pip install 'isgseg\[parquet\]'"):
        analyse(config(*files, "parquet=true"))
    assert not (tmp_path / "out").exists()


def run(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isgseg.analyse", *overrides],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command(tmp_path: Path, files: list[str]) -> None:
    done = run(tmp_path, *files[:2])
    assert done.returncode == 0, done.stderr
    (table,) = tmp_path.glob("outputs/analyse/*/cell_granules.csv")
    assert str(table) in done.stdout + done.stderr


def test_command_ends_a_mistake_in_one_line(tmp_path: Path, files: list[str]) -> None:
    done = run(tmp_path, *files, "slice=99")
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1
    assert "there is no slice 99" in lines[0]
