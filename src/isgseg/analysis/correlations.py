"""Whether grey values of granules go with where they are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.measures import Measure, chance_of
from isgseg.analysis.settings import ChanceSettings
from isgseg.analysis.surfaces import Floats


def intensity_measures(
    table: pd.DataFrame, columns: pd.DataFrame, chance: ChanceSettings
) -> dict[str, Measure]:
    """Spearman's rank correlation of mean intensity with gaps and position.

    The chance level permutes intensities over the granules: their places stay.

    Args:
        table: of `granule_table`, of the granules of the cell.
        columns: of `granule_columns`, of the same.
        chance: how many permutations, and their seed.
    """
    rng = np.random.default_rng([chance.seed, 2])
    value = table["mean_intensity"].to_numpy(float)
    found = {}
    for column in columns.columns:
        if column != "position" and not column.startswith("gap_"):
            continue
        place = columns[column].to_numpy(float)
        both = np.isfinite(value) & np.isfinite(place)
        name = column.replace("gap_", "gap to ", 1)
        ranks, places = _ranks(value[both]), _ranks(place[both])
        permuted = [rng.permutation(ranks) @ places for _ in range(chance.placements)]
        known = len(ranks) > 2 and bool(ranks.any() and places.any())
        observed = float(ranks @ places) if known else float("nan")
        found[f"intensity_with_{column}"] = Measure(
            observed,
            "",
            f"Rank correlation of mean intensity with {name}; chance permutes intensities.",
            chance_of(observed, permuted),
        )
    return found


def _ranks(values: Floats) -> Floats:
    """(N,) ranks of mean 0 and length 1; 0 where all values are equal."""
    ranks = pd.Series(values).rank().to_numpy(float)
    ranks = ranks - ranks.mean() if len(ranks) else ranks
    length = float(np.linalg.norm(ranks))
    return np.asarray(ranks / length if length > 1e-9 else ranks * 0, np.float64)
