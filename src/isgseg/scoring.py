"""Whole volumes against their truth: predict, match, and write what became of each instance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig, OmegaConf

from isgseg.analysis.fates import Failure, failure_figure, fate_table, worst_failures
from isgseg.data.dataset import load_pair
from isgseg.formats import Array
from isgseg.instances.matching import bin_by_diameter, match_thresholds
from isgseg.instances.scores import as_numbers, pool_bins, pool_thresholds
from isgseg.labelling import Labelling, granules_of
from isgseg.predict import load_predictor, warn_of_voxel_size
from isgseg.prepare import find_pairs
from isgseg.volume import Volume, replacing

log = logging.getLogger(__name__)
Labeller = Callable[[Path, Volume], Array]

PICTURES = 12  # of the worst failures
COLUMNS = {
    "true": "true",
    "predicted": "found",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "pq": "PQ",
    "mean_average_precision": "mAP",
    "count_error_relative": "count error",
    "splits": "splits",
    "merges": "merges",
}


def evaluate_volumes(cfg: DictConfig) -> dict[str, Any]:
    """Scores whole volumes; writes `instances.csv`, and `failures.png` where there is a failure.

    Args:
        cfg: `conf/evaluate.yaml`.

    Returns:
        `volumes`, the scores of each by its path, and `pooled`, of all instances together; see
        `as_numbers`.

    Raises:
        ValueError: unequal pairs or shapes, no truth, not one of a checkpoint and predictions, or
            diameters that do not rise; the message names the file or key.
    """
    if not (cfg.volumes and cfg.labels):
        raise ValueError("to score whole volumes, volumes=... and labels=... must be given")
    edges = [0.0, *cfg.diameters, float("inf")]
    if any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"diameters={cfg.diameters} must be positive numbers (nm) that rise")
    pairs = find_pairs(cfg)
    labeller = choose_labeller(cfg, [path for path, _ in pairs])
    found, bins, tables, failures = [], [], [], list[Failure]()
    for path, label_file in pairs:
        volume, true = load_pair(path, label_file)
        labels = labeller(path, volume)
        size = volume.voxel_size or true.voxel_size
        found.append(match_thresholds(labels, true.data))
        half = found[-1].at(0.5)
        bins.append(None if size is None else bin_by_diameter(half, size, edges))
        sides = (labels, true.data, volume.data, size)
        table = fate_table(half, *sides)
        table.insert(0, "file", str(path))
        tables.append(table)
        failures += worst_failures(table, *sides, count=PICTURES, name=path.name)
        failures = sorted(failures, key=lambda failure: -failure.size)[:PICTURES]
    numbers = map(as_numbers, found, bins)
    scores = {
        "volumes": {str(path): part for (path, _), part in zip(pairs, numbers, strict=True)},
        "pooled": as_numbers(pool_thresholds(found), pool_bins(bins)),
    }
    folder = Path(cfg.output_dir)
    with replacing(folder / "instances.csv") as beside:
        pd.concat(tables).to_csv(beside, index=False, float_format="%.8g")
    log.info("Instances at IoU .5:\n%s", score_table(scores))
    log.info("The fate of each is in %s", folder / "instances.csv")
    if failures:
        log.info("The largest failures: %s", failure_figure(failures, folder / "failures.png"))
    return scores


def choose_labeller(cfg: DictConfig, volumes: list[Path]) -> Labeller:
    """From a volume to its predicted labels: by the checkpoint, or from the files given.

    Raises:
        ValueError: both or neither was given, or there are not as many files as volumes.
    """
    if bool(cfg.ckpt_path) == bool(cfg.predicted):
        raise ValueError(
            "to score whole volumes, one of ckpt_path=... (a .pth file) and predicted=... (label "
            "volumes that are there already) must be given"
        )
    if cfg.predicted:
        names = [str(path) for path in volumes]
        files = dict(find_pairs(OmegaConf.create({"volumes": names, "labels": cfg.predicted})))
        return lambda path, volume: load_pair(path, files[path])[1].data
    module = load_predictor(cfg)
    labelling = Labelling(**cfg.labelling)

    def label(path: Path, volume: Volume) -> Array:
        warn_of_voxel_size(module, volume.voxel_size, path)
        return granules_of(
            module, volume, cfg.threshold, labelling, cfg.precision, cfg.progress, path.name
        ).labels

    return label


def score_table(scores: dict[str, Any]) -> str:
    """A row a volume, and one for all together; then F1 by IoU, and failures by diameter."""
    names = [Path(path).name for path in scores["volumes"]]
    pooled = scores["pooled"]
    rows = pd.DataFrame([*scores["volumes"].values(), pooled], index=[*names, "all"])
    rows["count_error_relative"] = rows["count_error_relative"].map("{:+.1%}".format)
    texts = [rows[list(COLUMNS)].rename(columns=COLUMNS).to_string(float_format="%.3f")]
    texts.append(
        pd.DataFrame([pooled["f1_at"]], index=["F1 at IoU"]).to_string(float_format="%.3f")
    )
    if pooled["by_diameter"] is not None:
        texts.append(
            pd.DataFrame(pooled["by_diameter"]).to_string(index=False, na_rep="", float_format="%g")
        )
    return "\n\n".join(texts)
