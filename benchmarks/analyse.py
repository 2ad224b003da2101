"""What isgseg-analyse costs on a whole cell, and whether its p values can be believed.

Run `python benchmarks/analyse.py --output benchmarks/results/analyse.json`; `--part statistics` and
`--part cost` run one half, and write nothing. Cells are simulated here, not by `isgseg.phantom`,
whose granules lie in clusters: balls are put down one after the other where they fit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output
from scipy import ndimage as ndi
from scipy.stats import kstest

from isgseg.analysis.cell import measure_granules
from isgseg.analysis.granules import granule_table
from isgseg.analysis.measures import CellNumbers
from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.analysis.structures import of_one_cell
from isgseg.io.volumes import write_volume

NM = (32.0, 32.0, 32.0)
SEEDS = range(20)
COUNT = 90  # granules of a small cell: 2.8 per um3 of cytoplasm, as real cells have
SMALL, WHOLE = (100, 150, 150), (473, 486, 473)
ALPHA = 0.05
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# Each a number that any value may have: p of counts, which have ties, are too large by nature.
CONTINUOUS = (
    "mean_gap_membrane",
    "mean_gap_nucleus",
    "mean_gap_mitochondria",
    "mean_nn_distance",
    "mean_nn_gap",
    "mean_position",
    "polarity",
    "intensity_with_position",
)


@dataclass
class Cell:
    """A simulated cell.

    Attributes:
        masks: cell, nucleus and mitochondria, (z, y, x).
        free: (z, y, x), where no ball or structure is.
        labels: (z, y, x).
        radii: of the balls that were placed, voxels.
        rng: the source of every choice.
    """

    masks: dict[str, Mask]
    free: Mask
    labels: npt.NDArray[np.uint16]
    radii: list[float]
    rng: np.random.Generator

    def put(self, centre: Floats, radius: float) -> bool:
        """Whether a ball fits, which is then there; it may touch others and the edge cuts it."""
        low = np.maximum(np.floor(centre - radius).astype(int), 0)
        high = np.minimum(np.ceil(centre + radius).astype(int) + 1, self.free.shape)
        if (low >= high).any():
            return False
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[box]
        away = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        ball = away <= radius**2
        if not ball.any() or not self.free[box][ball].all():
            return False
        self.radii.append(radius)
        self.labels[box][ball] = len(self.radii)
        self.free[box][ball] = False
        return True


def simulate(shape: tuple[int, int, int], seed: int, rods: int) -> Cell:
    """An ellipsoid cut by the first and last slice, with a nucleus aside and rods."""
    rng = np.random.default_rng(seed)
    middle = np.array(shape) / 2 + rng.uniform(-2, 2, 3)
    axes = np.array([0.62 * shape[0], *(0.47 * np.array(shape[1:]))])
    cell = ellipsoid(shape, middle, axes)
    shift = np.array([0, *rng.uniform(-0.15, 0.15, 2)]) * axes
    nucleus = ellipsoid(shape, middle + shift, axes * rng.uniform(0.42, 0.55))
    mitochondria = np.zeros(shape, bool)
    places = np.argwhere((cell & ~nucleus)[::4, ::4, ::4]) * 4
    for _ in range(rods):
        start, step = draw(rng, places), rng.standard_normal(3)
        step /= np.linalg.norm(step)
        for k in range(int(rng.uniform(10, 40))):  # a tube of balls
            add_ball(mitochondria, start + k * step, rng.uniform(4, 6))
    mitochondria &= ndi.binary_erosion(cell, iterations=2) & ~nucleus
    masks = {"cell": cell, "nucleus": nucleus, "mitochondria": mitochondria}
    free = cell & ~nucleus & ~mitochondria
    return Cell(masks, free, np.zeros(shape, np.uint16), [], rng)


def add_ball(mask: Mask, centre: Floats, radius: float) -> None:
    low = np.clip(np.floor(centre - radius).astype(int), 0, mask.shape)
    high = np.clip(np.ceil(centre + radius).astype(int) + 1, 0, mask.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.ogrid[box]
    mask[box] |= sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def ellipsoid(shape: tuple[int, ...], centre: Floats, axes: Floats) -> Mask:
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    squares = [((g - c) / a) ** 2 for g, c, a in zip(grid, centre, axes, strict=True)]
    return np.asarray(squares[0] + squares[1] + squares[2] <= 1)


def draw(rng: np.random.Generator, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(3,) one of the places; `rng.choice` copies them all."""
    return np.asarray(places[rng.integers(len(places))])


