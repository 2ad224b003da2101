"""Granules that hold several, told apart by shape; see `isgseg.instances.split`."""

from __future__ import annotations

import numpy as np
from scipy import ndimage as ndi

from isgseg.inference.method import Granules
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.split import split


def split_granules(granules: Granules, settings: SegmentationSettings) -> Granules:
    """Splits each granule by itself.

    Args:
        granules: of a volume.
        settings: those that begin with `split_`.

    Returns:
        The granules, numbered anew. Each has the scores of the one that it was part of; it was
        detected in as many slices, but in no more than it has, added over the axes.
    """
    labels = split(
        granules.labels,
        height=settings.split_height,
        sigma=settings.split_sigma,
        min_voxels=settings.split_min_voxels,
    )
    where = np.flatnonzero(labels)
    count = int(labels.max(initial=0))
    parent = np.zeros(count, np.int64)
    parent[labels.ravel()[where] - 1] = granules.labels.ravel()[where].astype(np.int64) - 1
    first = ["zyx".index(axis) for axis in settings.axes]
    spans = np.array(
        [sum(box[i].stop - box[i].start for i in first) for box in ndi.find_objects(labels)],
        np.int64,
    )
    return Granules(
        labels,
        granules.score[parent],
        granules.best[parent],
        np.minimum(granules.slices[parent], spans),
    )
