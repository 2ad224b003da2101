"""What proofreading in the order of doubt is worth: F1 after a look at 10 % of the granules.

An oracle that knows the ground truth takes the place of the person; see `oracle.py`. The order is
that of the docks, against random orders. `--fit` prints the numbers of `isgseg.analysis.suspicion`
instead, by which the docks order granules; they are fitted to other cells than those of the result.

    python benchmarks/proofreading.py --output benchmarks/results/proofreading.json
    python benchmarks/proofreading.py --fit --seeds 2000 2001 2002 3000 3001 3002
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from oracle import WORTH, Oracle
from record import Result, add_output

from isgseg.analysis.granules import granule_table
from isgseg.analysis.review import evidence
from isgseg.analysis.suspicion import CANDIDATE, GRANULE, Card
from isgseg.evaluation.matching import match_instances
from isgseg.models.locate import shipped_model
from isgseg.napari import steps
from isgseg.napari.finding import Found, find
from isgseg.napari.session import ABSENT, OPEN, Session
from isgseg.phantom import make_phantom


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


def review(
    cell: Cell, share: float, random: np.random.Generator | None = None, draw: bool = True
) -> np.ndarray:
    """The labels after a review of a share of the granules.

    Args:
        cell: is not changed.
        share: of the granules above the threshold; looks at candidates count as looks.
        random: None: the order of doubt.
        draw: see `Oracle`.
    """
    session = cell.session()
    oracle = Oracle(session, cell.ground_truth, draw)
    looks = round(share * len(cell.found.above(cell.found.threshold)))
    order = steps.in_order(session)
    if random is not None:
        order = random.permutation(order).tolist()
    done = 0
    for label in order:
        if done == looks:
            break
        if label in session.table.index and session.state(label) in OPEN:
            oracle.look(label)
            done += 1
    return session.labels


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
        if file is not None:
            keep_found(found, file)
    return Cell(made.volume, made.labels, found)


def keep_found(found: Found, file: Path) -> None:
    """Writes what the network found, for a later run."""
    of = found.table.set_index("label").reindex(range(1, int(found.labels.max(initial=0)) + 1))
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file,
        labels=found.labels,
        best=of["best"],
        score=of["score"],
        slices=of["supporting_slices"],
        thresholds=[found.threshold, found.lowest],
    )


def main() -> None:
    """Labels cells, and reviews them in one order and the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3006, 3007, 3008])
    parser.add_argument("--shape", type=int, nargs=3, default=[48, 486, 473])
    parser.add_argument("--network", type=Path, default=shipped_model())
    parser.add_argument("--keep", type=Path, help="a folder for results of the network")
    parser.add_argument("--random", type=int, default=5, help="random orders")
    parser.add_argument("--fit", action="store_true", help="print the numbers of the order")
    add_output(parser)
    args = parser.parse_args()
    result = Result("Proofreading in the order of doubt, by an oracle", seeds=args.seeds)
    cells = [make_cell(seed, args.shape, args.network, args.keep) for seed in args.seeds]
    if args.fit:
        fit(cells)
    else:
        report(result, cells, args.random)
        result.write(args.output)


def report(result: Result, cells: list[Cell], randoms: int) -> None:
    """Adds the numbers."""
    before = f1(cells, [cell.found.shown(cell.found.threshold) for cell in cells])

    def gain(share: float, random: np.random.Generator | None = None, draw: bool = True) -> float:
        return f1(cells, [review(cell, share, random, draw) for cell in cells]) - before

    granules = sum(len(cell.found.above(cell.found.threshold)) for cell in cells)
    result.add("quality", "F1 before", before)
    result.add("quality", "granules", granules)
    listed = sum(len(cell.found.table) for cell in cells)
    result.add("quality", "listed, with those below the threshold", listed)
    doubt = gain(0.1)
    name = "F1 gained after {} of the granules, in the order of doubt"
    result.add("quality", name.format("10%"), doubt, target=">= 0.04")
    result.add("quality", name.format("20%"), gain(0.2))
    gains = [gain(0.1, np.random.default_rng(seed)) for seed in range(randoms)]
    result.add("quality", "F1 gained after 10%, in a random order, mean", float(np.mean(gains)))
    ratio = doubt / max(float(np.mean(gains)), 1e-9)
    result.add("quality", "order of doubt over random order", ratio, target=">= 2")
    alone = gain(0.1, draw=False)
    result.add("quality", "F1 gained after 10%, when nothing is drawn", alone)
    result.details["random gains"] = gains


def fit(cells: list[Cell]) -> None:
    """Prints the numbers of `isgseg.analysis.suspicion`, for these cells."""
    for name, card, absent in (("GRANULE", GRANULE, False), ("CANDIDATE", CANDIDATE, True)):
        rows, worth = [], []
        for cell in cells:
            session = cell.session()
            oracle = Oracle(session, cell.ground_truth)
            threshold = cell.found.threshold
            source = session.offered if absent else session.labels
            of = session.table[session.table["state"].isin(ABSENT) == absent]
            for row in of.to_dict("records"):
                rows.append(evidence(source, row, session.usual, threshold))
                worth.append(WORTH.get(oracle.answer(row["label"])[0], 0.0))
        bias, values = fitted(card, rows, np.array(worth))
        share = np.count_nonzero(worth) / len(worth)
        print(f"{name}: {len(rows)} rows, {share:.3f} to be mended\nbias {bias:.2f}")
        for feature, numbers in values.items():
            print(f"    {feature}: {card.points[feature][0]}, {[round(v, 2) for v in numbers]}")


def fitted(
    card: Card, rows: list[dict[str, float]], worth: np.ndarray, ridge: float = 1.0
) -> tuple[float, dict[str, list[float]]]:
    """Logistic regression on the card's knots, with a ridge, by Newton's method.

    Rows that are to be mended (worth > 0) weigh as much as that is worth, others 1.
    """
    parts = [np.ones((len(rows), 1))]
    for feature, (knots, _) in card.points.items():
        of = np.array([row[feature] for row in rows])
        parts.append(np.stack([np.interp(of, knots, unit) for unit in np.eye(len(knots))], axis=1))
    design = np.concatenate(parts, axis=1)
    weights = np.zeros(design.shape[1])
    penalty = ridge * np.eye(len(weights))
    penalty[0, 0] = 1e-6
    mended, mass = worth > 0, np.where(worth > 0, worth, 1.0)
    for _ in range(50):
        likely = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (mass * (mended - likely)) - penalty @ weights
        curve = (design * (mass * likely * (1 - likely))[:, None]).T @ design + penalty
        weights += np.linalg.solve(curve, slope)
    bounds = np.cumsum([1, *(part.shape[1] for part in parts[1:])])
    return float(weights[0]), {
        feature: weights[a:b].tolist()
        for feature, a, b in zip(card.points, bounds[:-1], bounds[1:], strict=True)
    }


if __name__ == "__main__":
    main()
