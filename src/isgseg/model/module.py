"""The LightningModule: Mask R-CNN, its losses, its COCO scores and its optimizer."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch
from torch import Tensor

from isgseg.data.coco import Target
from isgseg.data.datamodule import Batch
from isgseg.instances.slices import draw
from isgseg.model.mask_rcnn import build_mask_rcnn
from isgseg.model.metrics import NO_CAP, MatchMetric, coco_metric, read_scores
from isgseg.model.operating_point import (
    DEFAULT,
    MASK_THRESHOLDS,
    OperatingPoint,
    best_point,
    check_criterion,
    choose_thresholds,
    point_at,
)
from isgseg.model.optimizer import OPTIMIZERS, SCHEDULES, build_optimizer, build_schedule
from isgseg.model.views import choose_views

log = logging.getLogger(__name__)

MAX_BAD_STEPS = 20  # losses that are not finite, one after the other, before training gives up


class MaskRCNNModule(lightning.LightningModule):
    """Trains `build_mask_rcnn`; its hyper-parameters are plain and rebuild it without a config.

    Args:
        network: keywords of `build_mask_rcnn`.
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
        thresholds: what the last validation found, `threshold` and `mask_threshold`; it keeps them
            here, so that they are saved with the weights.
        views: see `look`.
        facts: `normalization`, `voxel_size` (nm) and `context` of the training data, which
            prediction needs; see `CocoDataModule.facts`.

    Raises:
        ValueError: an unknown optimizer, schedule or criterion, or frozen norm layers with random
            weights.
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
        thresholds: dict[str, float] | None = None,
        views: int = 1,
        facts: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"model.optimizer is '{optimizer}'; choose {' or '.join(OPTIMIZERS)}")
        if schedule not in SCHEDULES:
            raise ValueError(f"model.schedule is '{schedule}'; choose {' or '.join(SCHEDULES)}")
        if network.get("norm") == "frozen" and weights is None:
            raise ValueError(
                "model.network.norm=frozen with model.weights=null would freeze random statistics; "
                "set model.network.norm=batch, or give weights"
            )
        if operating_point is not None:
            check_criterion(operating_point)
        self.save_hyperparameters()
        self.network = build_mask_rcnn(**network)
        self.look(views)
        self.val_metric = coco_metric()
        self.test_metrics = [coco_metric(), coco_metric(NO_CAP)]
        grid = sorted({*MASK_THRESHOLDS, choose_thresholds(self.hparams).mask})
        self.val_matches, self.test_matches = MatchMetric(grid), MatchMetric(grid)
        self._bad_steps = 0

    def look(self, views: int | None) -> None:
        """In how many ways evaluation looks at a picture, of `isgseg.model.views.VIEWS`.

        Args:
            views: 1, 2, 4 or 8; the time grows with them. None: as it was trained to.

        Raises:
            ValueError: another number.
        """
        slices = bool((self.hparams["facts"] or {}).get("context"))
        count = self.hparams["views"] if views is None else views
        self.network.views = choose_views(count, slices)
        if count != self.hparams["views"] and self.hparams["thresholds"]:
            log.warning(
                "The checkpoint's thresholds were tuned with views=%d, not %d; isgseg-tune finds "
                "those that suit",
                self.hparams["views"],
                count,
            )

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        """Pictures, (C, H, W) float32 in [0, 1], to detections; see `build_mask_rcnn`."""
        return self.network(pictures)  # type: ignore[no-any-return]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Makes what the network samples depend on the step alone, so that a resumed run agrees."""
        torch.manual_seed(1_000_003 * self.hparams["seed"] + self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The sum of the five losses; None, which skips the step, where it is not finite.

        Raises:
            RuntimeError: too many steps in a row were skipped.
        """
        pictures, targets = batch
        losses: dict[str, Tensor] = self.network(pictures, targets)
        loss = torch.stack(list(losses.values())).sum()
        self.log_dict(
            {f"train/{name}": value for name, value in losses.items()} | {"train/loss": loss},
            batch_size=len(pictures),
        )
        if torch.isfinite(loss):
            self._bad_steps = 0
            return loss
        self._bad_steps += 1
        if self._bad_steps >= MAX_BAD_STEPS:
            raise RuntimeError(
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
        """Scores one batch; returns what `detect` found, for pictures."""
        pictures, targets = batch
        found, truth = detect(self, pictures), [_truth(target) for target in targets]
        self.val_metric.update(found, truth)
        self.val_matches.update(found, truth)
        return {"found": found}

    def on_validation_epoch_end(self) -> None:
        """Logs the COCO scores and the operating point, and keeps its thresholds.

        A score without any truth is no number and is not logged.
        """
        scores = read_scores(self.val_metric)
        self.log_dict({f"val/{name}": value for name, value in scores.items() if value >= 0})
        if scores["segm_map"] < 0:
            return
        self.log("val/map", scores["segm_map"], prog_bar=True, logger=False)
        point = point_at(self.val_matches.compute(), DEFAULT, DEFAULT)
        if self.hparams["operating_point"] is not None:
            point = self.best_point(self.val_matches)
        kept = {"threshold": point.threshold, "mask_threshold": point.mask_threshold}
        self.hparams["thresholds"] = kept
        self.log_dict({f"val/{name}": value for name, value in kept.items()} | {"val/f1": point.f1})

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
        """Scores one batch, with and without COCO's cap of 100 detections."""
        pictures, targets = batch
        found, truth = detect(self, pictures), [_truth(target) for target in targets]
        for metric in (*self.test_metrics, self.test_matches):
            metric.update(found, truth)

    def on_test_epoch_end(self) -> None:
        """Logs the COCO scores of the split."""
        for metric in self.test_metrics:
            self.log_dict(read_scores(metric))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the weights under torchvision's own names too, for use without isgseg.

        The tensors are the same, so that the file grows by their names only.
        """
        checkpoint["model"] = {
            name.removeprefix("network."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("network.")
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A resumed run goes on with the thresholds that belong to the weights."""
        self.hparams["thresholds"] = checkpoint["hyper_parameters"].get("thresholds")

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimizer, whose rate changes with every step."""
        options = self.hparams
        optimizer = build_optimizer(
            self.parameters(),
            options["optimizer"],
            lr=options["lr"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
        )
        steps = int(self.trainer.estimated_stepping_batches)
        epochs = max(1, self.trainer.max_epochs or 1)
        scheduler = build_schedule(
            optimizer,
            options["schedule"],
            steps=steps,
            warmup_steps=options["warmup_steps"],
            step_size=round(options["lr_step_epochs"] * steps / epochs),
            gamma=options["lr_gamma"],
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }


def forget_overflow(network: torch.nn.Module) -> int:
    """Norm layers whose statistics an overflow has spoilt begin them anew; returns how many.

    A running mean of infinity stays one, so that training, which does not use it, would go on and
    prediction would find nothing.
    """
    spoilt = [
        layer
        for layer in network.modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        and not all(torch.isfinite(statistic).all() for statistic in layer.buffers())
    ]
    for layer in spoilt:
        layer.reset_running_stats()
    return len(spoilt)


def detect(module: MaskRCNNModule, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    """Detections with masks at full size, on the CPU.

    Args:
        module: in evaluation mode.
        pictures: (C, H, W) float32 in [0, 1].

    Returns:
        For each picture `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, H, W) bool, and
        `grids` (N, M, M) and `mask_boxes` (N, 4), from which masks can be drawn otherwise.
    """
    results = []
    for picture, found in zip(pictures, module(pictures), strict=True):
        arrays = {name: value.float().cpu() for name, value in found.items()}
        masks = draw(
            arrays["masks"][:, 0].numpy(),
            arrays["mask_boxes"].numpy(),
            (picture.shape[-2], picture.shape[-1]),
        )
        results.append(
            {
                "boxes": arrays["boxes"],
                "scores": arrays["scores"],
                "labels": found["labels"].cpu(),
                "masks": torch.from_numpy(masks),
                "grids": arrays["masks"][:, 0],
                "mask_boxes": arrays["mask_boxes"],
            }
        )
    return results


def _truth(target: Target) -> dict[str, Any]:
    """A target as the metric takes it, on the CPU."""
    return {
        "boxes": target["boxes"].cpu(),
        "labels": target["labels"].cpu(),
        "masks": target["masks"].cpu().bool(),
    }
