"""isgseg-evaluate: COCO scores of a checkpoint on a split, and 3D scores of whole volumes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from isgseg.config import CONFIG_DIR, friendly_errors, quiet_lightning

log = logging.getLogger(__name__)
ROWS = (("map", "mAP@[.50:.95]"), ("map_50", "mAP@.50"), ("map_75", "mAP@.75"), ("mar", "recall"))


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores a split (`data.root`), whole volumes (`volumes`) or both; writes `metrics.json`.

    Args:
        cfg: `conf/evaluate.yaml`.

    Returns:
        The scores by name: see `evaluate_split`, and `scoring.evaluate_volumes`.

    Raises:
        ValueError: a file that is no checkpoint, a bad dataset or volume, or nothing to score.
    """
    from isgseg.volume import replacing

    volumes = cfg.volumes or cfg.labels or cfg.predicted
    if not (cfg.data.root or volumes):
        raise ValueError(
            "data.root=... (scores of a split) or volumes=... and labels=... (scores of whole "
            "volumes) must be given"
        )
    scores: dict[str, Any] = {}
    if volumes:
        from isgseg.scoring import evaluate_volumes

        scores |= evaluate_volumes(cfg)
    if cfg.data.root:
        scores |= evaluate_split(cfg)
    path = Path(cfg.output_dir) / "metrics.json"
    with replacing(path) as beside:
        beside.write_text(json.dumps(scores, indent=2) + "\n")
    log.info("Scores written to %s", path)
    return scores


def evaluate_split(cfg: DictConfig) -> dict[str, float]:
    """Scores a checkpoint on the patches of a split and prints a table.

    Returns:
        The scores by name; a score without any truth is -1, as COCO has it.

    Raises:
        ValueError: no checkpoint, a file that is none, or a bad dataset.
    """
    import lightning

    from isgseg.data.datamodule import dataset_facts, evaluation_loader
    from isgseg.hardware import pick_device, pick_precision
    from isgseg.model.checkpoint import load_module

    if not cfg.ckpt_path:
        raise ValueError("ckpt_path=... must be given to score data.root")
    quiet_lightning()
    module = load_module(cfg.ckpt_path)
    data = cfg.data
    loader = evaluation_loader(data.root, data.split, data.batch_size, data.num_workers)
    learnt, here = module.hparams.get("facts") or {}, dataset_facts(data.root)
    for key in ("normalization", "context"):
        if learnt.get(key) != here.get(key):
            log.warning(
                "%s differs: the checkpoint was trained with %s, %s was made with %s",
                key,
                learnt.get(key),
                data.root,
                here.get(key),
            )
    device = pick_device(cfg.device)
    trainer = lightning.Trainer(
        accelerator=device.type,
        devices=1,
        precision=pick_precision(cfg.precision, device),  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=cfg.progress,
    )
    scores = dict(trainer.test(module, dataloaders=loader, verbose=False)[0])
    log.info("%s on %s/%s:\n%s", cfg.ckpt_path, data.root, data.split, table(scores))
    return scores


def table(scores: dict[str, float]) -> str:
    """The scores as text: boxes and masks, with COCO's cap of 100 detections and without."""
    lines = [f"{'':16}{'box':>8}{'mask':>8}{'box':>10}{'mask':>8}"]
    lines.append(f"{'':16}{'(100 detections)':>16}{'(no cap)':>18}")
    for name, title in ROWS:
        capped = "mar_100" if name == "mar" else name
        numbers = [scores[f"{kind}_{capped}"] for kind in ("bbox", "segm")]
        numbers += [scores[f"{kind}_{name}_uncapped"] for kind in ("bbox", "segm")]
        box, mask, box_all, mask_all = (f"{number:.3f}" for number in numbers)
        lines.append(f"{title:16}{box:>8}{mask:>8}{box_all:>10}{mask_all:>8}")
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="evaluate")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
