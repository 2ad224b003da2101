from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, TINY_NETWORK, TINY_RUN, Compose, balls, save_pair
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isgseg.errors import InputError
from isgseg.inference.predictor import Predictor
from isgseg.io.folders import locked
from isgseg.io.volumes import read_volume
from isgseg.models.settings import Thresholds
from isgseg.prepare import prepare
from isgseg.train import train
from isgseg.training.checkpoints import AtomicCheckpointIO
from isgseg.training.evaluation import load_module

STARTED = ("finetune", "demo", "unet")  # they want a checkpoint or maps: tests of their own
EXPERIMENTS = sorted(
    path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml") if path.stem not in STARTED
)
AVERAGE = [
    "+callbacks.average._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
    "+callbacks.average.decay=0.9",
]


class Forgets(Callback):
    """Spoils what a network knows before its epoch `epoch`, counted from 1: scores fall to 0."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch + 1 >= self.epoch:
            for weight in pl_module.parameters():
                weight.data.normal_()


class Diverges(Callback):
    """Loses a network in its first step, as too high a rate does."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: object
    ) -> None:
        for weight in pl_module.parameters():
            weight.data.fill_(torch.nan)


DIVERGE = f"+callbacks.diverges._target_={__name__}.Diverges"


class Losses(Callback):
    """The mean loss of each epoch."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.losses: list[list[float]] = [[]]

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.losses[-1].append(float(trainer.callback_metrics["train/loss"]))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.path.write_text(json.dumps([sum(epoch) / len(epoch) for epoch in self.losses]))
        self.losses.append([])


class KilledInEpoch7(Callback):
    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == 19:
            raise RuntimeError("killed")


def run(config: Compose, data: Path, output: Path, *overrides: str) -> float | None:
    return train(
        config(
            "train",
            *TINY_NETWORK,
            *TINY_RUN,
            f"data.root={data}",
            f"paths.output_dir={output}",
            "logger=[]",
            "~callbacks.learning_rate",
            *overrides,
        )
    )


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def defaults(coco_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the documented recipe, 20 epochs, on a tiny network."""
    from hydra import compose, initialize_config_dir

    from isgseg.config import CONFIG_DIR

    folder = tmp_path_factory.mktemp("defaults")
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose(
            "train",
            [
                "experiment=baseline",
                "model.network.backbone=resnet18",
                "model.network.anchor_ratios=[1.0]",
                *TINY_NETWORK[1:],
                *TINY_RUN,
                f"data.root={coco_root}",
                f"paths.output_dir={folder}",
                "callbacks.early_stopping.patience=100",
                "model.warmup_steps=5",
                "trainer.log_every_n_steps=1",
            ],
        )
    train(cfg)
    return folder


def test_the_files_are_best_final_and_every_fifth_epoch(defaults: Path) -> None:
    names = {path.name for path in (defaults / "checkpoints").iterdir()}
    assert names == {"isg_mask_rcnn_best.pth", "isg_mask_rcnn_final.pth"} | {
        f"isg_mask_rcnn_ep{epoch}.pth" for epoch in (5, 10, 15, 20)
    }
    for epoch in (5, 10, 15, 20):
        content = load(defaults / "checkpoints" / f"isg_mask_rcnn_ep{epoch}.pth")
        assert content["epoch"] == epoch - 1
        assert content["global_step"] == 3 * epoch
    final = load(defaults / "checkpoints" / "isg_mask_rcnn_final.pth")["state_dict"]
    last = load(defaults / "checkpoints" / "isg_mask_rcnn_ep20.pth")["state_dict"]
    assert all(torch.equal(value, last[name]) for name, value in final.items())


