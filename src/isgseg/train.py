"""isgseg-train: a network on a COCO patch dataset."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.command import command
from isgseg.config import quiet_lightning
from isgseg.errors import InputError

if TYPE_CHECKING:
    import lightning

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Trains and returns the best value of the monitored metric.

    Args:
        cfg: `conf/train.yaml`: `data` makes a LightningDataModule with `metadata()`; `model` a
            `GranuleModule`, which is given that metadata; `callbacks` and `logger` are
            dictionaries of what they make; `trainer` makes a Trainer; `ckpt_path` resumes;
            `optimized_metric` names what is returned.

    Raises:
        InputError: bad data, weights or settings; the message says which.
    """
    from isgseg.hardware import check_devices
    from isgseg.io.folders import locked
    from isgseg.training.processes import (
        count_processes,
        end_group,
        started_together,
        train_in_processes,
        train_together,
    )

    check_devices(cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.strategy)
    if (environment := started_together()) is not None:
        return train_together(_train, cfg, environment)
    count = count_processes(cfg.trainer)
    with locked(Path(cfg.paths.output_dir)):
        try:
            return train_in_processes(_train, cfg, count) if count > 1 else _train(cfg)
        finally:
            end_group()


def _train(cfg: DictConfig) -> float | None:
    """Trains in a folder that no other run uses, alone or as one of several processes."""
    import lightning

    from isgseg.data.classes import require_classes
    from isgseg.hardware import pick_device, pick_precision
    from isgseg.models.weights import initialize
    from isgseg.training.building import (
        build,
        enough_memory,
        loggers_and_callbacks,
        settings_refused,
    )
    from isgseg.training.checkpoints import AtomicCheckpointIO, best_score
    from isgseg.training.installing import check_install, install
    from isgseg.training.processes import environment_here
    from isgseg.training.resume import check_resumed, former_checkpoints, resuming

    quiet_lightning()
    if cfg.install:
        check_install(method_in(cfg), bool(cfg.trainer.fast_dev_run), cfg.overwrite)
    check_trainer(cfg.trainer)
    device = pick_device("cpu" if cfg.trainer.accelerator == "cpu" else None)
    precision = pick_precision(cfg.trainer.precision, device)
    checkpoints = Path(cfg.paths.output_dir) / "checkpoints"
    resumed = str(Path(cfg.ckpt_path).expanduser()) if cfg.ckpt_path else None
    replaced = former_checkpoints(checkpoints, resumed, cfg.overwrite)
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = build(cfg.data, "data", lightning.LightningDataModule)
    datamodule.setup("fit")  # bad data ends here, before anything is built
    metadata = datamodule.metadata()
    network = network_settings(cfg, metadata["z_context"])
    require_classes(metadata.get("classes", ()), network.get("num_classes", 2))
    module = build(
        cfg.model, "model", lightning.LightningModule, network=network, metadata=metadata
    )
    if resumed:
        check_resumed(resumed, module, cfg.trainer.max_epochs)
    elif cfg.model.weights:
        initialize(module.network, cfg.model.weights, method_in(cfg))
    loggers, callbacks = loggers_and_callbacks(cfg)
    with settings_refused():
        trainer = build(
            cfg.trainer,
            "trainer",
            lightning.Trainer,
            precision=precision,
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpointIO(replaced), *environment_here()],
        )
        say_batch(trainer, cfg)
        with resuming(trainer, resumed), enough_memory():
            trainer.fit(module, datamodule=datamodule, ckpt_path=resumed, weights_only=True)
    warn_of_nothing(trainer, cfg)
    if cfg.install and trainer.is_global_zero:
        install(checkpoints, method_in(cfg))
    return _said(best_score(trainer, cfg.optimized_metric), cfg)


def _said(score: float | None, cfg: DictConfig) -> float | None:
    """The score of a training, once the log has it."""
    if score is not None:
        log.info("%s = %.4f", cfg.optimized_metric, score)
    log.info("Files in %s", cfg.paths.output_dir)
    return score


