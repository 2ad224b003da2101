"""How fast slices are labelled, beside the baseline: plain torchvision at 800 pixels, in fp32.

Run `python benchmarks/predict.py --light LIGHT.pth --default DEFAULT.pth --output
benchmarks/results/predict.json`. A contender without a checkpoint is random: see `contenders`.
`--slices 2 --rounds 1` is a quick try. `--stardist PYTHON --cellpose PYTHON`, interpreters of the
environments in `benchmarks/peers`, add what else a user could take, on the same slices.
`predict_memory.py` measures memory and growth, `predict_parts.py` where the time goes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from contenders import BASELINE, CONTENDERS, Array, add_options, contender
from peaks import add_peaks
from record import Result, add_output

from isgseg.evaluation.matching import match_instances
from isgseg.hardware import pick_device, pick_precision
from isgseg.phantom import make_phantom

FIELD = (486, 473)  # (y, x) pixels of a slice
TARGETS = {"light fast": 20.0, "default fast": 5.0}  # times faster than the baseline
PEERS = {"stardist": "StarDist 3D's network", "cellpose": "Cellpose's cyto network"}
Rows = dict[str, dict[str, float]]


def main() -> None:
    """Times every contender and records it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    for peer, title in PEERS.items():
        parser.add_argument(f"--{peer}", metavar="PYTHON", help=f"times {title} too")
    parser.add_argument("--slices", type=int, default=8, help="in a round, for every contender")
    parser.add_argument("--rounds", type=int, default=3)
    add_output(parser)
    args = parser.parse_args()
    phantom = make_phantom(args.seed, shape=(args.slices * args.rounds, *FIELD))
    result = Result("Labelling slices of 486 x 473 pixels", seeds=[args.seed])
    device = pick_device(args.device)
    add_peaks(result, device, pick_precision(args.precision, device))
    rows = race(phantom.volume, phantom.labels, args)
    for name, row in rows.items():
        kind = name if getattr(args, name.split()[0]) else f"{name} (random weights)"
        result.add("speed", f"{kind}: a slice", row["seconds"], "s")
        if name == BASELINE:
            continue
        target = f">= {TARGETS[name]:g}" if name in TARGETS else None
        result.add("speed", f"{kind}: times as fast as the baseline", row["ratio"], "", target)
        if name.endswith("fast") and row["objects"]:
            f1 = row["F1 against plain"]
            result.add("quality", f"{kind}: F1 against the plain path", f1, target=">= 0.99")
    for peer, title in PEERS.items():
        if python := getattr(args, peer):
            seconds = time_of_peer(peer, python, phantom.volume[: args.slices])
            kind = f"{title} (random weights, network alone)"
            result.add("speed", f"{kind}: a slice", seconds, "s")
            ratio = seconds / rows["light fast"]["seconds"]
            result.add("speed", f"light fast: times as fast as {kind}", ratio)
    result.details["precision of ours"] = pick_precision(args.precision, device)
    result.details["rows"] = rows
    result.write(args.output)


def race(volume: Array, ground_truth: Array, args: argparse.Namespace) -> Rows:
    """Every contender on the same slices, in turn, in every round; medians over the rounds."""
    contenders = {name: contender(name, args, volume) for name in CONTENDERS}
    for label in contenders.values():
        label(volume[:1])  # what happens once only: memory, kernels
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(args.rounds):
        part = slice(number * args.slices, (number + 1) * args.slices)
        seconds, labels = {}, {}
        for name, label in contenders.items():
            start = time.perf_counter()
            labels[name] = label(volume[part])
            seconds[name] = (time.perf_counter() - start) / args.slices
        for name, own in labels.items():
            row = {
                "seconds": seconds[name],
                "ratio": seconds[BASELINE] / seconds[name],
                "objects": float(np.mean([len(np.unique(s[s > 0])) for s in own])),
                "F1 against ground truth": match_instances(own, ground_truth[part]).f1,
            }
            if name.endswith("fast"):
                plain = labels[name.replace("fast", "plain")]
                row["F1 against plain"] = match_instances(own, plain).f1
                row["voxels unlike plain"] = float((own != plain).sum())
            found[name].append(row)
    return {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in found.items()
    }


def time_of_peer(peer: str, python: str, volume: Array) -> float:
    """Seconds a slice of another program's network, which an environment of its own runs."""
    script = Path(__file__).parent / "peers" / peer / f"time_{peer}.py"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        np.save(path, volume)
        run = subprocess.run([python, script, path], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


if __name__ == "__main__":
    main()
