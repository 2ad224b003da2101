"""Charts of a report, as SVG that takes its colours and letters from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isgseg.analysis.report_words import number, unit_text

Floats = npt.NDArray[np.float64]

# Each stands for a colour of the page, which differs in light and dark; see `_with_page_colours`.
INK, RULE, DATA, CHANCE, OTHER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05"
_PAGE = {INK: "ink", RULE: "rule", DATA: "data", CHANCE: "chance", OTHER: "other"}
_INCHES = (4.4, 3.0)  # letters of 10 points are then 11 to 13 pixels, on a phone and on a desktop
_STYLE: Any = {
    "svg.fonttype": "none",  # letters stay letters: they can be read out, searched and copied
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.unicode_minus": True,
}
_MOST_BINS = 40
_ENOUGH_POINTS = 12  # of a curve, to say which are far from the others
_FAR = 4.0  # times the others


def curve_chart(curve: Mapping[str, Any], key: str) -> str:
    """A curve with its chance level: a line, and the band that 95 % of the placements are in.

    Args:
        curve: of a summary's `curves`.
        key: that tells the ids of this chart from those of others on the page.

    Returns:
        An `<svg>` element.
    """
    x, y = _floats(curve["x"]), _floats(curve["y"])
    with mpl.rc_context(_STYLE):
        figure, axes = _chart()
        chance = curve.get("chance")
        if chance:
            low, high = _floats(chance["low"]), _floats(chance["high"])
            axes.fill_between(x, low, high, color=CHANCE, alpha=0.25, lw=0, label="95 % by chance")
            mean = _floats(chance["mean"])
            axes.plot(x, mean, color=CHANCE, lw=1.5, ls=(0, (4, 2)), label="by chance")
        few = len(x) <= 30
        axes.plot(x, y, color=DATA, lw=2, marker="o" if few else None, ms=3.5, label="observed")
        if chance:
            axes.legend(loc="best")
        _label(axes, _axis(curve["x_label"], curve["x_unit"]))
        # Lying letters are read at once, and long ones fit.
        above = _plain(_axis(curve["y_label"], curve["y_unit"]))
        axes.set_title(above, loc="left", fontsize=10, color=INK)
        if np.isfinite(y).any() and np.nanmin(y) >= 0:
            axes.set_ylim(0, top(curve))
        return as_svg(figure, key)


def histogram(values: Floats, label: str, unit: str, key: str) -> str:
    """The distribution of a number of the granules, with its median, up to `reach`.

    Args:
        values: (N,) at least one of them finite.
        label: what they are.
        unit: of them.
        key: that tells the ids of this chart from those of others on the page.

    Returns:
        An `<svg>` element.
    """
    values = values[np.isfinite(values)]
    low, high = float(values.min()), reach(values)
    edges = np.histogram_bin_edges(values, "fd", (low, high if high > low else low + 1))
    if len(edges) > _MOST_BINS:
        edges = np.linspace(edges[0], edges[-1], _MOST_BINS + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _chart()
        axes.hist(values, edges.tolist(), color=DATA, alpha=0.85, rwidth=0.92)
        median = float(np.median(values))
        axes.axvline(median, color=OTHER, lw=1.5, ls=(0, (4, 2)))
        right = median > (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"median {number(median)} {unit_text(unit)}".rstrip(),
            (median, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-4 if right else 4, -2),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom",
            color=OTHER,
        )
        _label(axes, _axis(label, unit))
        axes.set_ylabel("granules")
        return as_svg(figure, key)


def reach(values: Floats) -> float:
    """Where the axis of a histogram ends: few far values would press the rest together."""
    return float(np.percentile(values[np.isfinite(values)], 99.5))


def top(curve: Mapping[str, Any]) -> float | None:
    """Where the axis of a curve ends, if some points are far above all others; else None.

    The first steps of a pair correlation are such: chance has hardly a pair there to divide by.
    """
    y = _floats(curve["y"])
    known = y[np.isfinite(y)]
    if len(known) < _ENOUGH_POINTS:
        return None
    chance = curve.get("chance")
    others = _floats(chance["high"]) if chance else known[:0]
    usual = max(
        np.quantile(known, 0.9),
        np.quantile(others[np.isfinite(others)], 0.9) if np.isfinite(others).any() else 0,
    )
    return float(1.25 * usual) if known.max() > _FAR * usual > 0 else None


def as_svg(figure: Figure, key: str) -> str:
    """A figure as an element for a page: no fixed size, its own ids, the page's colours."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", text)
    text = re.sub(r"font-family: [^;\"]+;?", "", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
    for colour, name in _PAGE.items():
        text = text.replace(colour, f"var(--{name})")
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _chart() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=RULE, lw=0.6, alpha=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _label(axes: Axes, text: str) -> None:
    axes.set_xlabel(_plain(text))
    axes.margins(x=0.02)


def _axis(label: str, unit: str) -> str:
    return f"{label}, {unit_text(unit)}" if unit else label


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
