"""Runs are killed at random moments: no torn or mixed file has a final name, and the next run ends.

The moments are seeded. `-m fuzz` kills ten times as often.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY_NETWORK, TINY_RUN, balls, save_pair

from isgseg.io.volumes import read_labels

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="kills by SIGKILL")]
COUNTS = [
    pytest.param(4, id="a few"),
    pytest.param(40, id="many", marks=[pytest.mark.fuzz, pytest.mark.timeout(3600)]),
]
PRELOADED = [f"isgseg.{name}" for name in ("train", "predict", "prepare")] + [
    "isgseg.data.dataset",
    "isgseg.evaluation.coco",
    "isgseg.inference.predictor",
    "isgseg.schema.commands",
    "isgseg.training.callbacks",
    "isgseg.training.checkpoints",
    "isgseg.training.volume_score",
    "lightning",
    "tensorboard",
]


def call(command: str, arguments: list[str], log: str) -> None:
    """A command in a process of its own, as the command line runs it."""
    from importlib import import_module

    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [f"isgseg-{command}", *arguments]
    import_module(f"isgseg.{command}").main()


class Runs:
    """Starts processes that have torch imported, and kills them."""

    def __init__(self, log: Path) -> None:
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOADED)
        self.log = log

    def run(self, command: str, arguments: list[str], seconds: float | None = None) -> float | None:
        """The seconds that a run took; None where it was killed after `seconds`."""
        process = self.context.Process(target=call, args=(command, arguments, str(self.log)))
        start = time.monotonic()
        process.start()
        process.join(seconds)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return None
        assert process.exitcode == 0, self.log.read_text()[-3000:]
        return time.monotonic() - start


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "log.txt")


def killed_until_done(
    runs: Runs,
    count: int,
    seed: int,
    duration: float,
    command: str,
    arguments: Callable[[], list[str]],
    check: Callable[[], None],
) -> int:
    """Kills a run and its successors at random moments of their time, and lets the last one end.

    Returns:
        How many were killed.
    """
    random, killed = np.random.default_rng(seed), 0
    for _ in range(count):
        if runs.run(command, arguments(), float(random.uniform(0.05, 1.0)) * duration) is None:
            killed += 1
        check()
    runs.run(command, arguments())
    check()
    return killed


def digest(folder: Path, *suffixes: str) -> dict[str, str]:
    """The content of a folder's visible files; dates and paths in them count too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in suffixes
        if not path.name.endswith("_summary.csv")  # it has the seconds that each took
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def state(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("count", COUNTS)
def test_training(coco_root: Path, tmp_path: Path, runs: Runs, count: int) -> None:
    common = [
        *TINY_NETWORK,
        *TINY_RUN,
        f"data.root={coco_root}",
        "trainer.max_epochs=8",
        "callbacks.early_stopping.patience=100",
        "logger=[]",
        "~callbacks.learning_rate",
    ]
    whole = tmp_path / "whole" / "checkpoints"
    runs.run("train", [*common, f"hydra.run.dir={whole.parent}"])
    duration = runs.run("train", [*common, f"hydra.run.dir={tmp_path / 'again'}"])
    assert duration is not None
    folder = tmp_path / "run"
    final = folder / "checkpoints" / "isg_mask_rcnn_final.pth"
    done = "trainer.max_epochs=8"

    def arguments() -> list[str]:
        there = final.is_file() and state(final)["epoch"] < 7
        resumed = [f"ckpt_path={final}"] * there + ["overwrite=true"] * (not there)
        return [*common, done, f"hydra.run.dir={folder}", *resumed]

    def check() -> None:
        for path in (folder / "checkpoints").glob("isg_*.pth"):  # not what was being written
            assert state(path)["state_dict"], path

    killed = killed_until_done(runs, count, 1, duration, "train", arguments, check)
    assert killed > 0
    ours, theirs = state(final), state(whole / final.name)
    assert ours["epoch"] == theirs["epoch"] == 7
    assert all(torch.equal(v, ours["state_dict"][k]) for k, v in theirs["state_dict"].items())
    best = "isg_mask_rcnn_best.pth"
    ours, theirs = state(final.with_name(best)), state(whole / best)
    assert ours["epoch"] == theirs["epoch"]
    assert all(torch.equal(v, ours["state_dict"][k]) for k, v in theirs["state_dict"].items())
    assert not [path for path in final.parent.iterdir() if path.name.startswith(".isgseg-")]


@pytest.mark.parametrize("count", COUNTS)
def test_prediction(trained: Path, tmp_path: Path, runs: Runs, count: int) -> None:
    for seed, name in enumerate("abc"):
        save_pair(tmp_path / "cells", name, *balls(24, seed))

    def arguments(folder: Path = tmp_path / "labels") -> list[str]:
        return [
            f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
            f"volumes={tmp_path}/cells/?.mrc",
            f"output_dir={folder}",
            f"paths.root={tmp_path / 'outputs'}",
            "device=cpu",
            "precision=32-true",
            "progress=false",
        ]

    runs.run("predict", arguments(tmp_path / "whole"))
    duration = runs.run("predict", arguments(tmp_path / "again"))
    assert duration is not None
    right = digest(tmp_path / "whole", ".tif", ".csv")
    assert right == digest(tmp_path / "again", ".tif", ".csv")

    def check() -> None:
        found = digest(tmp_path / "labels", ".tif", ".csv")
        assert found.items() <= right.items()
        for path in (tmp_path / "labels").glob("[abc]_labels.tif"):
            read_labels(path)
            assert path.name.replace("_labels.tif", "_granules.csv") in found

    killed = killed_until_done(runs, count, 2, duration, "predict", arguments, check)
    assert killed > 0
    assert digest(tmp_path / "labels", ".tif", ".csv") == right
    assert not list((tmp_path / "labels").glob(".isgseg-*"))


@pytest.mark.parametrize("count", COUNTS)
def test_preparation(tmp_path: Path, runs: Runs, count: int) -> None:
    for seed, name in enumerate("abc"):
        save_pair(tmp_path / "cells", name, *balls(40, seed, side=96))
    folder = tmp_path / "data"
    names = iter("abcabc" * (count + 2))

    def arguments(folder: Path = folder, val: str | None = None) -> list[str]:
        """Each run puts another volume into the validation split, so that a mixture shows."""
        return [
            f"volumes={tmp_path}/cells/?.mrc",
            f"labels={tmp_path}/cells/*_labels.mrc",
            f"val=[{val or next(names)}]",
            "patches.size=32",
            "patches.stride=32",
            f"output_dir={folder}",
            f"paths.root={tmp_path / 'outputs'}",
            "overwrite=true",
        ]

    right = {}
    for val in "abc":
        duration = runs.run("prepare", arguments(tmp_path / val, val))
        right[val] = digest(tmp_path / val, ".png", ".json")
    assert duration is not None

    def check() -> None:
        if not (folder / "dataset.yaml").exists():
            return  # nothing calls itself a dataset
        content = yaml.safe_load((folder / "dataset.yaml").read_text())
        (val,) = [source["name"] for source in content["volumes"] if source["split"] == "val"]
        assert digest(folder, ".png", ".json") == right[val]
        json.loads((folder / "train" / "annotations.json").read_text())

    killed = killed_until_done(runs, count, 3, duration, "prepare", arguments, check)
    assert killed > 0
    assert (folder / "dataset.yaml").is_file()
    assert not list(folder.glob(".isgseg-*"))
