"""On a real SLURM with accounting: only where ISGSEG_TEST_SLURM=1, from a machine that submits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isgseg.io.volumes import write_volume

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("ISGSEG_TEST_SLURM") != "1",
        reason="needs SLURM with accounting on this machine: set ISGSEG_TEST_SLURM=1",
    ),
    pytest.mark.timeout(1800),
]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three small volumes and one that is damaged."""
    noise = np.random.default_rng(0).normal(100, 5, (4, 64, 64)).astype(np.float32)
    for number in range(3):
        write_volume(tmp_path / "cells" / f"cell{number}.mrc", noise, (30.0, 30.0, 30.0))
    (tmp_path / "cells" / "damaged.mrc").write_bytes(b"no volume")
    return tmp_path / "cells"


def run(name: str, cells: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A command on SLURM, two tasks at once."""
    folder = cells.parent
    arguments = [
        f"volumes={cells}",
        f"paths.root={folder}/outputs",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.array_parallelism=2",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=3",
        "hydra.launcher.timeout_min=20",
        *more,
    ]
    command = [sys.executable, "-m", f"isgseg.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill_when_begun(record: Path, ended: threading.Event) -> None:
    """Kills the process that a record names as soon as it is there."""
    while not ended.wait(0.02):
        try:
            content = json.loads(record.read_text())
        except (OSError, ValueError):
            continue
        os.kill(content["process"], signal.SIGKILL)
        return


def statuses(summary: Path) -> dict[str, str]:
    """The status of each volume."""
    table = pd.read_csv(summary)
    return {Path(row["volume"]).stem: row["status"] for row in table.to_dict("records")}


def test_a_task_that_is_killed_and_a_damaged_volume_are_done_again_alone(
    cells: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = threading.Event()
    killer = threading.Thread(
        target=kill_when_begun, args=(out / "cell1_predict_unfinished.json", ended)
    )
    killer.start()
    first = run("predict", cells, f"output_dir={out}", "device=cpu")
    ended.set()
    killer.join()
    assert first.returncode == 1, first.stderr
    assert "2 of 4 volumes were not labelled" in first.stderr
    found = statuses(out / "predict_summary.csv")
    assert found == {
        "cell0": "labelled",
        "cell1": "failed",
        "cell2": "labelled",
        "damaged": "failed",
    }
    assert "ended without a result (state" in first.stderr
    before = {path: path.stat().st_mtime_ns for path in out.glob("cell[02]*")}
    (cells / "damaged.mrc").write_bytes((cells / "cell0.mrc").read_bytes())
    time.sleep(1)
    second = run("predict", cells, f"output_dir={out}", "device=cpu")
    assert second.returncode == 0, second.stderr
    assert "4 volumes: 2 to do, 2 are complete" in second.stdout
    assert set(statuses(out / "predict_summary.csv").values()) == {"labelled"}
    assert {path: path.stat().st_mtime_ns for path in out.glob("cell[02]*")} == before


def test_volumes_are_analysed_on_slurm(cells: Path, tmp_path: Path) -> None:
    (cells / "damaged.mrc").unlink()
    labels = np.zeros((4, 64, 64), np.uint16)
    labels[1:3, 5:9, 5:9] = 1
    for number in range(3):
        write_volume(tmp_path / "labels" / f"cell{number}_labels.tif", labels, (30.0,) * 3)
    more = ["report=false", "chance.placements=0", f"output_dir={tmp_path}/out"]
    done = run("analyse", cells, f"labels={tmp_path}/labels/*_labels.tif", *more)
    assert done.returncode == 0, done.stderr
    assert set(statuses(tmp_path / "out" / "analyse_summary.csv").values()) == {"analysed"}
