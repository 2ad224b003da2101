"""The callback that tunes granules in 3D, on a volume, at each validation."""

from __future__ import annotations

import logging
from dataclasses import replace
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
from isgseg.model.operating_point import DEFAULT, Matches, best_point, choose_thresholds
from isgseg.normalization import Grey
from isgseg.volume import read_labels

log = logging.getLogger(__name__)


class VolumeScore(Callback):
    """Tunes what a granule's best detection must score, on a volume, and logs `val/f1_3d`.

    A threshold that suits single detections lets too many granules pass: of the slices of one thing
    that is none, one scores high easily. The checkpoint keeps both. `val/f1_3d` is F1 at IoU .5 of
    the granules at these thresholds, as `isgseg-evaluate` scores them.

    It is part of the last validation batch: there `EMAWeightAveraging` has the averaged weights in
    the network wherever it stands in the list of callbacks, and the score is in time for early
    stopping and checkpoints.

    Args:
        volume: a file; None: of the validation volumes of `dataset.yaml` the one with the most
            instances; where none is there any more, nothing is done.
        labels: its truth; None with `volume`.
        slices: how many of its slices are labelled at every validation, those that hold most of
            the truth; None: all.
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
                f"callbacks.volume_score.volume={volume} and labels={labels}: give both or none"
            )
        if slices is not None and slices < 1:
            raise ValueError(f"callbacks.volume_score.slices={slices} must be 1 or more, or null")
        self.slices, self.threshold = slices, threshold
        self.labelling = Labelling(**(labelling or {}))
        self.truth: npt.NDArray[Any] | None = None
        self._grey: Grey | None = None
        self._granule: float | None = None
        if volume is not None and labels is not None:
            self._read(Path(volume), Path(labels))

    def _read(self, volume: Path, labels: Path) -> None:
        self.name = volume.name
        self.volume, truth = load_pair(volume, labels)
        self.truth = truth.data
        self.part = fullest(self.truth, self.slices)

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Chooses a volume of the dataset, if none was named."""
        root = getattr(getattr(trainer, "datamodule", None), "root", None)
        if self.truth is not None or root is None or pl_module.hparams["operating_point"] is None:
            return
        sources = read_source(Path(root)).get("volumes", [])
        named = [(Path(s["file"]), Path(s["labels"])) for s in sources if s["split"] == "val"]
        there = [files for files in named if all(file.is_file() for file in files)]
        if there:
            self._read(*max(there, key=lambda files: self._count(files[1])))
            log.info(
                "val/f1_3d is of %s, slices %d to %d",
                self.name,
                self.part.start,
                self.part.stop - 1,
            )
            return
        log.info(
            "%s names no validation volume that is there, so that granules are asked for the same "
            "score as detections; callbacks.volume_score.volume= and labels= give one",
            Path(root) / "dataset.yaml",
        )

    def _count(self, labels: Path) -> int:
        """How many instances the slices to label would hold."""
        truth = read_labels(labels).data
        return int(np.count_nonzero(np.unique(truth[fullest(truth, self.slices)])))

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
        if self.truth is None or trainer.sanity_checking or not last:
            return
        assert isinstance(pl_module, MaskRCNNModule)
        heads, hparams = pl_module.network.roi_heads, pl_module.hparams
        tuned = self.threshold is None and hparams["operating_point"] is not None
        found = {}
        if tuned:
            point = pl_module.best_point(pl_module.val_matches)
            found = {"threshold": point.threshold, "mask_threshold": point.mask_threshold}
            found["granule_threshold"] = 0.0  # all granules: sifted below
        thresholds = choose_thresholds(
            {"thresholds": found}, self.threshold, self.labelling.mask_threshold
        )
        if self._grey is None:  # of the whole volume, of which only the part is kept
            self._grey = grey_of(pl_module, self.volume.data, self.name)
            self.volume = replace(self.volume, data=self.volume.data[self.part].copy())
            self.truth = self.truth[self.part].copy()
        floor = heads.score_thresh
        try:
            granules = label_volume(
                pl_module,
                self.volume.data,
                self._grey,
                threshold=thresholds,
                labelling=self.labelling,
                voxel_size=self.volume.voxel_size,
                precision=str(trainer.precision),
                progress=False,
                name=self.name,
            )
        finally:
            heads.score_thresh = floor  # the COCO scores count weaker detections too
        matching = match_instances(granules.labels, self.truth)
        f1, self._granule = matching.f1, None
        if tuned and self.labelling.link:
            hits = (matching.predicted.fate == "matched").astype(np.int8)[:, None]
            truths = matching.tp + matching.fn
            matches = Matches(granules.best, hits, truths, (DEFAULT,))
            best = best_point(matches, hparams["operating_point"])
            if hits.any():
                f1, self._granule = best.f1, best.threshold
                pl_module.log("val/granule_threshold", best.threshold, batch_size=1)
        pl_module.log("val/f1_3d", f1, batch_size=1, prog_bar=True)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Adds the threshold to those that the module has found in the meantime."""
        if self._granule is not None:
            pl_module.hparams["thresholds"]["granule_threshold"] = self._granule


def fullest(truth: npt.NDArray[Any], slices: int | None) -> slice:
    """Args: truth (z, y, x). Returns as many slices in a row as asked for, with most of it."""
    if slices is None or slices >= len(truth):
        return slice(0, len(truth))
    filled = np.r_[0, np.cumsum([np.count_nonzero(section) for section in truth])]
    start = int(np.argmax(filled[slices:] - filled[:-slices]))
    return slice(start, start + slices)