def say_batch(trainer: lightning.Trainer, cfg: DictConfig) -> None:
    """Logs how many patches a step of the optimizer learns from, and its rate."""
    size = cfg.data.get("batch_size")
    if size is None:  # another datamodule
        return
    together = trainer.accumulate_grad_batches
    log.info(
        "A step learns from %d patches: data.batch_size=%d x %d devices x "
        "trainer.accumulate_grad_batches=%d; model.lr=%g, which is not scaled to them",
        size * trainer.world_size * together,
        size,
        trainer.world_size,
        together,
        cfg.model.get("lr"),
    )


def method_in(cfg: DictConfig) -> str:
    """The method that is trained; of modules that do not say it, Mask R-CNN."""
    return str(cfg.model.get("method") or "mask_rcnn")


def warn_of_nothing(trainer: lightning.Trainer, cfg: DictConfig) -> None:
    """Warns where a training has left no checkpoint, or had no evaluation."""
    from lightning.pytorch.callbacks import ModelCheckpoint

    if cfg.trainer.fast_dev_run:
        return
    saved = [one for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    if not any(one.best_model_path or one.last_model_path for one in saved):
        log.warning(
            "no checkpoint was written: callbacks.best and callbacks.final were taken out, or no "
            "epoch has ended"
        )
    if cfg.optimized_metric not in trainer.callback_metrics:
        log.warning(
            "no evaluation gave %s, so there is no best checkpoint; lower "
            "trainer.check_val_every_n_epoch=%s to trainer.max_epochs=%s at most",
            cfg.optimized_metric,
            cfg.trainer.check_val_every_n_epoch,
            cfg.trainer.max_epochs,
        )


def check_trainer(trainer: DictConfig) -> None:
    """Whether Lightning's Trainer has the arguments that it is given.

    Raises:
        InputError: it lacks one; the message names the nearest.
    """
    import inspect

    import lightning

    from isgseg.words import nearest

    known = set(inspect.signature(lightning.Trainer).parameters)
    if trainer["_target_"] == "lightning.Trainer":
        for key in sorted(set(trainer) - known - {"_target_", "_convert_"}):
            raise InputError(f"trainer.{key}: unknown key; {nearest(str(key), known)}")


def network_settings(cfg: DictConfig, z_context: int) -> dict[str, Any]:
    """How to build the network: `model.network`, or where that is null, as in `model.weights`.

    `model.weights=phantom` is built as the shipped network is, whatever `model.network` says but
    for its classes, since its weights fit no other.

    Args:
        cfg: `conf/train.yaml`.
        z_context: slices on either side that images show too.

    Raises:
        InputError: both are null, `model.weights` is no checkpoint of isgseg-train, or it has
            learnt from images with another context. Without any they do for every network.
    """
    from isgseg.models.checkpoint import network_of
    from isgseg.models.locate import SHIPPED

    method = method_in(cfg)
    channels = 2 * z_context + 1
    if method == "mask_rcnn":  # grey images fit torchvision's weights, for colours
        channels = max(3, channels)
    shipped = cfg.model.weights == SHIPPED
    if cfg.model.network is not None and not shipped:
        return {"channels": channels, **OmegaConf.to_object(cfg.model.network)}  # type: ignore[dict-item]
    if not cfg.model.weights:
        raise InputError(
            "model.network is null, that is, as in model.weights, which is null too; set "
            "model.weights to a checkpoint of isgseg-train"
        )
    network = network_of(cfg.model.weights, method)
    if shipped and method == "mask_rcnn" and cfg.model.network is not None:
        network["num_classes"] = cfg.model.network.num_classes
        log.info("model.weights=%s: the network is the shipped one, not model.network", SHIPPED)
    taken = network.get("channels", channels if method == "unet" else 3)
    if z_context and taken != channels:
        raise InputError(
            f"{cfg.model.weights} takes {taken} slices, but the images of "
            f"{cfg.data.root} have {channels}; prepare them with another patches.z_context"
        )
    return network


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Console script; the value is what a sweep optimizes."""
    return train(cfg)


if __name__ == "__main__":
    main()
