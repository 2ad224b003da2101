"""What `make demo` reached and how long it took.

Run `make demo`, then `python benchmarks/demo.py --output benchmarks/results/demo.json`. It reads
the run folders of the demo and scores its labels in 3D; nothing is trained or predicted again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from console import instance_scores
from record import ROOT, Result, add_output

STEPS = ("prepare", "train", "evaluate", "predict", "analyse")  # the run folders, in order
TARGETS = {"demo": {"minutes": "<= 5", "f1": ">= 0.82"}, "demo-scratch": {}}


def main() -> None:
    """Reads and scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "outputs" / "demo")
    parser.add_argument("--name", choices=TARGETS, default="demo", help="the target of make")
    parser.add_argument("--cell", default="phantom_1000", help="which training never saw")
    add_output(parser)
    args = parser.parse_args()
    name, targets = f"make {args.name}", TARGETS[args.name]
    result = Result(f"`{name}`, on the cell that training never saw", seeds=[0])

    scores = json.loads((args.folder / "evaluate" / "metrics.json").read_text())
    for key, title in (("segm_map", "mask mAP"), ("segm_map_50", "mask mAP@.50")):
        if f"{key}_uncapped" in scores:
            result.add("quality", f"{name}: {title}", scores[f"{key}_uncapped"])
    with tempfile.TemporaryDirectory() as scratch:
        volume = args.folder / "data" / "volumes" / f"{args.cell}.mrc"
        labels = args.folder / "labels" / f"{args.cell}_labels.tif"
        found = instance_scores([volume], Path(scratch), f"predicted='{labels}'")["pooled"]
    result.add("quality", f"{name}: F1 in 3D at IoU .5", found["f1"], target=targets.get("f1"))
    result.add("quality", f"{name}: count error", found["count_error_relative"])

    for step in ("train", None):
        minutes = duration(args.folder, [step] if step else STEPS) / 60
        title = f"{name}: {step or 'all'}"
        result.add("speed", title, minutes, "min", None if step else targets.get("minutes"))
    result.write(args.output)


def duration(folder: Path, steps: tuple[str, ...] | list[str]) -> float:
    """Seconds from the start of the first step to the end of the last one.

    A command writes its configuration when it starts, and the last line of its log when it ends.
    """
    begin = (folder / steps[0] / ".hydra" / "config.yaml").stat().st_mtime
    end = (folder / steps[-1] / f"{steps[-1]}.log").stat().st_mtime
    return end - begin


if __name__ == "__main__":
    main()
