"""isgseg-tune: the thresholds of a checkpoint, anew, on labelled cells; its weights stay."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from isgseg.command import command
from isgseg.config import quiet_lightning

log = logging.getLogger(__name__)


def tune(cfg: DictConfig) -> Path:
    """Tunes score and mask threshold on `data.root`/val, and those of granules on whole volumes.

    What each validation of `isgseg-train` does, with other test-time augmentation, another
    criterion, other keys of
    `segmentation`, or on other cells than those it was trained with.

    Args:
        cfg: `conf/tune.yaml`.

    Returns:
        The checkpoint with the new thresholds, `<name>_tuned.pth`; everything else in it is as it
        was.

    Raises:
        ValueError: a file that is no checkpoint, a bad dataset or volume, or an unknown criterion
            or number of augmentations (tta); the message says which.
    """
    import torch

    from isgseg.data.datamodule import CocoDataModule
    from isgseg.evaluation.thresholds import check_criterion, choose_thresholds
    from isgseg.io.atomic import replacing
    from isgseg.models.checkpoint import migrate, read_checkpoint, state_dict
    from isgseg.training.evaluation import evaluation_trainer, load_module, warn_of_metadata
    from isgseg.training.volume_score import VolumeScore

    quiet_lightning()
    check_criterion(cfg.operating_point)
    module = load_module(cfg.ckpt_path, operating_point=cfg.operating_point, tta=cfg.tta)
    before = choose_thresholds(module.thresholds)
    warn_of_metadata(module, cfg.data.root)
    segmentation: dict[str, Any] = OmegaConf.to_object(cfg.segmentation)  # type: ignore[assignment]
    volumes = VolumeScore(cfg.volume, cfg.labels, cfg.slices, segmentation=segmentation)
    trainer = evaluation_trainer(cfg.device, cfg.precision, cfg.progress, volumes)
    scores = trainer.validate(module, CocoDataModule(**cfg.data), verbose=False)[0]
    after = choose_thresholds(module.thresholds)
    for name, old, new in zip(before._fields, before, after, strict=True):
        log.info("%-8s threshold %.3f, was %.3f", name, new, old)
    log.info("F1 of detections %.3f", scores["val/f1"])
    if "val/f1_3d" in scores:
        log.info("F1 of granules in 3D %.3f", scores["val/f1_3d"])

    content = migrate(read_checkpoint(cfg.ckpt_path))
    if "hyper_parameters" not in content:
        content = {"model": state_dict(content, cfg.ckpt_path)}  # torchvision's weights alone
    content["hyper_parameters"] = dict(module.hparams)
    content["thresholds"] = after._asdict()
    path = Path(cfg.output_dir) / f"{Path(cfg.ckpt_path).stem}_tuned.pth"
    with replacing(path) as beside:
        torch.save(content, beside)
    log.info("Written to %s", path)
    return path


@command("tune")
def main(cfg: DictConfig) -> None:
    """Console script."""
    tune(cfg)


if __name__ == "__main__":
    main()
