"""Settings of a training that cannot work: refused in one line, before or at its start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_NETWORK, TINY_RUN, Compose
from omegaconf import OmegaConf

from isgseg.config import checked
from isgseg.errors import InputError
from isgseg.train import train


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("accumulate_grad_batches", -2, "at least 1"),
        ("accumulate_grad_batches", "abc", "at least 1"),
        ("max_steps", 0, "must be -1 or"),
        ("max_steps", -5, "must be -1 or"),
        ("min_epochs", 99, "more than max_epochs"),
        ("num_nodes", 4, "one machine"),  # it would wait for the others for ever
        ("overfit_batches", 1, "limit_train_batches"),
        ("profiler", "abc", "simple"),
        ("deterministic", 7, "true or false"),
        ("logger", 5, "the group logger"),
        ("callbacks", 3, "the group callbacks"),
        ("plugins", ["x"], "isgseg gives"),
        ("enable_checkpointing", False, "~callbacks.best"),
        ("acumulate_grad_batches", 2, "did you mean accumulate_grad_batches"),
    ],
)
def test_arguments_added_to_the_trainer_are_checked(
    config: Compose, key: str, value: object, said: str
) -> None:
    cfg = config("train", "data.root=x")
    OmegaConf.update(cfg, f"trainer.{key}", value, force_add=True)
    with pytest.raises(InputError, match=said):
        checked("train", cfg)


def test_checkpoints_with_one_name_would_replace_each_other(config: Compose) -> None:
    cfg = config("train", "data.root=x", "callbacks.best.filename=isg_mask_rcnn_final")
    with pytest.raises(InputError, match="filename=isg_mask_rcnn_final"):
        checked("train", cfg)


@pytest.mark.parametrize(
    "override",
    [
        "trainer.limit_val_batches=0.00001",
        "trainer.limit_train_batches=0.00001",
        "trainer.strategy=nope",
        "+trainer.val_check_interval=99",
        "optimized_metric=val/none",
        "callbacks.best.monitor=abc",
        "trainer._target_=os.getcwd",
        "trainer._target_=nope.Trainer",
        "model._target_=torch.nn.Identity",
        "data._target_=os.system",
    ],
)
def test_what_lightning_refuses_names_the_setting(
    config: Compose, coco_root: Path, override: str
) -> None:
    cfg = config("train", *TINY_NETWORK, *TINY_RUN, f"data.root={coco_root}", override)
    with pytest.raises(InputError) as raised:
        train(cfg)
    assert "trainer" in str(raised.value) or override.partition("=")[0] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_training_without_logger_and_evaluation_says_what_it_lacks(
    config: Compose, coco_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = ["trainer.check_val_every_n_epoch=50", "trainer.max_epochs=1"]
    cfg = config("train", *TINY_NETWORK, *TINY_RUN, f"data.root={coco_root}", *extra)
    cfg.logger = []
    train(cfg)
    assert "lower trainer.check_val_every_n_epoch=50" in caplog.text


@pytest.mark.parametrize("group", ["model", "trainer", "data"])
def test_a_group_that_is_null_is_said_in_one_line(group: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "isgseg.train", "data.root=x", f"{group}=null"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert group in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == 1
