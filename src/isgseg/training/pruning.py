"""The callback that ends trials of a sweep that do worse than others did."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import lightning
from lightning.pytorch.callbacks import Callback

from isgseg.training.trials import FOLDER, STOPPED, open_study, running_trial

log = logging.getLogger(__name__)


class TrialPruning(Callback):
    """Reports each validation of a trial to its study, and stops it by the rule of the median.

    A trial is stopped where its best value so far is worse than the median of those that the
    trials that have ended had after as many epochs (Optuna's `MedianPruner`). It then counts as
    complete, with its best value: the sampler learns from it, and a table of the sweep says that
    it was stopped.

    Args:
        monitor: what is optimized.
        storage: of the study.
        study_name: its name.
        overrides: of the job, by which it finds out which trial it is.
        startup_trials: trials that end before any is stopped.
        warmup_epochs: of each trial, in which it is not stopped.

    Raises:
        InputError: there is no such study, or no trial of it runs with these overrides.
    """

    def __init__(
        self,
        monitor: str,
        storage: str,
        study_name: str,
        overrides: Sequence[str],
        startup_trials: int = 4,
        warmup_epochs: int = 4,
    ) -> None:
        self.monitor, self.storage, self.study_name = monitor, storage, study_name
        self.overrides = list(overrides)
        self.startup_trials, self.warmup_epochs = startup_trials, warmup_epochs

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Finds the trial, and notes the folder of this run in it."""
        if not trainer.is_global_zero:
            return
        from optuna.pruners import MedianPruner

        pruner = MedianPruner(self.startup_trials, self.warmup_epochs)
        self.study = open_study(self.study_name, self.storage, pruner=pruner)
        self.number = running_trial(self.study, self.overrides).number
        self._note(FOLDER, trainer.default_root_dir)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Reports the value; every process learns whether to stop."""
        stop = False
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.is_global_zero and not trainer.sanity_checking and value is not None:
            stop = self._report(trainer.current_epoch + 1, float(value))
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True

    def _report(self, epoch: int, value: float) -> bool:
        """Whether the trial is to be stopped."""
        trial = self.study.get_trials(deepcopy=False)[self.number]
        self.study._storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
        trial = self.study.get_trials()[self.number]
        if not self.study.pruner.prune(self.study, trial):
            return False
        log.info(
            "Trial %d is stopped after epoch %d: its best %s is below the median of those before",
            self.number,
            epoch,
            self.monitor,
        )
        self._note(STOPPED, epoch)
        return True

    def _note(self, key: str, value: str | int) -> None:
        trial = self.study.get_trials(deepcopy=False)[self.number]
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
