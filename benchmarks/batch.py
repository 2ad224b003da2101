"""What a batch of volumes costs on SLURM beside the computing, and what is done after failures.

Run `python benchmarks/batch.py --output benchmarks/results/batch.json` on a machine that submits to
SLURM, with accounting (`sacct`), and whose nodes see the same temporary folder. Two tasks run at
once. Volumes are small slabs of phantoms, so that the scheduler's part shows.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from record import Result, add_output

from isgseg.io.volumes import write_volume
from isgseg.phantom import make_phantom

SHAPE = (6, 128, 128)
AT_ONCE = 2
BIG = (40, 4096, 4096)  # float32, 2.7 GB: more than a task of `LIMIT` can have


def main() -> None:
    """Labels slabs on SLURM, then some of which three fail, and these again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=20, help="slabs of the first run")
    parser.add_argument("--faulty", type=int, default=6, help="slabs of the second, three at fault")
    parser.add_argument("--partition", default="main")
    parser.add_argument("--limit", type=int, default=6, help="GB of address space of a task")
    parser.add_argument("--folder", type=Path, help="where all is written; None: a temporary one")
    add_output(parser)
    args = parser.parse_args()
    result = Result("Many volumes on SLURM", seeds=list(range(args.volumes)))
    folder = args.folder or Path(tempfile.mkdtemp(prefix="isgseg-batch-"))
    slabs = [slab(folder / "slabs" / f"cell{seed + 1}.mrc", seed) for seed in range(args.volumes)]
    launcher = [f"hydra.launcher.partition={args.partition}"]
    overhead(result, folder, slabs, launcher)
    result.write(args.output)  # the second part takes long
    limit = f"hydra.launcher.setup=['ulimit -v {args.limit * 2**20}']"
    failures(result, folder, slabs[: args.faulty], [*launcher, limit])
    result.write(args.output)


def slab(path: Path, seed: int) -> Path:
    """A slab of a phantom, one file."""
    phantom = make_phantom(seed, shape=SHAPE)
    return write_volume(path, phantom.volume, phantom.voxel_size)


def overhead(result: Result, folder: Path, slabs: list[Path], launcher: list[str]) -> None:
    """All slabs, `AT_ONCE` at a time: what is not spent in tasks, and what is not labelling."""
    run = predict(folder / "slabs", folder / "labels", folder / "outputs", launcher)
    ended = time.time()
    table = pd.read_csv(folder / "labels" / "predict_summary.csv")
    labelled = int((table["status"] == "labelled").sum())
    result.add("quality", "volumes labelled", labelled, target=f">= {len(slabs)}")
    result.add("quality", "exit status", run.returncode, target="<= 0")
    tasks = accounted(run.stdout)
    elapsed = (tasks["End"] - tasks["Start"]).dt.total_seconds()
    first, last = tasks["Submit"].min().timestamp(), tasks["End"].max().timestamp()
    ended = max(ended, last)  # results are there a little before their tasks have ended
    result.add("speed", "from submitting to the summary", ended - first, "s")
    idle = (AT_ONCE * (ended - first) - elapsed.sum()) / len(slabs)
    result.add("speed", "scheduler's overhead per volume", idle, "s", "<= 5")
    result.add("speed", "one task, median", elapsed.median(), "s")
    result.add("speed", "of it labelling, median", table["seconds"].median(), "s")
    result.details["tasks"] = {
        "shape": SHAPE,
        "at once": AT_ONCE,
        "task seconds": elapsed.tolist(),
        "labelling seconds": table["seconds"].tolist(),
    }


