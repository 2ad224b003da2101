"""What training costs beyond its network: ours beside a plain loop over the same network and data.

Run ``python benchmarks/train.py --json training.json``; ``--data ROOT`` takes a dataset of yours
instead of a small phantom, and further arguments are overrides of ``isgseg-train``, such as
``experiment=quickstart`` or ``model=resnet10 data.num_workers=0``.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from isgseg.config import CONFIG_DIR, quiet_lightning
from isgseg.hardware import autocast, pick_device, pick_precision
from isgseg.model import module as training
from isgseg.model.checkpoint import load_module
from isgseg.model.module import MaskRCNNModule
from isgseg.model.optimizer import build_optimizer
from isgseg.prepare import prepare
from isgseg.train import network_settings

WARM = 2  # steps that do not count: memory, kernels, workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overrides", nargs="*", help="of isgseg-train")
    parser.add_argument("--data", help="a dataset folder")
    parser.add_argument("--steps", type=int, default=12, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
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
        result: dict[str, Any] = {
            "device": str(pick_device()),
            "precision": own,
            "threads": torch.get_num_threads(),
            "overrides": args.overrides,
            "patches a second": {name: statistics.median(each) for name, each in rates.items()},
            **{
                f"ours / {name}": statistics.median(
                    one / other for one, other in zip(rates["ours"], rates[name], strict=True)
                )
                for name in ("plain loop", "plain loop, fp32")
            },
            "share of validation for metrics": validation(cfg),
        }
    print(json.dumps(result, indent=2))
    print("to reach: ours / plain loop .95, in fp32 1.8, share of validation for metrics .1")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(name, list(overrides))


def phantom(folder: str) -> str:
    """Prepares one training and one validation cell."""
    root = f"{folder}/data"
    prepare(
        config(
            "prepare",
            "data=phantom",
            "data.phantom.train_seeds=[0]",
            "data.phantom.shape=[32,486,473]",
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
    facts = data.facts()
    network = network_settings(cfg, facts["context"])
    return data, instantiate(cfg.model, network=network, facts=facts)


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
    callbacks = [instantiate(part) for part in cfg.callbacks.values()]
    kept = [part for part in callbacks if not isinstance(part, ModelCheckpoint)]
    trainer = instantiate(
        cfg.trainer,
        precision=precision_of(cfg),
        callbacks=[*kept, watch],
        logger=[instantiate(part) for part in cfg.logger.values()],
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
    for step, (pictures, targets) in enumerate(data.train_dataloader()):
        torch.manual_seed(1_000_003 * cfg.seed + step)  # the same regions are sampled
        pictures = [picture.to(device, non_blocking=True) for picture in pictures]
        targets = [
            {key: value.to(device, non_blocking=True) for key, value in target.items()}
            for target in targets
        ]
        with autocast(precision, device):
            loss = torch.stack(list(network(pictures, targets).values())).sum()
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
    """The share of validation that goes to drawing masks and to the COCO scores.

    It depends on how many objects are found: `ckpt_path=FILE.pth` takes a trained network.
    """
    data, module = parts(cfg)
    if cfg.ckpt_path:
        module = load_module(cfg.ckpt_path)
    spent = [0.0]
    with ExitStack() as stack:
        for owner, name in (
            (training, "draw"),
            (training, "read_scores"),
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


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
