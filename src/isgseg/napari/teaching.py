"""From corrected volumes to a network that has learnt from them, without a window.

Only slices that a person has looked at become training data: what is not labelled elsewhere would
teach that nothing is there. They are cut out as volumes of their own, the last fifth of each cell
for validation.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isgseg.errors import InputError
from isgseg.instances.components import Ints, Labels
from isgseg.io.formats import Array, VoxelSize
from isgseg.io.volumes import write_volume
from isgseg.napari.loading import load_torch
from isgseg.overrides import literal

VALIDATION = 0.2  # share of the reviewed slices of a cell
_LEAST = 2  # slices of a part


@dataclass(frozen=True)
class Lesson:
    """A folder that teaches a network.

    Attributes:
        folder: `volumes/` in it holds what was reviewed, `dataset/` what isgseg-prepare makes of
            it, and each run has a folder of its own.
    """

    folder: Path

    def add(
        self,
        name: str,
        volume: Array,
        labels: Labels,
        slices: Ints,
        voxel_size: VoxelSize | None,
    ) -> list[Path]:
        """Adds the reviewed slices of a cell, in place of those that were added before.

        Args:
            name: of the cell.
            volume: (z, y, x).
            labels: (z, y, x).
            slices: those that were reviewed, rising.
            voxel_size: nm, (z, y, x), or None.

        Returns:
            The volumes that were written, their labels beside them.

        Raises:
            InputError: too few slices were reviewed, or no granule is in the part for training or
                for validation.
        """
        parts = lesson_parts(labels, slices)
        for former in sorted(self.volumes.glob(f"{name}_z*")):
            former.unlink()
        written = []
        for kind, first, last in parts:
            image = self.volumes / f"{name}_z{first:04d}to{last - 1:04d}_{kind}.mrc"
            write_volume(image, np.asarray(volume[first:last], np.float32), voxel_size)
            write_volume(image.with_stem(f"{image.stem}_labels"), labels[first:last], voxel_size)
            written.append(image)
        return written

    @property
    def volumes(self) -> Path:
        """Where the reviewed slices are."""
        return self.folder / "volumes"

    def images(self) -> list[Path]:
        """The volumes that were added, without their labels."""
        files = sorted(self.volumes.glob("*_z*.mrc"))
        return [file for file in files if not file.stem.endswith("_labels")]

    def prepare_command(self, z_context: int, normalization: Mapping[str, object]) -> list[str]:
        """The command that makes the dataset, with what the network learnt from so far.

        Raises:
            InputError: nothing was added.
        """
        images = self.images()
        if not images:
            raise InputError("add a volume that was proofread first")
        labels = [image.with_stem(f"{image.stem}_labels") for image in images]
        val = [image.stem for image in images if image.stem.endswith("_val")]
        return [
            sys.executable,
            "-m",
            "isgseg.prepare",
            f"volumes={_listed(map(str, images))}",
            f"labels={_listed(map(str, labels))}",
            f"val={_listed(val)}",
            "instances=numbers",
            f"patches.z_context={z_context}",
            *[
                f"normalization.{key}={'null' if value is None else value}"
                for key, value in normalization.items()
            ],
            f"output_dir={literal(str(self.folder / 'dataset'))}",
            f"paths.output_dir={literal(str(self.folder / 'logs' / 'prepare'))}",
            "overwrite=true",
        ]

    def train_command(self, network: Path, epochs: int, run: Path) -> list[str]:
        """The command that goes on with a network, into a folder."""
        return [
            sys.executable,
            "-m",
            "isgseg.train",
            "experiment=finetune",
            "logger=csv",
            "logger.csv.version=csv",
            f"model.weights={literal(str(network.absolute()))}",
            f"data.root={literal(str(self.folder / 'dataset'))}",
            f"paths.output_dir={literal(str(run))}",
            f"trainer.max_epochs={epochs}",
            f"trainer.check_val_every_n_epoch={min(2, epochs)}",
            "trainer.log_every_n_steps=1",
            "trainer.enable_progress_bar=false",
            "data.num_workers=0",
        ]

    def new_run(self) -> Path:
        """A folder for a run that is not there yet."""
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        for number in range(100):
            run = self.folder / (f"run_{stamp}" + (f"_{number}" if number else ""))
            if not run.exists():
                return run
        raise InputError(f"{self.folder} is full of runs of this second")


def lesson_parts(labels: Labels, slices: Ints) -> list[tuple[str, int, int]]:
    """Runs of reviewed slices: `train` or `val`, the first slice, and the one after the last.

    Args:
        labels: (z, y, x).
        slices: those that were reviewed, rising.

    Raises:
        InputError: see `Lesson.add`.
    """
    count = max(_LEAST, round(VALIDATION * len(slices)))
    if len(slices) < 2 * _LEAST:
        raise InputError(
            f"{len(slices)} slices are reviewed, and a lesson needs {2 * _LEAST}: accept or "
            "correct all granules of more slices, or say that slices are complete (C)"
        )
    parts = []
    for kind, own in (("train", slices[:-count]), ("val", slices[-count:])):
        ends = np.flatnonzero(np.diff(own) > 1)
        runs = np.split(own, ends + 1)
        parts += [(kind, int(run[0]), int(run[-1]) + 1) for run in runs]
        if not any(labels[int(run[0]) : int(run[-1]) + 1].any() for run in runs):
            where = "first four fifths" if kind == "train" else "last fifth, for validation"
            raise InputError(f"no granule is in the reviewed slices ({where}); review more")
    return parts


def base_of(network: Path) -> tuple[int, dict[str, object]]:
    """What a network learnt from, for datasets that it is to go on with.

    Returns:
        Its z-context, and the keywords of its normalization; none where it has none.

    Raises:
        InputError: it is no checkpoint, or a U-Net, which this cannot teach.
    """
    load_torch()
    from isgseg.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(network)
    if checkpoint.method != "mask_rcnn":
        raise InputError(f"{network} is a U-Net; choose a Mask R-CNN, or train it by isgseg-train")
    metadata = checkpoint.metadata
    if metadata is None:
        return 0, {}
    normalization = metadata.normalization
    known = {} if normalization is None else vars(normalization)
    return metadata.z_context, {k: v for k, v in known.items() if not k.startswith("_")}


def losses(run: Path) -> list[tuple[float, float]]:
    """Steps and losses of a run that goes on, as far as they are on the disk."""
    found = []
    try:
        with (run / "csv" / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("train/loss") and row.get("step"):
                    found.append((float(row["step"]), float(row["train/loss"])))
    except (OSError, ValueError):
        return found
    return found


def trained_network(run: Path) -> Path | None:
    """The network of a run: the best, else the last; None where there is none."""
    folder = run / "checkpoints"
    names = ("isg_mask_rcnn_best.pth", "isg_mask_rcnn_final.pth")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _listed(values: Iterable[str]) -> str:
    return "[" + ",".join(literal(value) for value in values) + "]"
