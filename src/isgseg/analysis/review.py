"""Which granules a person should look at first: how doubtful each is, and why.

Each reason for doubt stands for a probability that the granule is wrong, and they add up as
independent causes do (noisy-or: Pearl 1988, Probabilistic Reasoning in Intelligent Systems, 4.3.2).
The probabilities are set by hand; `benchmarks/proofreading.py` measures what the order is worth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from isgseg.analysis.granules import granule_table
from isgseg.instances.components import Bools, Labels
from isgseg.instances.merging import ball_fit
from isgseg.instances.parts import Box
from isgseg.instances.split import split

Row = Mapping[Any, Any]
Reason = tuple[float, str]  # the probability that a granule is wrong, and the words

COLUMNS = ("suspicion", "reason")

# The largest probability of each reason.
SHAPE, CONSTRICTION, TOUCHING, BORDER, SIZE = 0.65, 0.85, 0.6, 0.05, 0.5
ONE_SLICE, TWO_SLICES = 0.3, 0.1
# By the score over the threshold; the mean score of a granule may be below it, its best is not.
SCORES, DOUBTS = (0.8, 1.0, 1.3, 1.5, 1.7), (0.7, 0.4, 0.2, 0.08, 0.0)
# By the best score over the threshold: that what was left out is a granule after all. One that was
# missed costs twice as much F1 as one too many.
NEAR, MISSED = (0.7, 0.8, 0.9, 1.0), (0.0, 0.15, 0.35, 0.7)
FITS, LIKELY = (0.55, 0.8), (0.5, 1.3)  # a round one more likely is one
ROUND = 0.8  # IoU with the ball of the same volume, from which on a shape is not odd
ODD = 0.45  # IoU at which it is as odd as can be: two balls side by side have .5
USUAL, UNUSUAL = 2.0, 4.0  # deviations of the logarithm of the diameter; the doubt rises between
SPLIT_HEIGHT = 0.05  # voxels; as `split_height` of `conf/segmentation/`


@dataclass(frozen=True)
class Usual:
    """The usual size of a cell's granules.

    Attributes:
        diameter: the median, voxels.
        spread: of the logarithm of the diameter: 1.4826 times the median absolute deviation.
    """

    diameter: float
    spread: float

    @classmethod
    def of(cls, table: pd.DataFrame) -> Usual:
        """That of a table of `granule_table`; a fifth is the least spread."""
        if not len(table):
            return cls(1.0, 1.0)
        size = np.log(table["equivalent_diameter_px"].to_numpy(float))
        middle = float(np.median(size))
        return cls(float(np.exp(middle)), max(1.4826 * float(np.median(abs(size - middle))), 0.2))


def review_table(
    labels: Labels, table: pd.DataFrame | None = None, threshold: float | None = None
) -> pd.DataFrame:
    """How doubtful each granule is.

    Args:
        labels: (z, y, x), unsigned integers, 0 is background.
        table: of `granule_table`, one row a label; None makes it, without scores.
        threshold: object score threshold that the granules have passed; None: .5.

    Returns:
        Indexed by label: `suspicion`, from 0 to 1, and `reason`, words, the gravest first, empty
        where there is none.
    """
    if table is None:
        table = granule_table(labels)
    return review_rows(labels, table, table["label"].tolist(), Usual.of(table), threshold)


def review_rows(
    labels: Labels,
    table: pd.DataFrame,
    wanted: Sequence[int],
    usual: Usual,
    threshold: float | None = None,
) -> pd.DataFrame:
    """As `review_table`, of some granules only, as after an edit.

    Args:
        labels: (z, y, x).
        table: of all granules.
        wanted: labels, all in the table.
        usual: size of the granules.
        threshold: see there.
    """
    rows: dict[int, Row] = {int(row["label"]): row for row in table.to_dict("records")}
    threshold = 0.5 if threshold is None else threshold
    doubts = [_doubt(labels, rows, label, usual, threshold) for label in wanted]
    index = pd.Index(np.asarray(wanted, np.int64), name="label")
    return pd.DataFrame(doubts, index=index, columns=list(COLUMNS))


def review_offered(
    labels: Labels, table: pd.DataFrame, threshold: float | None = None
) -> pd.DataFrame:
    """How likely it is that what was left out, below the threshold, is a granule after all.

    Args:
        labels: (z, y, x), with what was left out.
        table: rows of what was left out, with `best`, the highest score of its detections, or
            `score`.
        threshold: see `review_table`.

    Returns:
        As `review_table`.
    """
    threshold = 0.5 if threshold is None else threshold
    best = table["best" if "best" in table else "score"].to_numpy(float)
    doubts = np.interp(np.nan_to_num(best) / max(threshold, 1e-6), NEAR, MISSED)
    for place, row in enumerate(table.to_dict("records")):
        if doubts[place] > 0:
            fit = ball_fit(np.argwhere(labels[box_of(row)] == row["label"]))
            doubts[place] *= np.interp(fit, FITS, LIKELY)
    words = [
        f"a granule after all? best score {one:.2f}, threshold {threshold:.2f}" for one in best
    ]
    index = pd.Index(table["label"].to_numpy(), name="label")
    return pd.DataFrame({"suspicion": doubts.round(4), "reason": words}, index=index)


def in_order(reviewed: pd.DataFrame) -> list[int]:
    """The labels, the most doubtful first, equals by number.

    Args:
        reviewed: of `review_table`.
    """
    order = np.lexsort([reviewed.index.to_numpy(), -reviewed["suspicion"].to_numpy(float)])
    labels: list[int] = reviewed.index.to_numpy()[order].tolist()
    return labels


def box_of(row: Any, margin: int = 0) -> Box:
    """The bounding box of a row of the table, and some voxels around it inside of the volume."""
    return tuple(
        slice(max(int(row[f"{axis}0"]) - margin, 0), int(row[f"{axis}1"]) + margin)
        for axis in "zyx"
    )


def _doubt(
    labels: Labels, rows: Mapping[int, Row], label: int, usual: Usual, threshold: float
) -> tuple[float, str]:
    """The suspicion and the reasons of one granule."""
    row = rows[label]
    around = labels[box_of(row, 1)]
    mask = around == label
    fit = ball_fit(np.argwhere(mask))
    reasons = [
        *_of_score(row, threshold),
        *_of_shape(mask, fit),
        *_of_neighbours(labels, rows, label, around, fit),
        *_of_place(row),
        *_of_size(row, usual),
    ]
    reasons.sort(key=lambda reason: -reason[0])
    right = np.prod([1 - probability for probability, _ in reasons])
    return round(float(1 - right), 4), "; ".join(words for _, words in reasons)


def _of_score(row: Row, threshold: float) -> Iterable[Reason]:
    score = row.get("score", np.nan)
    if not np.isfinite(score):
        return
    doubt = float(np.interp(score / max(threshold, 1e-6), SCORES, DOUBTS))
    if doubt > 0:
        yield doubt, f"score {score:.2f}, threshold {threshold:.2f}"


def _of_shape(mask: Bools, fit: float) -> Iterable[Reason]:
    if fit >= ROUND:
        return
    parts = int(split(mask, height=SPLIT_HEIGHT).max(initial=0))
    if parts > 1:
        yield CONSTRICTION, f"constriction: may be {parts} granules"
    odd = min((ROUND - fit) / (ROUND - ODD), 1.0)
    if odd > 0.2:
        yield SHAPE * odd, f"odd shape: {100 * fit:.0f} % of a ball"


def _of_neighbours(
    labels: Labels, rows: Mapping[int, Row], label: int, around: Labels, fit: float
) -> Iterable[Reason]:
    """A granule that touches it, and with which it would be rounder than each by itself."""
    touching = ndi.binary_dilation(around == label, np.ones((3, 3, 3))) & (around != label)
    best = max(ROUND - 0.1, fit)
    for other in np.unique(around[touching & (around > 0)]).tolist():
        if other not in rows:
            continue
        pair = box_of(rows[label]), box_of(rows[other])
        box = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*pair, strict=True)
        )
        both = np.argwhere((labels[box] == label) | (labels[box] == other))
        alone = ball_fit(np.argwhere(labels[pair[1]] == other))
        if ball_fit(both) > max(best, alone):
            yield TOUCHING, f"may be one granule with {other}"
            return


def _of_place(row: Row) -> Iterable[Reason]:
    if row["touches_border"]:
        yield BORDER, "at the border"
    detected = row.get("supporting_slices", np.nan)
    slices = int(detected if np.isfinite(detected) else row["slices"])
    if slices <= 2:
        words = f"in {slices} slice{'s' if slices > 1 else ''} only"
        yield (ONE_SLICE if slices <= 1 else TWO_SLICES), words


def _of_size(row: Row, usual: Usual) -> Iterable[Reason]:
    diameter = row["equivalent_diameter_px"]
    off = float(np.log(diameter / usual.diameter)) / usual.spread
    doubt = min(max((abs(off) - USUAL) / (UNUSUAL - USUAL), 0.0), 1.0)
    if doubt > 0:
        size = "small" if off < 0 else "large"
        yield SIZE * doubt, f"{size}: {diameter:.1f} voxels across, usual {usual.diameter:.1f}"