def radius_of(rng: np.random.Generator) -> float:
    """Voxels: diameters of 160 to 420 nm, the small ones more often."""
    return float((160 + 260 * rng.uniform() ** 2) / NM[0] / 2)


def scatter(cell: Cell, count: int) -> None:
    """Balls at random, each of a new size and place until it fits: nothing is planted."""
    places = np.argwhere(cell.free)
    while len(cell.radii) < count:
        radius = radius_of(cell.rng)  # kept until it fits: large ones are not left out
        while not cell.put(draw(cell.rng, places) + cell.rng.uniform(-0.5, 0.5, 3), radius):
            pass


def dock(cell: Cell, count: int = 30) -> None:
    """Balls at 0 to 1 voxel from mitochondria; the rest at random."""
    away = ndi.distance_transform_edt(~cell.masks["mitochondria"])
    placed = 0
    while placed < count:
        radius = radius_of(cell.rng)
        places = np.argwhere(cell.free & (away > radius + 0.7) & (away < radius + 1.7))
        for _ in range(200):
            if cell.put(draw(cell.rng, places).astype(float), radius):
                placed += 1
                break


def cluster(cell: Cell, groups: int = 9, size: int = 5) -> None:
    """Balls about common centres, 8 voxels (250 nm) from them along each axis; others at random."""
    places = np.argwhere(cell.free)
    for _ in range(groups):
        heart = draw(cell.rng, places)
        for _ in range(size):
            for _ in range(200):
                if cell.put(heart + cell.rng.normal(0, 8, 3), radius_of(cell.rng)):
                    break


def measure(cell: Cell, brighter: float = 0.0) -> CellNumbers:
    """The numbers of a cell; `brighter`: by how much from nucleus to membrane, of 5 % of noise."""
    mean = 1 + 0.05 * cell.rng.standard_normal(len(cell.radii) + 1)
    table = granule_table(cell.labels, mean[cell.labels].astype(np.float32), NM)
    structures = of_one_cell(cell.masks)
    arguments = (structures, NM, RelationSettings(), ChanceSettings())
    if brighter:
        columns, _ = measure_granules(
            cell.labels, table, structures, NM, RelationSettings(), ChanceSettings(placements=0)
        )
        table["mean_intensity"] += brighter * 0.05 * columns["position"].fillna(0).to_numpy()
    return measure_granules(cell.labels, table, *arguments)[1]


def p_of(numbers: CellNumbers, name: str) -> float:
    level = numbers.measures[name].chance
    return 1.0 if level is None or level.p is None else level.p


