"""The LightningModule: Mask R-CNN, its losses, its COCO scores and its optimizer."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from torch import Tensor

from isgseg.data.datamodule import Batch
from isgseg.errors import InputError, check
from isgseg.evaluation.coco import UNCAPPED, MatchMetric, coco_metric, read_scores
from isgseg.evaluation.thresholds import (
    DEFAULT,
    MASK_THRESHOLDS,
    OperatingPoint,
    best_point,
    point_at,
)
from isgseg.models.checkpoint import migrate
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.optimizer import optimization
from isgseg.models.settings import NetworkSettings, Thresholds, TrainingMetadata
from isgseg.models.tta import choose_symmetries
from isgseg.training.detections import detect, to_metric
from isgseg.training.overflow import forget_overflow
from isgseg.training.settings import TrainingSettings

log = logging.getLogger(__name__)

TRAINING_KEYS = tuple(TrainingSettings.model_fields)
MAX_BAD_STEPS = 20  # losses that are not finite, one after the other, before training gives up


class MaskRCNNModule(lightning.LightningModule):
    """Trains `build_mask_rcnn`; its hyper-parameters are plain and rebuild it without a config.

    Args:
        network: of `NetworkSettings`; all of them are kept.
        weights: where `isgseg-train` took the initial weights from: None, `coco` or a file.
        optimizer: `sgd` or `muon`; see `build_optimizer`, as the next three.
        lr: learning rate.
        momentum: see there.
        weight_decay: see there.
        schedule: `step` multiplies the rate by `lr_gamma` every `lr_step_epochs` epochs; `cosine`
            lets it fall to zero over the whole training.
        lr_step_epochs: see `schedule`.
        lr_gamma: see `schedule`.
        warmup_steps: steps over which the rate rises from a hundredth.
        seed: decides, with the step, what the network draws at random.
        operating_point: what each validation tunes the thresholds of prediction for; see
            `best_point`. None leaves both at .5.
        tta: see `set_tta`.
        metadata: `normalization`, `voxel_size` (nm) and `z_context` of the training data, which
            prediction needs; see `TrainingMetadata`.
        thresholds: what a validation has found. Each validation replaces them; a checkpoint holds
            them beside the weights, not among the hyper-parameters.

    Raises:
        InputError: a setting is out of range, or norm layers are frozen with random weights.
    """

    def __init__(
        self,
        network: dict[str, Any],
        weights: str | None = None,
        optimizer: str = "sgd",
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 0.0005,
        schedule: str = "step",
        lr_step_epochs: int = 8,
        lr_gamma: float = 0.1,
        warmup_steps: int = 100,
        seed: int = 0,
        operating_point: str | None = "f1",
        tta: int = 1,
        metadata: dict[str, Any] | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        super().__init__()
        if network.get("norm") == "frozen" and weights is None:
            raise InputError(
                "model.network.norm=frozen with model.weights=null would freeze random statistics; "
                "set model.network.norm=batch, or give weights"
            )
        # All settings, so that a checkpoint does not hang on the defaults of this version.
        network = check(NetworkSettings, network, "model.network").model_dump()
        if metadata is not None:
            check(TrainingMetadata, metadata, "model.metadata")
        self.save_hyperparameters(ignore=["thresholds"])
        check(TrainingSettings, {key: self.hparams[key] for key in TRAINING_KEYS}, "model")
        self.network = build_mask_rcnn(**network)
        self.thresholds = thresholds
        self.set_tta(tta)
        self.val_metric = coco_metric()
        self.test_metrics = [coco_metric(), coco_metric(UNCAPPED)]
        grid = sorted({*MASK_THRESHOLDS, DEFAULT if thresholds is None else thresholds.mask})
        self.val_matches, self.test_matches = MatchMetric(grid), MatchMetric(grid)
        self._bad_steps = 0

    def set_tta(self, tta: int | None) -> None:
        """In how many ways evaluation looks at an image, of `isgseg.models.tta.SYMMETRIES`.

        Args:
            tta: 1, 2, 4 or 8; the time grows with them. None: as it was trained to.

        Raises:
            ValueError: another number.
        """
        slices = bool((self.hparams["metadata"] or {}).get("z_context"))
        count = self.hparams["tta"] if tta is None else tta
        self.network.symmetries = choose_symmetries(count, slices)
        if count != self.hparams["tta"] and self.thresholds is not None:
            log.warning(
                "The checkpoint's thresholds were tuned with tta=%d, not %d; isgseg-tune finds "
                "those that suit",
                self.hparams["tta"],
                count,
            )

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Images, (C, H, W) float32 in [0, 1], to detections; see `build_mask_rcnn`."""
        return self.network(images)  # type: ignore[no-any-return]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what the network samples depend on the step alone, so that a resumed run agrees."""
        torch.manual_seed(1_000_003 * self.hparams["seed"] + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The sum of the five losses; None, which skips the step, where it is not finite.

        Raises:
            InputError: too many steps in a row were skipped.
        """
        images, targets = batch
        losses: dict[str, Tensor] = self.network(images, targets)
        loss = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {f"train/{name}": value for name, value in losses.items()} | {"train/loss": loss},
            batch_size=len(images),
        )
        if torch.isfinite(loss):
            self._bad_steps = 0
            return loss
        self._bad_steps += 1
        if self._bad_steps >= MAX_BAD_STEPS:
            raise InputError(
                f"the loss was not finite in {MAX_BAD_STEPS} steps one after the other; lower "
                "model.lr, raise model.warmup_steps, or set trainer.precision=32-true"
            )
        log.warning(
            "Step %d is left out: its loss is not finite; %d norm layers begin anew",
            self.global_step,
            forget_overflow(self.network),
        )
        return None

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Logs the norm of the gradient before it is clipped."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.log("train/grad_norm", torch.nn.utils.get_total_norm(gradients))

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation, which callbacks could look at until now."""
        self.val_metric.reset()
        self.val_matches.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Scores one batch; returns what `detect` found, for images."""
        images, targets = batch
        found, ground_truth = detect(self, images), [to_metric(target) for target in targets]
        self.val_metric.update(found, ground_truth)
        self.val_matches.update(found, ground_truth)
        return {"found": found}

    def on_validation_epoch_end(self) -> None:
        """Logs the COCO scores and the operating point, and keeps its thresholds.

        A score without any ground truth is no number and is not logged.
        """
        scores = read_scores(self.val_metric)
        self.log_dict({f"val/{name}": value for name, value in scores.items() if value >= 0})
        if scores["segm_map"] < 0:
            return
        self.log("val/map", scores["segm_map"], prog_bar=True, logger=False)
        point = point_at(self.val_matches.compute(), DEFAULT, DEFAULT)
        if self.hparams["operating_point"] is not None:
            point = self.best_point(self.val_matches)
        self.thresholds = Thresholds(point.threshold, point.mask_threshold, point.threshold)
        self.log_dict(
            {
                "val/threshold": point.threshold,
                "val/mask_threshold": point.mask_threshold,
                "val/f1": point.f1,
            }
        )

    def best_point(self, metric: MatchMetric) -> OperatingPoint:
        """The operating point that suits what was matched best, for F1 unless asked otherwise."""
        criterion = self.hparams["operating_point"] or "f1"
        floor = self.network.roi_heads.score_thresh
        return best_point(metric.compute(), criterion, floor=floor)

    def on_test_epoch_start(self) -> None:
        """Forgets the last test."""
        for metric in (*self.test_metrics, self.test_matches):
            metric.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch, with and without COCO's maximum of 100 detections."""
        images, targets = batch
        found, ground_truth = detect(self, images), [to_metric(target) for target in targets]
        for metric in (*self.test_metrics, self.test_matches):
            metric.update(found, ground_truth)

    def on_test_epoch_end(self) -> None:
        """Logs the COCO scores of the split."""
        for metric in self.test_metrics:
            self.log_dict(read_scores(metric))

    def keep_object_threshold(self, value: float) -> None:
        """Takes what whole granules must score, once the thresholds of detections are known."""
        if self.thresholds is not None:
            self.thresholds = self.thresholds._replace(object=value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the thresholds, and the weights under torchvision's own names, for others' use.

        The tensors are the same, so that the file grows by their names only.
        """
        checkpoint["thresholds"] = None if self.thresholds is None else self.thresholds._asdict()
        checkpoint["model"] = {
            name.removeprefix("network."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on with the thresholds that belong to the weights."""
        kept = migrate(checkpoint).get("thresholds")
        self.thresholds = None if kept is None else check(Thresholds, kept, "thresholds")

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer, whose rate changes with every step."""
        steps = int(self.trainer.estimated_stepping_batches)
        epochs = max(1, self.trainer.max_epochs or 1)
        return optimization(self.parameters(), self.hparams, steps, epochs)
