"""All differences between conditions, as one table, and where the cells are too few for any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy import stats

from isgseg.analysis.difference import Difference, compare

FEWEST = 2  # cells of a condition that a test needs
SIGNIFICANCE = 0.05


def difference_table(
    cells: pd.DataFrame,
    measures: dict[str, str],
    reference: str,
    *,
    permutations: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """One row for each measure and each condition beside the reference.

    `p_adjusted` is p after Benjamini and Hochberg (J. R. Stat. Soc. B 57:289, 1995) over all rows
    that have a p: the expected share of false differences among those called below it.

    Args:
        cells: of `isgseg.analysis.conditions.cell_table`.
        measures: the unit of each.
        reference: the condition that the others are compared with.
        permutations: as `compare` has it.
        confidence: as `compare` has it.
        seed: as `compare` has it.

    Returns:
        measure, unit, reference, condition, cells_reference, cells, the fields of `Difference` and
        p_adjusted; NaN where a condition has fewer than two cells with a value.
    """
    others = [name for name in cells["condition"].unique() if name != reference]
    rows: list[dict[str, Any]] = []
    for measure, unit in measures.items():
        values = {
            name: part[measure].dropna().to_numpy(float)
            for name, part in cells.groupby("condition", sort=False)
        }
        for other in others:
            row = {"measure": measure, "unit": unit, "reference": reference, "condition": other}
            row |= {"cells_reference": len(values[reference]), "cells": len(values[other])}
            if min(len(values[reference]), len(values[other])) >= FEWEST:
                found = compare(values[reference], values[other], permutations, confidence, seed)
                row |= asdict(found)
            rows.append(row)
    fields = [*Difference.__dataclass_fields__]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*list(rows[0])[:6], *fields] if rows else None)
    tested = table["p"].notna()
    table["p_adjusted"] = np.nan
    if tested.any():
        adjusted = stats.false_discovery_control(table.loc[tested, "p"].to_numpy(float))
        table.loc[tested, "p_adjusted"] = adjusted
    return table


def too_few(tests: pd.DataFrame) -> Sequence[str]:
    """In words: where the number of cells decides, whatever their values are."""
    said = []
    columns = ["reference", "condition", "cells_reference", "cells", "smallest_p"]
    groups = tests.groupby(columns, sort=False, dropna=False)["measure"]
    for key, measures in groups:
        reference, condition, of_reference, of_condition, smallest = cast("tuple[Any, ...]", key)
        pair = f"{condition} ({of_condition} cells) against {reference} ({of_reference})"
        pair += f", {len(measures)} measures"
        if min(of_condition, of_reference) < FEWEST:
            said.append(f"{pair}: not tested, a test needs two cells of each")
        elif smallest > SIGNIFICANCE:
            said.append(
                f"{pair}: too few cells; whatever they are like, p cannot be less than "
                f"{smallest:.2g}"
            )
    tested = tests["p"].notna()
    alone = float((tests.loc[tested, "smallest_p"] * tested.sum()).min()) if tested.any() else 0.0
    if alone > SIGNIFICANCE:
        said.append(
            f"{tested.sum()} tests of so few cells: if a single measure differs, its adjusted p is "
            f"at least {min(alone, 1):.2g}; choose few measures beforehand, by measures="
        )
    return said


def said(tests: pd.DataFrame) -> str:
    """The tests as a table to read, the surest differences first."""
    shown = tests.sort_values("p", kind="stable")
    lines = [f"{'measure':34} {'condition':16} {'mean (reference)':>24} {'p':>8} {'adjusted':>8}"]
    for row in shown.to_dict("records"):
        means = f"{row['mean']:.4g} ({row['mean_reference']:.4g}) {row['unit']}"
        lines.append(
            f"{row['measure']:34} {row['condition']:16} {means:>24} {row['p']:8.2g} "
            f"{row['p_adjusted']:8.2g}"
        )
    return "\n".join(lines)
