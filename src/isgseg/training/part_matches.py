"""Granules of a part of a volume against its ground truth, at one mask threshold or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.data.normalization import Normalizer
from isgseg.evaluation.matching import match_instances
from isgseg.evaluation.thresholds import DEFAULT, Matches
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.method import Granules, Method
from isgseg.io.volumes import Volume


@dataclass(frozen=True)
class Part:
    """Neighbouring slices of a volume.

    Attributes:
        name: of the volume, and which slices.
        volume: its voxels.
        ground_truth: (z, y, x) labels.
        normalizer: of the whole volume.
    """

    name: str
    volume: Volume
    ground_truth: npt.NDArray[Any]
    normalizer: Normalizer


def match_part(method: Method, part: Part, masks: Sequence[float] | None) -> Matches:
    """The granules of one part against its ground truth.

    Args:
        method: segments.
        part: of a volume.
        masks: mask thresholds to try where granules are made of maps; None: the method's own, which
            answers to `DEFAULT`, as do detections, whose mask threshold is tuned on slices.
    """
    if masks is None or not isinstance(method, MapSegmenter):
        found = [method.segment(part.volume, part.normalizer, part.name)]
        masks = (DEFAULT,)
    else:
        found = method.segment_at(masks, part.volume, part.normalizer, part.name)
    hits = np.full((sum(len(each.best) for each in found), len(masks)), -1, np.int8)
    first = 0
    for column, granules in enumerate(found):  # a granule of one threshold is none of another
        count = len(granules.best)
        hits[first : first + count, column], true = _hits(granules, part)
        first += count
    return Matches(np.concatenate([each.best for each in found]), hits, true, tuple(masks))


def _hits(found: Granules, part: Part) -> tuple[npt.NDArray[np.bool_], int]:
    """(N,) which granules are true positives, and how many true ones there are."""
    matching = match_instances(found.labels, part.ground_truth)
    return matching.predicted.outcome == "matched", matching.tp + matching.fn
