"""Checkpoints of a training: written whole or not at all, and the best never lost."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from isgseg.io.atomic import replacing
from isgseg.models.checkpoint import read_checkpoint

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that no torn file has its name.

    Lightning's own writes to the folder of temporary files, often on another file system, and
    copies from there.

    Args:
        replaced: checkpoints of an earlier run that this one replaces. They go when the first of
            this run is whole, so that there is always one, and never a mixture of two runs.
    """

    def __init__(self, replaced: list[Path] | None = None) -> None:
        super().__init__()
        self.replaced = list(replaced or [])

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Saves one.

        Raises:
            InputError: it cannot be written; a file that was there before is as it was.
        """
        with replacing(Path(path)) as beside:
            # By a file of Python's: torch's own writer says of a full disk only that it failed.
            try:
                with beside.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:  # torch's, over what the system said
                system = error.__context__
                if isinstance(system, OSError):
                    raise OSError(system.errno, system.strerror) from error
                raise
        while self.replaced:
            former = self.replaced.pop()
            if former.resolve() != Path(path).resolve():
                former.unlink(missing_ok=True)


class PthCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint with the suffix `.pth`, and epochs counted from 1.

    A resumed run goes on with the best checkpoint so far: it is copied where the run has another
    folder, and only a better one replaces it.
    """

    FILE_EXTENSION = ".pth"

    @property
    def state_key(self) -> str:
        """Tells two of them apart in a checkpoint, whatever their other settings are."""
        return f"{super().state_key}{self.filename}"

    def format_checkpoint_name(self, metrics: dict[str, Tensor], *args: Any, **kwargs: Any) -> str:
        """The file's name; `{epoch}` is the number of epochs that are done."""
        epoch = metrics.get("epoch", torch.tensor(0)) + 1
        return super().format_checkpoint_name({**metrics, "epoch": epoch}, *args, **kwargs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Leaves the folder that the checkpoint names: `on_fit_start` looks for the best itself."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Carries the best over from the run that is resumed."""
        super().on_fit_start(trainer, pl_module)
        resumed = trainer.ckpt_path
        if self.monitor is None or resumed is None or self.dirpath is None:
            return
        own = Path(self.dirpath) / f"{self.filename}{self.FILE_EXTENSION}"
        kept = self._carry(own, Path(resumed)) if trainer.is_global_zero else None
        known = trainer.strategy.broadcast(kept)
        self._forget()
        if known is None:
            return
        score = torch.tensor(known)
        self.best_model_path = self.kth_best_model_path = str(own)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(own): score}
        log.info("The best so far, %s = %.4f, is kept as %s", self.monitor, score, own)

    def _carry(self, own: Path, resumed: Path) -> float | None:
        """Copies the best that is there to its place in this run, and returns its score.

        Args:
            own: that place.
            resumed: the checkpoint that is resumed, beside which the best may be.
        """
        assert self.monitor is not None
        former, best_score = self.best_model_path, self.best_model_score
        beside = resumed.parent / own.name
        files = {path.resolve() for path in (own, Path(former or own), beside) if path.is_file()}
        scores = {path: score_of(path, self.monitor) for path in files}
        known = {path: score for path, score in scores.items() if score is not None}
        if not known:
            if best_score is not None:
                log.warning(
                    "The best checkpoint so far, %s = %.4f, is not there any more (%s); the best "
                    "of what follows is kept",
                    self.monitor,
                    best_score,
                    former,
                )
            return None
        choose = min if self.mode == "min" else max
        best = choose(known, key=lambda path: known[path])
        if best != own.resolve():
            with replacing(own) as scratch:
                shutil.copyfile(best, scratch)
        return known[best]

    def _forget(self) -> None:
        """Begins without a best one."""
        self.best_k_models, self.best_model_score = {}, None
        self.best_model_path = self.kth_best_model_path = ""
        worst = float("inf" if self.mode == "min" else "-inf")
        self.kth_value = torch.tensor(worst)


def score_of(path: Path, monitor: str) -> float | None:
    """What a best checkpoint scored when it was written; None where it does not say."""
    try:
        states = read_checkpoint(path).get("callbacks") or {}
    except ValueError:
        return None
    for state in states.values():
        if isinstance(state, dict) and state.get("monitor") == monitor and "dirpath" in state:
            score = state.get("current_score")
            return None if score is None else float(score)
    return None


def best_score(trainer: lightning.Trainer, monitor: str) -> float | None:
    """The best value of a metric in this training; without a checkpoint of it, the last one."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or callback.monitor != monitor:
            continue
        if callback.best_model_score is not None:
            return float(callback.best_model_score)
    last = trainer.callback_metrics.get(monitor)
    return None if last is None else float(last)
