"""Errors of gaps to structures and of the position in a cell, on digitized balls.

Run `python benchmarks/distances.py --output benchmarks/results/distances.json`.

- Gaps: balls of 5 to 13 voxels at random offsets, 0 to 6 voxels from a plane of random direction.
- Position: balls of 5 voxels between two concentric spheres, 28 and 10 voxels apart.

Errors are measured less true, in voxels, or of the position, which has no unit.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from record import Result, add_output

from isgseg.analysis.cell import measure_granules
from isgseg.analysis.granules import granule_table
from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.analysis.structures import Structures, of_one_cell

Points = npt.NDArray[np.float64]
BALLS = 150
SIDE = 30.0  # nm
BOX = 48  # voxels
NUCLEUS = 12  # voxels, radius
BETWEEN = (28, 10)  # voxels between nucleus and membrane


def main() -> None:
    """Measures gaps, and positions between spheres."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--balls", type=int, default=BALLS)
    add_output(parser)
    args = parser.parse_args()
    result = Result("Gaps and positions of digitized balls", seeds=[0])
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([gap_errors(rng) for _ in range(args.balls)])
    for name, errors in rows.items():
        tell(result, f"{name} to an oblique plane", errors, "px")
    for between in BETWEEN:
        errors = pd.Series([position_error(rng, between) for _ in range(args.balls)])
        tell(result, f"position, {between} voxels between concentric spheres", errors, "")
    result.write(args.output)


def tell(result: Result, name: str, errors: pd.Series[float], unit: str) -> None:
    """Adds mean and standard deviation of errors."""
    result.add("quality", f"{name}: mean error", float(errors.mean()), unit)
    result.add("quality", f"{name}: standard deviation", float(errors.std()), unit)


def gap_errors(rng: np.random.Generator) -> dict[str, float]:
    """Measured less true gap of one ball to a plane of random direction, voxels."""
    radius, gap = rng.uniform(2.5, 6.5), rng.uniform(0, 6)
    normal = rng.normal(size=3)
    normal /= np.linalg.norm(normal)
    middle = BOX / 2 + rng.uniform(-0.5, 0.5, 3)
    points = grid(BOX) - middle
    labels = ball(points, radius)
    wall = points @ normal >= radius + gap
    found = columns(labels, Structures({"wall": wall}))
    return {name: found[f"{name}_wall"] / SIDE - gap for name in ("gap", "near")}


def position_error(rng: np.random.Generator, between: int) -> float:
    """Measured less true position of one ball between nucleus, 0, and membrane, 1."""
    outer = NUCLEUS + between
    middle = outer + 2 + rng.uniform(-0.5, 0.5, 3)
    points = grid(2 * outer + 5) - middle
    away = np.linalg.norm(points, axis=-1)
    direction = rng.normal(size=3)
    place = rng.uniform(2.5, between - 2.5)
    centre = direction / np.linalg.norm(direction) * (NUCLEUS + place)
    labels = ball(points - centre, 2.5)
    cell = of_one_cell({"cell": away <= outer, "nucleus": away <= NUCLEUS})
    return columns(labels, cell)["position"] - place / between


def grid(side: int) -> Points:
    """(side, side, side, 3) centres of voxels."""
    axis = np.arange(side, dtype=float)
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def ball(points: Points, radius: float) -> npt.NDArray[np.uint16]:
    """(z, y, x) 1 in a ball around 0."""
    return (np.linalg.norm(points, axis=-1) <= radius).astype(np.uint16)


def columns(labels: npt.NDArray[np.uint16], structures: Structures) -> Any:
    """The columns of the only granule."""
    size = (SIDE, SIDE, SIDE)
    table = granule_table(labels, voxel_size=size)
    nothing = ChanceSettings(placements=0)
    found, _ = measure_granules(labels, table, structures, size, RelationSettings(), nothing)
    return found.iloc[0]


if __name__ == "__main__":
    main()
