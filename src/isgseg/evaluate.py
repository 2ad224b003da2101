"""isgseg-evaluate: COCO scores of a checkpoint on a split, and 3D scores of whole volumes."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.command import command
from isgseg.config import quiet_lightning
from isgseg.errors import InputError, check

if TYPE_CHECKING:
    from isgseg.evaluation.volumes import Labeller
    from isgseg.training.base import GranuleModule

log = logging.getLogger(__name__)


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Scores a split (`data.root`), whole volumes (`volumes`) or both; writes `metrics.json`.

    Args:
        cfg: `conf/evaluate.yaml`.

    Returns:
        The scores by name: see `evaluate_split`, and `evaluation.volumes.evaluate_volumes`.

    Raises:
        InputError: a file that is no checkpoint, a bad dataset or volume, or nothing to score.
    """
    from isgseg.io.atomic import replacing

    volumes = cfg.volumes or cfg.labels or cfg.predicted
    if not (cfg.data.root or volumes):
        raise InputError(
            "data.root=... (scores of a split) or volumes=... and labels=... (scores of whole "
            "volumes) must be given"
        )
    scores: dict[str, Any] = {}
    if volumes:
        scores |= score_volumes(cfg)
    if cfg.data.root:
        scores |= evaluate_split(cfg)
    path = Path(cfg.output_dir) / "metrics.json"
    with replacing(path) as beside:
        beside.write_text(json.dumps(scores, indent=2) + "\n")
    log.info("Scores written to %s", path)
    return scores


def score_volumes(cfg: DictConfig) -> dict[str, Any]:
    """Scores whole volumes, by a checkpoint or by label files that are there already.

    Raises:
        InputError: unequal pairs or shapes, no ground truth, not one of a checkpoint and
            predictions, a mask as ground truth and `instances=auto`, or diameters that do not rise;
            the message names the file or key.
    """
    from isgseg.evaluation.volumes import evaluate_volumes
    from isgseg.instances.settings import InstanceSettings
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.pairing import find_pairs

    if not (cfg.volumes and cfg.labels):
        raise InputError("to score whole volumes, volumes=... and labels=... must be given")
    check_rising("diameters", cfg.diameters)
    if bool(cfg.ckpt_path) == bool(cfg.predicted):
        raise InputError(
            "to score whole volumes, one of ckpt_path=... (a .pth file) and predicted=... (label "
            "volumes that are there already) must be given"
        )
    plain: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    pairs = find_pairs(plain["volumes"], plain["labels"])
    labeller = choose_labeller(plain, [path for path, _ in pairs])
    size = parse_voxel_size(plain["voxel_size"])
    instances = check(InstanceSettings, {"method": plain["instances"], "split": plain["split"]}, "")
    return evaluate_volumes(
        pairs, labeller, Path(cfg.output_dir), plain["diameters"], size, instances
    )


def choose_labeller(cfg: dict[str, Any], volumes: list[Path]) -> Labeller:
    """From a volume to its predicted labels: by the checkpoint, or from the files given.

    Raises:
        InputError: the checkpoint is none, or files and volumes are no pairs.
    """
    from isgseg.inference.predictor import Predictor
    from isgseg.io.pairing import find_pairs, load_pair
    from isgseg.io.paths import is_list
    from isgseg.models.locate import find_model

    if cfg["predicted"]:
        ordered = is_list(cfg["volumes"])
        files = dict(find_pairs(volumes, cfg["predicted"], "prediction", ordered=ordered))
        return lambda path, volume: load_pair(path, files[path])[1].data
    keys = ("device", "tta", "threshold", "normalization", "segmentation", "precision", "progress")
    checkpoint = find_model(cfg["ckpt_path"])
    predictor = Predictor.from_checkpoint(checkpoint, **{key: cfg[key] for key in keys})
    return lambda path, volume: predictor.segment(volume, path.name).labels


def evaluate_split(cfg: DictConfig) -> dict[str, Any]:
    """Scores a checkpoint on the patches of a split, prints a table and draws `scores.png`.

    Returns:
        The COCO scores by name; a score without any ground truth is -1, as COCO has it.
        `by_diameter`: see `scores_by_diameter`, in nm or pixels. `operating_points`: see there.

    Raises:
        InputError: no checkpoint, a file that is none, a bad dataset, or diameters that do not
            rise.
    """
    from isgseg.evaluation.coco import scores_by_diameter
    from isgseg.evaluation.tables import diameter_table, point_table, table
    from isgseg.training.evaluation import (
        evaluation_trainer,
        load_module,
        split_loader,
        warn_of_metadata,
    )

    if not cfg.ckpt_path:
        raise InputError("ckpt_path=... must be given to score data.root")
    quiet_lightning()
    module = load_module(cfg.ckpt_path)
    module.set_tta(cfg.tta)
    data = cfg.data
    loader, sides = split_loader(module, data.root, data.split, data.batch_size, data.num_workers)
    unit = "pixels" if sides is None else "nm"
    edges = data.diameters[unit]
    if edges is not None:
        check_rising(f"data.diameters.{unit}", edges)
    warn_of_metadata(module, data.root)
    trainer = evaluation_trainer(cfg.device, cfg.precision, cfg.progress)
    scores: dict[str, Any] = {**trainer.test(module, dataloaders=loader, verbose=False)[0]}
    sizes = scores_by_diameter(module.test_metrics[-1], edges, 1.0 if sides is None else sides)
    points = operating_points(module, Path(cfg.output_dir) / "scores.png")
    texts = table(scores), diameter_table(sizes, unit), point_table(points)
    log.info("%s on %s/%s:\n%s", cfg.ckpt_path, data.root, data.split, "\n\n".join(texts))
    scores |= {"by_diameter": sizes, "operating_points": points}
    return scores


def check_rising(key: str, edges: Any) -> None:
    """Refuses edges of bins that are not positive, or do not rise.

    Raises:
        InputError: the message names the key.
    """
    from itertools import pairwise

    if not all(low < high for low, high in pairwise([0, *edges])):
        raise InputError(f"{key}={list(edges)} must be positive numbers that rise")


def operating_points(module: GranuleModule, path: Path) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 at mask IoU .5, and their image.

    Args:
        module: after its test.
        path: of the image.

    Returns:
        `checkpoint`, at the thresholds that isgseg-predict uses, and `best`, at those that suit
        this split best; see `OperatingPoint`.
    """
    from isgseg.evaluation.score_figure import score_figure
    from isgseg.evaluation.thresholds import choose_thresholds, point_at
    from isgseg.io.atomic import replacing

    matches = module.test_matches.compute()
    points = {
        "checkpoint": point_at(matches, *choose_thresholds(module.thresholds)[:2]),
        "best": module.best_point(module.test_matches),
    }
    with replacing(path) as beside:
        score_figure(matches, points).savefig(beside, format="png")
    return {name: asdict(point) for name, point in points.items()}


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Console script."""
    evaluate(cfg)


if __name__ == "__main__":
    main()
