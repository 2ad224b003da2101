"""isgseg-tune: the thresholds of a checkpoint, anew, on labelled cells; its weights stay."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from isgseg.config import CONFIG_DIR, friendly_errors, quiet_lightning

log = logging.getLogger(__name__)


def tune(cfg: DictConfig) -> Path:
    """Tunes score and mask threshold on `data.root`/val, and those of granules on whole volumes.

    What each validation of `isgseg-train` does, with other views, another criterion, other keys of
    `labelling`, or on other cells than those it was trained with.

    Args:
        cfg: `conf/tune.yaml`.

    Returns:
        The checkpoint with the new thresholds, `<name>_tuned.pth`; everything else in it is as it
        was.

    Raises:
        ValueError: a file that is no checkpoint, a bad dataset or volume, or an unknown criterion
            or number of views; the message says which.
    """
    import torch

    from isgseg.data.datamodule import CocoDataModule
    from isgseg.evaluate import trainer_for, warn_of_facts
    from isgseg.model.checkpoint import load_module, read_checkpoint, state_dict
    from isgseg.model.operating_point import check_criterion, choose_thresholds
    from isgseg.volume import replacing
    from isgseg.volume_score import VolumeScore

    quiet_lightning()
    check_criterion(cfg.operating_point)
    module = load_module(cfg.ckpt_path)
    before = choose_thresholds(module.hparams)
    module.hparams["operating_point"] = cfg.operating_point
    if cfg.views is not None:
        module.hparams["views"] = cfg.views
    module.look(None)
    warn_of_facts(module, cfg.data.root)
    labelling: dict[str, Any] = OmegaConf.to_object(cfg.labelling)  # type: ignore[assignment]
    volumes = VolumeScore(cfg.volume, cfg.labels, cfg.slices, labelling=labelling)
    trainer = trainer_for(cfg, volumes)
    scores = trainer.validate(module, CocoDataModule(**cfg.data), verbose=False)[0]
    after = choose_thresholds(module.hparams)
    for name, old, new in zip(before._fields, before, after, strict=True):
        log.info("%-8s threshold %.3f, was %.3f", name, new, old)
    log.info("F1 of detections %.3f", scores["val/f1"])
    if "val/f1_3d" in scores:
        log.info("F1 of granules in 3D %.3f", scores["val/f1_3d"])

    content = read_checkpoint(cfg.ckpt_path)
    if "hyper_parameters" not in content:
        content = {"model": state_dict(content, cfg.ckpt_path)}  # torchvision's weights alone
    content["hyper_parameters"] = dict(module.hparams)
    path = Path(cfg.output_dir) / f"{Path(cfg.ckpt_path).stem}_tuned.pth"
    with replacing(path) as beside:
        torch.save(content, beside)
    log.info("Written to %s", path)
    return path


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="tune")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    tune(cfg)


if __name__ == "__main__":
    main()
