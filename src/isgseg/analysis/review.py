"""Which granules a person should look at first: how doubtful each is, and why.

`isgseg.analysis.suspicion` says how likely a granule is to be mended by score, shape, size and
slices. What no network of isgseg shows often enough to be fitted is added as an independent cause
(noisy-or: Pearl 1988, Probabilistic Reasoning in Intelligent Systems, 4.3.2), set by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage as ndi

from isgseg.analysis.granules import granule_table
from isgseg.analysis.suspicion import CANDIDATE, GRANULE, UNKNOWN
from isgseg.instances.components import Bools, Labels
from isgseg.instances.merging import ball_fit
from isgseg.instances.parts import Box
from isgseg.instances.split import split

Row = Mapping[Any, Any]
Reason = tuple[float, str]  # the probability that a granule is wrong, and the words

COLUMNS = ("suspicion", "reason")

# Probabilities that are set by hand.
CONSTRICTION, TOUCHING, BORDER, SMALL = 0.7, 0.6, 0.02, 0.5
# Deviations of the logarithm of the diameter, between which the doubt rises to SMALL.
USUAL, UNUSUAL = 2.0, 4.0
ROUND = 0.7  # IoU with the ball of the same volume, from which on a shape is not odd
LARGE = 1.5  # deviations from which on the size is named as a reason
TOLD = 0.6  # logits from which on a feature is named as a reason
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
    labels: Labels,
    table: pd.DataFrame,
    threshold: float | None = None,
    usual: Usual | None = None,
) -> pd.DataFrame:
    """How likely it is that what was left out, below the threshold, is a granule after all.

    Args:
        labels: (z, y, x), with what was left out.
        table: rows of what was left out, with `best`, the highest score of its detections, or
            `score`.
        threshold: see `review_table`.
        usual: size of the granules; None: that of the table.

    Returns:
        As `review_table`.
    """
    threshold = 0.5 if threshold is None else threshold
    usual = usual or Usual.of(table)
    doubts = []
    for row in table.to_dict("records"):
        values = evidence(labels, row, usual, threshold)
        words = f"a granule after all? best score {values['best'] * threshold:.2f}, threshold "
        doubts.append((round(CANDIDATE.probability(values), 4), f"{words}{threshold:.2f}"))
    index = pd.Index(table["label"].to_numpy(), name="label")
    return pd.DataFrame(doubts, index=index, columns=list(COLUMNS))


def evidence(labels: Labels, row: Row, usual: Usual, threshold: float) -> dict[str, float]:
    """The features of a granule that `isgseg.analysis.suspicion` asks for.

    Args:
        labels: (z, y, x), with the granule.
        row: of the table.
        usual: size of the granules.
        threshold: object score threshold.
    """
    score, least = row.get("score", np.nan), max(threshold, 1e-6)
    best = row.get("best", score)
    detected = row.get("supporting_slices", np.nan)
    return {
        "score": score / least if np.isfinite(score) else UNKNOWN,
        "best": best / least if np.isfinite(best) else UNKNOWN,
        "fit": ball_fit(np.argwhere(labels[box_of(row)] == row["label"])),
        "size": float(np.log(row["equivalent_diameter_px"] / usual.diameter)) / usual.spread,
        "slices": float(detected if np.isfinite(detected) else row["slices"]),
    }


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
    values = evidence(labels, row, usual, threshold)
    causes = [
        *_of_shape(mask, values["fit"]),
        *_of_neighbours(labels, rows, label, around, values["fit"]),
        *([(BORDER, "at the border")] if row["touches_border"] else []),
        *_of_size(values["size"], row, usual),
    ]
    right = (1 - GRANULE.probability(values)) * np.prod([1 - cause for cause, _ in causes])
    words = _words(values, row, usual, threshold)
    blame = GRANULE.excess(values)
    reasons = [(blame[name], said) for name, said in words.items() if blame[name] >= TOLD]
    reasons += [(4 * cause, said) for cause, said in causes]
    reasons.sort(key=lambda reason: -reason[0])
    return round(float(1 - right), 4), "; ".join(said for _, said in reasons)


def _words(values: Mapping[str, float], row: Row, usual: Usual, threshold: float) -> dict[str, str]:
    """What is said of features, where they are a reason."""
    slices = int(values["slices"])
    words = {
        "score": f"score {values['score'] * threshold:.2f}, threshold {threshold:.2f}",
        "fit": f"odd shape: {100 * values['fit']:.0f} % of a ball",
        "slices": f"in {slices} slice{'s' if slices > 1 else ''} only",
    }
    return words | ({"size": f"large: {_across(row, usual)}"} if values["size"] > LARGE else {})


def _of_size(off: float, row: Row, usual: Usual) -> Iterable[Reason]:
    """Specks; how large a granule is counts in `GRANULE`."""
    doubt = SMALL * min((-off - USUAL) / (UNUSUAL - USUAL), 1.0)
    if doubt > 0:
        yield doubt, f"small: {_across(row, usual)}"


def _across(row: Row, usual: Usual) -> str:
    return f"{row['equivalent_diameter_px']:.1f} voxels across, usual {usual.diameter:.1f}"


def _of_shape(mask: Bools, fit: float) -> Iterable[Reason]:
    parts = int(split(mask, height=SPLIT_HEIGHT).max(initial=0)) if fit < ROUND else 1
    if parts > 1:
        yield CONSTRICTION, f"constriction: may be {parts} granules"


def _of_neighbours(
    labels: Labels, rows: Mapping[int, Row], label: int, around: Labels, fit: float
) -> Iterable[Reason]:
    """A granule that touches it, and with which it would be rounder than each by itself."""
    touching = ndi.binary_dilation(around == label, np.ones((3, 3, 3))) & (around != label)
    best = max(ROUND, fit)
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
