"""The trials of a sweep: which of them a job is, their table, and their picture."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from isgseg.errors import InputError
from isgseg.io.atomic import replacing

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

# What a trial's record says beside its value; pruning and the sweep write them.
STOPPED, FOLDER, ERROR = "isgseg_stopped_at_epoch", "isgseg_folder", "isgseg_error"
COLOURS = {"complete": "tab:blue", "stopped": "tab:orange", "failed": "tab:red"}


def open_study(name: str, storage: str, **options: Any) -> Study:
    """A study that is there.

    Args:
        name: of the study.
        storage: its address, such as `sqlite:///sweep.db`.
        **options: of `optuna.load_study`.

    Raises:
        InputError: there is none of that name.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    try:
        return optuna.load_study(study_name=name, storage=storage, **options)
    except KeyError:
        raise InputError(
            f"{storage} holds no sweep hydra.sweeper.study_name={name}; start one by "
            "isgseg-train -m hparams_search=optuna"
        ) from None


def running_trial(study: Study, overrides: Sequence[str]) -> FrozenTrial:
    """The trial that a job is: the running one that has the values of its overrides.

    Hydra's sweeper does not tell its jobs which trial they are.

    Args:
        study: of the sweep.
        overrides: of the job, as `model.lr=0.005`.

    Raises:
        InputError: there is none.
    """
    from optuna.trial import TrialState

    for trial in reversed(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))):
        if {f"{name}={value}" for name, value in trial.params.items()} <= set(overrides):
            return trial
    raise InputError(
        f"the sweep {study.study_name} runs no trial with {' '.join(overrides)}; start it by "
        "isgseg-train -m"
    )


def trial_table(study: Study) -> pd.DataFrame:
    """One row a trial.

    - `trial`: its number, from 0; `state`: `complete`, `stopped` (by pruning, whose value is the
      best until then), `failed`, `running` or `waiting`
    - `value`: of the metric that is optimized; `epoch`: at which it was stopped
    - `seconds`: from start to end
    - a column for each key that is varied
    - `folder`: of its checkpoints and log; `error`: why it failed
    """
    rows = []
    for trial in study.get_trials(deepcopy=False):
        notes = trial.user_attrs
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        if state == "complete" and STOPPED in notes:
            state = "stopped"
        rows.append(
            {
                "trial": trial.number,
                "state": state,
                "value": trial.value,
                "epoch": notes.get(STOPPED),
                "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
                **trial.params,
                "folder": notes.get(FOLDER),
                "error": notes.get(ERROR),
            }
        )
    return pd.DataFrame(rows)


def command_of(trial: FrozenTrial, overrides: Sequence[str], metric: str) -> str:
    """The command that trains as a trial did.

    Args:
        trial: whose values are taken.
        overrides: of the sweep; those that the trial replaces, and the sweep itself, are left out.
        metric: by which the best checkpoint is chosen.
    """
    replaced = {*trial.params, "hparams_search", "optimized_metric"}
    kept = [one for one in overrides if one.partition("=")[0].lstrip("+") not in replaced]
    values = [f"{name}={value}" for name, value in trial.params.items()]
    return shlex.join(["isgseg-train", *kept, f"optimized_metric={metric}", *values])


def trial_figure(table: pd.DataFrame, keys: Sequence[str], metric: str, path: Path) -> Path:
    """Draws the value of each trial, and beside it how it depends on each key that is varied.

    Args:
        table: of `trial_table`.
        keys: those varied.
        metric: that is optimized; names the axis.
        path: of the image; its suffix is the format.
    """
    columns = min(3, 1 + len(keys))
    rows = math.ceil((1 + len(keys)) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for key, axis in zip(["trial", *keys], axes, strict=False):
        _draw(axis, table, key)
        axis.set_xlabel(key)
        axis.set_ylabel(metric)
    for axis in list(axes):  # what is left of the last row
        axis.set_axis_off()
    figure.axes[0].legend()
    with replacing(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:] or "png", dpi=120)
    return path


def _draw(axis: Axes, table: pd.DataFrame, key: str) -> None:
    """The trials of each state, over a column; failed ones have no value and lie at the bottom."""
    values = pd.to_numeric(table["value"])
    floor = values.min() if values.notna().any() else 0.0
    for state, colour in COLOURS.items():
        rows = table["state"] == state
        if rows.any():
            marker = "x" if state == "failed" else "o"
            axis.plot(
                table[key][rows], values[rows].fillna(floor), marker, color=colour, label=state
            )
    numbers = pd.to_numeric(table[key], errors="coerce")
    wide = numbers.notna().all() and numbers.min() > 0 and numbers.max() > 10 * numbers.min()
    if wide and key != "trial":
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=key == "trial"))
