"""A sweep by Hydra's Optuna sweeper that can be interrupted, and what it has found at the end."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from isgseg.errors import InputError
from isgseg.io.folders import locked

log = logging.getLogger(__name__)
SETTINGS = "isgseg_overrides"  # in the record of a study
_held = contextlib.ExitStack()  # a callback is sent to the jobs, a lock cannot be


class ResumableSweep(Callback):
    """Hydra's callback: a study goes on where it was interrupted, and is described when it ends.

    The sweeper itself would run all trials again, in folders that are there, and would begin with
    the same draws of a seeded sampler.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Finds out what is done, and asks for the rest only.

        Raises:
            SystemExit: another sweep runs in the same folder, or the study is of other settings.
        """
        try:
            with flag_override(config, "readonly", False):
                self._resume(config)
        except InputError as error:  # Hydra takes every other exception for a warning
            print(f"isgseg-{config.task_name}: {error}", file=sys.stderr)
            raise SystemExit(1) from None

    def _resume(self, config: DictConfig) -> None:
        import optuna
        from optuna.trial import TrialState

        optuna.logging.set_verbosity(logging.WARNING)
        sweeper, folder = config.hydra.sweeper, Path(str(config.hydra.sweep.dir))
        _held.enter_context(locked(folder, name=".isgseg-sweep-lock"))
        study = optuna.create_study(
            study_name=sweeper.study_name,
            storage=sweeper.storage,
            directions=[getattr(sweeper.direction, "name", str(sweeper.direction))],
            load_if_exists=True,
        )
        trials = study.get_trials(deepcopy=False)
        settings = sorted(str(one) for one in config.hydra.overrides.task)
        if trials and study.user_attrs.get(SETTINGS, settings) != settings:
            raise InputError(
                f"{sweeper.storage} holds a sweep hydra.sweeper.study_name={sweeper.study_name} "
                f"of other settings: {' '.join(study.user_attrs[SETTINGS])}; go on with these, or "
                "give another name"
            )
        study.set_user_attr(SETTINGS, settings)
        for trial in trials:  # whoever ran it is dead: its lock is ours
            if trial.state == TrialState.RUNNING:
                study._storage.set_trial_state(trial._trial_id, TrialState.WAITING)
        done = sum(trial.state.is_finished() for trial in trials)
        if trials:
            log.info("%d of %d trials are done; the sweep goes on", done, sweeper.n_trials)
        sweeper.n_trials = max(0, sweeper.n_trials - done)
        if sweeper.sampler.get("seed") is not None:
            sweeper.sampler.seed += len(trials)
        first = 1 + max(
            (int(one.name) for one in folder.iterdir() if one.name.isdigit()), default=-1
        )
        # Jobs are composed anew, from what was typed.
        config.hydra.overrides.hydra.append(
            f"hydra.sweep.subdir='${{isgseg.sum:${{hydra.job.num}},{first}}}'"
        )

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Notes in a trial why it failed."""
        if job_return.status != JobStatus.FAILED:
            return
        from isgseg.training.trials import ERROR, open_study, running_trial

        sweeper = config.hydra.sweeper
        study = open_study(sweeper.study_name, sweeper.storage)
        trial = running_trial(study, list(config.hydra.overrides.task))
        said = " ".join(str(job_return._return_value).split())
        study._storage.set_trial_user_attr(trial._trial_id, ERROR, said)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Writes `trials.csv` and `trials.png`, and says which command trains as the best did."""
        from isgseg.io.atomic import replacing
        from isgseg.training.trials import command_of, open_study, trial_figure, trial_table

        sweeper, folder = config.hydra.sweeper, Path(str(config.hydra.sweep.dir))
        study = open_study(sweeper.study_name, sweeper.storage)
        table = trial_table(study)
        with replacing(folder / "trials.csv") as scratch:
            table.to_csv(scratch, index=False)
        metric = str(OmegaConf.select(config, "optimized_metric"))
        keys = list(dict.fromkeys(key for trial in study.trials for key in trial.params))
        trial_figure(table, keys, metric, folder / "trials.png")
        counts = ", ".join(
            f"{count} {state}" for state, count in table["state"].value_counts().items()
        )
        log.info("%d trials (%s) in %s", len(table), counts, folder / "trials.csv")
        best = study.best_trial
        command = command_of(best, list(config.hydra.overrides.task), metric)
        log.info("Best: trial %d, %s = %.4f", best.number, metric, best.value)
        log.info("Train as it did: %s", command)
        _held.close()
