"""What each augmentation of the shipped network's training adds: one training without each.

Run `python benchmarks/augmentation.py --output benchmarks/results/augmentation.json`. Each training
starts from random weights, takes the same steps on the same synthetic cells, and leaves one
augmentation out. It is scored on synthetic cells that no training saw (F1 in 3D, with the
thresholds tuned there) and on real slices (`benchmarks/real_slices.py`, where the test data are).
The whole recipe is trained with two seeds: what differs less than these two is chance.

With `--folder` a second run goes on after the trainings that are there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from console import run
from real_slices import default_data, find, read_slices, score
from record import Result, add_output

from isgseg.inference.predictor import Predictor

# Keys of `data.augment`: the shipped network's value, and the one that changes nothing.
RECIPE = {
    "drop_z_context": (0.35, 0.0),
    "intensity": ([0.9, 1.1], [1.0, 1.0]),
    "noise": (0.02, 0.0),
    "scale": ([0.85, 1.2], [1.0, 1.0]),
    "blur": (0.7, 0.0),
}
BATCHES_AN_EPOCH = 50


def main() -> None:
    """Trains and scores every variant."""
    args = arguments()
    result = Result("Augmentation: trainings that leave one out", seeds=[0, 1])
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        data = args.data or make_dataset(folder)
        rows = {
            name: train(args, data, keys, seed, folder / name.replace(",", "").replace(" ", "_"))
            for name, keys, seed in variants()
        }
    one, other = (rows[name]["phantom_f1_3d"] for name in ("all", "all, second seed"))
    result.add("quality", "augmentation: F1 in 3D of two seeds, difference", abs(one - other))
    result.details |= {"steps": args.steps, "rows": rows, "table": table(rows, args.steps)}
    result.write(args.output)


def table(rows: dict[str, dict[str, Any]], steps: int) -> dict[str, Any]:
    """A row for each training, for the results page."""
    return {
        "caption": f"{steps} steps from random weights, each training without one augmentation.",
        "columns": [
            "training",
            "synthetic cells: F1 in 3D",
            "real slices: best F1",
            "recall at P .5",
        ],
        "rows": [
            [name, *("" if value is None else f"{value:.3f}" for value in row.values())]
            for name, row in rows.items()
        ],
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="a dataset of phantoms with z_context=2")
    parser.add_argument("--folder", type=Path, help="keeps trainings there, and goes on after them")
    parser.add_argument("--steps", type=int, default=300, help="of every training")
    add_output(parser)
    return parser.parse_args()


def variants() -> list[tuple[str, list[str], int]]:
    """Name, augmentations that are on, and seed of every training."""
    keys = list(RECIPE)
    without = [(f"without {key}", [k for k in keys if k != key], 0) for key in keys]
    return [("all", keys, 0), ("all, second seed", keys, 1), ("none", [], 0), *without]


def make_dataset(folder: Path) -> Path:
    """A dataset of 48 thin synthetic cells, and two for validation."""
    data = folder / "data"
    run(
        "prepare",
        "source=phantom",
        f"source.phantom.train_seeds={list(range(500, 548))}".replace(" ", ""),
        "source.phantom.val_seeds=[900,902]",
        "source.phantom.shape=[24,486,473]",
        "patches.z_context=2",
        "patches.slice_step=4",
        f"output_dir={data}",
        folder=folder / "prepare",
    )
    return data


def train(
    args: argparse.Namespace, data: Path, keys: list[str], seed: int, folder: Path
) -> dict[str, Any]:
    """One training, unless `folder` holds its scores already, and its scores."""
    kept = folder / "scores.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    epochs = max(1, args.steps // BATCHES_AN_EPOCH)
    augment = [
        f"data.augment.{key}={(on if key in keys else off)}".replace(" ", "")
        for key, (on, off) in RECIPE.items()
    ]
    run(
        "train",
        "experiment=quickstart",
        f"data.root={data}",
        *augment,
        f"seed={seed}",
        f"trainer.max_epochs={epochs}",
        f"trainer.limit_train_batches={BATCHES_AN_EPOCH}",
        f"trainer.check_val_every_n_epoch={epochs}",
        "trainer.enable_progress_bar=false",
        "logger=csv",
        "overwrite=true",
        folder=folder,
    )
    checkpoint = folder / "checkpoints" / "isg_mask_rcnn_final.pth"
    scores = {"phantom_f1_3d": last_value(folder, "val/f1_3d"), **real_scores(checkpoint)}
    kept.write_text(json.dumps(scores))
    return scores


def last_value(folder: Path, key: str) -> float:
    """The last value of a key that the CSV logger wrote below a run's folder."""
    import pandas as pd

    (file,) = sorted(folder.rglob("metrics.csv"))
    return float(pd.read_csv(file)[key].dropna().iloc[-1])


def real_scores(checkpoint: Path) -> dict[str, float | None]:
    """Best F1 and recall at precision .5 on real slices; None where they are not at hand."""
    if not default_data().is_dir():
        return {"real_f1": None, "real_recall": None}
    slices = read_slices(default_data())
    predictor = Predictor.from_checkpoint(checkpoint, progress=False)
    found = score(slices, [find(predictor, part.image) for part in slices])
    return {"real_f1": found["best"]["f1"], "real_recall": found["recall_at_precision_half"]}


if __name__ == "__main__":
    main()
