"""What proofreading in the order of doubt is worth: F1 after a look at 10 % of the granules.

An oracle that knows the ground truth takes the place of the person. Of each granule it says one of
accept, delete, split and merge; of one below the threshold whether it is a granule. It draws
nothing and mends no outline. The order is that of the docks, against random orders.

    python benchmarks/proofreading.py --output benchmarks/results/proofreading.json
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import Result, add_output

from isgseg.analysis.granules import granule_table
from isgseg.errors import InputError
from isgseg.evaluation.matching import match_instances
from isgseg.models.locate import shipped_model
from isgseg.napari import steps
from isgseg.napari.finding import Found, find
from isgseg.napari.session import ABSENT, ACCEPTED, OPEN, REJECTED, Session
from isgseg.phantom import make_phantom

PART = 0.5  # of an object that a granule must cover to hold it


@dataclass(frozen=True)
class Cell:
    """A synthetic cell and what the network found in it."""

    volume: np.ndarray
    ground_truth: np.ndarray
    found: Found

    def session(self) -> Session:
        """A review that begins, as the docks begin it."""
        return Session(
            self.found.shown(self.found.threshold),
            self.found.voxel_size,
            table=self.found.table,
            threshold=self.found.threshold,
            offered=self.found.labels,
        )


def look(session: Session, ground_truth: np.ndarray, label: int) -> None:
    """What the oracle says of a granule, and does with it."""
    box = session.box(label)
    absent = session.state(label) in ABSENT
    source = session.offered if absent else session.labels
    own = source[box] == label
    counts = np.bincount(ground_truth[box][own])
    counts[:1] = 0
    objects = np.flatnonzero(counts)
    sizes = {number: size_of(ground_truth, number) for number in objects.tolist()}
    iou = {n: counts[n] / (own.sum() + sizes[n] - counts[n]) for n in sizes}
    best = max(iou, key=iou.get, default=0)
    held = [n for n in sizes if counts[n] >= PART * sizes[n] and counts[n] >= 0.1 * own.sum()]
    if absent:
        taken = iou.get(best, 0) >= 0.5
        if taken:
            session.apply(steps.take_in(session, label))
        session.say([label], ACCEPTED if taken else REJECTED)
        return
    if len(held) > 1:
        middle = [np.argwhere(ground_truth == n).mean(axis=0).tolist() for n in held]
        try:
            session.apply(steps.split(session, label, middle))
        except InputError:
            session.say([label], ACCEPTED)
        return
    if iou.get(best, 0) < 0.5 and best:
        others = pieces_of(session, ground_truth, best)
        if label in others and len(others) > 1:
            session.apply(steps.merge(session, others))
            return
    if iou.get(best, 0) >= 0.5:
        session.say([label], ACCEPTED)
    else:
        session.apply(steps.delete(session, [label]))


def size_of(ground_truth: np.ndarray, number: int) -> int:
    """Voxels of an object."""
    return int((ground_truth == number).sum())


def pieces_of(session: Session, ground_truth: np.ndarray, number: int) -> list[int]:
    """The granules that lie in an object for the larger part."""
    inside = np.bincount(session.labels[ground_truth == number])
    inside[:1] = 0
    size = session.table["voxels"]
    return [n for n in np.flatnonzero(inside).tolist() if inside[n] > PART * size[n]]


def review(cell: Cell, share: float, random: np.random.Generator | None) -> tuple[Session, int]:
    """A review of a share of the granules; in the order of doubt, or in a random one."""
    session = cell.session()
    looks = round(share * len(cell.found.above(cell.found.threshold)))
    order = steps.in_order(session)
    if random is not None:
        order = random.permutation(order).tolist()
    done = 0
    for label in order:
        if done == looks:
            break
        if label in session.table.index and session.state(label) in OPEN:
            look(session, cell.ground_truth, label)
            done += 1
    return session, done


def f1(cells: list[Cell], labels: list[np.ndarray]) -> float:
    """F1 at IoU .5 of all cells together."""
    tp = fp = fn = 0
    for cell, own in zip(cells, labels, strict=True):
        matching = match_instances(own, cell.ground_truth, 0.5)
        tp, fp, fn = tp + matching.tp, fp + matching.fp, fn + matching.fn
    return 2 * tp / (2 * tp + fp + fn)


def make_cell(seed: int, shape: list[int], network: Path, keep: Path | None) -> Cell:
    """A phantom, and what the network finds in it, or has found."""
    made = make_phantom(seed, shape=shape)
    file = None if keep is None else keep / f"{seed}.npz"
    if file is not None and file.exists():
        with np.load(file) as held:
            labels, best, score, slices = (held[n] for n in ("labels", "best", "score", "slices"))
            threshold, lowest = held["thresholds"].tolist()
        table = granule_table(
            labels, made.volume, made.voxel_size, score=score, supporting_slices=slices
        )
        table["best"] = best[table["label"].to_numpy() - 1]
        found = Found(labels, table, threshold, lowest, made.voxel_size, network)
    else:
        found = find(made.volume, made.voxel_size, network, lambda *_: None)
    return Cell(made.volume, made.labels, found)


def main() -> None:
    """Labels cells, and reviews them in one order and the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3000, 3001, 3002])
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 486, 473])
    parser.add_argument("--network", type=Path, default=shipped_model())
    parser.add_argument("--keep", type=Path, help="a folder with results of the network")
    parser.add_argument("--random", type=int, default=5, help="random orders")
    add_output(parser)
    args = parser.parse_args()
    result = Result("Proofreading in the order of doubt, by an oracle", seeds=args.seeds)
    cells = [make_cell(seed, args.shape, args.network, args.keep) for seed in args.seeds]
    report(result, cells, args.random)
    result.write(args.output)


def report(result: Result, cells: list[Cell], randoms: int) -> None:
    """Adds the numbers."""
    before = f1(cells, [cell.found.shown(cell.found.threshold) for cell in cells])
    result.add("quality", "F1 before", before)
    result.add("quality", "granules", sum(len(c.found.above(c.found.threshold)) for c in cells))
    listed = sum(len(cell.found.table) for cell in cells)
    result.add("quality", "listed, with those below the threshold", listed)
    curve = {}
    for share in (0.1, 0.2):
        reviews = [review(cell, share, None) for cell in cells]
        curve[share] = f1(cells, [session.labels for session, _ in reviews]) - before
        target = ">= 0.04" if share == 0.1 else None
        name = f"F1 gained after {share:.0%} of the granules, in the order of doubt"
        result.add("quality", name, curve[share], target=target)
    gains = []
    for seed in range(randoms):
        random = np.random.default_rng(seed)
        labels = [review(cell, 0.1, random)[0].labels for cell in cells]
        gains.append(f1(cells, labels) - before)
    result.add("quality", "F1 gained after 10%, in a random order, mean", float(np.mean(gains)))
    ratio = curve[0.1] / max(float(np.mean(gains)), 1e-9)
    result.add("quality", "order of doubt over random order", ratio, target=">= 2")
    result.details["random gains"] = gains


if __name__ == "__main__":
    main()
