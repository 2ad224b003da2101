"""Instances found and not found, by diameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isgseg.evaluation.matching import Matching, Outcomes
from isgseg.instances.components import Floats, Ints


@dataclass(frozen=True)
class DiameterBins:
    """Instances found and not found, by diameter; the first and the last bin are open.

    Attributes:
        edges: (B + 1,) nm.
        ground_truth: (B,) true instances.
        false_negatives: (B,) those among them without a partner.
        predicted: (B,) predicted instances.
        false_positives: (B,) those among them without a partner.
    """

    edges: Floats
    ground_truth: Ints
    false_negatives: Ints
    predicted: Ints
    false_positives: Ints


def bin_by_diameter(
    matching: Matching, voxel_size: Sequence[float], edges: npt.ArrayLike
) -> DiameterBins:
    """Count found and missed instances by diameter.

    Args:
        matching: of volumes or slices.
        voxel_size: nm, (z, y, x) for volumes, (y, x) for slices.
        edges: (B + 1,) nm, rising; smaller and larger instances count in the first and last bin.

    Raises:
        ValueError: ``edges`` are fewer than two or do not rise.
    """
    limits = np.asarray(edges, np.float64)
    if limits.ndim != 1 or len(limits) < 2 or (np.diff(limits) <= 0).any():
        raise ValueError(f"edges must be two or more rising numbers, not {edges!r}")

    def count(outcomes: Outcomes) -> tuple[Ints, Ints]:
        place = np.searchsorted(limits[1:-1], outcomes.diameter(voxel_size), side="right")
        lost = place[outcomes.outcome != "matched"]
        every, without = (np.bincount(p, minlength=len(limits) - 1) for p in (place, lost))
        return every.astype(np.int64), without.astype(np.int64)

    return DiameterBins(limits, *count(matching.ground_truth), *count(matching.predicted))
