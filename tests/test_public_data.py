"""The benchmark on public images: its sets, its schedule, its table, and a peer in 2D."""

from __future__ import annotations

import json
from importlib import import_module as module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from isgseg.io.volumes import read_labels, read_volume

BENCHMARKS = ROOT / "benchmarks"


pytestmark = pytest.mark.usefixtures("benchmark_scripts")


def row(title: str, f1: float, cost: Any = (400.0, 360.0, 1000.0)) -> dict[str, Any]:
    scores = {"f1": f1, "f1_at": {"0.3": f1}, "sq": 0.7, "count_error_relative": -0.05}
    return {
        "title": title,
        "scores": scores,
        "train": {"cost": cost, "steps": 100},
        "predict": {"seconds_a_slice": 0.1},
    }


def coco_folder(folder: Path, names: list[str]) -> None:
    """An image of 32 x 24 pixels with two squares each, one as a list of run lengths."""
    (folder / "images").mkdir(parents=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    for number, name in enumerate(names, start=1):
        Image.fromarray(np.full((24, 32), number, np.uint8)).save(folder / "images" / name)
        file = f"images/{name}"
        content["images"].append({"id": number, "file_name": file, "height": 24, "width": 32})
        for first in (0, 240):  # by columns: rows 0 to 3 of two columns
            counts = [first, 4, 20, 4, 24 * 32 - first - 28]
            segmentation = {"counts": counts, "size": [24, 32]}
            content["annotations"].append({"image_id": number, "segmentation": segmentation})
    (folder / "annotations.json").write_text(json.dumps(content))


def test_images_become_volumes_of_one_slice_with_their_instances(tmp_path: Path) -> None:
    coco_folder(tmp_path / "train", ["b.png", "a.png"])
    sets = module("public_sets")
    assert sets.saved_images(tmp_path / "train", tmp_path / "data") == ["train_a", "train_b"]
    path = tmp_path / "data" / "volumes" / "train_a.mrc"
    assert read_volume(path).data.tolist() == np.full((1, 24, 32), 2).tolist()
    labels = read_labels(sets.labels_of(path)).data
    assert np.bincount(labels.ravel()).tolist() == [24 * 32 - 16, 8, 8]
    assert (labels[0, :4, :2] == 1).all()
    assert (labels[0, :4, 10:12] == 2).all()


def test_a_set_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISGSEG_TEST_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="ISGSEG_TEST_DATA to the folder that holds bbbc050"):
        module("public_sets").public_folder("bbbc050")


def test_few_images_make_more_epochs_and_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isgseg.data.metadata import DatasetMetadata, Statistics

    rows = module("methods_rows")
    counts: Any = {"train": Statistics(patches=40, empty_patches=0, objects=1)}
    monkeypatch.setattr(rows, "read_metadata", lambda root: DatasetMetadata(objects=counts))
    assert rows.schedule(600, 10, tmp_path) == (60, 10)  # of four images each
    assert rows.schedule(50, 10, tmp_path) == (10, 5)
    assert rows.schedule(4, 1, tmp_path) == (1, 4)


def test_the_table_has_a_line_for_each_row_and_the_best_are_compared() -> None:
    public = module("public_data")
    result = module("record").Result("Public")
    rows = {
        "bbbc050_light": row("Mask R-CNN", 0.8),
        "bbbc050_unet": row("U-Net", 0.7),
        "bbbc050_stardist": row("StarDist", 0.75),
        "dsb2018_log": row("LoG", 0.5, None),
    }
    public.fill(result, rows)
    found = {number["name"]: number["value"] for number in result.numbers}
    assert found["bbbc050: F1 of the best of isgseg less the best peer's"] == pytest.approx(0.05)
    assert not any(name.startswith("dsb2018: F1 of the best") for name in found)
    lines = result.details["methods"]["rows"]
    assert lines[0][1:] == ["Mask R-CNN", "0.800", "0.800", "-5.0%", "0.700", "6.0", "100", "0.100"]
    assert lines[3][:2] == ["DSB 2018, small nuclei in 2D", "LoG"]
    assert lines[3][6] == "none"
    assert {public.set_of(name) for name in public.ROWS} == public.SETS.keys()


def test_the_command_line_takes_rows(capsys: pytest.CaptureFixture[str]) -> None:
    public = module("public_data")
    args = public.arguments(["dsb2018_log", "--folder", "keep"])
    assert (args.rows, args.minutes, args.threads) == (["dsb2018_log"], None, 1)
    with pytest.raises(SystemExit):
        public.arguments(["dsb2018_log", "--folder", "keep", "--minutes=0"])
    assert "--minutes must be above 0" in capsys.readouterr().err


def test_a_peer_has_the_minutes_that_the_longest_training_of_isgseg_took(tmp_path: Path) -> None:
    public = module("public_data")
    args = public.arguments(["dsb2018_log", "--folder", str(tmp_path), "--minutes", "3"])
    assert public.minutes(args, "dsb2018_stardist") == 3
    (tmp_path / "rows").mkdir()
    for name, seconds in (("dsb2018_unet", 240.0), ("bbbc050_unet", 600.0)):
        content = {"train": {"cost": [0.0, seconds, 0.0]}}
        (tmp_path / "rows" / f"{name}.json").write_text(json.dumps(content))
    assert public.minutes(args, "dsb2018_stardist") == 4
    assert public.minutes(args, "dsb2018_light") == 3


def test_the_log_peer_finds_bright_discs_on_black_in_a_picture() -> None:
    peer = module("run_log")
    grid = np.indices((64, 64)).T[..., None, :] - np.array([(16, 16), (16, 27), (44, 44)])
    near = np.sqrt((grid**2).sum(-1)).T
    labels = np.where(near.min(0) <= 5, near.argmin(0) + 1, 0)[None]
    image = (60 * (labels > 0)).astype(np.uint8)  # darker than the mid-grey of cytoplasm
    look = peer.Look(0.0, (2.7, 3.3, 4.0))
    settings = peer.tune([image], [labels], look)
    assert settings["f1"] == 1
    found = peer.segment(image, settings["response"], settings["share"], look)
    assert peer.matched(found, labels).tolist() == [3, 3, 3]
