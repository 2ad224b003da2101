"""Granules that hold several, told apart by shape; see `isgseg.instances.split`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import ndimage as ndi

from isgseg.inference.method import Granules
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.components import Ints, Labels
from isgseg.instances.runs import RunLabels
from isgseg.instances.split import split
from isgseg.instances.split_runs import split_runs


def split_granules(granules: Granules, settings: SegmentationSettings) -> Granules:
    """Splits each granule by itself.

    Args:
        granules: of a volume.
        settings: those that begin with `split_`.

    Returns:
        The granules, numbered anew. Each has the scores of the one that it was part of; it was
        detected in as many slices, but in no more than it has, added over the axes.
    """
    how: dict[str, Any] = {
        "height": settings.split_height,
        "sigma": settings.split_sigma,
        "min_voxels": settings.split_min_voxels,
    }
    if isinstance(granules.labels, RunLabels):
        runs, numbers = split_runs(granules.labels, **how)
        low, high = runs.spans()
        labels, parent, spans = cast("Labels", runs), numbers - 1, (high - low + 1)[1:]
    else:
        labels = split(granules.labels, **how)
        parent, spans = _parents(labels, granules.labels), _spans(labels, settings.axes)
    return Granules(
        labels,
        granules.score[parent],
        granules.best[parent],
        np.minimum(granules.slices[parent], spans),
    )


def _parents(labels: Labels, before: Labels) -> Ints:
    """(N,) the index of the granule that each was part of."""
    where = np.flatnonzero(labels)
    parent = np.zeros(int(labels.max(initial=0)), np.int64)
    parent[labels.ravel()[where] - 1] = before.ravel()[where].astype(np.int64) - 1
    return parent


def _spans(labels: Labels, axes: str) -> Ints:
    """(N,) how far each reaches along these axes together, in slices."""
    first = ["zyx".index(axis) for axis in axes]
    boxes = ndi.find_objects(labels)
    return np.array([sum(box[i].stop - box[i].start for i in first) for box in boxes], np.int64)
