"""Size, shape and grey value of a cell's granules, one number each for the cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.measures import Measure

# Column of the table, unit, how a sentence calls it.
_MEDIANS = (
    ("equivalent_diameter_nm", "nm", "diameter of the ball of a granule's volume"),
    ("volume_um3", "um3", "volume of a granule"),
    ("aspect_ratio", "", "longest over shortest axis of a granule"),
    ("surface_um2", "um2", "surface of a granule"),
    ("sphericity", "", "sphericity of a granule, 1 for a ball"),
    ("mean_intensity", "", "mean grey value of a granule"),
    ("contrast", "", "mean grey value of a granule over that of the cytoplasm"),
    ("lac_mean", "1/um", "mean linear absorption coefficient of a granule"),
)


def average_measures(table: pd.DataFrame) -> dict[str, Measure]:
    """The median of each column of sizes, shapes and grey values; NaN where nothing is known.

    Granules that touch the volume's edge are left out, since part of them may be missing. Each
    median is beside `<column>_sd`, the standard deviation between granules.

    Args:
        table: of `granule_table`, with the columns of `shape_columns` and `intensity_columns`.
    """
    whole = table[~table["touches_border"].astype(bool)]
    measures = {}
    for column, unit, about in _MEDIANS:
        values = whole[column].dropna()
        median = float(values.median()) if len(values) else np.nan
        spread = float(values.std()) if len(values) > 1 else np.nan
        of = f"{len(values)} granules that do not touch the volume's edge"
        measures[f"{column}_median"] = Measure(median, unit, f"Median {about}, of {of}.")
        measures[f"{column}_sd"] = Measure(
            spread, unit, f"Standard deviation between granules: {about}, of {of}."
        )
    return measures
