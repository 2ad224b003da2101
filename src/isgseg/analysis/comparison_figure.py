"""Box plots of the measures of many cells, one panel a measure, one point a cell."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isgseg.io.atomic import replacing

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # Okabe and Ito
_COLUMNS = 4
_PANEL = (3.2, 3.0)  # inches
_MOST_PANELS = 60  # of one figure; the tables have the rest


def comparison_figure(
    cells: pd.DataFrame, tests: pd.DataFrame, units: Mapping[str, str], path: Path
) -> Path:
    """Draws one panel a measure: box and median of each condition, each cell as a point.

    The whiskers reach to the least and the largest cell. Below a title stand p and adjusted p; with
    more than two conditions those of the surest difference.

    Args:
        cells: of `isgseg.analysis.conditions.cell_table`.
        tests: of `isgseg.analysis.comparison.difference_table`.
        units: of each measure to draw; the first 60 are drawn.
        path: of the image; its folder is created.
    """
    measures = list(units)[:_MOST_PANELS]
    columns = min(_COLUMNS, len(measures))
    rows = math.ceil(len(measures) / columns)
    figure = Figure(
        figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.3), dpi=120, layout="constrained"
    )
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    names = list(dict.fromkeys(cells["condition"]))
    for axes, measure in zip(panels, measures, strict=False):
        values = [cells.loc[cells["condition"] == name, measure].dropna() for name in names]
        _boxes(axes, [part.to_numpy(float) for part in values])
        axes.set_xticks(
            range(len(names)),
            [
                f"{_plain(textwrap.fill(_short(name, 36), 12))}\n{len(part)} cells"
                for name, part in zip(names, values, strict=True)
            ],
        )
        axes.tick_params(labelsize=8)
        axes.set_ylabel(_plain(units[measure]), fontsize=9)
        said = _said(tests[tests["measure"] == measure])
        axes.set_title(f"{_plain(measure)}\n{said}", fontsize=9)
    for axes in panels[len(measures) :]:
        axes.set_axis_off()
    with replacing(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:] or "png")
    return path


def _boxes(axes: Axes, values: list[np.ndarray]) -> None:
    random = np.random.default_rng(0)  # the jitter is the same in each run
    for place, part in enumerate(values):
        colour = COLOURS[place % len(COLOURS)]
        if not len(part):
            continue
        axes.boxplot(
            [part],
            positions=[place],
            widths=0.5,
            whis=(0, 100),
            showfliers=False,
            manage_ticks=False,
            medianprops={"color": colour, "linewidth": 2},
            boxprops={"color": "0.4"},
            whiskerprops={"color": "0.4"},
            capprops={"color": "0.4"},
        )
        jitter = random.uniform(-0.12, 0.12, len(part)) * (len(part) > 1)
        axes.plot(place + jitter, part, "o", color=colour, ms=5, alpha=0.75, mec="white", mew=0.5)
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.grid(axis="y", alpha=0.25)


def _said(tests: pd.DataFrame) -> str:
    """The p of the surest difference of a measure."""
    if not len(tests) or tests["p"].isna().all():
        return "not tested"
    best = tests.sort_values("p", kind="stable").iloc[0]
    against = f"{_plain(_short(best['condition']))}: " if len(tests) > 1 else ""
    return f"{against}p {best['p']:.2g}, adjusted {best['p_adjusted']:.2g}"


def _plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
