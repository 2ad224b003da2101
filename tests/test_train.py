from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, TINY_NETWORK, TINY_RUN, Compose, balls, save_pair
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isgseg.labelling import grey_of, label_volume
from isgseg.model.checkpoint import load_module
from isgseg.prepare import prepare
from isgseg.train import train
from isgseg.volume import read_volume

EXPERIMENTS = sorted(
    path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml") if path.stem != "finetune"
)  # finetune wants a checkpoint, and has a test of its own
AVERAGE = [
    "+callbacks.average._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
    "+callbacks.average.decay=0.9",
]


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
                "experiment=documented",
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


def test_tensorboard_shows_losses_rate_gradient_scores_and_pictures(defaults: Path) -> None:
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
    kept = load(final)["hyper_parameters"]["thresholds"]
    assert load_module(final).hparams["thresholds"] == kept
    assert set(kept) == {"threshold", "mask_threshold"}
    if criterion == "null":
        assert kept == {"threshold": 0.5, "mask_threshold": 0.5}


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


def test_train_returns_the_monitored_metric_and_says_it(
    config: Compose, coco_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "isgseg.train")
    value = run(config, coco_root, tmp_path, "trainer.max_epochs=2")
    assert f"val/segm_map = {value:.4f}" in caplog.messages
    best = load(tmp_path / "checkpoints" / "isg_mask_rcnn_best.pth")
    state = next(value for key, value in best["callbacks"].items() if "val/segm_map" in key)
    assert value == pytest.approx(float(state.get("best_model_score", value)))
    assert isinstance(value, float)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(
    config: Compose, coco_root: Path, tmp_path: Path, experiment: str
) -> None:
    from isgseg.config import CONFIG_DIR

    assert (Path(CONFIG_DIR) / "experiment" / f"{experiment}.yaml").is_file()
    tiny = [item for item in TINY_NETWORK if not item.startswith("model=")]
    train(
        config(
            "train",
            f"experiment={experiment}",
            *tiny,
            *TINY_RUN,
            f"data.root={coco_root}",
            "trainer.fast_dev_run=2",
        )
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.root=nowhere", "nowhere/train/annotations.json does not exist"),
        ("data.batch_size=7", "fewer than data.batch_size=7"),
        ("ckpt_path=nowhere.pth", r"checkpoint nowhere\.pth does not exist"),
        ("model.weights=nowhere.pth", r"checkpoint nowhere\.pth does not exist"),
        ("model.network.norm=frozen", "would freeze random statistics"),
    ],
)
def test_bad_input_ends_before_training(
    config: Compose, coco_root: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        run(config, coco_root, tmp_path, override)


def test_losses_that_stay_not_finite_end_with_advice(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"not finite .* lower model.lr"):
        run(
            config,
            coco_root,
            tmp_path,
            "model.lr=1e30",
            "trainer.gradient_clip_val=null",
            "model.warmup_steps=1",
        )


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

    def dataset(context: int) -> Path:
        return prepare(
            config(
                "prepare",
                f"volumes={tmp_path}/*.mrc",
                f"labels={tmp_path}/*_labels.mrc",
                "val=[b]",
                f"patches.context={context}",
                f"output_dir={tmp_path / f'data{context}'}",
            )
        )

    run(config, dataset(2), tmp_path / "first", "trainer.max_epochs=1")
    checkpoint = tmp_path / "first" / "checkpoints" / "isg_mask_rcnn_final.pth"
    module = load_module(checkpoint)
    assert module.network.backbone.body.conv1.in_channels == 5
    volume = read_volume(tmp_path / "b.mrc").data
    granules = label_volume(module, volume, grey_of(module, volume, "b"), progress=False)
    assert granules.labels.shape == volume.shape
    tuning = ["experiment=finetune", *TINY_RUN, f"model.weights={checkpoint}"]
    with pytest.raises(ValueError, match=r"takes 5 slices, but the pictures of .* have 3; prep"):
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
