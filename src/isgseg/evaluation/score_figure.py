"""Precision against recall, and the scores of true and of false positives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from isgseg.evaluation.thresholds import Matches, OperatingPoint, sweep

_COLOURS = ("#0072b2", "#d55e00", "#009e73")  # told apart by the colour-blind


def score_figure(matches: Matches, points: Mapping[str, OperatingPoint]) -> Figure:
    """Draws the curve at each point's mask threshold, and the histogram at that of the first one.

    Args:
        matches: of all images.
        points: operating points to mark, by name; at least one.
    """
    figure = Figure(figsize=(11, 4.5), dpi=110, layout="constrained")
    curve, histogram = figure.subplots(1, 2)
    for colour, (name, point) in zip(_COLOURS, points.items(), strict=False):
        _, detections, hits = sweep(matches, point.mask_threshold)
        curve.plot(hits / max(matches.ground_truths, 1), hits / detections, color=colour, lw=1.5)
        at = f"score {point.threshold:.2f}, mask {point.mask_threshold:g}"
        text = f"{name}: {at}, F1 {point.f1:.3f}"
        curve.plot(point.recall, point.precision, "o", color=colour, label=text)
        histogram.axvline(point.threshold, color=colour, ls="--", lw=1)
    curve.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    curve.set_title(f"{matches.ground_truths} objects, mask IoU .5", fontsize=11)
    curve.grid(alpha=0.3)
    curve.legend(loc="lower left", fontsize=9)
    mask_threshold = next(iter(points.values())).mask_threshold
    column = matches.hits[:, matches.mask_thresholds.index(mask_threshold)]
    kinds = {"true positives": 1, "false positives": 0}
    histogram.hist(
        [matches.scores[column == kind] for kind in kinds.values()],
        bins=np.linspace(0, 1, 41).tolist(),
        histtype="step",
        linewidth=1.5,
        log=True,  # false positives of low score are many times as many as the rest
        color=["#0072b2", "#d55e00"],
        label=list(kinds),
    )
    histogram.set(xlabel="score", ylabel="detections", xlim=(0, 1))
    histogram.set_title(f"Scores, masks drawn at {mask_threshold:g}", fontsize=11)
    histogram.legend(fontsize=9)
    return figure
