"""Sweeps: what a study says of its trials, and sweeps that are interrupted and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TINY_NETWORK, TINY_RUN, Compose
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from isgseg.errors import InputError
from isgseg.training.pruning import TrialPruning
from isgseg.training.sweep import ResumableSweep
from isgseg.training.trials import (
    command_of,
    open_study,
    running_trial,
    trial_figure,
    trial_table,
)

optuna = pytest.importorskip("optuna", reason="the extra 'sweep' is not installed")
pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra 'sweep' is missing")


class Accidents(Callback):
    """Kills the process in the second training of a sweep, and lets the fourth fail."""

    def __init__(self, folder: str) -> None:
        self.count = Path(folder) / "count"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        number = 1 + (len(self.count.read_text()) if self.count.exists() else 0)
        self.count.write_text("x" * number)
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            raise InputError("this one fails")


def storage(folder: Path) -> str:
    return f"sqlite:///{folder}/sweep.db"


def study_of(folder: Path, **options: Any) -> Any:
    return optuna.create_study(
        study_name="s", storage=storage(folder), direction="maximize", **options
    )


def trial(study: Any, value: float | None = None) -> Any:
    """A trial of a learning rate drawn at random; it runs where it has no value."""
    made = study.ask({"model.lr": optuna.distributions.UniformDistribution(0, 1)})
    if value is not None:
        study.tell(made, value)
    return made


def test_a_job_finds_the_running_trial_that_has_its_values(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    first, second = trial(study), trial(study)
    for one in (first, second):
        overrides = [f"model.lr={one.params['model.lr']}", "data.root=x"]
        assert running_trial(study, overrides).number == one.number
    with pytest.raises(InputError, match=r"runs no trial with model\.lr=0\.5"):
        running_trial(study, ["model.lr=0.5"])


def test_a_study_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"study_name=other; start one by isgseg-train -m"):
        open_study("other", storage(tmp_path))


class Trains:
    """What a callback sees of a Trainer."""

    is_global_zero, sanity_checking, current_epoch, should_stop = True, False, 0, False
    default_root_dir = "somewhere"

    def __init__(self, value: float) -> None:
        self.callback_metrics = {"val/f1_3d": torch.tensor(value)}
        self.strategy = self

    def broadcast(self, value: bool) -> bool:
        return value


@pytest.mark.parametrize(("value", "stopped"), [(0.1, True), (0.9, False)])
def test_a_trial_below_the_median_is_stopped(tmp_path: Path, value: float, stopped: bool) -> None:
    study = study_of(tmp_path)
    for known in (0.4, 0.5, 0.6):
        made = trial(study)
        study._storage.set_trial_intermediate_value(made._trial_id, 5, known)
        study.tell(made, known)
    running = trial(study)
    overrides = [f"model.lr={running.params['model.lr']}"]
    callback = TrialPruning("val/f1_3d", storage(tmp_path), "s", overrides, 2, 2)
    trainer: Any = Trains(value)
    callback.setup(trainer, None, "fit")  # type: ignore[arg-type]
    for epoch in (0, 4):  # the first is of the warm-up
        trainer.current_epoch = epoch
        callback.on_validation_end(trainer, None)  # type: ignore[arg-type]
        assert trainer.should_stop == (stopped and epoch == 4)
    study.tell(running, value)
    study = open_study("s", storage(tmp_path))  # one that is open keeps what it has read
    row = trial_table(study).iloc[3]
    assert row["state"] == ("stopped" if stopped else "complete")
    assert row["folder"] == "somewhere"
    assert (row["epoch"] == 5) == stopped
    assert study.trials[3].intermediate_values == pytest.approx({1: value, 5: value})


def test_the_table_and_picture_have_every_trial(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    trial(study, 0.5)
    made = trial(study)
    study.tell(made, state=optuna.trial.TrialState.FAIL)
    trial(study)
    table = trial_table(study)
    assert table["state"].tolist() == ["complete", "failed", "running"]
    assert trial_figure(table, ["model.lr"], "val/f1_3d", tmp_path / "a.png").stat().st_size > 1000


def test_the_command_of_a_trial_has_its_values_and_not_those_of_the_sweep(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    made = trial(study, 0.5)
    lr = made.params["model.lr"]
    sweep = ["hparams_search=optuna", "model.lr=interval(0,1)", "data.root=a b", "+trainer.x=1"]
    assert command_of(study.best_trial, sweep, "val/f1_3d") == (
        f"isgseg-train 'data.root=a b' +trainer.x=1 optimized_metric=val/f1_3d model.lr={lr}"
    )


def sweep_config(folder: Path, *task: str, trials: int = 5) -> Any:
    return OmegaConf.create(
        {
            "task_name": "train",
            "hydra": {
                "overrides": {"task": list(task), "hydra": []},
                "sweep": {"dir": str(folder), "subdir": "x"},
                "sweeper": {
                    "study_name": "s",
                    "storage": storage(folder),
                    "direction": "maximize",
                    "n_trials": trials,
                    "sampler": {"seed": 7},
                },
            },
        }
    )


@pytest.fixture(autouse=True)
def _lock_is_free() -> Any:
    yield
    from isgseg.training import sweep

    sweep._held.close()


def test_a_sweep_asks_for_what_is_missing_and_runs_interrupted_trials_again(
    tmp_path: Path,
) -> None:
    study = study_of(tmp_path)
    trial(study, 0.5)
    study.tell(trial(study), state=optuna.trial.TrialState.FAIL)
    lost = trial(study)
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    config = sweep_config(tmp_path, "data.root=x")
    ResumableSweep().on_multirun_start(config)
    assert config.hydra.sweeper.n_trials == 3
    assert config.hydra.sweeper.sampler.seed == 10  # other draws than those of the beginning
    typed = OmegaConf.to_container(config.hydra.overrides.hydra)
    assert typed == ["hydra.sweep.subdir='${isgseg.sum:${hydra.job.num},3}'"]
    again = open_study("s", storage(tmp_path)).ask()  # one that is open keeps what it has read
    assert again.number == lost.number
    assert again.params == lost.params


def test_a_sweep_of_other_settings_and_a_second_one_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ResumableSweep().on_multirun_start(sweep_config(tmp_path, "data.root=x"))
    with pytest.raises(SystemExit):
        ResumableSweep().on_multirun_start(sweep_config(tmp_path, "data.root=x"))
    assert "another process" in capsys.readouterr().err
    from isgseg.training import sweep

    sweep._held.close()
    trial(open_study("s", storage(tmp_path)), 0.5)
    with pytest.raises(SystemExit):
        ResumableSweep().on_multirun_start(sweep_config(tmp_path, "data.root=y"))
    assert "of other settings: data.root=x; go on with these" in capsys.readouterr().err


def test_the_search_is_composed_with_pruning_and_a_storage(config: Compose) -> None:
    cfg = config("train", "hparams_search=optuna", "data.root=x")
    assert cfg.optimized_metric == cfg.callbacks.best.monitor == "val/f1_3d"
    assert cfg.callbacks.pruning["_target_"] == "isgseg.training.pruning.TrialPruning"


def command(coco_root: Path, folder: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "isgseg.train", "-m", *TINY_NETWORK, *TINY_RUN),
        *(f"data.root={coco_root}", f"paths.root={folder}", "logger=[]"),
        *("~callbacks.learning_rate", *more),
    ]


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_a_failed_trial_does_not_end_it(
    coco_root: Path, tmp_path: Path
) -> None:
    line = command(
        coco_root,
        tmp_path,
        *("hparams_search=optuna", "hydra.sweeper.n_trials=4", "optimized_metric=val/segm_map"),
        *("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"),
        *(f"+callbacks.kill._target_={__name__}.Accidents", f"+callbacks.kill.folder={tmp_path}"),
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    first = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert first.returncode == -signal.SIGKILL, first.stderr
    again = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert again.returncode == 0, again.stderr
    folder = tmp_path / "train" / "sweeps" / "optuna"
    table = pd.read_csv(folder / "trials.csv")
    assert table["state"].tolist() == ["complete", "complete", "failed", "complete"]
    assert table["error"].dropna().tolist() == ["this one fails"]
    assert not table.duplicated("model.lr").any()
    assert {path.name for path in folder.iterdir() if path.is_dir()} == set("01234")
    assert (folder / "trials.png").is_file()
    assert "Train as it did: isgseg-train" in again.stdout
    assert "1 of 4 trials are done; the sweep goes on" in again.stdout + again.stderr


@pytest.mark.slow
def test_two_runs_at_a_time_by_joblib(coco_root: Path, tmp_path: Path) -> None:
    line = command(coco_root, tmp_path, "hydra/launcher=joblib", "model.lr=0.005,0.01")
    subprocess.run([*line, "trainer.fast_dev_run=true"], check=True, capture_output=True, text=True)
    jobs = sorted(path.name for path in tmp_path.glob("train/multirun/*/[01]"))
    assert jobs == ["0", "1"]


def test_pandas_reads_the_table_back(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    trial(study, 0.5)
    table = trial_table(study)
    table.to_csv(tmp_path / "trials.csv", index=False)
    assert pd.read_csv(tmp_path / "trials.csv")["value"].tolist() == [0.5]