def failures(result: Result, folder: Path, slabs: list[Path], launcher: list[str]) -> None:
    """One slab is corrupt, one too large for its task's memory, one task is killed; then again."""
    cells, out = folder / "faulty", folder / "faulty_labels"
    cells.mkdir(parents=True)
    for path in slabs:
        shutil.copy(path, cells / path.name)
    corrupt, large, killed = (cells / path.name for path in slabs[:3])
    corrupt.write_bytes(corrupt.read_bytes()[:2000])
    write_volume(large, np.zeros(BIG, np.float32), (30.0, 30.0, 30.0))
    stop = on_begin(out / f"{killed.stem}_predict_unfinished.json", kill)
    run = predict(cells, out, folder / "outputs", launcher)
    stop()
    table = pd.read_csv(out / "predict_summary.csv")
    failed = table[table["status"] == "failed"]
    names = {Path(name).name for name in failed["volume"]}
    expected = {path.name for path in (corrupt, large, killed)}
    result.add("quality", "first run: those that failed are the three", names == expected)
    result.add("quality", "first run: exit status", run.returncode, target=">= 1")
    result.details["reasons"] = {
        Path(row["volume"]).name: relative(str(row["reason"]), folder)
        for row in failed.to_dict("records")
    }
    before = times(out)
    for path in (corrupt, large):
        shutil.copy(folder / "slabs" / path.name, path)
    run = predict(cells, out, folder / "outputs", launcher)
    done = {path.name.removesuffix("_labels.tif") for path in written(out, before)}
    again = {path.stem for path in (corrupt, large, killed)}
    result.add("quality", "second run: volumes labelled", len(done), target=">= 3")
    result.add("quality", "second run: others", len(done - again), target="<= 0")
    result.add("quality", "second run: tasks", len(accounted(run.stdout)), target="<= 3")
    result.add("quality", "second run: exit status", run.returncode, target="<= 0")


def predict(
    cells: Path, out: Path, outputs: Path, launcher: list[str]
) -> subprocess.CompletedProcess[str]:
    """isgseg-predict of a folder on SLURM."""
    arguments = [
        f"volumes={cells}",
        f"output_dir={out}",
        f"paths.root={outputs}",
        "device=cpu",
        "hydra/launcher=submitit_slurm",
        f"hydra.launcher.array_parallelism={AT_ONCE}",
        "hydra.launcher.cpus_per_task=1",
        "hydra.launcher.mem_gb=4",
        "hydra.launcher.timeout_min=30",
        *launcher,
    ]
    run = subprocess.run(
        [sys.executable, "-m", "isgseg.predict", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout[-1500:], run.stderr[-1500:], flush=True)
    return run


def accounted(log: str) -> pd.DataFrame:
    """Submit, Start and End of the tasks whose sweep a log names, one row each."""
    folder = next(line.split()[-1] for line in log.splitlines() if "sweep output dir" in line)
    jobs = [path.name for path in Path(folder, ".submitit").iterdir() if path.name[0].isdigit()]
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,Submit,Start,End", "-j", ",".join(jobs)]
    for _ in range(60):  # the accounts come a little later
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if "Unknown" not in "".join(lines):
            break
        time.sleep(1)
    rows = [line.split("|") for line in lines]
    return pd.DataFrame(
        [[datetime.fromisoformat(text).astimezone() for text in row[1:]] for row in rows],
        columns=["Submit", "Start", "End"],
        index=[row[0] for row in rows],
    )


def on_begin(path: Path, act: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Calls a function once with a record that appears; returns what ends the watch."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            try:
                record = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            act(record)
            return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return ended.set


def kill(record: dict[str, Any]) -> None:
    """Kills the process of a record, on this machine."""
    os.kill(record["process"], signal.SIGKILL)


def times(folder: Path) -> dict[Path, int]:
    """When each file of labels was changed last."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("*_labels.tif")}


def written(folder: Path, before: dict[Path, int]) -> list[Path]:
    """The files of labels that are new or changed."""
    return [path for path, changed in times(folder).items() if before.get(path) != changed]


def relative(text: str, folder: Path) -> str:
    """A text without the folder of this machine."""
    return text.replace(f"{folder}/", "")


if __name__ == "__main__":
    main()
