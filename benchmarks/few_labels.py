"""How many labelled cells pay: scores after training on 0, 1, 2, 4 and 8 cells of a new appearance.

Run `python benchmarks/few_labels.py --output benchmarks/results/few_labels.json`. It also draws
`few_labels.png` beside that file. `--quick` tries the script in two minutes; its numbers mean
nothing.

Each training starts from the shipped weights (`experiment=finetune`), or from random weights of the
same network (`experiment=quickstart`). The number of steps is equal, so that the time is equal too.
A training sees the labelled cells only: the lower half of the last one (along z) tunes the
thresholds, the rest is trained on. Scores are those of whole cells that no training saw. With 0
cells the shipped network predicts as it is. Random weights find nothing, so that point is left out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from console import instance_scores, labels_of, listed, make_cells, run
from record import ROOT, Result, add_output

from isgseg.io.volumes import read_labels, read_volume, write_volume

WEIGHTS = ROOT / "src" / "isgseg" / "weights" / "isg_mask_rcnn_final.pth"
# More noise and blur, less contrast and larger granules than training cells have.
APPEARANCE = (
    "source.phantom.noise=[0.075,0.086]",
    "source.phantom.lac_granule=[0.0142,0.0150]",
    "source.phantom.granule_mean_diameter=[260,280]",
    "source.phantom.blur=[62,70]",
)
COUNTS = (0, 1, 2, 4, 8)
GAIN = ">= 0.15"  # target: F1 with 2 cells, shipped weights minus random ones
BATCH = 4  # of both experiments


def main() -> None:
    """Trains and scores every point of the curve."""
    args = arguments()
    seeds = [*range(args.seed, args.seed + max(args.counts) + args.test_cells)]
    result = Result("Labelled cells of an unseen appearance against the score", seeds=seeds)
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        cells = make_cells(
            seeds, folder / "cells", [*args.appearance, f"source.phantom.shape={args.shape}"]
        )
        tests, labelled = cells[: args.test_cells], cells[args.test_cells :]
        points = [
            point(args, start, labelled[:count], tests, folder / f"{start}_{count}")
            for count in args.counts
            for start in ("shipped", "random")
            if count or start == "shipped"
        ]
    add_numbers(result, points)
    result.details |= {"appearance": list(args.appearance), "points": points}
    if args.output:
        result.details["figure"] = args.output.with_suffix(".png").name
        draw(points, args.output.with_suffix(".png"))
    result.write(args.output)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the shipped network")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of cells")
    parser.add_argument("--steps", type=int, default=150, help="of every training")
    parser.add_argument("--test-cells", type=int, default=2)
    parser.add_argument("--seed", type=int, default=5000, help="of the first cell")
    parser.add_argument("--shape", default="[64,486,473]", help="(z, y, x) of a cell, voxels")
    parser.add_argument("--appearance", nargs="*", default=APPEARANCE, help="overrides")
    parser.add_argument("--folder", type=Path, help="keeps cells, datasets and runs there")
    parser.add_argument("--quick", action="store_true", help="tiny cells, few steps, 0 and 2 cells")
    add_output(parser)
    args = parser.parse_args()
    if args.quick:
        args.counts, args.steps, args.test_cells, args.shape = [0, 2], 4, 1, "[24,128,128]"
        args.appearance = [*args.appearance, "source.phantom.granule_density=[4,5]"]
    return args


def point(
    args: argparse.Namespace,
    start: str,
    labelled: Sequence[Path],
    tests: Sequence[Path],
    folder: Path,
) -> dict[str, Any]:
    """One training, or none without labelled cells, and its scores.

    Returns:
        `start`, `cells`, `minutes` of training, `f1` at IoU .5 and `count_error` (relative) of the
        test cells.
    """
    checkpoint, seconds = args.weights, 0.0
    if labelled:
        data = prepare(labelled, network_of(args.weights), folder)
        seconds = train(args, start, data, folder)
        checkpoint = folder / "train" / "checkpoints" / "isg_mask_rcnn_final.pth"
    scores = instance_scores(tests, folder / "evaluate", f"ckpt_path='{checkpoint}'")["pooled"]
    return {
        "start": start,
        "cells": len(labelled),
        "minutes": seconds / 60,
        "f1": scores["f1"],
        "count_error": scores["count_error_relative"],
    }


def network_of(weights: Path) -> dict[str, Any]:
    """The hyper-parameters of a checkpoint's network: plain numbers and strings."""
    hyper_parameters = torch.load(weights, map_location="cpu", weights_only=True)[
        "hyper_parameters"
    ]
    return dict(hyper_parameters["network"])


