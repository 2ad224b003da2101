"""The callback that tunes granules in 3D, on a volume, at each validation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import Callback

from isgseg.data.datamodule import Batch
from isgseg.data.metadata import read_metadata, validation_pairs
from isgseg.errors import InputError, check
from isgseg.evaluation.thresholds import (
    DEFAULT,
    MASK_THRESHOLDS,
    best_point,
    point_at,
    pool_matches,
)
from isgseg.inference.appearance import as_learnt
from isgseg.inference.predictor import Predictor
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.ground_truth import load_ground_truth
from isgseg.instances.settings import InstanceSettings
from isgseg.io.volumes import Volume
from isgseg.models.settings import Thresholds, TrainingMetadata
from isgseg.training.base import GranuleModule
from isgseg.training.part_matches import Part, match_part
from isgseg.training.sharing import gather, in_turns

log = logging.getLogger(__name__)

LEAST = 16  # slices of one volume: fewer would cut most granules, and cells differ more than slices


class VolumeScore(Callback):
    """Tunes what a granule's best detection must score, on volumes, and logs `val/f1_3d`.

    A threshold that suits single detections lets too many granules pass: a false positive that
    spans many slices easily has one high-scoring detection. The checkpoint keeps both. `val/f1_3d`
    is F1 at IoU .5 of the granules at these thresholds, as `isgseg-evaluate` scores them. Granules
    that are made of maps get their mask threshold here too.

    Several processes share the volumes, and all of them have the score of all.

    It is part of the last validation batch: there `EMAWeightAveraging` has the averaged weights in
    the network wherever it stands in the list of callbacks, and the score is in time for early
    stopping and checkpoints.

    Args:
        volume: a file; None: the validation volumes of `dataset.yaml`; where none is there any
            more, nothing is done.
        labels: its ground truth; None with `volume`.
        slices: how many are labelled at every validation, of each volume the same number in a row,
            those that hold most of its ground truth. Where that would be fewer than `LEAST`, the
            volumes with the fewest instances are left out. None: all.
        threshold: of detections and granules alike, and nothing is tuned; None: tuned as
            `model.operating_point` says, and where that is null, .5.
        segmentation: keywords of `SegmentationSettings`.

    Raises:
        ValueError: one of `volume` and `labels` without the other, or files that do not fit.
    """

    def __init__(
        self,
        volume: str | None = None,
        labels: str | None = None,
        slices: int | None = None,
        threshold: float | None = None,
        segmentation: dict[str, Any] | None = None,
    ) -> None:
        if (volume is None) != (labels is None):
            raise InputError(
                f"volume={volume} and labels={labels} of a volume to tune on: give both or none"
            )
        if slices is not None and slices < 1:
            raise InputError(f"slices={slices} must be 1 or more, or null")
        self.pairs = []
        if volume is not None and labels is not None:
            self.pairs = [(Path(volume), Path(labels))]
        self.slices, self.threshold = slices, threshold
        self.segmentation = check(SegmentationSettings, segmentation or {}, "segmentation")
        self.instances: dict[Path, InstanceSettings] = {}
        self.parts: list[Part] = []
        self._kept: dict[str, float] = {}

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Reads the volumes; without one named, the dataset's."""
        assert isinstance(pl_module, GranuleModule)
        root = getattr(getattr(trainer, "datamodule", None), "root", None)
        if root is not None:  # what was learnt from is what is scored against
            sources = read_metadata(root).volumes
            self.instances = {Path(source.labels).resolve(): source.instances for source in sources}
        if not self.pairs and root is not None and pl_module.hparams["operating_point"] is not None:
            self.pairs = self._choose(Path(root))
        if self.parts or not self.pairs:
            return
        each = None if self.slices is None else self.slices // len(self.pairs)
        self.parts = [
            cut(pl_module, *pair, each, self.instances.get(pair[1].resolve()))
            for pair in self.pairs[trainer.global_rank :: trainer.world_size]
        ]
        names = in_turns(gather([part.name for part in self.parts]))
        log.info("val/f1_3d is of %s", ", ".join(names))

    def _choose(self, root: Path) -> list[tuple[Path, Path]]:
        """The validation volumes of a dataset that are there, as many as the slices are for."""
        there = validation_pairs(root)
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
        counts = {
            pair: count(*pair, self.slices, self.instances.get(pair[1].resolve())) for pair in there
        }
        return sorted(there, key=lambda pair: -counts[pair])[:most]

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
        if not self.pairs or trainer.sanity_checking or not last:
            return
        assert isinstance(pl_module, GranuleModule)
        pl_module.share_validation()
        criterion = pl_module.hparams["operating_point"]
        tuned = self.threshold is None and criterion is not None
        kept = None
        if tuned:
            point = pl_module.best_point(pl_module.val_matches)
            kept = Thresholds(point.threshold, point.mask_threshold, 0.0)  # granules: sifted below
        # The method itself: an early network finds nothing, of which predict would warn.
        method = Predictor.from_network(
            pl_module.network,
            metadata_of(pl_module),
            tta=pl_module.hparams["tta"],
            tuned=kept,
            threshold=self.threshold,
            segmentation=self.segmentation,
            precision=str(trainer.precision),
            progress=False,
        ).method
        # Where granules are made of maps, their extents are tuned on them too, not on slices.
        masks = MASK_THRESHOLDS if tuned and self.segmentation.mask_threshold is None else None
        own = [match_part(method, part, masks) for part in self.parts]
        matches = pool_matches(in_turns(gather(own)))
        best, self._kept = point_at(matches, 0.0, DEFAULT), {}
        if tuned and self.segmentation.link and matches.hits.any():
            best = best_point(matches, pl_module.hparams["operating_point"])
            self._kept = {"object": best.threshold}
            if len(matches.mask_thresholds) > 1:
                self._kept["mask"] = best.mask_threshold
            pl_module.log("val/object_threshold", best.threshold, batch_size=1)
        pl_module.log("val/f1_3d", best.f1, batch_size=1, prog_bar=True)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Adds what was tuned to the thresholds that the module has found in the meantime."""
        assert isinstance(pl_module, GranuleModule)
        pl_module.keep_thresholds(**self._kept)


def cut(
    module: GranuleModule,
    image: Path,
    labels: Path,
    slices: int | None,
    instances: InstanceSettings | None = None,
) -> Part:
    """The slices of a volume that hold most of its ground truth, grey as in the whole of it."""
    read = load_ground_truth(image, labels, instances)
    volume, ground_truth = read.volume, read.labels
    part = fullest(ground_truth.data, slices)
    normalization = as_learnt(metadata_of(module), volume.data, image.name)
    return Part(
        f"{image.name}, slices {part.start} to {part.stop - 1}",
        # A view would keep the whole volume in memory.
        Volume(volume.data[part].copy(), volume.voxel_size),
        ground_truth.data[part].copy(),
        normalization.fit(volume.data, image.name),
    )


def metadata_of(module: GranuleModule) -> TrainingMetadata | None:
    """What prediction must know of the training data; None for a plain state dict."""
    metadata = module.hparams["metadata"]
    return None if metadata is None else check(TrainingMetadata, metadata, "metadata")


def count(image: Path, labels: Path, slices: int | None, instances: InstanceSettings | None) -> int:
    """How many instances the fullest slices of a volume hold."""
    ground_truth = load_ground_truth(image, labels, instances).labels.data
    return int(np.count_nonzero(np.unique(ground_truth[fullest(ground_truth, slices)])))


def fullest(ground_truth: npt.NDArray[Any], slices: int | None) -> slice:
    """The neighbouring slices that hold most of the ground truth.

    Args:
        ground_truth: (z, y, x) labels.
        slices: how many; None: all.
    """
    if slices is None or slices >= len(ground_truth):
        return slice(0, len(ground_truth))
    filled = np.r_[0, np.cumsum([np.count_nonzero(section) for section in ground_truth])]
    start = int(np.argmax(filled[slices:] - filled[:-slices]))
    return slice(start, start + slices)