def statistics(result: Result) -> None:
    """P values where nothing is planted, and how often what is planted is found."""
    null: dict[str, list[float]] = {}
    outside, inside = 0, 0
    for seed in SEEDS:
        cell = simulate(SMALL, seed, rods=14)
        scatter(cell, COUNT)
        numbers = measure(cell)
        for name, found in numbers.measures.items():
            if found.chance is not None and found.chance.p is not None:
                null.setdefault(name, []).append(found.chance.p)
        for curve in numbers.curves.values():
            if curve.chance is not None:
                low, high = np.array(curve.chance.low), np.array(curve.chance.high)
                known = np.isfinite(curve.y) & np.isfinite(low)
                out = (curve.y < low) | (curve.y > high)
                outside, inside = outside + int(out[known].sum()), inside + int(known.sum())
    # Two-sided p of 99 placements are .02, .04, ... 1: half a step makes them continuous.
    tests = {
        name: float(kstest(np.array(null[name]) - 0.01, "uniform").pvalue) for name in CONTINUOUS
    }
    for name, p in tests.items():
        result.add("quality", f"nothing planted: Kolmogorov-Smirnov p of {name}", p)
    lowest = min(1.0, min(tests.values()) * len(tests))
    title = f"nothing planted: the smallest of {len(tests)}, times {len(tests)} (Bonferroni)"
    result.add("quality", title, lowest, target=">= 0.05")
    every = np.concatenate([null[name] for name in sorted(null)])
    result.add(
        "quality", "nothing planted: share of all p values <= .05", float((every <= ALPHA).mean())
    )
    result.add(
        "quality", "nothing planted: share of curves outside of 2.5 to 97.5 %", outside / inside
    )
    result.details["p values where nothing is planted"] = null
    planted: tuple[tuple[str, Callable[[Cell], None] | None, dict[str, str | None]], ...] = (
        (f"30 of {COUNT} at mitochondria", dock, {"near_share_mitochondria": ">= 18"}),
        (
            f"45 of {COUNT} in clusters of 5",
            cluster,
            {"mean_neighbours": ">= 18", "clark_evans": None},
        ),
        ("brighter to the membrane by two sd", None, {"intensity_with_position": ">= 18"}),
    )
    for title, plant, names in planted:
        found = dict.fromkeys(names, 0)
        for seed in SEEDS:
            cell = simulate(SMALL, 100 + seed, rods=14)
            if plant is not None:
                plant(cell)
            scatter(cell, COUNT)
            numbers = measure(cell, 0.0 if plant else 2.0)
            for name in names:
                found[name] += p_of(numbers, name) <= ALPHA
        for name, target in names.items():
            title_of = f"{title}: found by {name}, of {len(SEEDS)}"
            result.add("quality", title_of, found[name], target=target)


def cost(result: Result) -> None:
    """Time and memory of the command on a whole cell with three structures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cell = simulate(WHOLE, 0, rods=1500)
        scatter(cell, 2200)
        volume = np.where(cell.labels > 0, np.float32(0.0145), np.float32(0.0101))
        write_volume(folder / "cell.mrc", volume, NM)
        write_volume(folder / "cell_labels.mrc", cell.labels, NM)
        for structure, mask in cell.masks.items():
            write_volume(folder / f"{structure}.tif", mask.astype(np.uint8), NM)
        files = [f"structures.{structure}={folder}/{structure}.tif" for structure in cell.masks]
        del cell, volume
        plain_s, _, plain_mb = run(folder, "plain", [])
        seconds, cpu, mb = run(folder, "all", files)
    size = "2,200 granules in 473 x 486 x 473"
    result.add("speed", f"{size}: without structures", plain_s, "s")
    result.add("speed", f"{size}: three structures and chance levels", seconds, "s", "<= 60")
    result.add("speed", f"{size}: processor time of the same, all cores together", cpu, "s")
    result.add("memory", f"{size}: peak without structures", plain_mb, "MB")
    result.add("memory", f"{size}: more with three structures", mb - plain_mb, "MB", "<= 3000")


def run(folder: Path, name: str, overrides: list[str]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory (MB) of the command in a process of its own."""
    # VmHWM, not ru_maxrss, which a process inherits from the one that starts it.
    code = (
        "import runpy\n"
        "try:\n    runpy.run_module('isgseg.analyse', run_name='__main__')\n"
        "finally:\n    print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    command = [
        *(sys.executable, "-c", code),
        *(f"volume={folder}/cell.mrc", f"labels={folder}/cell_labels.mrc"),
        *(f"output_dir={folder}/{name}", f"hydra.run.dir={folder}/{name}_run", *overrides),
    ]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return seconds, cpu, int(done.stdout.split()[-1]) / 1024


def main() -> None:
    """Measures both, unless one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Any] = {"statistics": statistics, "cost": cost}
    parser.add_argument("--part", choices=list(parts), help="measure this half alone")
    add_output(parser)
    args = parser.parse_args()
    result = Result(
        "Granules in their cell: cost, and p values", seeds=[*SEEDS, *(100 + s for s in SEEDS)]
    )
    for name, part in parts.items():
        if args.part in (None, name):
            part(result)
    result.write(args.output)


if __name__ == "__main__":
    main()
