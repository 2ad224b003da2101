"""isgseg-evaluate: COCO scores of a checkpoint on a split, and 3D scores of whole volumes."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from isgseg.config import CONFIG_DIR, friendly_errors, quiet_lightning

if TYPE_CHECKING:
    from lightning import Callback, Trainer

    from isgseg.model.module import MaskRCNNModule

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


def evaluate_split(cfg: DictConfig) -> dict[str, Any]:
    """Scores a checkpoint on the patches of a split, prints a table and draws `scores.png`.

    Returns:
        The COCO scores by name; a score without any truth is -1, as COCO has it. `by_diameter`: see
        `scores_by_diameter`, in nm or pixels. `operating_points`: see there.

    Raises:
        ValueError: no checkpoint, a file that is none, a bad dataset, or diameters that do not
            rise.
    """
    from isgseg.data.datamodule import dataset_facts, evaluation_loader
    from isgseg.model.checkpoint import load_module
    from isgseg.model.metrics import scores_by_diameter

    if not cfg.ckpt_path:
        raise ValueError("ckpt_path=... must be given to score data.root")
    quiet_lightning()
    module = load_module(cfg.ckpt_path)
    module.look(cfg.views)
    data = cfg.data
    loader = evaluation_loader(data.root, data.split, data.batch_size, data.num_workers)
    size = dataset_facts(data.root)["voxel_size"]
    unit, pixel = ("pixels", 1.0) if size is None else ("nm", (size[1] * size[2]) ** 0.5)
    edges = check_diameters(cfg, unit)
    warn_of_facts(module, data.root)
    trainer = trainer_for(cfg)
    scores: dict[str, Any] = {**trainer.test(module, dataloaders=loader, verbose=False)[0]}
    sizes = scores_by_diameter(module.test_metrics[-1], edges, pixel)
    points = operating_points(module, Path(cfg.output_dir) / "scores.png")
    texts = table(scores), diameter_table(sizes, unit), point_table(points)
    log.info("%s on %s/%s:\n%s", cfg.ckpt_path, data.root, data.split, "\n\n".join(texts))
    scores |= {"by_diameter": sizes, "operating_points": points}
    return scores


def warn_of_facts(module: MaskRCNNModule, root: str) -> None:
    """Logs in what a dataset was made otherwise than what a checkpoint has learnt from."""
    from isgseg.data.datamodule import dataset_facts

    learnt, here = module.hparams.get("facts") or {}, dataset_facts(root)
    for key in ("normalization", "context"):
        if learnt.get(key) != here.get(key):
            log.warning(
                "%s differs: the checkpoint was trained with %s, %s was made with %s",
                key,
                learnt.get(key),
                root,
                here.get(key),
            )


def trainer_for(cfg: DictConfig, *callbacks: Callback) -> Trainer:
    """A Trainer that tests or validates on one device, and writes nothing.

    Args:
        cfg: with `device`, `precision` and `progress`.
        *callbacks: those that it calls.
    """
    import lightning

    from isgseg.hardware import pick_device, pick_precision

    device = pick_device(cfg.device)
    return lightning.Trainer(
        accelerator=device.type,
        devices=1,
        precision=pick_precision(cfg.precision, device),  # type: ignore[arg-type]
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=cfg.progress,
    )


def check_diameters(cfg: DictConfig, unit: str) -> list[float] | None:
    """The edges of the bins, `data.diameters`, in nm or pixels; None is quartiles.

    Raises:
        ValueError: they are not positive, or do not rise.
    """
    edges = cfg.data.diameters[unit]
    if edges is None:
        return None
    if any(low >= high for low, high in pairwise([0, *edges])):
        raise ValueError(f"data.diameters.{unit}={edges} must be positive numbers that rise")
    return list(edges)


def operating_points(module: MaskRCNNModule, path: Path) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 at mask IoU .5, and their picture.

    Args:
        module: after its test.
        path: of the picture.

    Returns:
        `checkpoint`, at the thresholds that isgseg-predict uses, and `best`, at those that suit
        this split best; see `OperatingPoint`.
    """
    from isgseg.analysis.score_figure import score_figure
    from isgseg.model.operating_point import choose_thresholds, point_at
    from isgseg.volume import replacing

    matches = module.test_matches.compute()
    points = {
        "checkpoint": point_at(matches, *choose_thresholds(module.hparams)[:2]),
        "best": module.best_point(module.test_matches),
    }
    with replacing(path) as beside:
        score_figure(matches, points).savefig(beside, format="png")
    return {name: asdict(point) for name, point in points.items()}


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


def diameter_table(sizes: list[dict[str, Any]], unit: str) -> str:
    """The scores by diameter as text."""
    lines = [f"{unit:16}{'objects':>8}{'mAP':>8}{'mAP@.50':>8}{'recall':>8}"]
    for row in sizes:
        name = f"{row['from']:.3g} to {row['to']:.3g}" if row["to"] else f"over {row['from']:.3g}"
        numbers = "".join(f"{row[key]:8.3f}" for key in ("map", "map_50", "recall"))
        lines.append(f"{name:16}{row['objects']:8}{numbers}")
    return "\n".join(lines)


def point_table(points: dict[str, dict[str, float]]) -> str:
    """The operating points as text."""
    keys = ("threshold", "mask_threshold", "precision", "recall", "f1", "detections", "truths")
    titles = ("score", "mask", "prec.", "recall", "F1", "found", "true")
    lines = [f"{'thresholds':16}" + "".join(f"{title:>8}" for title in titles)]
    for name, point in points.items():
        numbers = (f"{point[key]:8.3f}" if key in keys[:5] else f"{point[key]:8}" for key in keys)
        lines.append(f"{name:16}{''.join(numbers)}")
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="evaluate")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
