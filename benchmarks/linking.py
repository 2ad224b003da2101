"""What linking label slices costs, and how well it works.

Run `python benchmarks/linking.py --output benchmarks/results/linking.json`. The rows of vesicles
need `vesicle_labels/labels.npz` in the folder that ISGSEG_TEST_DATA names (unset:
`../shared/data`, seen from the project's folder); without it they are left out.
"""

from __future__ import annotations

import argparse
import resource
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output, public_data

from isgseg.evaluation.matching import Matching, match_instances
from isgseg.instances.linking import SliceLinker, link_slices

Labels = npt.NDArray[Any]
CELL = 32  # voxels of room for one sphere, or one pair


def main() -> None:
    """Measures a full-size volume, real shapes, and simulated slices with known answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    args = parser.parse_args()
    result = Result("Linking label slices to granules", seeds=[0, 1, 2, 3, 4, 5])
    full_size(result)  # first: an earlier peak would hide its memory
    vesicles(result)
    alone = spheres(1000, seed=1)
    splits = score(alone, alone).splits
    result.add("quality", "spheres, perfect slices: splits", splits, target="<= 0")
    # Of 1,000 alone the result would swing by a fifth; most errors are two missing in a row.
    lost = [degraded(alone, seed=seed) for seed in range(4)]
    for max_gap, target in ((1, "<= 0.03"), (2, None)):
        found = [score(slices, alone, max_gap=max_gap) for slices in lost]
        errors = float(np.mean([share(f, f.splits + f.merges) for f in found]))
        name = f"10 % of masks missing, 1 px jitter, max_gap={max_gap}: splits + merges"
        result.add("quality", name, errors, target=target)
    for axis, name in (("z", "along z"), ("xy", "in plane"), ("any", "in any direction")):
        kept = kept_pairs(spheres(500, seed=3, pairs=axis))
        result.add("quality", f"touching pairs {name}: both kept", kept, target=">= 0.95")
    result.write(args.output)


def vesicles(result: Result) -> None:
    """Real shapes: large vesicles in electron microscopy, their numbers shuffled slice by slice."""
    path = public_data() / "vesicle_labels" / "labels.npz"
    if not path.is_file():
        print(f"vesicles: skipped, no {path}")
        return
    with np.load(path) as data:
        ground_truth, voxel_size = data["labels"], data["voxel_size_nm"].tolist()
    found = score(ground_truth, ground_truth, voxel_size=voxel_size)
    result.add("quality", "vesicles: PQ", found.pq, target=">= 0.970")
    result.add("quality", "vesicles: splits", share(found, found.splits), target="<= 0.01")
    result.add("quality", "vesicles: merges", share(found, found.merges), target="<= 0.01")


def full_size(result: Result) -> None:
    """473 x 473 x 486 voxels with 6,000 granules: time and memory."""
    volume, expected = crowded()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    link(volume)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = "6,000 granules in 473 slices"
    result.add("quality", f"{size}: PQ", match_instances(volume, expected).pq)
    result.add("speed", f"{size}: linking", seconds, "s", target="<= 15")
    result.add("memory", f"{size}: growth of resident memory", grown, "MB", target="<= 500")
    tracemalloc.start()
    link(volume)
    traced = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    result.add("memory", f"{size}: traced peak", traced, "MB", target="<= 500")


def crowded() -> tuple[Labels, Labels]:
    """A volume with 6,000 balls whose numbers are shuffled in each slice, and the ground truth."""
    rng = np.random.default_rng(5)
    volume = np.zeros((473, 473, 486), np.uint16)
    count = 0
    offsets = [ball(r, np.zeros(3)) for r in np.linspace(2.5, 6.5, 9)]
    while count < 6000:
        place = (rng.random(3) * (np.array(volume.shape) - 16)).astype(int) + 8
        z, y, x = (offsets[rng.integers(len(offsets))] + place[:, None]).astype(int)
        if not volume[z, y, x].any():
            count += 1
            volume[z, y, x] = count
    expected = volume.copy()
    for z in range(len(volume)):
        volume[z] = shuffled(volume[z], rng)
    return volume, expected


def link(volume: Labels) -> None:
    """Links the slices of a volume in place, as prediction does: one after the other."""
    linker = SliceLinker()
    for plane in volume:
        linker.add(plane)
    linker.finish().apply(volume)


def share(found: Matching, count: int) -> float:
    return count / (found.tp + found.fn)


def score(slices: Labels, ground_truth: Labels, **settings: Any) -> Matching:
    """Shuffle the numbers in each slice, link, and compare with the ground truth."""
    rng = np.random.default_rng(0)
    mixed = np.stack([shuffled(plane, rng) for plane in slices])
    return match_instances(link_slices(mixed, **settings), ground_truth)


def kept_pairs(ground_truth: Labels) -> float:
    """Share of pairs (2k - 1, 2k) both of which are found."""
    outcomes = score(ground_truth, ground_truth).ground_truth
    found = outcomes.label[outcomes.outcome == "matched"]
    pairs = np.bincount((found - 1) // 2, minlength=(int(ground_truth.max()) + 1) // 2)
    return float((pairs == 2).mean())


def shuffled(plane: Labels, rng: np.random.Generator) -> Labels:
    """(y, x) the same masks under numbers drawn anew."""
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
        pairs: how pairs lie: `z`, `xy` or `any`; None: single spheres.

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


def degraded(
    ground_truth: Labels, seed: int, false_negatives: float = 0.1, jitter: int = 1
) -> Labels:
    """Each 2D mask is missing with this probability; the others move by up to `jitter` pixels."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(ground_truth)
    limits: Sequence[int] = ground_truth.shape[1:]
    for z, plane in enumerate(ground_truth):
        y, x = np.nonzero(plane)
        value = plane[y, x]
        lost = rng.random(int(ground_truth.max()) + 1) < false_negatives
        shift = rng.integers(-jitter, jitter + 1, (2, int(ground_truth.max()) + 1))
        keep = ~lost[value]
        y = np.clip(y + shift[0, value], 0, limits[0] - 1)[keep]
        x = np.clip(x + shift[1, value], 0, limits[1] - 1)[keep]
        out[z, y, x] = value[keep]
    return out


if __name__ == "__main__":
    main()
