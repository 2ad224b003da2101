"""The rows of `benchmarks/methods.py`: how each method is trained, tuned and used."""

from __future__ import annotations

import argparse
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from console import instance_scores, labels_of, listed, make_cells, run
from methods_cost import Cost, kept, spent
from record import ROOT

from isgseg.data.metadata import read_metadata
from isgseg.io.volumes import read_labels, read_volume

PEERS = ROOT / "benchmarks" / "peers"
WEIGHTS = ROOT / "src" / "isgseg" / "weights"
CALIBRATION = (2, 10)  # steps of two short trainings that tell what a step costs
LONGER = 1 / 8  # of the steps that those suggest: a third one, as later steps cost more, or less
BATCH = 4  # images a step of isgseg's networks


class Data(NamedTuple):
    """The cells.

    Attributes:
        root: the dataset of patches, with the volumes of training and validation.
        training: volumes.
        validation: volumes that tune.
        test: volumes that are scored.
        arrays: folder of the same as `.npy`, for peers: `<name>.npy` in the file's units,
            `grey/<name>.npy` as isgseg's networks see them, `labels/<name>.npy`.
        timed: further volumes that are labelled for the time alone: of images that take a moment
            each, few tell nothing.
    """

    root: Path
    training: list[Path]
    validation: list[Path]
    test: list[Path]
    arrays: Path
    timed: tuple[Path, ...] = ()


def make_data(folder: Path, training: list[int], validation: int, test: list[int]) -> Data:
    """The cells, made where they are not there."""
    root = folder / "train"
    if not (root / "dataset.yaml").is_file():
        run(
            "prepare",
            "source=phantom",
            f"source.phantom.train_seeds={training}".replace(" ", ""),
            f"source.phantom.val_seeds=[{validation}]",
            "patches.z_context=2",
            "patches.centre_map=true",
            f"output_dir={root}",
            folder=folder / "train_prepare",
        )
    if not (folder / "test" / "dataset.yaml").is_file():
        make_cells(test, folder / "test")

    def volumes(folder: Path, seeds: list[int]) -> list[Path]:
        return [folder / "volumes" / f"phantom_{seed:04d}.mrc" for seed in seeds]

    data = Data(
        root,
        volumes(root, training),
        volumes(root, [validation]),
        volumes(folder / "test", test),
        folder / "arrays",
    )
    save_arrays(data)
    return data


def save_arrays(data: Data) -> None:
    """The volumes as peers read them, those that are not there yet."""
    normalization = read_metadata(data.root).normalization
    assert normalization is not None  # isgseg-prepare has made the dataset
    for volume in [*data.training, *data.validation, *data.test, *data.timed]:
        if not (data.arrays / "labels" / f"{volume.stem}.npy").is_file():
            image = read_volume(volume).data
            for name in ("grey", "labels"):
                (data.arrays / name).mkdir(parents=True, exist_ok=True)
            np.save(data.arrays / f"{volume.stem}.npy", image.astype(np.float32))
            np.save(data.arrays / "grey" / f"{volume.stem}.npy", normalization.fit(image)(image))
            np.save(
                data.arrays / "labels" / f"{volume.stem}.npy", read_labels(labels_of(volume)).data
            )


@dataclass
class Row(ABC):
    """A method.

    Attributes:
        title: what the table calls it.
        minutes: of training, processor time; None: those of the command line.
    """

    title: str
    minutes: float | None = field(default=None, kw_only=True)

    @abstractmethod
    def train(self, args: argparse.Namespace, data: Data, folder: Path) -> dict[str, Any]:
        """Trains and tunes what is not there yet.

        Returns:
            `checkpoint` or `model`, a path; `cost` of the training, None without one; and what else
            is worth keeping.
        """

    @abstractmethod
    def label(
        self, args: argparse.Namespace, data: Data, model: Path, volumes: list[Path], folder: Path
    ) -> Cost:
        """Labels volumes in one process, to files that `labels` finds in the folder."""

    @abstractmethod
    def labels(self, folder: Path, volume: Path) -> Path:
        """The label file of a volume."""

    def measure(
        self, args: argparse.Namespace, data: Data, runs: Path, name: str
    ) -> dict[str, Any]:
        """Trains, labels the test cells, and scores them.

        The first cell is labelled by one process, the others by another: the difference of their
        times is that of slices alone, without the start.
        """
        folder = runs / name
        train = kept(folder / "train.json", lambda: self.train(args, data, folder))
        groups = {"first": data.test[:1], "rest": [*data.test[1:], *data.timed]}
        costs = {
            group: Cost(
                *kept(
                    folder / f"{group}.json",
                    lambda volumes=volumes, group=group: self.label(
                        args, data, Path(train["model"]), volumes, folder / group
                    ),
                )
            )
            for group, volumes in groups.items()
        }
        found = [
            self.labels(folder / group, volume)
            for group, volumes in groups.items()
            for volume in volumes
            if volume in data.test
        ]
        scores = instance_scores(data.test, folder / "evaluate", f"predicted={listed(found)}")
        slices = [len(read_volume(path).data) for path in [*data.test, *data.timed]]
        extra = sum(slices[1:]) - slices[0]
        first, rest = costs["first"], costs["rest"]
        each = (rest.processor - first.processor) / extra
        return {
            "title": self.title,
            "scores": scores["pooled"],
            "cells": list(scores["volumes"].values()),
            "train": {key: value for key, value in train.items() if key != "model"},
            "predict": {
                "seconds_a_slice": each,
                "wall_a_slice": (rest.wall - first.wall) / extra,
                "memory_mb": first.memory,
                "slices": slices,
            },
        }


