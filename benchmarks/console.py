"""The console commands of isgseg as a benchmark runs them, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(command: str, *overrides: str, folder: Path) -> float:
    """Runs `isgseg-<command>` and returns its wall time in seconds.

    Args:
        command: `prepare`, `train`, `evaluate` and so on.
        *overrides: as on the command line.
        folder: its run folder, with the log, the configuration and what it writes by default.

    Raises:
        RuntimeError: the command failed; the message is what it wrote.
    """
    start = time.perf_counter()
    print(f"isgseg-{command} {' '.join(overrides)}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"isgseg.{command}", *overrides, f"hydra.run.dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"isgseg-{command} failed:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - start


def make_cells(seeds: Sequence[int], folder: Path, appearance: Sequence[str] = ()) -> list[Path]:
    """Makes synthetic cells with their labels beside them, `<name>_labels.mrc`.

    Args:
        seeds: one a cell.
        folder: of the dataset that `isgseg-prepare` makes on the way.
        appearance: further overrides of `isgseg-prepare`, such as `source.phantom.noise=[.07,.08]`.

    Returns:
        The volumes' files, in the order of the seeds.
    """
    run(
        "prepare",
        "source=phantom",
        f"source.phantom.train_seeds={list(seeds[1:])}".replace(" ", ""),
        f"source.phantom.val_seeds=[{seeds[0]}]",
        "patches.slice_step=8",  # the volumes are wanted, not their patches
        *appearance,
        f"output_dir={folder}",
        folder=folder.with_name(f"{folder.name}_prepare"),
    )
    return [folder / "volumes" / f"phantom_{seed:04d}.mrc" for seed in seeds]


def labels_of(volume: Path) -> Path:
    """The labels beside a synthetic cell."""
    return volume.with_name(f"{volume.stem}_labels{volume.suffix}")


def listed(paths: Sequence[Path]) -> str:
    """Paths as a list on the command line."""
    return "[" + ",".join(f"'{path}'" for path in paths) + "]"


def instance_scores(
    volumes: Sequence[Path], folder: Path, *overrides: str
) -> dict[str, dict[str, Any]]:
    """Scores whole cells in 3D with `isgseg-evaluate`; their labels lie beside them.

    Args:
        volumes: files made by `make_cells`.
        folder: the run folder.
        *overrides: `ckpt_path=...`, or `predicted=...` for labels that are there already.

    Returns:
        `pooled`, of all instances together, and `volumes`, by file.
    """
    labels = [labels_of(volume) for volume in volumes]
    files = f"volumes={listed(volumes)}", f"labels={listed(labels)}"
    run("evaluate", *files, "progress=false", *overrides, folder=folder)
    scores: dict[str, dict[str, Any]] = json.loads((folder / "metrics.json").read_text())
    return scores
