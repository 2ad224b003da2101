"""Two processes that train together, against one that accumulates as many batches.

A small network learns discs for 150 steps; from there it goes on for 40 steps in both ways, with
the same patches, augmentation and random draws in each step. Then one process scores the network
of the two.

    python benchmarks/ddp.py --output benchmarks/results/ddp.json
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from discs import OPTIONS, dataset
from hydra import compose, initialize_config_dir
from lightning import Callback
from record import Result, add_output

from isgseg.config import CONFIG_DIR

EPOCHS, FINAL = 10, "checkpoints/isg_mask_rcnn_final.pth"


class Writes(Callback):
    """Writes the losses of all steps and what the last evaluation gave."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, *args: object) -> None:
        """Keeps the loss."""
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes what there is."""
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        content = {"losses": self.losses, "metrics": known}
        (self.folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(content))


def run(folder: Path, root: Path, *overrides: str) -> float:
    """Trains into a folder; returns the seconds."""
    from isgseg.train import train

    folder.mkdir()
    options = [*OPTIONS, "~callbacks.learning_rate", f"data.root={root}", *overrides]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", [*options, f"paths.output_dir={folder}"])
    start = time.perf_counter()
    train(cfg)
    return time.perf_counter() - start


def alone(checkpoint: Path, root: Path) -> dict[str, float]:
    """What one process scores of the network of two."""
    from isgseg.data.datamodule import CocoDataModule
    from isgseg.training.evaluation import evaluation_trainer, load_module
    from isgseg.training.volume_score import VolumeScore

    trainer = evaluation_trainer("cpu", "32-true", False, VolumeScore(slices=64))
    data = CocoDataModule(str(root), batch_size=1, num_workers=0)
    trainer.validate(load_module(checkpoint), datamodule=data, verbose=False)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    args = parser.parse_args()
    logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)
    result = Result("Training by two processes against one", seeds=[0])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        root = dataset(folder / "data")
        run(
            folder / "start",
            root,
            *("trainer.max_epochs=38", "trainer.check_val_every_n_epoch=38", "model.lr=0.02"),
            *("model.schedule=cosine", "model.warmup_steps=5", "trainer.gradient_clip_val=5"),
        )
        common = [
            f"model.weights={folder / 'start' / FINAL}",
            *("data.batch_size=1", f"trainer.max_epochs={EPOCHS}", "model.warmup_steps=1"),
            f"trainer.check_val_every_n_epoch={EPOCHS}",
            "+callbacks.writes._target_=ddp.Writes",
        ]
        ways = {
            "one": ["trainer.accumulate_grad_batches=2"],
            "two": ["trainer.devices=2", "trainer.strategy=ddp"],
        }
        found, seconds = {}, {}
        for name, way in ways.items():
            place = f"+callbacks.writes.folder={folder / name}"
            seconds[name] = run(folder / name, root, *common, *way, place)
            files = sorted((folder / name).glob("rank_*.json"))
            found[name] = [json.loads(file.read_text()) for file in files]
        known = alone(folder / "two" / FINAL, root)
    one, (first, second) = found["one"][0], found["two"]
    losses = np.array(one["losses"]).reshape(-1, 2).mean(1)
    off = np.abs(losses - first["losses"]) / losses
    metrics = first["metrics"]
    result.add("quality", "steps of the optimizer", len(losses), target=">= 40")
    result.add("quality", "first loss, relative difference", off[0], target="<= 0.00001")
    result.add("quality", "any loss, largest relative difference", off.max(), target="<= 0.01")
    for name in ("val/segm_map", "val/f1_3d"):
        result.add("quality", f"{name} of one process", one["metrics"][name])
        result.add(
            "quality",
            f"{name} of two, difference",
            abs(metrics[name] - one["metrics"][name]),
            target="<= 0.01",
        )
    for text, other in (("one process scores", known), ("rank 1 knows", second["metrics"])):
        differ = max(abs(metrics[name] - value) for name, value in other.items())
        result.add(
            "quality",
            f"any score or threshold, difference from what {text}",
            differ,
            target="<= 0",
        )
    for name, value in seconds.items():
        result.add("speed", f"40 steps by {name}, with start and evaluation", value, unit="s")
    result.details = {"losses of one": losses.tolist(), "losses of two": first["losses"]}
    result.details |= {"metrics of one": one["metrics"], "metrics of two": metrics}
    result.write(args.output)


if __name__ == "__main__":
    main()
