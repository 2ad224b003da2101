"""Training by several processes: what each is given, what all have found, and how they end."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    TINY_NETWORK,
    TINY_RUN,
    Compose,
    discs_with_volumes,
)
from granule_volumes import balls_dataset
from lightning import Callback, LightningModule, Trainer

from isgseg.data.datamodule import CocoDataModule, evaluation_loader
from isgseg.data.samplers import SeededSampler, ShareSampler
from isgseg.errors import InputError
from isgseg.evaluation.coco import MatchMetric, coco_metric, read_scores
from isgseg.hardware import check_devices
from isgseg.ranks import rank, without_files
from isgseg.train import train
from isgseg.training import sharing
from isgseg.training.evaluation import evaluation_trainer, load_module
from isgseg.training.volume_score import VolumeScore

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "data.batch_size=1"]
FINAL = "isg_mask_rcnn_final.pth"


class Writes(Callback):
    """Writes what each process knows after each evaluation, and the loss of each step."""

    def __init__(self, folder: str) -> None:
        self.folder, self.losses = Path(folder), [0.0] * 0

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        content = {"losses": self.losses, "metrics": known, "thresholds": pl_module.thresholds}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(content))


class Spoils(Callback):
    """Makes the loss of one process infinite from a step on, or has it raise an error."""

    def __init__(self, step: int, error: bool = False) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *args: object) -> None:
        if trainer.global_rank != 1 or trainer.global_step < self.step:
            return
        if self.error:
            raise KeyError("only here")
        true = type(pl_module).losses
        pl_module.losses = lambda *given: {
            name: value * torch.inf for name, value in true(pl_module, *given).items()
        }


def run(config: Compose, root: Path, *overrides: str) -> float | None:
    options = ["logger=[]", "~callbacks.learning_rate", f"data.root={root}", "data.augment.crop=48"]
    return train(config("train", *TINY_NETWORK, *TINY_RUN, *options, *overrides))


def written(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("?.json"))
    assert [file.name for file in files] == ["0.json", "1.json"]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize(("length", "batch", "processes"), [(20, 2, 3), (9, 4, 2), (8, 1, 2)])
def test_processes_take_the_batches_of_one_in_turns(
    length: int, batch: int, processes: int
) -> None:
    whole = SeededSampler(length, seed=3, batch_size=batch)
    shares = [SeededSampler(length, 3, batch, one, processes) for one in range(processes)]
    for sampler in (whole, *shares):
        sampler.set_epoch(2)
    lists = [list(share) for share in shares]
    assert {len(share) for share in lists} == {len(share) for share in shares}
    steps = [share[i : i + batch] for i in range(0, len(lists[0]), batch) for share in lists]
    taken = list(chain.from_iterable(steps))
    assert taken == list(whole)[: len(taken)]
    assert length - len(taken) < batch * processes


@pytest.mark.parametrize(("length", "batch", "processes"), [(5, 2, 2), (3, 4, 3), (9, 2, 4)])
def test_each_validation_image_is_shown_once_in_batches_of_one_process(
    length: int, batch: int, processes: int
) -> None:
    shares = [list(ShareSampler(length, batch, one, processes)) for one in range(processes)]
    assert len({len(share) for share in shares}) == 1
    whole = [list(range(length))[i : i + batch] for i in range(0, length, batch)]
    batches = [
        [index for index in share[i : i + batch] if index is not None]
        for share in shares
        for i in range(0, len(share), batch)
    ]
    assert [one for one in batches if one] == whole


def test_metrics_of_shares_are_those_of_all(
    trained: Path, coco_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a process has seen more images than another, or none."""
    module = load_module(trained / FINAL)
    batches = list(evaluation_loader(coco_root, "val", 1, 0))
    with torch.inference_mode():
        found = [module.detect(images) for images, _ in batches]
    targets = [[{**one, "masks": one["masks"].bool()} for one in target] for _, target in batches]

    def metrics(*taken: int) -> list[Any]:
        both = [coco_metric(), MatchMetric()]
        for index in taken:
            for metric in both:
                metric.update(found[index], targets[index])
        return both

    whole, shares = metrics(0, 1, 2), [metrics(0, 1), metrics(2), metrics()]
    for number, metric in enumerate(shares[1]):
        states = [dict(share[number].metric_state) for share in shares]
        monkeypatch.setattr(sharing, "gather", lambda state, known=states: known)
        sharing.share_states(metric)
    assert read_scores(shares[1][0]) == read_scores(whole[0])
    assert read_scores(whole[0])["segm_map"] > 0.1
    for ours, theirs in zip(shares[1][1].compute(), whole[1].compute(), strict=True):
        assert (ours == theirs).all() if hasattr(ours, "all") else ours == theirs


