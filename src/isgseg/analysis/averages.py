"""Shapes and grey values of a cell's granules, as numbers of the cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.measures import Measure

# Name of the measure, column of the table, unit, how a sentence calls it.
_COLUMNS = (
    ("aspect_ratio", "aspect_ratio", "", "longest over shortest axis"),
    ("surface", "surface_um2", "um2", "surface"),
    ("sphericity", "sphericity", "", "sphericity, 1 for a ball"),
    ("contrast", "contrast", "", "mean grey value over that of the cytoplasm"),
    ("lac", "lac_mean", "1/um", "mean linear absorption coefficient"),
)


def average_measures(table: pd.DataFrame) -> dict[str, Measure]:
    """Median, `median_<name>`, and standard deviation, `sd_<name>`, of each column.

    Granules that touch the volume's edge are left out: part of them may be missing. What is known
    of none of the others is NaN.

    Args:
        table: of `granule_table`, with the columns of `shape_columns` and `intensity_columns`.
    """
    whole = table[~table["touches_border"].astype(bool)]
    measures = {}
    for name, column, unit, about in _COLUMNS:
        values = whole[column].dropna()
        known = f"{about}; of {len(values)} granules that do not touch the volume's edge."
        median = float(values.median()) if len(values) else np.nan
        spread = float(values.std()) if len(values) > 1 else np.nan
        measures[f"median_{name}"] = Measure(median, unit, f"Median {known}")
        measures[f"sd_{name}"] = Measure(spread, unit, f"Standard deviation of the {known}")
    return measures
