"""How much memory prediction takes, and how time and memory grow with the number of slices.

Run `python benchmarks/predict_memory.py --light LIGHT.pth --output
benchmarks/results/predict_memory.json`. Each measurement has a process of its own; memory is the
peak of its resident memory, by the kernel's count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from contenders import CONTENDERS, Array, add_options, contender
from record import Result, add_output

from isgseg.io.volumes import write_volume
from isgseg.phantom import make_phantom

FIELD = (486, 473)  # (y, x) pixels of a slice
Row = dict[str, float]


def main() -> None:
    """Every contender on two slices, then the light network's fast path on more and more."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 100, 200, 400])
    add_output(parser)
    args = parser.parse_args()
    volume = make_phantom(args.seed, shape=(max([2, *args.growth[:1]]), *FIELD)).volume
    result = Result("Memory of prediction, beyond volume and labels", seeds=[args.seed])
    memory, growth = alone(volume, args)
    for name, row in memory.items():
        target = None if name == "baseline" else "<= 1536"
        result.add("memory", f"{name}, 2 slices: beyond the data", row["beyond"], "MB", target)
    for count, row in growth.items():
        name = f"light fast, {count} slices"
        result.add("memory", f"{name}: beyond the data", row["beyond"], "MB", "<= 1536")
        result.add("speed", f"{name}: a slice", row["seconds"] / int(count), "s")
    result.write(args.output)


def alone(volume: Array, args: argparse.Namespace) -> tuple[dict[str, Row], dict[str, Row]]:
    """Rows of every contender, and rows of the light fast one by its number of slices."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        np.save(path, volume)

        def run(name: str, count: int) -> Row:
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                return pool.submit(label_alone, path, name, count, args).result()

        memory = {name: run(name, 2) for name in CONTENDERS}
        rows = {str(count): run("light fast", count) for count in args.growth}
    return memory, rows


def label_alone(path: Path, name: str, count: int, args: argparse.Namespace) -> Row:
    """Labels slices of a volume and writes the labels.

    More slices than there are: to and fro through them, so that each further one is as much work.
    Those of a deeper cell would not be, because a cell is wider in its middle.

    Returns:
        `seconds`, the `peak` of memory and what of it is `beyond` volume and labels, MB.
    """
    stored = np.load(path, mmap_mode="r")
    places = np.arange(count) % (2 * len(stored))
    volume = np.array(stored[np.minimum(places, 2 * len(stored) - 1 - places)])
    del stored  # its pages would count as ours
    label = contender(name, args)
    start = time.perf_counter()
    labels = label(volume)
    write_volume(path.with_name("labels.tif"), labels, None)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    data = (volume.nbytes + labels.nbytes) / 2**20
    return {
        "seconds": seconds,
        "peak": peak,
        "beyond": peak - data,
    }


if __name__ == "__main__":
    main()
