from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import isgseg
from isgseg.analyse import analyse
from isgseg.config import CONFIG_DIR
from isgseg.errors import InputError
from isgseg.io.paths import sha256
from isgseg.io.volumes import read_labels, write_volume

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
        "report=false",  # tests/test_report.py makes one
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
    paths = analyse(config(*files, f"structures.cell={tmp_path}/whole.tif", "report=false"))
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
    paths = analyse(config(*files, "meshes=true", "parquet=true", "lac=false", "report=false"))
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


@pytest.fixture
def cell(tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The same with a cell, a nucleus and mitochondria; no figure, which takes longest."""
    monkeypatch.setattr("isgseg.analysis.figures.granule_figure", lambda *_, **__: None)
    whole = np.zeros(SHAPE, np.uint8)
    whole[:, 4:38, 4:46] = 1
    nucleus, mitochondria = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    nucleus[2:6, 20:28, 30:40], mitochondria[2:5, 14:16, 10:30] = 1, 1
    names = {"cell": whole, "nucleus": nucleus, "mitochondria": mitochondria}
    for name, mask in names.items():
        write_volume(tmp_path / f"{name}.tif", mask, (30, 30, 30))
    return [
        *files,
        "chance.placements=9",
        *(f"structures.{name}={tmp_path}/{name}.tif" for name in names),
    ]


def summary_of(paths: dict[str, Path]) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    content = json.loads(paths["summary"].read_text(), parse_constant=refuse)
    assert isinstance(content, dict)
    return content


def test_summary_of_a_cell(tmp_path: Path, cell: list[str]) -> None:
    paths = analyse(config(*cell))
    content, table = summary_of(paths), pd.read_csv(paths["table"])
    assert content["isgseg"] == isgseg.__version__
    assert (content["volume"], content["labels"]) == ("cell.mrc", "cell_labels.tif")
    assert content["sha256"]["volume"] == sha256(tmp_path / "cell.mrc")
    assert content["voxel_size_nm"] == [30, 30, 30]
    assert content["settings"]["chance"] == {"placements": 9, "seed": 0}
    assert content["settings"]["structures"]["nucleus"].endswith("nucleus.tif")
    assert content["warnings"] == [
        "1 of 2 granules touch the volume's edge; their volumes are too small."
    ]
    assert table["contact_mitochondria"].tolist() == [1, 0]
    assert table["nn_label"].tolist() == [2, 1]
    measure = content["measures"]["mean_gap_mitochondria"]
    assert measure.keys() == {"value", "unit", "about", "chance"}
    assert measure["unit"] == "nm"
    assert measure["value"] == pytest.approx(table["gap_mitochondria"].mean(), rel=1e-6)
    assert measure["chance"]["low"] <= measure["chance"]["mean"] <= measure["chance"]["high"]
    assert 0.2 <= measure["chance"]["p"] <= 1
    curves = content["curves"]
    assert {"within_membrane", "within_nucleus", "within_mitochondria", "k", "l", "g"} <= set(
        curves
    )
    for curve in curves.values():
        assert len(curve["x"]) == len(curve["y"]) == len(curve["chance"]["mean"])
    assert len(curves["radial_profile"]["y"]) == 8


def test_every_setting_of_relations_and_chance_changes_numbers(cell: list[str]) -> None:
    plain = summary_of(analyse(config(*cell)))
    lengths = ["relations.near=3000", "relations.cluster_gap=3000", "relations.radial_steps=4"]
    lengths.append("relations.neighbourhood=3000")
    curve = ["relations.reach=600", "relations.step=100", "chance.seed=5"]
    other = summary_of(analyse(config(*cell, "overwrite=true", *lengths, *curve)))

    def values(name: str) -> list[float]:
        return [content["measures"][name]["value"] for content in (plain, other)]

    assert values("near_share_nucleus") == [0, 1]
    assert values("clusters") == [2, 1]
    assert values("mean_neighbours") == [0, 1]
    assert len(other["curves"]["radial_profile"]["x"]) == 4
    assert other["curves"]["within_nucleus"]["x"] == [0, 100, 200, 300, 400, 500, 600]
    levels = [content["measures"]["mean_gap_nucleus"]["chance"] for content in (plain, other)]
    assert levels[0] != levels[1]


def test_a_structure_of_any_name_and_names_of_a_map(tmp_path: Path, cell: list[str]) -> None:
    er = f"+structures.er={tmp_path}/mitochondria.tif"
    table = pd.read_csv(analyse(config(*cell, er))["table"])
    assert table["gap_er"].tolist() == table["gap_mitochondria"].tolist()
    named = [f"structures.map={tmp_path}/nucleus.tif", "structures.names={1: vacuoles}"]
    table = pd.read_csv(analyse(config(*cell[:3], *named, "overwrite=true"))["table"])
    assert table["gap_vacuoles"].notna().all()
    with pytest.raises(InputError, match=r"set structures\.names"):
        analyse(config(*cell[:3], named[0], "overwrite=true"))


def test_without_a_cell_what_needs_it_is_null_and_said_once(
    files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    content = summary_of(analyse(config(*files)))
    assert caplog.text.count("No mask of the cell") == 1
    measures = content["measures"]
    for name in ("cell_volume", "number_density", "clark_evans", "mean_position", "polarity"):
        assert measures[name]["value"] is None
        assert measures[name]["chance"] is None
    assert measures["count"]["value"] == 2
    assert measures["mean_nn_distance"]["value"] > 0
    assert content["curves"] == {}


def test_without_a_voxel_size_lengths_are_unknown(
    tmp_path: Path, cell: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_volume(tmp_path / "bare.npy", np.ones(SHAPE, np.float32), None)
    paths = analyse(config(*cell, f"volume={tmp_path}/bare.npy"))
    assert caplog.text.count("No voxel size") == 1
    table, content = pd.read_csv(paths["table"]), summary_of(paths)
    assert (
        table[["gap_nucleus", "near_nucleus", "nn_distance", "nn_gap", "cluster"]]
        .isna()
        .all()
        .all()
    )
    assert table["contact_mitochondria"].tolist() == [1, 0]
    assert table["position"].notna().all()
    assert content["voxel_size_nm"] is None
    assert content["measures"]["number_density"]["value"] is None
    assert content["measures"]["contacts_mitochondria"]["value"] == 1


def test_a_granule_outside_of_the_cell_counts_in_no_number_of_it(
    tmp_path: Path, cell: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    labels = read_labels(tmp_path / "cell_labels.tif").data
    labels[1:4, 1:4, 1:4] = 900  # numbers have gaps
    write_volume(tmp_path / "cell_labels.tif", labels, None)
    paths = analyse(config(*cell))
    table = pd.read_csv(paths["table"], index_col="label")
    assert table.index.tolist() == [1, 2, 900]
    assert table["cell"].tolist() == [1, 1, 0]
    columns = ["gap_membrane", "near_nucleus", "contact_membrane", "position", "nn_gap", "cluster"]
    assert table.loc[900, columns].isna().all()
    assert table.loc[[1, 2], columns].notna().all(axis=None)
    assert "1 of 3 granules have their centre outside of every cell" in caplog.text
    measures = summary_of(paths)["measures"]
    assert measures["count"]["value"] == 2
    assert "of 1 granules that do not touch" in measures["median_contrast"]["about"]


@pytest.mark.parametrize("count", [0, 1])
def test_a_cell_with_no_granule_or_one(tmp_path: Path, cell: list[str], count: int) -> None:
    labels = np.zeros(SHAPE, np.uint16)
    labels[2:5, 10:14, 10:14] = count
    write_volume(tmp_path / "cell_labels.tif", labels, None)
    paths = analyse(config(*cell))
    table, content = pd.read_csv(paths["table"]), summary_of(paths)
    assert len(table) == count
    measures = content["measures"]
    assert measures["count"]["value"] == count
    assert measures["mean_nn_distance"]["value"] is None
    assert measures["number_density"]["value"] == pytest.approx(
        count / measures["cytoplasm_volume"]["value"]
    )
    assert (measures["mean_gap_nucleus"]["value"] is None) == (count == 0)


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
