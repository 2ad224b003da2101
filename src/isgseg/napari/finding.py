"""Finding granules, slice by slice, without a window: what the dock shows comes from here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from isgseg.analysis.granules import granule_table
from isgseg.errors import InputError
from isgseg.instances.components import Floats, Ints, Labels
from isgseg.io.formats import Array, VoxelSize
from isgseg.napari.loading import load_torch

Told = Callable[[int, int, "Labels | None"], None]
BINS = 24


class Cancelled(Exception):
    """The person stopped the search."""


@dataclass(frozen=True)
class Found:
    """Granules of a volume, those below the object score threshold among them.

    Attributes:
        labels: (z, y, x), numbers from 1.
        table: of `granule_table`, with `best`, the score that the threshold is asked of.
        threshold: that the network was tuned to.
        lowest: below it nothing was kept.
        voxel_size: nm, (z, y, x), or None.
        network: the checkpoint.
    """

    labels: Labels
    table: pd.DataFrame
    threshold: float
    lowest: float
    voxel_size: VoxelSize | None
    network: Path

    def above(self, threshold: float) -> pd.DataFrame:
        """The rows of granules that reach a threshold."""
        return self.table[self.table["best"] >= threshold]

    def shown(self, threshold: float) -> Labels:
        """(z, y, x) the granules that reach a threshold, under their own numbers."""
        keep = np.zeros(int(self.labels.max(initial=0)) + 1, self.labels.dtype)
        numbers = self.above(threshold)["label"].to_numpy()
        keep[numbers] = numbers
        return keep[self.labels]

    def show(self, into: Labels, before: float, after: float) -> None:
        """Makes of what reaches one threshold what reaches another, in place; quick.

        Args:
            into: of `shown`.
            before: the threshold that it shows.
            after: that it is to show.
        """
        best = self.table["best"].to_numpy()
        low, high = sorted((before, after))
        for label in self.table["label"].to_numpy()[(best >= low) & (best < high)].tolist():
            box = self._boxes[label - 1]
            if box is not None:
                own = self.labels[box] == label
                into[box][own] = label if after < before else 0

    def histogram(self, threshold: float) -> tuple[Ints, Floats, str]:
        """How many granules of each diameter reach a threshold.

        Returns:
            Counts, the edges of the bins, which do not depend on the threshold, and their unit.
        """
        unit = "voxels" if self.voxel_size is None else "nm"
        column = "equivalent_diameter_px" if unit == "voxels" else "equivalent_diameter_nm"
        every = self.table[column].to_numpy(float)
        high = float(np.percentile(every, 99.5)) * 1.05 if len(every) else 1.0
        own = self.above(threshold)[column].to_numpy(float)
        counts, edges = np.histogram(np.clip(own, 0, high), BINS, (0, high))
        return counts.astype(np.int64), edges, unit

    @cached_property
    def _boxes(self) -> list[tuple[slice, ...] | None]:
        boxes: list[tuple[slice, ...] | None] = ndi.find_objects(self.labels)
        return boxes


def find(
    volume: Array,
    voxel_size: VoxelSize | None,
    network: Path | None,
    told: Told,
    slices: tuple[int, int] | None = None,
) -> Found:
    """Granules of a volume, or of some of its slices.

    Args:
        volume: (z, y, x), real numbers.
        voxel_size: nm, (z, y, x), or None.
        network: a checkpoint; None: the one that `find_model` finds.
        told: is called after each slice with its number, of how many, and the labels of what was
            detected in it, (y, x), or None where that is not known yet. What it raises stops all.
        slices: the first, and the one after the last; None: all. The grey values are normalized as
            those of the whole volume.

    Raises:
        InputError: the volume is none, or the checkpoint cannot be used.
    """
    load_torch()
    from isgseg.inference.arrays import as_volume
    from isgseg.inference.candidates import lowest_score
    from isgseg.inference.predictor import Predictor
    from isgseg.inference.watching import preview, watched
    from isgseg.io.volumes import Volume
    from isgseg.models.locate import find_model

    path = find_model() if network is None else network
    whole = as_volume(volume)
    first, last = slices or (0, len(whole))
    if not 0 <= first < last <= len(whole):
        raise InputError(f"slices {first} to {last} are not of 0 to {len(whole)}")
    predictor = Predictor.from_checkpoint(path, progress=False)
    normalizer = predictor.normalizer(Volume(whole, voxel_size))
    shape = whole.shape[1:]

    def seen(number: int, of: int, found: object) -> None:
        labels = preview(predictor, found, shape) if of == last - first else None
        told(first + number, last, labels)

    part = Volume(whole[first:last], voxel_size)
    granules = watched(predictor, seen).method.segment(part, normalizer, "")
    labels = np.zeros(whole.shape, granules.labels.dtype)
    labels[first:last] = granules.labels
    table = granule_table(
        labels, whole, voxel_size, score=granules.score, supporting_slices=granules.slices
    )
    table["best"] = granules.best[table["label"].to_numpy() - 1]
    low = min(lowest_score(predictor), predictor.thresholds.object)
    return Found(labels, table, predictor.thresholds.object, low, voxel_size, path)
