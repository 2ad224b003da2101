"""The callback that tunes granules in 3D, on a volume, at each validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback

from isgseg.data.datamodule import Batch
from isgseg.data.dataset import load_pair
from isgseg.data.origin import read_source
from isgseg.instances.matching import match_instances
from isgseg.labelling import Labelling, grey_of, label_volume
from isgseg.model.module import MaskRCNNModule
from isgseg.model.operating_point import DEFAULT, Matches, best_point, choose_thresholds, point_at
from isgseg.normalization import Grey
from isgseg.volume import read_labels

log = logging.getLogger(__name__)

LEAST = 16  # slices of one volume: fewer would cut most granules, and cells differ more than slices


@dataclass(frozen=True)
class Part:
    """Neighbouring slices of a volume: grey values and truth, (z, y, x), nm of a voxel."""

    name: str
    data: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    grey: Grey
    voxel_size: tuple[float, float, float] | None


class VolumeScore(Callback):
    """Tunes what a granule's best detection must score, on volumes, and logs `val/f1_3d`.

    A threshold that suits single detections lets too many granules pass: of the slices of one thing
    that is none, one scores high easily. The checkpoint keeps both. `val/f1_3d` is F1 at IoU .5 of
    the granules at these thresholds, as `isgseg-evaluate` scores them.

    It is part of the last validation batch: there `EMAWeightAveraging` has the averaged weights in
    the network wherever it stands in the list of callbacks, and the score is in time for early
    stopping and checkpoints.

    Args:
        volume: a file; None: the validation volumes of `dataset.yaml`; where none is there any
            more, nothing is done.
        labels: its truth; None with `volume`.
        slices: how many are labelled at every validation, of each volume the same number in a row,
            those that hold most of its truth. Where that would be fewer than `LEAST`, the volumes
            with the fewest instances are left out. None: all.
        threshold: of detections and granules alike, and nothing is tuned; None: tuned as
            `model.operating_point` says, and where that is null, .5.
        labelling: keywords of `Labelling`.

    Raises:
        ValueError: one of `volume` and `labels` without the other, or files that do not fit.
    """

    def __init__(
        self,
        volume: str | None = None,
        labels: str | None = None,
        slices: int | None = None,
        threshold: float | None = None,
        labelling: dict[str, Any] | None = None,
    ) -> None:
        if (volume is None) != (labels is None):
            raise ValueError(
                f"volume={volume} and labels={labels} of a volume to tune on: give both or none"
            )
        if slices is not None and slices < 1:
            raise ValueError(f"slices={slices} must be 1 or more, or null")
        self.pairs = []
        if volume is not None and labels is not None:
            self.pairs = [(Path(volume), Path(labels))]
        self.slices, self.threshold = slices, threshold
        self.labelling = Labelling(**(labelling or {}))
        self.parts: list[Part] = []
        self._granule: float | None = None

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Reads the volumes; without one named, the dataset's."""
        assert isinstance(pl_module, MaskRCNNModule)
        root = getattr(getattr(trainer, "datamodule", None), "root", None)
        if not self.pairs and root is not None and pl_module.hparams["operating_point"] is not None:
            self.pairs = self._choose(Path(root))
        if self.parts or not self.pairs:
            return
        each = None if self.slices is None else self.slices // len(self.pairs)
        self.parts = [cut(pl_module, *pair, each) for pair in self.pairs]
        names = ", ".join(part.name for part in self.parts)
        log.info("val/f1_3d is of %s", names)

    def _choose(self, root: Path) -> list[tuple[Path, Path]]:
        """The validation volumes of a dataset that are there, as many as the slices are for."""
        sources = read_source(root).get("volumes", [])
        named = [(Path(s["file"]), Path(s["labels"])) for s in sources if s["split"] == "val"]
        there = [files for files in named if all(file.is_file() for file in files)]
        if not there:
            log.info(
                "%s names no validation volume that is there, so that granules are asked for the "
                "same score as detections; volume= and labels= (in isgseg-train, of "
                "callbacks.volume_score) give one",
                root / "dataset.yaml",
            )
        most = len(there) if self.slices is None else max(1, self.slices // LEAST)
        if len(there) <= most:
            return there
        return sorted(there, key=lambda files: -count(files[1], self.slices))[:most]

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Labels the volume after the last batch."""
        last = batch_idx + 1 == trainer.num_val_batches[dataloader_idx]
        if not self.parts or trainer.sanity_checking or not last:
            return
        assert isinstance(pl_module, MaskRCNNModule)
        heads, hparams = pl_module.network.roi_heads, pl_module.hparams
        tuned = self.threshold is None and hparams["operating_point"] is not None
        kept = {}
        if tuned:
            point = pl_module.best_point(pl_module.val_matches)
            kept = {"threshold": point.threshold, "mask_threshold": point.mask_threshold}
            kept["granule_threshold"] = 0.0  # all granules: sifted below
        thresholds = choose_thresholds(
            {"thresholds": kept}, self.threshold, self.labelling.mask_threshold
        )
        floor = heads.score_thresh
        try:
            found = [
                label_volume(
                    pl_module,
                    part.data,
                    part.grey,
                    threshold=thresholds,
                    labelling=self.labelling,
                    voxel_size=part.voxel_size,
                    precision=str(trainer.precision),
                    progress=False,
                    name=part.name,
                )
                for part in self.parts
            ]
        finally:
            heads.score_thresh = floor  # the COCO scores count weaker detections too
        scores = np.concatenate([granules.best for granules in found])
        matchings = [
            match_instances(granules.labels, part.truth)
            for granules, part in zip(found, self.parts, strict=True)
        ]
        hits = np.concatenate([matching.predicted.fate == "matched" for matching in matchings])
        truths = sum(matching.tp + matching.fn for matching in matchings)
        matches = Matches(scores, hits.astype(np.int8)[:, None], truths, (DEFAULT,))
        best, self._granule = point_at(matches, 0.0, DEFAULT), None
        if tuned and self.labelling.link and hits.any():
            best = best_point(matches, pl_module.hparams["operating_point"])
            self._granule = best.threshold
            pl_module.log("val/granule_threshold", best.threshold, batch_size=1)
        pl_module.log("val/f1_3d", best.f1, batch_size=1, prog_bar=True)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Adds the threshold to those that the module has found in the meantime."""
        if self._granule is not None:
            pl_module.hparams["thresholds"]["granule_threshold"] = self._granule


def cut(module: MaskRCNNModule, image: Path, labels: Path, slices: int | None) -> Part:
    """The slices of a volume that hold most of its truth, grey as in the whole of it."""
    volume, truth = load_pair(image, labels)
    part = fullest(truth.data, slices)
    return Part(
        f"{image.name}, slices {part.start} to {part.stop - 1}",
        volume.data[part].copy(),  # a view would keep the whole volume in memory
        truth.data[part].copy(),
        grey_of(module, volume.data, image.name),
        volume.voxel_size,
    )


def count(labels: Path, slices: int | None) -> int:
    """How many instances the fullest slices of a volume hold."""
    truth = read_labels(labels).data
    return int(np.count_nonzero(np.unique(truth[fullest(truth, slices)])))


def fullest(truth: npt.NDArray[Any], slices: int | None) -> slice:
    """Args: truth (z, y, x). Returns as many slices in a row as asked for, with most of it."""
    if slices is None or slices >= len(truth):
        return slice(0, len(truth))
    filled = np.r_[0, np.cumsum([np.count_nonzero(section) for section in truth])]
    start = int(np.argmax(filled[slices:] - filled[:-slices]))
    return slice(start, start + slices)