def test_items_given_in_turns_come_back_in_order() -> None:
    for count in (0, 1, 4, 5):
        shares = [list(range(count))[one::3] for one in range(3)]
        assert sharing.in_turns(shares) == list(range(count))


def test_accumulated_batches_make_fewer_steps_and_the_log_says_of_how_many(
    config: Compose, coco_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run(config, coco_root, "trainer.max_epochs=1", "trainer.accumulate_grad_batches=3")
    content = torch.load(tmp_path / "train" / "checkpoints" / FINAL, weights_only=True)
    assert content["global_step"] == 1  # three batches of two
    assert "A step learns from 6 patches: data.batch_size=2 x 1 devices" in caplog.text


def test_a_cpu_is_several_devices_only_where_processes_are_asked_for() -> None:
    check_devices("cpu", 2, "ddp")
    with pytest.raises(InputError, match=r"strategy=ddp runs several"):
        check_devices("cpu", 2)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 0),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, 3),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, 0),
    ],
)
def test_only_the_first_process_of_a_training_has_a_folder(
    environment: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rank() == expected
    with without_files("train") as arguments:
        assert bool(arguments) == bool(expected)
        folders = [Path(one.partition("=")[2]) for one in arguments if ".dir=" in one]
        assert all(folder.is_dir() for folder in folders)
    assert not any(folder.exists() for folder in folders)
    with without_files("predict") as arguments:
        assert arguments == []


def test_fewer_patches_than_the_processes_take_are_said(coco_root: Path) -> None:
    module = CocoDataModule(str(coco_root), batch_size=4)
    module.setup("fit")
    module.trainer = type("Two", (), {"global_rank": 1, "world_size": 2})()
    with pytest.raises(InputError, match=r"6 patches, fewer than 2 devices take"):
        module.train_dataloader()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return discs_with_volumes(tmp_path / "data")


@pytest.mark.slow
def test_two_processes_score_and_tune_as_one_and_one_of_them_writes(
    config: Compose, root: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        score = run(
            config,
            root,
            *TWO,
            f"model.weights={trained / FINAL}",
            "trainer.max_epochs=1",
            "trainer.check_val_every_n_epoch=1",
            "model.lr=0.0001",
            "optimized_metric=val/f1_3d",
            f"+callbacks.writes._target_={__name__}.Writes",
            f"+callbacks.writes.folder={tmp_path}",
        )
    first, second = written(tmp_path)
    assert first == second
    metrics = first["metrics"]
    assert metrics["val/f1_3d"] == pytest.approx(score)
    assert metrics["val/segm_map"] > 0.1
    assert "A step learns from 2 patches: data.batch_size=1 x 2 devices" in caplog.text
    assert caplog.text.count("val/f1_3d is of a.mrc, slices 0 to 4, b.mrc, slices 0 to 4") == 1
    folder = tmp_path / "train"
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {
        "isg_mask_rcnn_best.pth",
        FINAL,
    }
    module = load_module(folder / "checkpoints" / FINAL)
    alone = evaluation_trainer("cpu", "32-true", False, VolumeScore(slices=64))
    data = CocoDataModule(str(root), batch_size=1, num_workers=0)
    alone.validate(module, datamodule=data, verbose=False)
    for name, value in alone.callback_metrics.items():
        assert metrics[name] == float(value), name
    assert list(module.thresholds or ()) == first["thresholds"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mask_rcnn", "unet"])
def test_two_processes_learn_what_one_does_from_accumulated_batches(
    config: Compose, root: Path, tmp_path: Path, method: str
) -> None:
    options = [*TINY_NETWORK, "data.augment.crop=48", "model.network.norm=group"]
    if method == "unet":
        root = balls_dataset(config, tmp_path, "patches.slice_step=4")
        options = ["experiment=unet", "model.network.widths=[8,16]"]
    options += [
        *(one for one in TINY_RUN if "crop" not in one),
        *("logger=[]", "~callbacks.learning_rate", f"data.root={root}", "data.batch_size=1"),
        *("trainer.max_epochs=2", "trainer.limit_train_batches=null", "model.warmup_steps=1"),
        f"+callbacks.writes._target_={__name__}.Writes",
    ]
    results, weights = [], []
    for name, more in (("one", ["trainer.accumulate_grad_batches=2"]), ("two", TWO)):
        folder = tmp_path / name
        folder.mkdir()
        output = [f"paths.output_dir={folder}", f"+callbacks.writes.folder={folder}"]
        train(config("train", *options, *more, *output))
        results.append(json.loads((folder / "0.json").read_text()))
        final = folder / "checkpoints" / f"isg_{method}_final.pth"
        weights.append(torch.load(final, weights_only=True)["model"])
    one, two = results
    pairs = zip(one["losses"][::2], one["losses"][1::2], strict=True)
    assert two["losses"] == pytest.approx([sum(pair) / 2 for pair in pairs], rel=1e-4)
    for name, value in weights[0].items():
        if "running" not in name and "num_batches" not in name:  # of the first process alone
            torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_resume_exactly(config: Compose, root: Path, tmp_path: Path) -> None:
    def checkpoints(name: str, *more: str) -> Path:
        folder = tmp_path / name
        run(config, root, *TWO, f"paths.output_dir={folder}", "trainer.max_epochs=2", *more)
        return folder / "checkpoints"

    def content(path: Path) -> dict[str, Any]:
        return torch.load(path, weights_only=True)  # type: ignore[no-any-return]

    whole = checkpoints("whole", "callbacks.every_5_epochs.every_n_epochs=1")
    half = whole / "isg_mask_rcnn_ep1.pth"
    resumed = content(checkpoints("rest", f"ckpt_path={half}") / FINAL)
    assert (content(half)["global_step"], resumed["global_step"]) == (4, 8)
    for name, value in content(whole / FINAL)["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "kind", "message"),
    [
        (["+callbacks.spoils.step=1"], InputError, "not finite in 20 steps"),
        (["+callbacks.spoils.step=1", "+callbacks.spoils.error=true"], KeyError, "only here"),
    ],
)
def test_what_ends_one_process_ends_all(
    config: Compose, root: Path, more: list[str], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run(
            config,
            root,
            *TWO,
            f"+callbacks.spoils._target_={__name__}.Spoils",
            *more,
            "trainer.max_epochs=9",
        )


@pytest.mark.skipif(
    os.environ.get("ISGSEG_TEST_SLURM") != "1",
    reason="needs SLURM on this machine: set ISGSEG_TEST_SLURM=1",
)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("way", ["srun", "submitit"])
def test_two_tasks_of_slurm_train_together(root: Path, tmp_path: Path, way: str) -> None:
    options = [*TINY_NETWORK, *TINY_RUN, *TWO, f"data.root={root}", f"paths.root={tmp_path}"]
    options += ["logger=[]", "~callbacks.learning_rate", "trainer.max_epochs=1"]
    command = [sys.executable, "-m", "isgseg.train", *options]
    if way == "srun":
        command = ["srun", "--ntasks=2", "--ntasks-per-node=2", "--mem=3G", *command]
    else:
        launcher = ["tasks_per_node=2", "cpus_per_task=1", "mem_gb=3", "timeout_min=20"]
        command += ["-m", "hydra/launcher=submitit_slurm"]
        command += [f"hydra.launcher.{one}" for one in launcher]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (final,) = tmp_path.glob(f"train/**/{FINAL}")
    assert torch.load(final, weights_only=True)["global_step"] == 4
    assert len(list(tmp_path.glob("train/*"))) == 1
