"""A cell's character: its numbers, drawn together, so that cells differ as real ones do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isgseg.phantom.settings import PhantomSettings, ranges

# Settings that rise together, and, with a minus, those that fall.
TRAITS: dict[str, tuple[str, ...]] = {
    "busy": (
        "mitochondria",
        "body_density",
        "reticulum",
        "texture",
        "ring_density",
        "speck_density",
    ),
    "bright": ("lac_granule", "lac_organelle", "lac_lipid", "envelope"),
    "soft": ("blur", "-noise", "shading"),
    "crowded": ("granule_density", "cluster_size", "touching", "body_mingling"),
    "dirty": ("debris_density", "haze", "lac_outside", "blebs"),
}
WHOLE = ("neighbours", "nucleoli")
Numbers = dict[str, float]


def draw_numbers(rng: np.random.Generator, settings: PhantomSettings) -> Numbers:
    """One number from every range: what this cell is.

    Where a range belongs to a trait, its place within the range is `character` parts the trait's,
    which all of that trait share, and the rest its own.

    Returns:
        By name, in the units of the settings. `neighbours` and `nucleoli` are whole.
    """
    place = {name: rng.uniform() for name in ranges()}
    share = settings.character
    for members in TRAITS.values():
        level = rng.uniform()
        for member in members:
            name = member.lstrip("-")
            trait = 1 - level if member.startswith("-") else level
            place[name] = share * trait + (1 - share) * place[name]
    numbers = {name: _at(getattr(settings, name), part) for name, part in place.items()}
    for name in WHOLE:
        low, high = getattr(settings, name)
        numbers[name] = min(
            int(round(low) + place[name] * (round(high) - round(low) + 1)), round(high)
        )
    return numbers


def _at(bounds: Sequence[float], place: float) -> float:
    low, high = bounds
    return float(low + place * (high - low))
