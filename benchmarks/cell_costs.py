"""What a whole cell costs beside the network, for the plan in docs/cluster.md.

Run `OMP_NUM_THREADS=1 python benchmarks/cell_costs.py --output benchmarks/results/cell_costs.json`.
Times are of the processor, so that what else runs on the machine changes them little.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output

from isgseg.analysis.granules import granule_table, write_table
from isgseg.inference.manifest import hash_labels
from isgseg.io.paths import sha256
from isgseg.io.volumes import read_labels, read_volume, write_volume

SHAPE = (473, 486, 473)
SIZE = (33.0, 33.0, 33.0)
STEP, RADIUS = 36, 4  # voxels between granules, and of one


def main() -> None:
    """Times each step of a task but the network and linking."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    args = parser.parse_args()
    result = Result("A whole cell beside the network: processor seconds", seeds=[0])
    labels = balls()
    random = np.random.default_rng(0)
    volume = random.normal(0.01, 0.001, SHAPE).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "cell.mrc", Path(folder) / "cell_labels.tif"
        write_volume(file, volume, SIZE)
        name = f"{SHAPE[0]} x {SHAPE[1]} x {SHAPE[2]} float32, {labels.max():,} granules"
        steps: dict[str, Callable[[], Any]] = {
            "SHA-256 of the volume": lambda: sha256(file),
            "reading the volume": lambda: read_volume(file),
            "table": lambda: write_table(
                Path(folder) / "cell.csv", granule_table(labels, volume, SIZE)
            ),
            "SHA-256 of the labels": lambda: hash_labels(labels),
            "writing the labels": lambda: write_volume(out, labels, SIZE),
            "reading the labels, in a second run": lambda: hash_labels(
                read_labels(out, check=False).data
            ),
        }
        total = 0.0
        for step, act in steps.items():
            start = time.process_time()
            act()
            seconds = time.process_time() - start
            total += seconds * ("second run" not in step)
            result.add("speed", f"{name}: {step}", seconds, "s")
        result.add("speed", f"{name}: all of one task", total, "s")
    result.add("speed", "start of a task: Python, PyTorch, the network", start_of_task(), "s")
    result.write(args.output)


def start_of_task() -> float:
    """Processor seconds of what each task does before its first slice, on a CPU."""
    code = (
        "import isgseg.predict; from isgseg.inference.predictor import Predictor; "
        "Predictor.from_checkpoint(None, device='cpu')"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def balls() -> npt.NDArray[np.uint16]:
    """(z, y, x) numbered balls on a grid."""
    labels = np.zeros(SHAPE, np.uint16)
    grid = np.indices((2 * RADIUS + 1,) * 3) - RADIUS
    ball = (grid**2).sum(axis=0) <= RADIUS**2
    places = [range(2 * RADIUS, side - 2 * RADIUS, STEP) for side in SHAPE]
    number = 0
    for z in places[0]:
        for y in places[1]:
            for x in places[2]:
                number += 1
                box = tuple(slice(c - RADIUS, c + RADIUS + 1) for c in (z, y, x))
                labels[box][ball] = number
    return labels


if __name__ == "__main__":
    main()
