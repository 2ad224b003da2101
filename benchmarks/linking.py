"""What linking label slices costs and how well it works, beside what it is meant to reach.

Run ``python benchmarks/linking.py``. The rows of vesicles need ``vesicle_labels/labels.npz`` in the
folder named by ISGSEG_TEST_DATA (unset: ``../shared/data`` beside the repository), and are left out
without it.
"""

from __future__ import annotations

import os
import resource
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.instances.linking import SliceLinker, link_slices
from isgseg.instances.matching import Matching, match_instances

Labels = npt.NDArray[Any]
SHARED = Path(__file__).parents[2] / "shared" / "data"
DATA = Path(os.environ.get("ISGSEG_TEST_DATA", SHARED))
CELL = 32  # voxels of room for one sphere, or one pair


def main() -> None:
    print(f"{'what':52} {'is':>9} {'reach':>9}")
    full_size()
    vesicles()
    alone = spheres(1000, seed=1)
    row("spheres, perfect slices: splits", score(alone, alone).splits, "0")
    # Of 1,000 alone the result would swing by a fifth; most errors are two missed in a row.
    lost = [degraded(alone, seed=seed) for seed in range(4)]
    for gap in (1, 2):
        found = [score(slices, alone, gap=gap) for slices in lost]
        errors = float(np.mean([share(f, f.splits + f.merges) for f in found]))
        name = "10 % missed, 1 px jitter" if gap == 1 else "  two in a row bridged (gap=2)"
        row(f"{name}: splits + merges", errors, "<= .03" if gap == 1 else "")
    for axis, name in (("z", "along z"), ("xy", "in plane"), ("any", "in any direction")):
        truth = spheres(500, seed=3, pairs=axis)
        row(f"touching pairs {name}: both kept", kept_pairs(truth), ">= .95")
        one = score(degraded(truth, seed=4), truth)
        errors = share(one, one.splits + one.merges)
        row("  the same missed and jittered: splits + merges", errors, "")


def vesicles() -> None:
    path = DATA / "vesicle_labels" / "labels.npz"
    if not path.is_file():
        print(f"vesicles: skipped, no {path}")
        return
    with np.load(path) as data:
        truth, voxel_size = data["labels"], data["voxel_size_nm"].tolist()
    for gap in (1, 0):
        found = score(truth, truth, voxel_size=voxel_size, gap=gap)
        tag = "vesicles" if gap else "vesicles, no gap bridged"
        row(f"{tag}: PQ", found.pq, ">= .970" if gap else "")
        row(f"{tag}: splits", share(found, found.splits), "<= .01" if gap else "")
        row(f"{tag}: merges", share(found, found.merges), "<= .01" if gap else "")


