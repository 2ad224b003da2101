"""What training costs beyond its network: ours beside a plain loop over the same network and data.

Run `python benchmarks/train.py experiment=quickstart --output benchmarks/results/train.json`.
`--data ROOT` takes a dataset of yours instead of a small synthetic one. Further arguments are
overrides of `isgseg-train`, such as `model=resnet10 data.num_workers=0`.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from launches import launches, wait
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig
from peaks import add_peaks
from record import Result, add_output
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from isgseg.config import CONFIG_DIR, quiet_lightning
from isgseg.hardware import autocast, pick_device, pick_precision
from isgseg.models.optimizer import build_optimizer
from isgseg.prepare import prepare
from isgseg.train import network_settings
from isgseg.training import detections, scoring
from isgseg.training.evaluation import load_module
from isgseg.training.module import MaskRCNNModule

TARGETS = {"plain loop": ">= 0.95", "plain loop, fp32": ">= 1.8"}
WARM = 2  # steps that do not count: memory, kernels, workers


def main() -> None:
    """Measures in turn, so that all sides meet the same machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="of isgseg-train")
    parser.add_argument("--data", help="a dataset folder")
    parser.add_argument("--steps", type=int, default=12, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    add_output(parser)
    args = parser.parse_intermixed_args()
    quiet_lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(
            "train",
            f"data.root={args.data or phantom(folder)}",
            f"paths.output_dir={folder}",
            f"trainer.limit_train_batches={args.steps + WARM}",
            "trainer.limit_val_batches=0",
            "trainer.max_epochs=1",
            "trainer.enable_progress_bar=false",
            *args.overrides,
        )
        own = precision_of(cfg)
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(args.rounds):
            rates["ours"].append(ours(cfg))
            rates["plain loop"].append(plain_loop(cfg, own))
            rates["plain loop, fp32"].append(plain_loop(cfg, "32-true", channels_last=False))
            rates["data alone"].append(data_alone(cfg))
        share = validation(cfg)
    result = Result("A training step beside a plain loop", seeds=[cfg.seed])
    for name, each in rates.items():
        result.add("speed", f"training, {name}: patches a second", statistics.median(each))
    for name, target in TARGETS.items():
        pairs = zip(rates["ours"], rates[name], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        result.add("speed", f"training, ours against the {name}", ratio, "", target)
    result.add("speed", "share of validation for metrics", share, "", "<= 0.1")
    add_peaks(result, pick_device(), own)
    result.details |= {"precision": own, "device": str(pick_device())}
    result.write(args.output)


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(name, list(overrides))


def phantom(folder: str, shape: Sequence[int] = (32, 486, 473)) -> str:
    """Prepares one training and one validation cell of this (z, y, x)."""
    root = f"{folder}/data"
    prepare(
        config(
            "prepare",
            "source=phantom",
            "source.phantom.train_seeds=[0]",
            f"source.phantom.shape={list(shape)}",
            "patches.slice_step=2",
            f"output_dir={root}",
            f"paths.output_dir={folder}",
        )
    )
    return root


def parts(cfg: DictConfig) -> tuple[Any, MaskRCNNModule]:
    """The data and the network, both from the seed."""
    lightning.seed_everything(cfg.seed, verbose=False)
    data = instantiate(cfg.data)
    data.setup("fit")
    metadata = data.metadata()
    network = network_settings(cfg, metadata["z_context"])
    return data, instantiate(cfg.model, network=network, metadata=metadata)


def precision_of(cfg: DictConfig) -> Any:
    return pick_precision(cfg.trainer.precision, pick_device())


class Stopwatch(Callback):
    """Times the steps after the warm ones, from the end of one to the end of another."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        """A step has ended."""
        wait()
        self.ends.append(time.perf_counter())

    def rate(self, batch_size: int) -> float:
        """Patches a second."""
        counted = self.ends[WARM - 1 :]
        return batch_size * (len(counted) - 1) / (counted[-1] - counted[0])


def ours(cfg: DictConfig) -> float:
    """Patches a second of isgseg-train: its Trainer, loggers and callbacks, without checkpoints."""
    data, module = parts(cfg)
    watch = Stopwatch()
    callbacks = map(instantiate, cfg.callbacks.values())
    kept = [part for part in callbacks if not isinstance(part, ModelCheckpoint)]
    trainer = instantiate(
        cfg.trainer,
        precision=precision_of(cfg),
        callbacks=[*kept, watch],
        logger=[*map(instantiate, cfg.logger.values())],
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=data)
    return watch.rate(cfg.data.batch_size)


def plain_loop(cfg: DictConfig, precision: Any, channels_last: bool = True) -> float:
    """Patches a second of the shortest loop that learns the same."""
    data, module = parts(cfg)
    device, model = pick_device(), cfg.model
    network = module.network.to(device).train()
    if not channels_last:
        network.to(memory_format=torch.contiguous_format)
        plain = partial(GeneralizedRCNNTransform.batch_images, network.transform)
        network.transform.batch_images = plain
    optimizer = build_optimizer(
        network.parameters(), model.optimizer, model.lr, model.momentum, model.weight_decay
    )
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    watch = Stopwatch()
    for step, (images, targets) in enumerate(data.train_dataloader()):
        torch.manual_seed(1_000_003 * cfg.seed + step)  # the same regions are sampled
        images = [image.to(device, non_blocking=True) for image in images]
        targets = [
            {key: value.to(device, non_blocking=True) for key, value in target.items()}
            for target in targets
        ]
        with autocast(precision, device):
            loss = torch.stack(list(network(images, targets).values())).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(network.parameters(), cfg.trainer.gradient_clip_val)
        scaler.step(optimizer)
        scaler.update()
        watch.on_train_batch_end()
        if len(watch.ends) == cfg.trainer.limit_train_batches:
            break
    return watch.rate(cfg.data.batch_size)


def step_parts(cfg: DictConfig, steps: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of the parts of a step, each ended before the next begins; and what one launches."""
    data, module = parts(cfg)
    device, precision = pick_device(), precision_of(cfg)
    network, batches = module.network.to(device).train(), iter(data.train_dataloader())
    options = [cfg.model[name] for name in ("optimizer", "lr", "momentum", "weight_decay")]
    optimizer = build_optimizer(network.parameters(), *options)
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        wait()
        seconds[name] += time.perf_counter() - start
        return result

    def losses(batch: Any) -> Any:
        with autocast(precision, device):
            return torch.stack(list(network(*batch).values())).sum()

    def step(batch: Any) -> None:
        loss = timed("forward", lambda: losses(batch))
        optimizer.zero_grad()
        timed("backward", loss.backward)
        limit = cfg.trainer.gradient_clip_val
        timed("clip", lambda: torch.nn.utils.clip_grad_norm_(network.parameters(), limit))
        timed("optimizer", optimizer.step)

    for number in range(steps + WARM):
        if number == WARM:
            seconds.clear()
        batch = timed("wait for data", lambda: next(batches))
        batch = timed("to the device", partial(move_data_to_device, batch, device))
        step(batch)
    shown = {name: value / steps for name, value in seconds.items()}
    return shown, launches(lambda: step(batch))


def data_alone(cfg: DictConfig) -> float:
    """Patches a second that are read and augmented."""
    data, _ = parts(cfg)
    watch = Stopwatch()
    for _ in data.train_dataloader():
        watch.on_train_batch_end()
        if len(watch.ends) == cfg.trainer.limit_train_batches:
            break
    return watch.rate(cfg.data.batch_size)


def validation(cfg: DictConfig) -> float:
    """The share of validation for masks and COCO scores; `ckpt_path=` takes a trained network."""
    data, module = parts(cfg)
    module = load_module(cfg.ckpt_path) if cfg.ckpt_path else module
    spent = [0.0]
    with ExitStack() as stack:
        for owner, name in (
            (detections, "draw"),
            (scoring, "read_scores"),
            (module.val_metric, "update"),
        ):
            original = getattr(owner, name)

            def timed(*args: Any, original: Any = original, **kwargs: Any) -> Any:
                with adding(spent):
                    return original(*args, **kwargs)

            stack.enter_context(patch.object(owner, name, timed))
        trainer = lightning.Trainer(
            accelerator=pick_device().type,
            devices=1,
            precision=precision_of(cfg),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=cfg.trainer.limit_train_batches,
        )
        start = time.perf_counter()
        trainer.validate(module, datamodule=data, verbose=False)
    return spent[0] / (time.perf_counter() - start)


@contextmanager
def adding(spent: list[float]) -> Iterator[None]:
    """Adds the seconds of its block."""
    start = time.perf_counter()
    yield
    spent[0] += time.perf_counter() - start


if __name__ == "__main__":
    main()
