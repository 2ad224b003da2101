"""Compare two conditions with the Python interface: measure each cell, then compare the cells.

    python examples/compare_conditions.py [--cells 4] [--output DIR]

The cells are synthetic. Those of the second condition have granules that are a fifth wider, so that
there is something to find.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from isgseg.analysis.difference import compare
from isgseg.analysis.granules import granule_table

SHAPE = (24, 120, 120)  # voxels, z, y, x
VOXEL = (30.0, 30.0, 30.0)  # nm


def main() -> None:
    """Makes the cells, measures and compares them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=4, help="of each condition")
    parser.add_argument("--output", type=Path, default=Path("outputs/compare_conditions"))
    options = parser.parse_args()

    rows = []
    for condition, radius in (("low glucose", 3.5), ("high glucose", 4.2)):
        for number in range(options.cells):
            labels = cell(radius, seed=number)
            table = granule_table(labels, np.zeros(SHAPE, np.float32), VOXEL)
            table = table[~table["touches_border"]]  # those at the border are cut
            diameter = table["equivalent_diameter_nm"].median()
            rows.append({"condition": condition, "median_diameter": diameter, "count": len(table)})
    cells = pd.DataFrame(rows)  # one row a cell: granules of one cell are not independent
    print(cells.to_string(index=False))

    low, high = (
        group["median_diameter"].to_numpy() for _, group in cells.groupby("condition", sort=False)
    )
    found = compare(low, high, permutations=9999, confidence=0.95, seed=0)
    print(f"\nmedian diameter: {found.difference:+.0f} nm in high glucose")
    print(f"95 % interval:   {found.difference_low:+.0f} to {found.difference_high:+.0f} nm")
    print(f"p:               {found.p:.3f}; least possible: {found.smallest_p:.3f}")

    options.output.mkdir(parents=True, exist_ok=True)
    cells.to_csv(options.output / "cells.csv", index=False)
    print(f"\nTable: {options.output / 'cells.csv'}")


def cell(radius: float, seed: int) -> npt.NDArray[Any]:
    """Labels of some thirty balls that do not touch; radius: voxels, of the mean ball."""
    random = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint16)
    grid = np.indices(SHAPE)
    for _ in range(60):
        centre = random.uniform(0, SHAPE)
        size = radius * random.uniform(0.8, 1.2)
        away = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))
        if not (labels[away <= size + 1]).any():
            labels[away <= size] = labels.max() + 1
    return labels


if __name__ == "__main__":
    main()
