"""Scores a shipped network on synthetic cells that its training never saw, for the model card.

Run, in one line,

    python benchmarks/shipped_network.py --training "isgseg-train experiment=..." \
        --training-seeds "0 to 95" --output benchmarks/results/shipped_network.json

and then `python benchmarks/report.py`, which writes the tables of `docs/model_card.md`. The U-Net
is scored by `--weights src/isgseg/weights/isg_unet_final.pth`, into `shipped_unet.json`.
Scores on real slices come from `benchmarks/real_slices.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from console import instance_scores, make_cells
from record import ROOT, Result, add_output

WEIGHTS = ROOT / "src" / "isgseg" / "weights" / "isg_mask_rcnn_final.pth"


def main() -> None:
    """Makes the cells, scores them and describes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--training", required=True, help="the command that trained it")
    parser.add_argument("--training-seeds", required=True, help="of its cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2000, 2001, 2002, 2003])
    parser.add_argument("--shape", default="[64,486,473]", help="(z, y, x) of a cell, voxels")
    add_output(parser)
    args = parser.parse_args()
    name = "shipped U-Net" if "unet" in args.weights.name else "shipped network"
    largest = 4 if "unet" in args.weights.name else 12  # MB
    result = Result(f"The {name} on synthetic cells it never saw", seeds=args.seeds)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cells = make_cells(args.seeds, folder / "cells", [f"source.phantom.shape={args.shape}"])
        weights = f"ckpt_path='{args.weights.resolve()}'"
        scores = instance_scores(cells, folder / "evaluate", weights)["pooled"]
    count = abs(scores["count_error_relative"])
    result.add("quality", f"{name}: F1 in 3D at IoU .5", scores["f1"], target=">= 0.85")
    result.add("quality", f"{name}: count error", count, target="<= 0.05")
    for key in ("precision", "recall", "pq"):
        result.add("quality", f"{name}: {key} in 3D", scores[key])
    size = args.weights.stat().st_size / 1e6
    result.add("memory", f"{name}: file", size, "MB", target=f"<= {largest}")
    with args.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    result.details["card"] = {
        "file": f"`{args.weights.name}`",
        "SHA-256": f"`{digest}`",
        "training": f"`{args.training}`",
        "seeds of the training cells": args.training_seeds,
        "seeds of the scored cells": ", ".join(map(str, args.seeds)),
    }
    result.write(args.output)


if __name__ == "__main__":
    main()
