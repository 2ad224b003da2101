from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Compose

from isgseg.evaluate import evaluate, table

NAMES = {
    f"{kind}_{name}"
    for kind in ("bbox", "segm")
    for name in (
        *("map", "map_50", "map_75", "mar_100"),
        *("map_uncapped", "map_50_uncapped", "map_75_uncapped", "mar_uncapped"),
    )
}


def options(trained: Path, root: Path, *more: str) -> list[str]:
    return [
        f"ckpt_path={trained / 'isg_mask_rcnn_best.pth'}",
        f"data.root={root}",
        "data.num_workers=0",
        "precision=32-true",
        "progress=false",
        "device=cpu",
        *more,
    ]


def test_scores_are_those_of_training_and_go_to_a_file(
    trained: Path, coco_root: Path, config: Compose, tmp_path: Path
) -> None:
    scores = evaluate(config("evaluate", *options(trained, coco_root)))
    assert set(scores) == NAMES
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["segm_map_50"] > 0.5  # it has learnt the discs
    assert scores["segm_map"] == scores["segm_map_uncapped"]  # no picture holds 100 objects
    written = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert written == scores


def test_the_split_is_a_choice(trained: Path, coco_root: Path, config: Compose) -> None:
    val = evaluate(config("evaluate", *options(trained, coco_root)))
    train = evaluate(config("evaluate", *options(trained, coco_root, "data.split=train")))
    assert val != train
    with pytest.raises(FileNotFoundError, match=r"test/annotations\.json"):
        evaluate(config("evaluate", *options(trained, coco_root, "data.split=test")))


def test_other_preparation_is_warned_of(
    trained: Path,
    coco_root: Path,
    config: Compose,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for split in ("train", "val"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / split).symlink_to(coco_root / split)
    (tmp_path / "root" / "dataset.yaml").write_text("normalization: {method: mode}\ncontext: 1\n")
    evaluate(config("evaluate", *options(trained, tmp_path / "root")))
    assert "normalization differs" in caplog.text
    assert "context differs" in caplog.text


def test_the_table_shows_both_caps() -> None:
    scores = {name: 0.25 for name in NAMES} | {"segm_mar_uncapped": 0.875}
    lines = table(scores).splitlines()
    assert lines[-1].split() == ["recall", "0.250", "0.250", "0.250", "0.875"]
    assert lines[2].startswith("mAP@[.50:.95]")


def test_the_console_script_scores(trained: Path, coco_root: Path, tmp_path: Path) -> None:
    arguments = options(trained, coco_root, f"output_dir={tmp_path}", f"paths.root={tmp_path}/out")
    run = subprocess.run(
        [sys.executable, "-m", "isgseg.evaluate", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "mAP@.50" in run.stdout + run.stderr
    assert set(json.loads((tmp_path / "metrics.json").read_text())) == NAMES
