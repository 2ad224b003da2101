"""How a module is scored: COCO scores, the operating point, thresholds that follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning
from torch import Tensor

from isgseg.data.datamodule import Batch
from isgseg.evaluation.coco import UNCAPPED, MatchMetric, coco_metric, read_scores
from isgseg.evaluation.thresholds import (
    DEFAULT,
    MASK_THRESHOLDS,
    OperatingPoint,
    best_point,
    point_at,
)
from isgseg.models.settings import Thresholds
from isgseg.training.detections import to_metric
from isgseg.training.sharing import share_states


class ScoredModule(lightning.LightningModule, ABC):
    """Scores what a network detects, and tunes its thresholds at each validation.

    Attributes:
        thresholds: what a validation has found; None before any.
        val_metric: COCO's scores of the last validation.
        val_matches: which of its detections were right.
        test_metrics: of the last test, with and without COCO's maximum of 100 detections.
        test_matches: likewise.
    """

    thresholds: Thresholds | None

    def score_with(self, thresholds: Thresholds | None) -> None:
        """Makes the metrics; the mask threshold that was tuned is one of those tried."""
        self.thresholds = thresholds
        self.val_metric = coco_metric()
        self.test_metrics = [coco_metric(), coco_metric(UNCAPPED)]
        grid = sorted({*MASK_THRESHOLDS, DEFAULT if thresholds is None else thresholds.mask})
        self.val_matches, self.test_matches = MatchMetric(grid), MatchMetric(grid)
        self._shared = False

    @abstractmethod
    def detect(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Objects in images, on the CPU, as the metrics take them.

        Args:
            images: (C, H, W) float32 in [0, 1].

        Returns:
            For each image `boxes` (N, 4), `labels` (N,), `scores` (N,), `masks` (N, H, W) bool, and
            `mask_probs` (N, M, M) and `mask_boxes` (N, 4), from which masks can be drawn otherwise.
        """

    @property
    def floor(self) -> float:
        """Objects of a lower score are never looked at."""
        return 0.0

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation, which callbacks could look at until now."""
        self._shared = False
        self.val_metric.reset()
        self.val_matches.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Scores one batch; returns what `detect` found, for images.

        A batch is empty where another process of several has more images.
        """
        images, targets = batch
        found = self.detect(images) if images else []
        ground_truth = [to_metric(target) for target in targets]
        self.val_metric.update(found, ground_truth)
        self.val_matches.update(found, ground_truth)
        return {"found": found}

    def share_validation(self) -> None:
        """Gives every process what all have found, after the last batch of a validation."""
        if not self._shared and self.trainer.world_size > 1:
            share_states(self.val_metric)
            share_states(self.val_matches)
        self._shared = True

    def on_validation_epoch_end(self) -> None:
        """Logs the COCO scores and the operating point, and keeps its thresholds.

        A score without any ground truth is no number and is not logged.
        """
        self.share_validation()
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
        return best_point(metric.compute(), criterion, floor=self.floor)

    def on_test_epoch_start(self) -> None:
        """Forgets the last test."""
        for metric in (*self.test_metrics, self.test_matches):
            metric.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Scores one batch, with and without COCO's maximum of 100 detections."""
        images, targets = batch
        found, ground_truth = self.detect(images), [to_metric(target) for target in targets]
        for metric in (*self.test_metrics, self.test_matches):
            metric.update(found, ground_truth)

    def on_test_epoch_end(self) -> None:
        """Logs the COCO scores of the split."""
        for metric in self.test_metrics:
            self.log_dict(read_scores(metric))

    def keep_thresholds(self, **tuned: float) -> None:
        """Takes fields of `Thresholds` that suit whole granules, once those of slices are known."""
        if self.thresholds is not None:
            self.thresholds = self.thresholds._replace(**tuned)
