"""Granules below the object score threshold: candidates, which a person may take in.

They are kept where somebody is going to look at them: in napari, and by `isgseg-predict
review=true`, which writes them to `<stem>_candidates.tif` and `.csv`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from isgseg.analysis.granules import granule_table, write_table
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.method import Granules
from isgseg.inference.predictor import Predictor
from isgseg.inference.segmentation import SliceSegmenter
from isgseg.instances.components import Labels
from isgseg.instances.runs import RunLabels
from isgseg.io.formats import Array
from isgseg.io.volumes import Volume, label_dtype, write_volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidates:
    """What did not reach the threshold.

    Attributes:
        labels: (z, y, x), an array or as runs; numbers that go on where those of the granules end.
        table: of `granule_table`, with `best`, the score that the threshold is asked of.
    """

    labels: Labels
    table: pd.DataFrame

    def write(self, image: Path, table: Path, voxel_size: Sequence[float] | None) -> None:
        """Writes both files, each whole or not at all.

        Raises:
            InputError: the folder cannot be written.
        """
        write_table(table, self.table)
        write_volume(image, self.labels, voxel_size)


def lowest_score(predictor: Predictor) -> float:
    """The object score threshold below which the predictor has no granules to offer.

    Linked granules need one detection of the score threshold of detections times the hysteresis
    ratio. Of a U-Net's maps everything has a score, and half of the threshold is offered.
    """
    method = predictor.method
    if isinstance(method, SliceSegmenter):
        ratio = method.settings.hysteresis_ratio if method.settings.link else 1.0
        return predictor.thresholds.score * ratio
    return predictor.thresholds.object / 2


def with_candidates(predictor: Predictor) -> Predictor:
    """The predictor with candidates among its granules.

    With slices along one axis, the granules whose `best` reaches a threshold are those that a
    prediction with this object score threshold finds. Along several, candidates take part in the
    vote.

    Args:
        predictor: is not changed.
    """
    method, thresholds = predictor.method, predictor.thresholds
    if not isinstance(method, SliceSegmenter | MapSegmenter):
        raise TypeError(f"{type(method).__name__} has no candidates")
    thresholds = thresholds._replace(object=min(thresholds.object, lowest_score(predictor)))
    method = replace(method, thresholds=thresholds)
    return Predictor(method, predictor.metadata, thresholds, predictor.normalization)


def segment(
    predictor: Predictor, volume: Volume, name: str, *, keep: bool
) -> tuple[Granules, Candidates | None]:
    """The granules of a volume, and the candidates beside them.

    The granules are the same, number by number, whether candidates are kept or not.

    Args:
        predictor: is not changed.
        volume: see `Predictor.segment`.
        name: see there.
        keep: candidates too.

    Returns:
        None in place of candidates where they are not kept: not with several axes, where they
        would take part in the vote.

    Raises:
        InputError: see `Predictor.segment`.
    """
    method = predictor.method
    several = isinstance(method, SliceSegmenter) and len(method.settings.axes) > 1
    if keep and several:
        log.info("%s: no candidates are kept with several axes", name)
    if not keep or several:
        return predictor.segment(volume, name), None
    return parted(with_candidates(predictor).segment(volume, name), predictor, volume)


def parted(found: Granules, predictor: Predictor, volume: Volume) -> tuple[Granules, Candidates]:
    """Granules that reach the object score threshold, numbered anew, and the others."""
    kept = found.best >= predictor.thresholds.object
    order = np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)])
    count, numbers = int(kept.sum()), np.zeros(len(order) + 1, np.int64)
    numbers[order + 1] = np.arange(1, len(order) + 1)
    granules = Granules(
        _renumbered(found.labels, np.where(numbers <= count, numbers, 0), count),
        found.score[kept],
        found.best[kept],
        found.slices[kept],
    )
    others = _renumbered(found.labels, np.where(numbers > count, numbers, 0), len(order))
    table = granule_table(
        others,
        volume.data,
        volume.voxel_size,
        score=found.score[order],
        supporting_slices=found.slices[order],
    )
    best = found.best[order][table["label"].to_numpy() - 1]
    return granules, Candidates(others, table.assign(best=best))


def _renumbered(labels: Labels, numbers: Array, highest: int) -> Labels:
    """Labels under other numbers; `numbers[i]` is the one of label `i`."""
    numbers = numbers.astype(label_dtype(highest))
    if isinstance(labels, RunLabels):
        planes = (numbers[plane] for plane in labels)
        return cast("Labels", RunLabels.of(planes, labels.shape[1:], numbers.dtype))
    return numbers[labels]
