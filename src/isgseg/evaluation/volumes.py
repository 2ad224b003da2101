"""Whole volumes against their ground truth: matched, scored, and the outcome of each instance."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isgseg.evaluation.diameters import bin_by_diameter
from isgseg.evaluation.matching import match_thresholds
from isgseg.evaluation.outcomes import Failure, failure_figure, outcome_table, worst_failures
from isgseg.evaluation.pooling import as_numbers, pool_bins, pool_thresholds
from isgseg.instances.ground_truth import load_ground_truth
from isgseg.instances.settings import InstanceSettings
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array, VoxelSize
from isgseg.io.volumes import Volume

log = logging.getLogger(__name__)
Labeller = Callable[[Path, Volume], Array]

FIGURES = 12  # of the worst failures
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


def evaluate_volumes(
    pairs: Sequence[tuple[Path, Path]],
    labeller: Labeller,
    folder: Path,
    diameters: Sequence[float],
    voxel_size: VoxelSize | None = None,
    instances: InstanceSettings | None = None,
) -> dict[str, Any]:
    """Scores whole volumes; writes `instances.csv`, and `failures.png` where there is a failure.

    Args:
        pairs: volumes and their ground truth.
        labeller: from a volume to its predicted labels, (z, y, x).
        folder: what is written to; it is created.
        diameters: nm, rising: false negatives and positives are counted between these.
        voxel_size: nm, (z, y, x), in place of what the files say.
        instances: how the numbers of the ground truth become granules; None: `auto`, which refuses
            masks.

    Returns:
        `volumes`, the scores of each by its path, and `instances`, what was done to the numbers of
        its ground truth; `pooled`, of all instances together; see `as_numbers`.

    Raises:
        InputError: unequal shapes, or labels that are none; the message names the file.
    """
    edges = [0.0, *diameters, float("inf")]
    found, bins, tables, failures = [], [], [], list[Failure]()
    methods: list[str] = []
    for path, volume, true, made in _loaded(pairs, voxel_size, instances):
        methods.append(made.method)
        labels = labeller(path, volume)
        size = volume.voxel_size or true.voxel_size
        found.append(match_thresholds(labels, true.data))
        half = found[-1].at(0.5)
        bins.append(None if size is None else bin_by_diameter(half, size, edges))
        sides = (labels, true.data, volume.data, size)
        table = outcome_table(half, *sides)
        table.insert(0, "file", str(path))
        tables.append(table)
        failures += worst_failures(table, *sides, count=FIGURES, name=path.name)
        failures = sorted(failures, key=lambda failure: -failure.size)[:FIGURES]
    numbers = map(as_numbers, found, bins)
    each = [part | {"instances": done} for part, done in zip(numbers, methods, strict=True)]
    scores = {
        "volumes": {str(path): part for (path, _), part in zip(pairs, each, strict=True)},
        "pooled": as_numbers(pool_thresholds(found), pool_bins(bins)),
    }
    with replacing(folder / "instances.csv") as beside:
        pd.concat(tables).to_csv(beside, index=False, float_format="%.8g")
    log.info("Instances at IoU .5:\n%s", score_table(scores))
    log.info("The outcome of each is in %s", folder / "instances.csv")
    if failures:
        log.info("The largest failures: %s", failure_figure(failures, folder / "failures.png"))
    return scores


def _loaded(
    pairs: Sequence[tuple[Path, Path]],
    voxel_size: VoxelSize | None,
    instances: InstanceSettings | None,
) -> Iterator[tuple[Path, Volume, Volume, InstanceSettings]]:
    """Path, volume, ground truth and its origin of each pair, one pair in memory at a time."""
    for path, label_file in pairs:
        read = load_ground_truth(path, label_file, instances, refuse_masks=True)
        size = voxel_size or read.volume.voxel_size
        yield path, Volume(read.volume.data, size), read.labels, read.made


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