@dataclass
class Isgseg(Row):
    """A network of isgseg.

    Attributes:
        recipe: overrides of `isgseg-train`.
        epochs: that the steps are divided into; schedules count them.
        method: part of the names of checkpoints.
        of: the row whose training it takes; empty: its own.
        weights: a checkpoint that is used as it is, instead of a training.
        segmentation: overrides of tuning and prediction.
        tuning: overrides of tuning alone.
    """

    recipe: tuple[str, ...] = ()
    epochs: int = 10
    method: str = "mask_rcnn"
    of: str = ""
    weights: Path | None = None
    segmentation: tuple[str, ...] = ()
    tuning: tuple[str, ...] = ("slices=64",)

    def train(self, args: argparse.Namespace, data: Data, folder: Path) -> dict[str, Any]:
        """See `Row.train`; with weights of its own nothing is tuned either."""
        if self.weights:
            return {"model": str(self.weights), "cost": None}
        home = folder.parent / (self.of or folder.name)
        fitted = kept(home / "fit.json", lambda: self.fit(args, data, home))
        command(
            args,
            "tune",
            f"ckpt_path={fitted['checkpoint']}",
            f"data.root={data.root}",
            "data.num_workers=0",
            "progress=false",
            *self.tuning,
            *self.segmentation,
            folder=folder / "tune",
        )
        tuned = folder / "tune" / f"{Path(fitted['checkpoint']).stem}_tuned.pth"
        return {key: fitted[key] for key in ("cost", "steps")} | {"model": str(tuned)}

    def fit(self, args: argparse.Namespace, data: Data, folder: Path) -> dict[str, Any]:
        """Trains for so many steps that processor time ends with the minutes."""
        costs = {
            steps: self.steps(args, data, steps, 1, folder / f"{steps}").processor
            for steps in CALIBRATION
        }
        longer = round(steps_within(costs, args.minutes * 60) * LONGER)
        if longer > CALIBRATION[1]:
            cost = self.steps(args, data, longer, 1, folder / f"{longer}")
            costs[longer] = cost.processor
        steps = round(steps_within(costs, args.minutes * 60))
        epochs, each = schedule(steps, self.epochs, data.root)
        print(f"{self.title}: {costs}, {epochs} x {each} steps", flush=True)
        cost = self.steps(args, data, steps, self.epochs, folder / "fit")
        checkpoint = folder / "fit" / "checkpoints" / f"isg_{self.method}_final.pth"
        return {"checkpoint": str(checkpoint), "cost": cost, "steps": epochs * each}

    def steps(
        self, args: argparse.Namespace, data: Data, steps: int, epochs: int, folder: Path
    ) -> Cost:
        """A training without validation, of so many steps in all."""
        epochs, each = schedule(steps, epochs, data.root)
        return command(
            args,
            "train",
            *self.recipe,
            f"data.root={data.root}",
            "data.num_workers=0",
            f"data.batch_size={BATCH}",
            f"trainer.max_epochs={epochs}",
            f"trainer.limit_train_batches={each}",
            f"trainer.check_val_every_n_epoch={epochs + 1}",  # never
            "trainer.enable_progress_bar=false",
            "~callbacks.best",
            "~callbacks.early_stopping",
            "overwrite=true",
            folder=folder,
        )

    def label(
        self, args: argparse.Namespace, data: Data, model: Path, volumes: list[Path], folder: Path
    ) -> Cost:
        """See `Row.label`."""
        return command(
            args,
            "predict",
            f"ckpt_path={model}",
            f"volumes={listed(volumes)}",
            f"output_dir={folder}",
            "overwrite=true",
            "progress=false",
            *self.segmentation,
            folder=folder / "run",
        )

    def labels(self, folder: Path, volume: Path) -> Path:
        """See `Row.labels`."""
        return folder / f"{volume.stem}_labels.tif"


