"""The curves of a cell, with their chance levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isgseg.analysis.measures import Curve, chance_of_curve
from isgseg.analysis.relations import Frame, distances
from isgseg.analysis.surfaces import Floats

Curves = Mapping[str, Floats]


def cell_curves(observed: Curves, placed: Sequence[Curves], frame: Frame) -> dict[str, Curve]:
    """The curves of a cell.

    Args:
        observed: of `ball_curves`, of the granules.
        placed: of each placement.
        frame: of the cell.
    """
    edges, found = distances(frame.settings), {}
    for name, values in observed.items():
        others = [one[name] for one in placed]
        if name.startswith("within_"):
            structure = name.removeprefix("within_")
            found[name] = Curve(
                edges,
                values,
                f"gap to {structure}",
                "nm",
                "share of granules",
                "",
                f"Share of granules with at most this gap to {structure}.",
                chance_of_curve(others),
            )
        elif name == "radial_profile":
            steps = frame.settings.radial_steps
            found[name] = Curve(
                (np.arange(steps) + 0.5) / steps,
                values,
                "position, 0 nucleus, 1 plasma membrane",
                "",
                "granule density over its mean",
                "",
                "Volume of granules per accessible volume at this position, over that of the cell.",
                chance_of_curve(others),
            )
    if placed:
        found |= pair_curves(observed["pairs"], np.array([one["pairs"] for one in placed]), edges)
    return found


def pair_curves(observed: Floats, placed: Floats, edges: Floats) -> dict[str, Curve]:
    """Ripley's K, L and the pair correlation g, with placements by chance for what is expected.

    K is the volume of a ball of that radius, times the pairs within it over those of chance: edges
    of the cell and organelles are in both. L is the radius of the ball of volume K; L - r is shown.
    See Baddeley, Rubak and Turner, Spatial Point Patterns, 2015, chapter 7.

    Args:
        observed: (N,) pairs of granules in each shell.
        placed: (M, N) the same of each placement.
        edges: (N + 1,) of the shells, nm.
    """
    radii, middles = edges[1:], (edges[1:] + edges[:-1]) / 2
    ball = 4 / 3 * np.pi * (radii / 1000) ** 3
    shells = np.vstack([observed, placed])
    within = np.cumsum(shells, axis=1)
    # Where chance has no pair, balls cannot be so close, and nothing can be said.
    with np.errstate(invalid="ignore", divide="ignore"):
        k = ball * within / within[1:].mean(axis=0)
        g = shells / shells[1:].mean(axis=0)
    k, g = np.where(np.isfinite(k), k, np.nan), np.where(np.isfinite(g), g, np.nan)
    l_minus_r = np.cbrt(3 / (4 * np.pi) * k) * 1000 - radii
    expected = "with placements by chance for what is expected"

    def curve(x: Floats, rows: Floats, label: str, unit: str, about: str) -> Curve:
        level = chance_of_curve(rows[1:])
        return Curve(x, rows[0], "distance of centres", "nm", label, unit, about, level)

    return {
        "k": curve(radii, k, "K", "um3", f"Ripley's K, {expected}."),
        "l": curve(radii, l_minus_r, "L - r", "nm", f"L less the distance, {expected}."),
        "g": curve(middles, g, "g", "", "Pairs at this distance over those of chance."),
    }
