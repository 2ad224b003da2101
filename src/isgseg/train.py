"""isgseg-train: a Mask R-CNN on a COCO patch dataset."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from isgseg.config import CONFIG_DIR, friendly_errors, quiet_lightning

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Trains and returns the monitored metric of the last evaluation.

    Args:
        cfg: `conf/train.yaml`: `data` makes a LightningDataModule with `facts()`; `model` a
            `MaskRCNNModule`, which is given those facts; `callbacks` and `logger` are dictionaries
            of what they make; `trainer` makes a Trainer; `ckpt_path` resumes; `optimized_metric`
            names what is returned.

    Raises:
        ValueError: bad data, weights or settings; the message says which.
    """
    import lightning
    from hydra.utils import instantiate

    from isgseg.hardware import pick_device, pick_precision
    from isgseg.model.checkpoint import initialize, read_checkpoint

    quiet_lightning()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.data)
    datamodule.setup("fit")  # bad data ends here, before anything is built
    facts = datamodule.facts()
    module = instantiate(cfg.model, network=network_settings(cfg, facts["context"]), facts=facts)
    if cfg.ckpt_path:
        read_checkpoint(cfg.ckpt_path)  # a clear error for a wrong file
    elif cfg.model.weights:
        initialize(module.network, cfg.model.weights)
    device = pick_device("cpu" if cfg.trainer.accelerator == "cpu" else None)
    trainer = instantiate(
        cfg.trainer,
        precision=pick_precision(cfg.trainer.precision, device),
        callbacks=[instantiate(part) for part in (cfg.get("callbacks") or {}).values()],
        logger=[instantiate(part) for part in (cfg.get("logger") or {}).values()],
    )
    trainer.fit(module, datamodule=datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
    metric = trainer.callback_metrics.get(cfg.optimized_metric)
    if cfg.install:
        install(Path(cfg.paths.output_dir) / "checkpoints" / "isg_mask_rcnn_final.pth")
    score = None if metric is None else float(metric)
    if score is not None:
        log.info("%s = %.4f", cfg.optimized_metric, score)
    log.info("Files in %s", cfg.paths.output_dir)
    return score


def network_settings(cfg: DictConfig, context: int) -> dict[str, Any]:
    """How to build the network: `model.network`, or where that is null, as in `model.weights`.

    Args:
        cfg: `conf/train.yaml`.
        context: slices on either side that pictures show too.

    Raises:
        ValueError: both are null, `model.weights` is no checkpoint of isgseg-train, or it has
            learnt from pictures with another context. Without any they do for every network.
    """
    from isgseg.model.checkpoint import network_of

    channels = max(3, 2 * context + 1)  # grey pictures fit torchvision's weights, for colours
    if cfg.model.network is not None:
        return {"channels": channels, **OmegaConf.to_object(cfg.model.network)}  # type: ignore[dict-item]
    if not cfg.model.weights:
        raise ValueError(
            "model.network is null, that is, as in model.weights, which is null too; set "
            "model.weights to a checkpoint of isgseg-train"
        )
    network = network_of(cfg.model.weights)
    if context and network.get("channels", 3) != channels:
        raise ValueError(
            f"{cfg.model.weights} takes {network.get('channels', 3)} slices, but the pictures of "
            f"{cfg.data.root} have {channels}; prepare them with another patches.context"
        )
    return network


def install(final: Path) -> None:
    """Copies the final model to where `load_model()` finds it."""
    from isgseg.segmenter import installed_model
    from isgseg.volume import replacing

    with replacing(installed_model()) as beside:
        shutil.copyfile(final, beside)
    log.info("Installed as %s", installed_model())


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="train")
@friendly_errors
def main(cfg: DictConfig) -> float | None:
    """Console script; the value is what a sweep optimizes."""
    return train(cfg)


if __name__ == "__main__":
    main()
