from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Compose
from omegaconf import OmegaConf
from PIL import Image

from isgseg.analysis import label_figure
from isgseg.doctor import doctor
from isgseg.models.mask_rcnn import build_mask_rcnn


@pytest.fixture
def examine(config: Compose, coco_root: Path, tmp_path: Path) -> Any:
    """`examine("ring=2")`: the report on the discs of `coco_root`, written to tmp_path/out."""

    def run(*overrides: str) -> dict[str, Any]:
        return doctor(
            config(
                "doctor",
                f"data.root={coco_root}",
                f"output_dir={tmp_path}/out",
                "progress=false",
                *overrides,
            )
        )

    return run


def test_the_report_on_discs(examine: Any, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        report = examine()
    assert json.loads((tmp_path / "out" / "doctor.json").read_text()) == report
    assert Image.open(tmp_path / "out" / "doctor.png").width > 1000
    train = report["splits"]["train"]
    assert (train["images"], train["objects"], train["most_objects"]) == (6, 25, 5)
    assert train["empty_share"] == pytest.approx(1 / 6)
    assert train["side_px"]["50"] == pytest.approx(10, abs=1)
    assert train["contrast"]["50"] == pytest.approx(60, abs=2)
    assert train["relative_contrast"]["50"] == pytest.approx(0.6, abs=0.03)
    assert (train["touching_share"], train["not_brighter_share"], train["vanished"]) == (0, 0, 0)
    assert train["merged"] is None
    assert train["side_nm"] is None
    assert "not known: no dataset.yaml" in caplog.text
    assert "experiment=doctor" in caplog.text


def test_the_recommended_network_trains(examine: Any, coco_root: Path, tmp_path: Path) -> None:
    report = examine("model=resnet18")
    command = [sys.executable, "-m", "isgseg.train", "--config-dir", str(tmp_path / "out")]
    command += ["experiment=doctor", "model=resnet18", f"data.root={coco_root}", "--cfg", "job"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    network: Any = OmegaConf.to_object(OmegaConf.create(run.stdout).model.network)
    assert network.items() >= report["recommended"].items()
    assert network["detections"] == 100
    built = build_mask_rcnn(**network)
    sizes = [[size * network["scale"] for size in level] for level in network["anchor_sizes"]]
    assert [list(level) for level in built.rpn.anchor_generator.sizes] == sizes
    coverage = max(option["coverage"] for option in report["candidates"])
    assert coverage >= 0.92


def test_each_key_changes_the_report(examine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_figure, "labels_figure", lambda *_: None)  # slow, and not compared
    before = examine()
    for override in (
        "ring=1",
        "iou=0.8",
        "coverage=0.1",
        "scales=[2]",
        "model=torchvision",
        "model.network.anchor_sizes=[[8],[9],[10],[11]]",
    ):
        assert examine(override) != before, override


def test_crowding_beyond_the_caps_is_a_warning(examine: Any, caplog: Any) -> None:
    examine("model.network.detections=4")
    assert "an image has 5 objects, but model.network.detections=4" in caplog.text
    assert "proposals" not in caplog.text


def test_a_target_out_of_reach_is_a_warning(examine: Any, caplog: Any) -> None:
    report = examine("scales=[1]", "coverage=1", "iou=0.95")
    assert "no network compared reaches coverage=1" in caplog.text
    best = max(report["candidates"], key=lambda option: float(option["coverage"]))
    assert report["recommended"]["anchor_density"] == best["anchor_density"]


def test_doubtful_annotations_are_counted(config: Compose, coco_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(coco_root, tmp_path / "copy")
    path = root / "train" / "annotations.json"
    content = json.loads(path.read_text())
    first = content["annotations"][0]
    content["annotations"] += [
        {**first, "id": 900},
        {**first, "id": 901, "segmentation": [[3.1, 3.1, 3.2, 3.1, 3.2, 3.2]]},
    ]
    path.write_text(json.dumps(content))
    out = f"output_dir={tmp_path}/out"
    train = doctor(config("doctor", f"data.root={root}", out, "progress=false"))["splits"]["train"]
    # The one that was drawn twice is left out when the folder is opened, with a warning.
    assert (train["drawn_twice"], train["vanished"], train["objects"]) == (0, 1, 25)
    assert train["touching_share"] == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ring=0", "ring=0: must be a whole number at least 1"),
        ("iou=1", "iou=1: must be a number above 0 and below 1"),
        ("coverage=92", "coverage=92: must be a number above 0 and at most 1"),
        ("scales=[]", r"scales=\[\]: must be a list of at least 1"),
        ("scales=[2,0]", r"scales\[1\]=0: must be a number above 0"),
        ("model.network=null", r"model\.network=null: choose a model="),
    ],
)
def test_settings_out_of_range_are_named(
    examine: Any, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        examine(override)
    assert not (tmp_path / "out").exists()