def test_each_file_predicts(defaults: Path) -> None:
    for path in (defaults / "checkpoints").iterdir():
        found = load_module(path)([torch.rand(3, 64, 64)])[0]
        assert found["masks"].shape[1:] == (1, 28, 28)


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_evaluation_runs_every_second_epoch_and_best_is_its_best(defaults: Path) -> None:
    values = scalars(defaults, "val/segm_map")
    assert [(step + 1) / 3 for step, _ in values] == list(range(2, 21, 2))
    best = load(defaults / "checkpoints" / "isg_mask_rcnn_best.pth")
    top = max(value for _, value in values)
    assert (best["global_step"] - 1, top) in values


def test_tensorboard_shows_losses_rate_gradient_scores_and_images(defaults: Path) -> None:
    events = EventAccumulator(str(defaults / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    losses = ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")
    assert {f"train/loss_{name}" for name in losses} <= set(tags["scalars"])
    assert {
        "train/loss",
        "train/grad_norm",
        "lr",
        "val/segm_map",
        "val/segm_map_50",
        "val/bbox_map",
        "val/segm_mar_100",
    } <= set(tags["scalars"])
    assert {"val/f1", "val/threshold", "val/mask_threshold"} <= set(tags["scalars"])
    assert {"val/patch_0", "val/patch_2", "val/scores"} <= set(tags["images"])
    rates = dict(scalars(defaults, "lr"))
    assert rates[0] < 0.001  # warm-up
    assert max(rates.values()) == pytest.approx(0.005)
    assert rates[57] == pytest.approx(0.00005, rel=0.01)  # two steps down, at epochs 8 and 16


@pytest.mark.parametrize("criterion", ["f1", "count", "null"])
def test_the_operating_point_is_kept_in_the_checkpoint(
    config: Compose, coco_root: Path, tmp_path: Path, criterion: str
) -> None:
    run(
        config,
        coco_root,
        tmp_path,
        "trainer.max_epochs=2",
        f"model.operating_point={criterion}",
        "model.network.score_threshold=0.01",
    )
    final = tmp_path / "checkpoints" / "isg_mask_rcnn_final.pth"
    kept = load(final)["thresholds"]
    assert load_module(final).thresholds == Thresholds(**kept)
    assert kept["object"] == kept["score"]
    if criterion == "null":
        assert set(kept.values()) == {0.5}


@pytest.mark.parametrize(
    "extra", [[], [*AVERAGE, "model.optimizer=muon"]], ids=["plain", "averaged, muon"]
)
@pytest.mark.parametrize("name", ["isg_mask_rcnn_best", "isg_mask_rcnn_final", "isg_mask_rcnn_ep5"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(
    config: Compose,
    coco_root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    extra: list[str],
) -> None:
    shared = tmp_path_factory.getbasetemp() / f"resume_{len(extra)}"
    common = ["trainer.max_epochs=8", "data.augment.noise=0.1", *extra]
    if not shared.exists():
        run(config, coco_root, shared / "whole", *common)
        with pytest.raises(RuntimeError, match="killed"):
            run(
                config,
                coco_root,
                shared / "part",
                *common,
                f"+callbacks.kill._target_={__name__}.KilledInEpoch7",
            )
    checkpoint = shared / "part" / "checkpoints" / f"{name}.pth"
    assert load(checkpoint)["epoch"] < 6
    output = shared / name
    run(config, coco_root, output, *common, f"ckpt_path={checkpoint}")
    whole = load(shared / "whole" / "checkpoints" / "isg_mask_rcnn_final.pth")
    resumed = load(output / "checkpoints" / "isg_mask_rcnn_final.pth")
    assert resumed["global_step"] == whole["global_step"] == 24
    for key in ("state_dict", *(["current_model_state"] if extra else [])):
        for weight, value in whole[key].items():
            assert torch.equal(value, resumed[key][weight]), weight


def test_an_early_stop_leaves_best_and_final(
    config: Compose, coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        EarlyStopping, "_evaluate_stopping_criteria", lambda self, current: (True, "enough")
    )
    run(config, coco_root, tmp_path, "trainer.max_epochs=20")
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"isg_mask_rcnn_best.pth", "isg_mask_rcnn_final.pth"}
    assert load(tmp_path / "checkpoints" / "isg_mask_rcnn_final.pth")["epoch"] == 1


SCORE = "val/segm_map"


def best_of(path: Path) -> float:
    states = load(path)["callbacks"]
    return next(
        float(state["best_model_score"])
        for state in states.values()
        if state.get("monitor") == SCORE and "best_model_score" in state
    )


def forget(epoch: int) -> list[str]:
    return [
        f"+callbacks.forgets._target_={__name__}.Forgets",
        f"+callbacks.forgets.epoch={epoch}",
    ]


@pytest.fixture(scope="module")
def good(trained: Path, coco_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that starts from trained weights, so that its best is good."""
    from hydra import compose, initialize_config_dir

    folder = tmp_path_factory.mktemp("good")

    def config(name: str, *overrides: str) -> Any:
        from isgseg.config import CONFIG_DIR

        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose(name, list(overrides))

    run(config, coco_root, folder, *from_good(trained), "trainer.max_epochs=2")
    return folder


def from_good(trained: Path) -> list[str]:
    weights = trained / "isg_mask_rcnn_final.pth"
    return [f"model.weights={weights}", "model.lr=1e-6", "callbacks.early_stopping.patience=9"]


def test_train_returns_the_best_evaluation_not_the_last(
    config: Compose,
    trained: Path,
    coco_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "isgseg.train")
    value = run(
        config,
        coco_root,
        tmp_path,
        *from_good(trained),
        *forget(3),
        "trainer.max_epochs=4",
        "logger=tensorboard",
    )
    first, last = (value for _, value in scalars(tmp_path, SCORE))
    assert first > 0.2 > last
    assert value == pytest.approx(first)
    assert f"{SCORE} = {value:.4f}" in caplog.messages
    assert best_of(tmp_path / "checkpoints" / "isg_mask_rcnn_best.pth") == pytest.approx(first)


@pytest.mark.parametrize("source", ["final", "best"])
def test_a_resumed_run_carries_the_best_so_far_to_its_folder(
    config: Compose, trained: Path, good: Path, coco_root: Path, tmp_path: Path, source: str
) -> None:
    best = good / "checkpoints" / "isg_mask_rcnn_best.pth"
    value = run(
        config,
        coco_root,
        tmp_path,
        *from_good(trained),
        *forget(3),
        "trainer.max_epochs=4",
        f"ckpt_path={good}/checkpoints/isg_mask_rcnn_{source}.pth",
    )
    assert value == pytest.approx(best_of(best))
    kept = tmp_path / "checkpoints" / "isg_mask_rcnn_best.pth"
    assert kept.read_bytes() == best.read_bytes()
    final = tmp_path / "checkpoints" / "isg_mask_rcnn_final.pth"
    assert load(final)["epoch"] == 3
    assert best_of(final) == pytest.approx(best_of(best))


def test_a_moved_run_is_resumed_with_its_best_too_and_in_its_own_folder(
    config: Compose, trained: Path, good: Path, coco_root: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(good, tmp_path / "moved")
    best = moved / "checkpoints" / "isg_mask_rcnn_best.pth"
    before = best.read_bytes()
    run(
        config,
        coco_root,
        moved,
        *from_good(trained),
        *forget(3),
        "trainer.max_epochs=4",
        f"ckpt_path={moved}/checkpoints/isg_mask_rcnn_final.pth",
    )
    assert best.read_bytes() == before
    assert load(moved / "checkpoints" / "isg_mask_rcnn_final.pth")["epoch"] == 3


def test_a_best_that_is_gone_is_said(
    config: Compose,
    trained: Path,
    good: Path,
    coco_root: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    final = shutil.copy(good / "checkpoints" / "isg_mask_rcnn_final.pth", tmp_path)
    hidden = good.rename(good.with_name("hidden"))
    try:
        run(
            config,
            coco_root,
            tmp_path / "new",
            *from_good(trained),
            "trainer.max_epochs=3",
            f"ckpt_path={final}",
        )
    finally:
        hidden.rename(good)
    assert "is not there any more" in caplog.text


def test_checkpoints_of_another_run_are_replaced_only_when_asked_for(
    config: Compose, good: Path, coco_root: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(good, tmp_path / "run")
    checkpoints = folder / "checkpoints"
    shutil.copy(checkpoints / "isg_mask_rcnn_best.pth", checkpoints / "isg_mask_rcnn_ep5.pth")
    (checkpoints / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in checkpoints.iterdir()}
    with pytest.raises(FileExistsError, match=r"another run.* overwrite=true"):
        run(config, coco_root, folder, "trainer.max_epochs=2")
    assert {path.name: path.read_bytes() for path in checkpoints.iterdir()} == before
    run(config, coco_root, folder, "trainer.max_epochs=2", "overwrite=true")
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"isg_mask_rcnn_best.pth", "isg_mask_rcnn_final.pth", "notes.txt"}
    assert best_of(checkpoints / "isg_mask_rcnn_best.pth") < 0.2


def test_going_back_in_ones_own_folder_must_be_asked_for(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    run(config, coco_root, tmp_path, "trainer.max_epochs=6")
    checkpoints = tmp_path / "checkpoints"
    early = checkpoints / "isg_mask_rcnn_ep5.pth"
    with pytest.raises(FileExistsError, match=r"later checkpoints .*final\.pth"):
        run(config, coco_root, tmp_path, "trainer.max_epochs=7", f"ckpt_path={early}")
    final = checkpoints / "isg_mask_rcnn_final.pth"
    for path, more in ((early, ["overwrite=true"]), (final, [])):
        run(config, coco_root, tmp_path, "trainer.max_epochs=7", f"ckpt_path={path}", *more)
        assert load(final)["epoch"] == 6
        shutil.copy(early, final)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are installed."""
    import platformdirs

    from isgseg.models.locate import installed_model

    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user" / name)
    return installed_model()


def test_the_best_model_is_installed_and_replaced_only_when_asked_for(
    config: Compose, trained: Path, coco_root: Path, tmp_path: Path, home: Path
) -> None:
    options = [*from_good(trained), *forget(3), "trainer.max_epochs=4", "install=true"]
    run(config, coco_root, tmp_path / "a", *options)
    assert home.name == "isg_mask_rcnn_final.pth"
    best = tmp_path / "a" / "checkpoints" / "isg_mask_rcnn_best.pth"
    assert home.read_bytes() == best.read_bytes()
    with pytest.raises(InputError, match="holds a model already; replace it by overwrite=true"):
        run(config, coco_root, tmp_path / "b", *options)
    home.write_bytes(b"older")
    run(config, coco_root, tmp_path / "b", *options, "overwrite=true")
    assert home.stat().st_size > 1000


def test_nothing_to_install_is_said_and_blames_no_folder(
    config: Compose, coco_root: Path, tmp_path: Path, home: Path
) -> None:
    with pytest.raises(InputError, match=r"fast_dev_run writes no checkpoint"):
        run(config, coco_root, tmp_path, "install=true", "trainer.fast_dev_run=true")
    without = ["callbacks.best=null", "callbacks.final=null", "trainer.max_epochs=1"]
    with pytest.raises(InputError, match=r"holds no isg_mask_rcnn_best\.pth to install"):
        run(config, coco_root, tmp_path, "install=true", *without)
    assert not home.exists()


def test_overwrite_takes_no_file_that_isgseg_did_not_write(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "checkpoints" / "isg_mask_rcnn_best.pth"
    theirs.parent.mkdir()
    theirs.write_bytes(b"something else")
    with pytest.raises(FileExistsError, match="no checkpoint of isgseg-train"):
        run(config, coco_root, tmp_path, "overwrite=true")
    assert theirs.read_bytes() == b"something else"


def test_a_new_run_that_fails_leaves_the_old_checkpoints(
    config: Compose,
    good: Path,
    coco_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isgseg.training.base.MAX_BAD_STEPS", 1)
    folder = shutil.copytree(good, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    with pytest.raises(InputError, match="not finite"):
        run(config, coco_root, folder, "overwrite=true", DIVERGE)
    after = {path.name: path.read_bytes() for path in (folder / "checkpoints").iterdir()}
    assert after == before


def test_a_finished_run_says_what_to_raise(config: Compose, good: Path, coco_root: Path) -> None:
    final = good / "checkpoints" / "isg_mask_rcnn_final.pth"
    with pytest.raises(InputError, match=r"already at epoch 2 .*; raise trainer\.max_epochs"):
        run(config, coco_root, good, "trainer.max_epochs=2", f"ckpt_path={final}")


def test_what_cannot_be_resumed_is_said(
    config: Compose, good: Path, coco_root: Path, tmp_path: Path
) -> None:
    content = load(good / "checkpoints" / "isg_mask_rcnn_final.pth")
    plain = tmp_path / "plain.pth"
    torch.save(content["model"], plain)
    with pytest.raises(InputError, match=r"no state of a training .* model\.weights="):
        run(config, coco_root, tmp_path / "a", f"ckpt_path={plain}")
    final = f"ckpt_path={good}/checkpoints/isg_mask_rcnn_final.pth"
    with pytest.raises(InputError, match="of another network"):
        run(config, coco_root, tmp_path / "b", final, "model.network.box_width=32")
    with pytest.raises(InputError, match=r"model\.optimizer=sgd"):
        run(config, coco_root, tmp_path / "c", final, "model.optimizer=muon")


def test_a_damaged_training_state_is_the_files_fault(
    config: Compose, good: Path, coco_root: Path, tmp_path: Path
) -> None:
    content = load(good / "checkpoints" / "isg_mask_rcnn_final.pth")
    for key, value in (("loops", {"fit_loop": 3}), ("optimizer_states", [{"state": 1}])):
        damaged = tmp_path / f"{key}.pth"
        torch.save({**content, key: value}, damaged)
        with pytest.raises(InputError, match=r"cannot be resumed.*model\.weights="):
            run(config, coco_root, tmp_path / key, "trainer.max_epochs=3", f"ckpt_path={damaged}")


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "isg_mask_rcnn_final.pth"
    write = AtomicCheckpointIO()
    write.save_checkpoint({"weight": torch.zeros(10)}, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(InputError, match=r"isg_mask_rcnn_final\.pth"):
            write.save_checkpoint({"weight": torch.zeros(100_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_checkpoints_never_go_through_the_folder_of_temporary_files(
    config: Compose, coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    run(config, coco_root, tmp_path, "trainer.max_epochs=1")
    assert (tmp_path / "checkpoints" / "isg_mask_rcnn_final.pth").is_file()


def test_too_little_memory_is_said(
    config: Compose, coco_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("isgseg.training.base.GranuleModule.training_step", step)
    with pytest.raises(InputError, match=r"too little memory \(CUDA .*\); lower data\.batch_size"):
        run(config, coco_root, tmp_path)


def test_one_training_at_a_time_in_a_folder(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another process"):
        run(config, coco_root, tmp_path)


def tiny(experiment: dict[str, Any]) -> list[str]:
    """The tiny network and run, but for what the experiment says itself."""
    model = experiment.get("model", {})
    own = {f"model.network.{key}" for key in model.get("network", {})}
    own |= {f"data.augment.{key}" for key in experiment.get("data", {}).get("augment", {})}
    items = [*TINY_NETWORK[1:], "model.network.backbone=resnet18", *TINY_RUN]
    return [item for item in items if item.partition("=")[0] not in own]


def own_values(content: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {prefix.rstrip("."): content}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key != "defaults":
            values |= own_values(value, f"{prefix}{key}.")
    return values


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_learns_with_its_own_values(
    config: Compose, coco_root: Path, tmp_path: Path, experiment: str
) -> None:
    content = yaml.safe_load((ROOT / "conf" / "experiment" / f"{experiment}.yaml").read_text())
    asked = own_values(content)
    whole = config("train", f"experiment={experiment}", f"data.root={coco_root}")
    assert {key: OmegaConf.select(whole, key) for key in asked} == asked
    losses = tmp_path / "losses.json"
    train(
        config(
            "train",
            f"experiment={experiment}",
            *tiny(content),
            f"data.root={coco_root}",
            "logger=[]",
            "~callbacks.learning_rate",
            f"+callbacks.losses._target_={__name__}.Losses",
            f"+callbacks.losses.path={losses}",
            "trainer.max_epochs=6",
            "trainer.check_val_every_n_epoch=6",
            "trainer.limit_train_batches=null",
            "trainer.limit_val_batches=1",
            "model.warmup_steps=1",
        )
    )
    first, *_, last = json.loads(losses.read_text())
    assert last < 0.9 * first
    kept = load(tmp_path / "train" / "checkpoints" / "isg_mask_rcnn_final.pth")["hyper_parameters"]
    for key, value in asked.items():
        name = key.removeprefix("model.")
        if name in kept and name != "warmup_steps":
            assert kept[name] == value, key
        if name.startswith("network."):
            assert kept["network"][name.removeprefix("network.")] == value, key


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.root=nowhere", "nowhere/train/annotations.json does not exist"),
        ("data.batch_size=7", "fewer than data.batch_size=7"),
        ("ckpt_path=nowhere.pth", r"checkpoint nowhere\.pth does not exist"),
        ("model.weights=nowhere.pth", r"checkpoint nowhere\.pth does not exist"),
        ("model.network.norm=frozen", "would freeze random statistics"),
        ("trainer.precision=bf16-true", "precision=bf16-true: choose auto, 16-mixed"),
        ("trainer.devices=99", "trainer.devices=99: a CPU is one device"),
        ("trainer.devices=[0,1]", r"trainer.devices=\[0, 1\]: a CPU is one device"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: unknown key; did you mean max_epochs"),
        ("+callbacks.best.every=3", r"callbacks\.best: .*unexpected keyword.* ~callbacks\.best"),
        ("+callbacks.mine._target_=isgseg.nowhere", r"callbacks\.mine: .*nowhere"),
    ],
)
def test_bad_input_ends_before_training(
    config: Compose, coco_root: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        run(config, coco_root, tmp_path, override)


@pytest.mark.parametrize(
    "key",
    ["logger.tensorboard.save_dir", "callbacks.final.dirpath"],
)
def test_a_folder_that_cannot_be_written_is_said_before_training(
    config: Compose, coco_root: Path, tmp_path: Path, key: str
) -> None:
    (tmp_path / "file").touch()
    overrides = [f"data.root={coco_root}", f"paths.output_dir={tmp_path}/run"]
    cfg = config("train", *TINY_NETWORK, *TINY_RUN, *overrides, f"{key}={tmp_path}/file")
    with pytest.raises(InputError, match=rf"(save_dir|dirpath): {tmp_path}/file is a file"):
        train(cfg)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize(
    ("most", "message"),
    [(2, "not finite in 2 steps .* lower model.lr"), (20, r"NaN or infinite.*Lower model.lr=0.0")],
)
def test_a_training_that_diverges_ends_with_advice_and_leaves_nothing(
    config: Compose,
    coco_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    message: str,
) -> None:
    monkeypatch.setattr("isgseg.training.base.MAX_BAD_STEPS", most)
    with pytest.raises(InputError, match=message):
        run(config, coco_root, tmp_path, DIVERGE)
    assert not list(tmp_path.rglob("*.pth"))


@pytest.mark.slow
def test_sweeps_run_from_the_command_line(coco_root: Path, tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "isgseg.train",
            "-m",
            "model.lr=0.005,0.01",
            *TINY_NETWORK,
            *TINY_RUN,
            f"data.root={coco_root}",
            f"paths.root={tmp_path}",
            "trainer.fast_dev_run=true",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    jobs = sorted(tmp_path.glob("train/multirun/*/[01]"))
    assert [job.name for job in jobs] == ["0", "1"]
    assert "model.lr=0.01" in (jobs[1] / ".hydra" / "overrides.yaml").read_text()


def test_finetuning_goes_on_with_the_network_of_the_checkpoint(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    run(config, coco_root, tmp_path / "first", "trainer.max_epochs=1")
    first = tmp_path / "first" / "checkpoints" / "isg_mask_rcnn_final.pth"
    train(
        config(
            "train",
            "experiment=finetune",
            *TINY_RUN,
            f"model.weights={first}",
            "model.lr=0",
            f"data.root={coco_root}",
            f"paths.output_dir={tmp_path / 'second'}",
            "trainer.max_epochs=1",
        )
    )
    second = load(tmp_path / "second" / "checkpoints" / "isg_mask_rcnn_final.pth")
    assert second["hyper_parameters"]["network"] == load(first)["hyper_parameters"]["network"]
    before, after = load(first)["model"], second["model"]
    learnt = [name for name in before if name.endswith((".weight", ".bias"))]  # no running means
    assert all(torch.equal(after[name], before[name]) for name in learnt)


def test_a_network_of_five_slices_learns_predicts_and_is_finetuned_on_the_same_only(
    config: Compose, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        save_pair(tmp_path, name, *balls(8, seed))

    def dataset(z_context: int) -> Path:
        return prepare(
            config(
                "prepare",
                f"volumes={tmp_path}/*.mrc",
                f"labels={tmp_path}/*_labels.mrc",
                "val=[b]",
                f"patches.z_context={z_context}",
                f"output_dir={tmp_path / f'data{z_context}'}",
            )
        )

    run(config, dataset(2), tmp_path / "first", "trainer.max_epochs=1")
    checkpoint = tmp_path / "first" / "checkpoints" / "isg_mask_rcnn_final.pth"
    module = load_module(checkpoint)
    assert module.network.backbone.body.conv1.in_channels == 5
    volume = read_volume(tmp_path / "b.mrc")
    granules = Predictor.from_checkpoint(checkpoint, progress=False).segment(volume)
    assert granules.labels.shape == volume.data.shape
    tuning = ["experiment=finetune", *TINY_RUN, f"model.weights={checkpoint}"]
    with pytest.raises(ValueError, match=r"takes 5 slices, but the images of .* have 3; prep"):
        train(config("train", *tuning, f"data.root={dataset(1)}"))
    train(  # without context one slice stands for all
        config(
            "train",
            *tuning,
            f"data.root={dataset(0)}",
            f"paths.output_dir={tmp_path / 'second'}",
            "trainer.max_epochs=1",
        )
    )
    tuned = load_module(tmp_path / "second" / "checkpoints" / "isg_mask_rcnn_final.pth")
    assert tuned.network.backbone.body.conv1.in_channels == 5


def test_finetuning_wants_a_checkpoint_that_says_how_its_network_is_built(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.pth"
    torch.save({"weight": torch.zeros(1)}, plain)
    for weights, message in ((plain, "does not say how"), ("null", "which is null too")):
        with pytest.raises(ValueError, match=message):
            train(
                config(
                    "train",
                    "experiment=finetune",
                    f"model.weights={weights}",
                    f"data.root={coco_root}",
                )
            )
