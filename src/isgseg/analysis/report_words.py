"""Numbers, units and warnings of a report, in words that need no manual."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

UNKNOWN = "not known"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SHORT = {"nn": "nearest neighbour", "sd": "standard deviation of", "lac": "LAC"}
_UNITS = {"nm", "um2", "um3", "nm3", "px"}  # at the end of a column's name
_TITLES = {
    "g": "Pair correlation g(r)",
    "k": "Ripley's K",
    "l": "Ripley's L",
    "radial_profile": "From nucleus to membrane",
    "count": "Granules",
    "clark_evans": "Clark-Evans ratio",
    "intensity_with_position": "Intensity against position",
}
_NAMES = {"membrane": "the plasma membrane", "nucleus": "the nucleus"}  # of structures
_OF_STRUCTURES = {
    "contacts_": "Contacts with",
    "contact_share_": "Share in contact with",
    "near_share_": "Share near",
    "mean_gap_": "Mean gap to",
    "intensity_with_gap_": "Intensity against gap to",
    "within_": "Granules within a distance of",
    "gap_": "Gap to",
    "near_": "Nearest voxel to",
}
_SIGNIFICANT = 0.05
_FEW = 30  # granules; below, curves are mostly noise
_THIN = 5.0  # voxels across; below, a granule's shape and size are coarse


def number(value: float | None, digits: int = 3) -> str:
    """A number as people write it.

    >>> number(1234.5), number(0.01234), number(None)
    ('1,234', '0.0123', 'not known')

    Args:
        value: None or NaN where it is not known.
        digits: that count; whole numbers below a million keep theirs.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0 or (value == int(value) and abs(value) < 1e6):
        return f"{value:,.0f}".replace("-", MINUS)
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -4 <= power < 6:
        text = f"{value:,.{max(digits - 1 - power, 0)}f}"
        if "." in text and digits - 1 - power > 3:
            text = text.rstrip("0")
        return text.replace("-", MINUS)
    mantissa = f"{value / 10.0**power:.{digits}g}".replace("-", MINUS)
    return f"{mantissa} {TIMES} 10{str(power).translate(_POWERS)}"


def unit_text(unit: str) -> str:
    """A unit as people write it.

    >>> unit_text("1/um3"), unit_text("nm"), unit_text("um2")
    ('per µm³', 'nm', 'µm²')
    """
    text = unit.replace("um", "µm").replace("1/", "per ")
    return re.sub(r"(?<=[a-zµ])\d", lambda found: found[0].translate(_POWERS), text)


def with_unit(value: float | None, unit: str) -> str:
    """A number and its unit; without one where the number is not known."""
    text = number(value)
    return text if text == UNKNOWN or not unit else f"{text}\N{NO-BREAK SPACE}{unit_text(unit)}"


def title(name: str) -> str:
    """The name of a measure, a curve or a column, to be read.

    >>> title("nn_distance"), title("gap_membrane"), title("near_share_mitochondria")
    ('Nearest neighbour distance', 'Gap to the plasma membrane', 'Share near mitochondria')
    """
    if name in _TITLES:
        return _TITLES[name]
    for pattern, beginning in _OF_STRUCTURES.items():
        if name.startswith(pattern):
            structure = name.removeprefix(pattern)
            return f"{beginning} {_NAMES.get(structure, structure.replace('_', ' '))}"
    words = [_SHORT.get(word, word) for word in name.split("_") if word and word not in _UNITS]
    text = " ".join(words)
    if name.endswith("_density_cell"):
        text = text.removesuffix(" cell") + ", whole cell"
    return text[:1].upper() + text[1:]


def is_share(name: str, unit: str) -> bool:
    """Whether a measure is a part of a whole, which people read as per cent."""
    return not unit and ("share" in name.split("_") or name.startswith("volume_density"))


def measured(name: str, value: float | None, unit: str) -> str:
    """A measure's value with its unit; a share in per cent."""
    if is_share(name, unit) and value is not None:
        return with_unit(100 * value, "%")
    return with_unit(value, unit)


def p_text(p: float | None) -> str:
    """A p value; empty where there is none."""
    if p is None or not math.isfinite(p):
        return ""
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def against_chance(value: float | None, chance: Mapping[str, Any] | None) -> str:
    """Whether a number is below, within or above what chance gives; empty where not known.

    A p decides where there is one, and the range of 95 % of the placements where there is none.
    """
    if value is None or not chance or chance.get("low") is None or chance.get("high") is None:
        return ""
    low, high = chance["low"], chance["high"]
    p = chance.get("p")
    if p is not None:
        apart = p <= _SIGNIFICANT
        low, high = (chance["mean"], chance["mean"]) if apart else (value, value)
    if value < low:
        return "below chance"
    return "above chance" if value > high else "as by chance"


def reading(curve: Mapping[str, Any]) -> str:
    """Where a curve leaves its chance band, as a sentence; empty without a band."""
    chance = curve.get("chance")
    if not chance:
        return ""
    kinds = [
        against_chance(y, {"low": low, "high": high})
        for y, low, high in zip(curve["y"], chance["low"], chance["high"], strict=True)
    ]
    if not any(kinds):
        return ""
    parts = []
    for kind in ("above chance", "below chance"):
        if spans := _spans(curve["x"], [each == kind for each in kinds]):
            unit = f"\N{NO-BREAK SPACE}{unit_text(curve['x_unit'])}" if curve["x_unit"] else ""
            parts.append(f"{kind} at {' and '.join(spans[:2])}{unit}")
            if len(spans) > 2:
                parts[-1] += f" and in {count(len(spans) - 2, 'more place')}"
    if not parts:
        return "Nowhere outside of what chance gives."
    return f"The curve is {'; '.join(parts)}."


def _spans(x: Sequence[float], chosen: Sequence[bool]) -> list[str]:
    """The ranges of x in which something holds."""
    spans: list[list[float]] = []
    previous = False
    for value, holds in zip(x, chosen, strict=True):
        if holds and previous:
            spans[-1][1] = value
        elif holds:
            spans.append([value, value])
        previous = holds
    return [
        number(low) if low == high else f"{number(low)} to {number(high)}" for low, high in spans
    ]


def warnings(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers, each a sentence or two.

    Args:
        table: of `granule_table`.
        summary: its own warnings come first.
    """
    found, total = list(summary["warnings"]), len(table)
    thin = int((table["equivalent_diameter_px"] < _THIN).sum())
    if thin > 0.1 * total:
        found.append(
            f"{count(thin, 'granule')} of {total:,} {'is' if thin == 1 else 'are'} less than "
            f"{_THIN:g} voxels across; their sizes are coarse, and their shapes hardly known."
        )
    if 0 < total < _FEW:
        are = "is" if total == 1 else "are"
        found.append(f"There {are} only {count(total, 'granule')}; curves are mostly noise.")
    return found


def count(how_many: int, noun: str) -> str:
    """`1 granule`, `1,200 granules`."""
    return f"{how_many:,} {noun}{'' if how_many == 1 else 's'}"


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as dotted keys and values, as the command line writes them."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows += flat(value, f"{prefix}{key}.")
        else:
            words = {None: "null", True: "true", False: "false"}
            plain = value is None or isinstance(value, bool)
            rows.append((f"{prefix}{key}", words[value] if plain else str(value)))
    return rows