@dataclass
class Peer(Row):
    """A program of others, `benchmarks/peers/<name>/run_<name>.py`, in its own environment.

    Attributes:
        name: of its folder.
        trains: whether it learns.
        grey: whether it sees the grey values of isgseg's networks, or the file's own.
        options: of all its steps.
    """

    name: str = ""
    trains: bool = True
    grey: bool = True
    options: tuple[str, ...] = ()

    def train(self, args: argparse.Namespace, data: Data, folder: Path) -> dict[str, Any]:
        """See `Row.train`."""
        model = folder / "model"
        cost = None
        if self.trains:
            seconds = f"--seconds={args.minutes * 60:g}"
            cost = self.step(args, data, "train", data.training, model, folder, seconds)
        self.step(args, data, "tune", data.validation, model, folder)
        said = (folder / "train.log").read_text() if self.trains else ""
        steps = re.findall(r"^(\d+) steps in", said, re.MULTILINE)
        return {"model": str(model), "cost": cost, "steps": int(steps[-1]) if steps else None}

    def label(
        self, args: argparse.Namespace, data: Data, model: Path, volumes: list[Path], folder: Path
    ) -> Cost:
        """See `Row.label`."""
        return self.step(args, data, "predict", volumes, model, folder, f"--output={folder}")

    def labels(self, folder: Path, volume: Path) -> Path:
        """See `Row.labels`."""
        return folder / f"{volume.stem}.npy"

    def step(
        self,
        args: argparse.Namespace,
        data: Data,
        step: str,
        volumes: list[Path],
        model: Path,
        folder: Path,
        *options: str,
    ) -> Cost:
        """Runs one step of the script."""
        script = PEERS / self.name / f"run_{self.name}.py"
        python = getattr(args, self.name, sys.executable)
        images = data.arrays / "grey" if self.grey else data.arrays
        files = ["--images", *(images / f"{volume.stem}.npy" for volume in volumes)]
        if step != "predict":
            files += ["--labels", *(data.arrays / "labels" / f"{v.stem}.npy" for v in volumes)]
        line = [python, script, step, *files, f"--model={model}", *self.options, *options]
        return spent(line, folder / f"{step}.log", threads(args))


def schedule(steps: int, epochs: int, root: Path) -> tuple[int, int]:
    """How many epochs there are, and how many steps in each, for so many steps in all.

    Few images make short epochs: then there are more of them than `epochs`.
    """
    batches = read_metadata(root).objects["train"].patches // BATCH
    each = max(1, min(round(steps / epochs), batches))
    return max(1, round(steps / each)), each


def steps_within(costs: Mapping[int, float], seconds: float) -> float:
    """Steps of a training that takes so long, by the costs of short ones.

    Args:
        costs: seconds by number of steps. The two with the most steps say what a further one costs.
        seconds: of the whole training.
    """
    (few, first), (more, second) = sorted(costs.items())[-2:]
    return few + (seconds - first) * (more - few) / (second - first)


def threads(args: argparse.Namespace) -> dict[str, str]:
    """The environment that keeps a program to its threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return dict.fromkeys(names, str(args.threads))


def command(args: argparse.Namespace, name: str, *overrides: str, folder: Path) -> Cost:
    """The cost of a command of isgseg."""
    line = [sys.executable, "-m", f"isgseg.{name}", *overrides, f"hydra.run.dir={folder}"]
    return spent(line, folder.with_name(f"{folder.name}.log"), threads(args))


ROWS: dict[str, Row] = {
    "light": Isgseg("isgseg: Mask R-CNN, light", ("experiment=quickstart",)),
    "light-hour": Isgseg(
        "isgseg: Mask R-CNN, light, an hour", ("experiment=quickstart",), minutes=60
    ),
    "unet": Isgseg("isgseg: U-Net and split", ("experiment=unet",), method="unet"),
    "stardist": Peer("StarDist 3D", name="stardist"),
    "cellpose": Peer("Cellpose 3", name="cellpose", options=("--flat",)),
    "log": Peer("Laplacian of Gaussian and watershed", name="log", trains=False),
    "unet-blobfit": Isgseg(
        "isgseg: U-Net and published blob fit",
        method="unet",
        of="unet",
        segmentation=("segmentation.maps.assign=blobfit",),
    ),
    "shipped": Isgseg(
        "isgseg: Mask R-CNN of the package, no training",
        weights=WEIGHTS / "isg_mask_rcnn_final.pth",
    ),
    "shipped-unet": Isgseg(
        "isgseg: U-Net of the package, no training",
        method="unet",
        weights=WEIGHTS / "isg_unet_final.pth",
    ),
    "light-linked": Isgseg(
        "isgseg: Mask R-CNN, light, without the split by shape",
        of="light",
        segmentation=("segmentation.split=false",),
    ),
    "default": Isgseg("isgseg: Mask R-CNN, default", (), epochs=20),
    "baseline": Isgseg(
        "published recipe: torchvision's Mask R-CNN", ("experiment=baseline",), epochs=20
    ),
    "finetuned": Isgseg(
        "isgseg: Mask R-CNN of the package, fine-tuned",
        ("experiment=finetune", "model.weights=phantom"),
    ),
}