def prepare(labelled: Sequence[Path], network: dict[str, Any], folder: Path) -> Path:
    """The dataset of the labelled cells; the lower half of the last one is for validation."""
    upper, lower = halves(labelled[-1], folder / "halves")
    volumes = [*labelled[:-1], upper, lower]
    channels = network.get("channels", 3)
    data = folder / "data"
    run(
        "prepare",
        f"volumes={listed(volumes)}",
        f"labels={listed([labels_of(volume) for volume in volumes])}",
        f"val=[{lower.stem}]",
        f"patches.z_context={channels // 2 if channels > 3 else 0}",
        f"output_dir={data}",
        folder=folder / "prepare",
    )
    return data


def halves(volume: Path, folder: Path) -> tuple[Path, Path]:
    """Writes the upper and the lower half of a cell along z, with their labels."""
    image, labels = read_volume(volume), read_labels(labels_of(volume))
    middle = len(image.data) // 2
    files = []
    for name, part in (("upper", slice(None, middle)), ("lower", slice(middle, None))):
        file = folder / f"{volume.stem}_{name}.mrc"
        write_volume(file, image.data[part], image.voxel_size)
        write_volume(labels_of(file), labels.data[part], image.voxel_size)
        files.append(file)
    return files[0], files[1]


def train(args: argparse.Namespace, start: str, data: Path, folder: Path) -> float:
    """Trains for about `args.steps` steps and returns the seconds."""
    images = json.loads((data / "train" / "annotations.json").read_text())["images"]
    epochs = max(1, round(args.steps / max(1, len(images) // BATCH)))
    if start == "shipped":
        recipe = ["experiment=finetune", f"model.weights='{args.weights}'"]
    else:
        recipe = ["experiment=quickstart"]
        for key, value in network_of(args.weights).items():
            if key != "channels":  # from the dataset
                recipe.append(f"++model.network.{key}={json.dumps(value)}")
    return run(
        "train",
        *recipe,
        f"data.root={data}",
        f"data.batch_size={BATCH}",
        "data.num_workers=0",
        f"trainer.max_epochs={epochs}",
        f"trainer.limit_train_batches={args.steps // epochs}",
        f"trainer.check_val_every_n_epoch={epochs}",  # once, at the end: it tunes the thresholds
        "trainer.enable_progress_bar=false",
        folder=folder / "train",
    )


def add_numbers(result: Result, points: Sequence[dict[str, Any]]) -> None:
    """The points as numbers, and the gain with two cells beside its target."""
    f1 = {(point["start"], point["cells"]): point["f1"] for point in points}
    for point in points:
        name = f"{point['cells']} labelled cells, from {point['start']} weights: F1 in 3D"
        result.add("quality", name, point["f1"])
    if {("shipped", 2), ("random", 2)} <= f1.keys():
        gain = f1["shipped", 2] - f1["random", 2]
        result.add("quality", "2 labelled cells: gain by the shipped weights", gain, target=GAIN)
    minutes = [point["minutes"] for point in points if point["cells"]]
    if minutes:
        name = "a training on few labels, longest: time"
        result.add("speed", name, float(np.max(minutes)), "min", target="<= 5")


def draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    """F1 against the number of labelled cells, a line for each start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    for start, style in (("shipped", "o-"), ("random", "s--")):
        own = [point for point in points if point["start"] == start]
        cells, f1 = [point["cells"] for point in own], [point["f1"] for point in own]
        axes.plot(cells, f1, style, label=f"{start} weights")
    axes.set(xlabel="labelled cells", ylabel="F1 in 3D at IoU .5", ylim=(0, 1))
    axes.set_xticks(sorted({point["cells"] for point in points}))
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
