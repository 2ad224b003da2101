"""Numbers and curves of the balls of one cell, the same for granules and for placed balls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from isgseg.analysis.neighbours import clusters, nearest_neighbours, pair_counts, polarity
from isgseg.analysis.radial import radial_profile
from isgseg.analysis.settings import RelationSettings
from isgseg.analysis.surfaces import Floats, Mask

NUMBERS = {  # name to unit and meaning; {} is a structure
    "mean_gap_{}": ("nm", "Mean gap between granules and {}."),
    "near_share_{}": ("", "Share of granules with a gap of at most {near:g} nm to {}."),
    "mean_nn_distance": ("nm", "Mean distance of a granule's centre from the nearest other one."),
    "mean_nn_gap": ("nm", "Mean gap between a granule and the nearest other one."),
    "mean_neighbours": (
        "",
        "Mean number of other granules whose centre is within {neighbourhood:g} nm of a granule's.",
    ),
    "clustered_share": (
        "",
        "Share of granules with another one at a gap of at most {cluster_gap:g} nm.",
    ),
    "clusters": ("", "Clusters: granules in a row with gaps of at most {cluster_gap:g} nm."),
    "mean_cluster_size": ("", "Granules a cluster, single ones counted too."),
    "largest_cluster": ("", "Granules in the largest cluster."),
    "mean_position": ("", "Mean position between nucleus, 0, and plasma membrane, 1."),
    "polarity": ("", "Length of the mean direction from the nucleus: 0 all round, 1 one side."),
}
PREFIXES = ("mean_gap_", "near_share_")


@dataclass(frozen=True)
class Balls:
    """Granules as balls of their volume, or balls that were placed.

    Attributes:
        centres: (N, 3), (z, y, x), nm.
        radii: (N,), nm.
        gaps: by structure, (N,), nm; infinite where it has no voxel.
        position: (N,) between nucleus and membrane, NaN where not known.
        slope: (N,) of position, 1/nm.
    """

    centres: Floats
    radii: Floats
    gaps: Mapping[str, Floats]
    position: Floats
    slope: Floats

    def of(self, chosen: Mask) -> Balls:
        """Some of the balls: (N,) which."""
        gaps = {name: gap[chosen] for name, gap in self.gaps.items()}
        return Balls(
            self.centres[chosen],
            self.radii[chosen],
            gaps,
            self.position[chosen],
            self.slope[chosen],
        )


@dataclass(frozen=True)
class Frame:
    """What is the same for the granules of a cell and for all placements.

    Attributes:
        middle: (3,) of the nucleus, else of the cell, nm; None without both.
        volumes: (steps,) accessible volume at each step of position; None where not known.
        settings: limits and steps.
    """

    middle: Floats | None
    volumes: Floats | None
    settings: RelationSettings


def ball_numbers(balls: Balls, frame: Frame) -> dict[str, float]:
    """The numbers of `NUMBERS`, NaN where there is no granule or structure."""
    settings = frame.settings
    found: dict[str, float] = {}
    for name, gap in balls.gaps.items():
        there = np.isfinite(gap).any()
        found[f"mean_gap_{name}"] = _mean(gap)
        found[f"near_share_{name}"] = _mean(gap <= settings.near) if there else np.nan
    neighbours = nearest_neighbours(balls.centres, balls.radii)
    sizes = np.bincount(clusters(balls.centres, balls.radii, settings.cluster_gap))[1:]
    found["mean_nn_distance"] = _mean(neighbours.distance)
    found["mean_nn_gap"] = _mean(neighbours.gap)
    within = pair_counts(balls.centres, np.array([0, settings.neighbourhood])).sum()
    count = len(balls.centres)
    found["mean_neighbours"] = 2 * float(within) / count if count > 1 else np.nan
    found["clustered_share"] = float(sizes[sizes > 1].sum() / sizes.sum()) if len(sizes) else np.nan
    found["clusters"] = float(len(sizes)) if len(sizes) else np.nan
    found["mean_cluster_size"] = _mean(sizes)
    found["largest_cluster"] = float(sizes.max()) if len(sizes) else np.nan
    found["mean_position"] = _mean(balls.position)
    found["polarity"] = np.nan if frame.middle is None else polarity(balls.centres, frame.middle)
    return found


def ball_curves(balls: Balls, frame: Frame) -> dict[str, Floats]:
    """The share of granules within each distance of a structure, the profile, and pairs.

    `within_<structure>` at `distances`, `radial_profile` in `radial_steps`, `pairs` of centres in
    the shells between `distances`.
    """
    settings, edges = frame.settings, distances(frame.settings)
    found = {}
    for name, gap in balls.gaps.items():
        share = np.searchsorted(np.sort(gap), edges, side="right") / max(len(gap), 1)
        found[f"within_{name}"] = share if np.isfinite(gap).any() else np.full(len(edges), np.nan)
    known = np.isfinite(balls.position)
    if frame.volumes is not None and known.any():
        found["radial_profile"] = radial_profile(
            balls.position[known],
            balls.slope[known],
            balls.radii[known],
            frame.volumes,
            settings.radial_steps,
        )
    found["pairs"] = pair_counts(balls.centres, edges)
    return found


def about(name: str, settings: RelationSettings) -> tuple[str, str]:
    """The unit of a number of `ball_numbers`, and what it is."""
    structure = next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), "")
    unit, text = NUMBERS[name.removesuffix(structure) + "{}" if structure else name]
    return unit, text.format(structure, **asdict(settings))


def distances(settings: RelationSettings) -> Floats:
    """0, step, 2 step, and so on up to reach, nm."""
    return np.arange(0, settings.reach + settings.step / 2, settings.step)


def _mean(values: object) -> float:
    """The mean of what is known; NaN of nothing."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    return float(array.mean()) if len(array) else float("nan")
