"""Numbers and curves of a cell, each beside its chance level, and the JSON file of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.io.atomic import replacing

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Chance:
    """What placements by chance give.

    Attributes:
        mean: of the placements.
        low: their 2.5 % quantile.
        high: their 97.5 % quantile.
        p: two-sided rank of what was observed among them; None of curves.
    """

    mean: Any
    low: Any
    high: Any
    p: float | None = None


@dataclass(frozen=True)
class Measure:
    """One number of a cell.

    Attributes:
        value: NaN where it is not known.
        unit: such as `1/um3`; empty for a ratio.
        about: one sentence that says what it is.
        chance: None where there is no chance level.
    """

    value: float
    unit: str
    about: str
    chance: Chance | None = None


@dataclass(frozen=True)
class Curve:
    """A function of a distance or position of a cell.

    Attributes:
        x: (N,).
        y: (N,), NaN where it is not known.
        x_label: what x is.
        x_unit: of x.
        y_label: what y is.
        y_unit: of y.
        about: one sentence that says what it is.
        chance: with (N,) arrays; None where there is no chance level.
    """

    x: Floats
    y: Floats
    x_label: str
    x_unit: str
    y_label: str
    y_unit: str
    about: str
    chance: Chance | None = None


@dataclass(frozen=True)
class CellNumbers:
    """What is known of a cell as a whole.

    Attributes:
        measures: by name.
        curves: by name.
        warnings: what a reader of the numbers must know, each a sentence.
    """

    measures: dict[str, Measure] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def chance_of(observed: float, placed: npt.ArrayLike) -> Chance | None:
    """The chance level of a number, with the two-sided rank p of what was observed.

    p = min(1, 2 min(1 + #(placed <= observed), 1 + #(placed >= observed)) / (1 + placements)): of
    99 placements .02 at least. See Davison and Hinkley, Bootstrap Methods and their Application,
    1997, chapter 4.

    Args:
        observed: the number of the cell.
        placed: (M,), the same number of each placement; NaN is left out.

    Returns:
        None where nothing was placed, or nothing is known.
    """
    values = np.asarray(placed, float)
    values = values[np.isfinite(values)]
    if not len(values) or not np.isfinite(observed):
        return None
    tails = (values <= observed).sum(), (values >= observed).sum()
    p = min(1.0, 2 * (1 + int(min(tails))) / (1 + len(values)))
    low, high = np.quantile(values, [0.025, 0.975])
    return Chance(float(values.mean()), float(low), float(high), p)


def chance_of_curve(placed: npt.ArrayLike) -> Chance | None:
    """The chance level of a curve; None where nothing was placed.

    Args:
        placed: (M, N), the same curve of each placement.
    """
    values = np.asarray(placed, float)
    if not len(values):
        return None
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return Chance(values.mean(axis=0), low, high)


def write_summary(path: Path, facts: Mapping[str, Any], numbers: CellNumbers) -> dict[str, Any]:
    """Writes JSON, whole or not at all; what is not known is null. Its folder is created.

    Args:
        path: of the file.
        facts: plain values that stand before the numbers.
        numbers: of the cell.

    Returns:
        What the file holds.
    """
    content: dict[str, Any] = plain(
        {
            **facts,
            "warnings": list(numbers.warnings),
            "measures": {name: asdict(measure) for name, measure in numbers.measures.items()},
            "curves": {name: asdict(curve) for name, curve in numbers.curves.items()},
        }
    )
    with replacing(path) as scratch:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        scratch.write_text(text + "\n", encoding="utf-8")
    return content


def plain(value: Any) -> Any:
    """Arrays as lists, numpy's numbers as Python's, and NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
