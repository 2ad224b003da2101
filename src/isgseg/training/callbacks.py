"""Images for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback

from isgseg.data.coco import middle
from isgseg.data.datamodule import Batch
from isgseg.evaluation.thresholds import choose_thresholds, point_at
from isgseg.training.base import GranuleModule


class PredictionImages(Callback):
    """Shows ground truth (green) and predictions (magenta) on validation patches, and scores.

    Args:
        count: patches, spread evenly over the validation split.
        threshold: detections with a lower score are not drawn.
    """

    def __init__(self, count: int = 4, threshold: float = 0.5) -> None:
        self.count, self.threshold = count, threshold

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first patch of the batches that were chosen, of those of the first process."""
        from isgseg.analysis.figures import overlay

        batches = int(trainer.num_val_batches[dataloader_idx])
        chosen = np.linspace(0, batches - 1, min(self.count, batches)).round().astype(int).tolist()
        if batch_idx not in chosen or not trainer.is_global_zero:
            return
        image, target, found = batch[0][0], batch[1][0], outputs["found"][0]
        drawn = overlay(
            middle(image).float().cpu().numpy(),
            target["masks"].bool().cpu().numpy(),
            found["masks"][found["scores"] >= self.threshold].numpy(),
        )
        name = f"val/patch_{int(target['image_id'])}"
        for write in _writers(trainer, "add_image"):
            write(name, drawn, trainer.global_step, dataformats="HWC")

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draws precision against recall, and the scores of true and of false positives."""
        from isgseg.evaluation.score_figure import score_figure

        assert isinstance(pl_module, GranuleModule)
        if not trainer.is_global_zero:
            return
        for write in _writers(trainer, "add_figure"):
            matches = pl_module.val_matches.compute()
            point = point_at(matches, *choose_thresholds(pl_module.thresholds)[:2])
            write("val/scores", score_figure(matches, {"tuned": point}), trainer.global_step)


def _writers(trainer: lightning.Trainer, method: str) -> list[Callable[..., None]]:
    """That method of the loggers that have it: TensorBoard's."""
    found = [getattr(getattr(log, "experiment", None), method, None) for log in trainer.loggers]
    return [write for write in found if write is not None]
