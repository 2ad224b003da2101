"""One page of plots of what the labels of a dataset say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isgseg.analysis.figures import RGB
from isgseg.io.atomic import replacing


def labels_figure(
    objects: pd.DataFrame,
    images: pd.DataFrame,
    report: dict[str, Any],
    target: float,
    crowded: RGB,
    path: Path,
) -> Path:
    """Draw one page: sizes, crowding, contrast, and how anchors fit.

    Args:
        objects: of all splits; as in `summary`, with `split`, and `chosen`, whether an anchor of
            the recommended network fits.
        images: of `list_images`, of all splits.
        report: of `isgseg.doctor.doctor`: its `network`, `candidates` and `recommended`.
        target: the coverage that is asked for.
        crowded: the image with most objects, (H, W, 3), objects outlined.
        path: of the image.
    """
    figure = Figure(figsize=(15, 9), dpi=120, layout="constrained")
    sizes, crowding, contrast, fit, choice, image = figure.subplots(2, 3).flat
    nm = objects["nm"].median()
    largest = objects["side"].max()
    edges = np.arange(0.5, largest + 1, max(1.0, largest / 30))  # narrower bins show the grid only
    for split, part in objects.groupby("split"):
        sizes.hist(part["side"], bins=edges.tolist(), alpha=0.6, label=f"{split}, {len(part)}")
        counts = images.loc[images["split"] == split, "objects"]
        bins = np.arange(images["objects"].max() + 2) - 0.5
        crowding.hist(counts, bins=bins.tolist(), alpha=0.6, label=f"{split}, {len(counts)}")
        difference = (part["inside"] - part["around"]).dropna()
        contrast.hist(difference, bins=40, alpha=0.6, label=str(split))
    _title(sizes, "Sizes", "tight side of an object, pixels", "objects")
    if np.isfinite(nm):
        top = sizes.secondary_xaxis(
            "top", functions=(lambda side: side * nm, lambda side: side / nm)
        )
        top.set_xlabel("nm")
    title = f"Crowding; model.network.detections is {report['network']['detections']}"
    _title(crowding, title, "objects in an image", "images")
    contrast.axvline(0, color="k", lw=1)
    _title(contrast, "Contrast", "mean inside minus mean around, grey levels", "objects")
    for column, label in (("fits", "now"), ("chosen", "recommended")):
        middles, shares = share_by_size(objects["side"], objects[column])
        fit.plot(middles, shares, "o-", label=f"{label}, {objects[column].mean():.3f} of all")
    _title(fit, "Objects with an anchor that fits", "tight side, pixels (a twelfth each)", "share")
    for density in sorted({option["anchor_density"] for option in report["candidates"]}):
        line = [o for o in report["candidates"] if o["anchor_density"] == density]
        choice.plot(
            [option["scale"] for option in line],
            [option["coverage"] for option in line],
            "o-",
            label=f"anchor_density {density}",
        )
    scale = report["recommended"]["scale"]
    choice.plot(scale, objects["chosen"].mean(), "k*", ms=16, label="recommended")
    choice.axhline(target, color="k", lw=1, ls=":")
    _title(choice, "Networks compared", "scale, network pixels per pixel", "share that fits")
    image.imshow(crowded)
    image.set_title("Most crowded; magenta: no anchor fits now")
    image.set_axis_off()
    with replacing(path) as scratch:
        figure.savefig(scratch, format="png")
    return path


def share_by_size(
    sides: pd.Series[float], fits: pd.Series[bool]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean side and share that fits, of twelve groups of equally many objects by their side."""
    groups = np.array_split(np.argsort(sides.to_numpy(), kind="stable"), min(12, len(sides)))
    return (
        np.array([sides.to_numpy()[group].mean() for group in groups]),
        np.array([fits.to_numpy()[group].mean() for group in groups]),
    )


def _title(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