def full_size() -> None:
    """473 x 473 x 486 voxels with 6,000 granules, as a stream and applied in place."""
    rng = np.random.default_rng(5)
    volume = np.zeros((473, 473, 486), np.uint16)
    truth = 0
    offsets = [ball(r, np.zeros(3)) for r in np.linspace(2.5, 6.5, 9)]
    while truth < 6000:
        place = (rng.random(3) * (np.array(volume.shape) - 16)).astype(int) + 8
        z, y, x = (offsets[rng.integers(len(offsets))] + place[:, None]).astype(int)
        if not volume[z, y, x].any():
            truth += 1
            volume[z, y, x] = truth
    expected = volume.copy()
    for z in range(len(volume)):
        volume[z] = shuffled(volume[z], rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    linker = SliceLinker()
    for plane in volume:
        linker.add(plane)
    linking = linker.finish()
    middle = time.perf_counter()
    linking.apply(volume)
    end = time.perf_counter()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    row("6,000 granules in 473 slices: add + finish, s", middle - start, "")
    row("  apply, s", end - middle, "")
    row("  together, s", end - start, "<= 15")
    row("  more resident memory at most, MB", grown, "<= 500")
    row("  PQ", match_instances(volume, expected).pq, "")
    tracemalloc.start()
    linker = SliceLinker()
    for plane in volume:
        linker.add(plane)
    linker.finish().apply(volume)
    row("  traced memory at most, MB", tracemalloc.get_traced_memory()[1] / 2**20, "<= 500")
    tracemalloc.stop()


def row(name: str, value: float, reach: str) -> None:
    print(f"{name:52} {value:9.3f} {reach:>9}", flush=True)


def share(found: Matching, count: int) -> float:
    return count / (found.tp + found.fn)


def score(slices: Labels, truth: Labels, **settings: Any) -> Matching:
    """Shuffle the numbers in each slice, link, and compare with the truth."""
    rng = np.random.default_rng(0)
    mixed = np.stack([shuffled(plane, rng) for plane in slices])
    return match_instances(link_slices(mixed, **settings), truth)


def kept_pairs(truth: Labels) -> float:
    """Share of pairs (2k - 1, 2k) both of which are found."""
    fates = score(truth, truth).truth
    found = fates.label[fates.fate == "matched"]
    pairs = np.bincount((found - 1) // 2, minlength=(int(truth.max()) + 1) // 2)
    return float((pairs == 2).mean())


def shuffled(plane: Labels, rng: np.random.Generator) -> Labels:
    """(y, x) the same sections under numbers drawn anew."""
    names, inverse = np.unique(plane, return_inverse=True)
    drawn = rng.permutation(len(names)) + 1
    drawn[names == 0] = 0
    return np.asarray(drawn[inverse].reshape(plane.shape), np.uint16)


def ball(radius: float, centre: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(3, N) voxels of a ball about the origin, its centre moved by less than a voxel."""
    side = np.arange(-8, 9)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij")).reshape(3, -1).astype(np.float64)
    inside = ((grid - centre[:, None]) ** 2).sum(0) <= radius**2
    return np.asarray(grid[:, inside], np.float64)


def spheres(count: int, seed: int, pairs: str | None = None) -> Labels:
    """Spheres of radius 2.5 to 6.5 voxels, one (or a touching pair) to a cell, cells side by side.

    Args:
        count: of cells.
        seed: of radii, subvoxel centres and directions.
        pairs: how pairs lie: ``z``, ``xy`` or ``any``; None: single spheres.

    Returns:
        (z, y, x) labels; of a pair 2k - 1 and 2k, a voxel in both goes to the nearer surface.
    """
    rng = np.random.default_rng(seed)
    volume = np.zeros((CELL, CELL, CELL * count), np.uint32)
    grid = np.indices((CELL,) * 3).astype(np.float64)

    def depth(centre: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
        offset: npt.NDArray[np.float64] = np.sqrt(((grid.T - centre).T ** 2).sum(0))
        return offset - radius

    for cell in range(count):
        view = volume[:, :, cell * CELL : (cell + 1) * CELL]
        first, second = rng.uniform(2.5, 6.5, 2)
        centre = CELL / 2 - 0.5 + rng.uniform(-0.5, 0.5, 3)
        if pairs is None:
            view[depth(centre, first) <= 0] = cell + 1
            continue
        direction = rng.normal(size=3) * {"z": (1, 0, 0), "xy": (0, 1, 1), "any": (1, 1, 1)}[pairs]
        direction /= np.linalg.norm(direction)
        one = depth(centre - direction * first, first)
        other = depth(centre + direction * second, second)
        view[(one <= 0) & (one <= other)] = 2 * cell + 1
        view[(other <= 0) & (other < one)] = 2 * cell + 2
    return volume


def degraded(truth: Labels, seed: int, missed: float = 0.1, jitter: int = 1) -> Labels:
    """Each section missed with this probability, the others moved by up to ``jitter`` pixels."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(truth)
    limits: Sequence[int] = truth.shape[1:]
    for z, plane in enumerate(truth):
        y, x = np.nonzero(plane)
        value = plane[y, x]
        lost = rng.random(int(truth.max()) + 1) < missed
        shift = rng.integers(-jitter, jitter + 1, (2, int(truth.max()) + 1))
        keep = ~lost[value]
        y = np.clip(y + shift[0, value], 0, limits[0] - 1)[keep]
        x = np.clip(x + shift[1, value], 0, limits[1] - 1)[keep]
        out[z, y, x] = value[keep]
    return out


if __name__ == "__main__":
    main()
