"""A report of one cell: one HTML file that opens without a network and explains itself."""

from __future__ import annotations

import datetime
import logging
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isgseg.analysis import report_words as words
from isgseg.analysis.report_figures import curve_chart, histogram, reach, top
from isgseg.analysis.report_scene import library, scene
from isgseg.analysis.report_slices import chosen_slices, draw_slice
from isgseg.analysis.structures import Structures
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

log = logging.getLogger(__name__)

_LIBRARIES = ("numpy", "scipy", "scikit-image", "pandas", "matplotlib")
_HEADLINES = {  # measures that stand large at the top where they are known, and what they say
    "number_density": "granules over cytoplasm",
    "volume_density": "of the cytoplasm is granule",
    "clark_evans": "1 by chance; less where granules cluster",
}
_DISTRIBUTIONS = (  # columns, units; the first of each group that is known is drawn
    (("equivalent_diameter_nm", "nm"), ("equivalent_diameter_px", "voxels")),
    (("lac_mean", "1/um"), ("mean_intensity", "")),
    (("contrast", ""),),
    (("aspect_ratio", ""),),
    (("nn_gap", "nm"),),
)
_LABELS = {
    "equivalent_diameter_nm": "Diameter",
    "equivalent_diameter_px": "Diameter",
    "lac_mean": "Mean LAC",
    "mean_intensity": "Mean grey value",
    "contrast": "Contrast to the cytoplasm",
    "aspect_ratio": "Longest over shortest axis",
    "nn_gap": "Gap to the nearest granule",
}


def write_report(
    path: Path,
    table: pd.DataFrame,
    summary: Mapping[str, Any],
    volume: Array,
    labels: Array,
    structures: Structures,
) -> Path:
    """Writes the report, whole or not at all; its folder is created.

    Without plotly (`pip install 'isgseg[report]'`) there is no 3D view, which the page and the log
    say. Every name that comes from a file is escaped.

    Args:
        path: of the file, `.html`.
        table: of `granule_table`, with any further columns.
        summary: as `isgseg-analyse` writes it, `<volume>_summary.json`: null where a number is not
            known.
        volume: (z, y, x), grey values.
        labels: (z, y, x), 0 is background.
        structures: of the cell.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    script = library()
    if script is None:
        log.warning("%s has no 3D view: it needs plotly, pip install 'isgseg[report]'", path)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    size = summary["voxel_size_nm"]
    own = table  # of this cell: others may be in view
    if structures.number is not None and "cell" in table:
        own = table[table["cell"] == structures.number]
    masks = _ordered(structures.masks)
    page = environment.get_template("report.html").render(
        summary=summary,
        words=words,
        facts=_facts(own, len(table), summary),
        about_volume=_about_volume(volume.shape, size),
        warnings=words.warnings(own, summary),
        slices=_slices(table, volume, labels, masks, size),
        structures=list(masks),
        distributions=_distributions(own, summary["curves"]),
        curves=_curves(summary),
        script=script,
        scene=scene(labels, table, masks, size) if script else None,
        groups=_groups(summary["measures"]),
        settings=words.flat(summary["settings"]),
        versions=_versions(summary),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    with replacing(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return path


def _facts(
    own: pd.DataFrame, in_view: int, summary: Mapping[str, Any]
) -> list[tuple[str, str, str, str]]:
    """The numbers at the top: what, how much, its unit, and a note."""
    whole = own[~own["touches_border"].astype(bool)]
    nm = summary["voxel_size_nm"] is not None
    column, unit = ("equivalent_diameter_nm", "nm") if nm else ("equivalent_diameter_px", "voxels")
    others = in_view - len(own)
    note = f"of this cell; {others:,} more in the volume" if others else "in this volume"
    facts = [("Granules", f"{len(own):,}", "", note)]
    if len(whole):
        low, middle, high = whole[column].quantile([0.05, 0.5, 0.95])
        note = f"9 of 10 are {words.number(low)} to {words.number(high)} {unit}"
        facts.append(("Median diameter", words.number(middle), unit, note))
    for name, about in _HEADLINES.items():
        measure = summary["measures"].get(name)
        if measure and measure["value"] is not None:
            share = words.is_share(name, measure["unit"])
            value = words.number(measure["value"] * (100 if share else 1))
            unit = "%" if share else words.unit_text(measure["unit"])
            facts.append((words.title(name), value, unit, about))
    return facts


def _about_volume(shape: tuple[int, ...], size: list[float] | None) -> str:
    """The volume's shape, and its size where it is known."""
    times = f" {words.TIMES} "
    said = times.join(map(str, shape)) + " voxels (z, y, x)"
    if size is None:
        return said + " of unknown size"
    sides = [words.number(n * nm / 1000) for n, nm in zip(shape, size, strict=True)]
    voxel = [f"{nm:.4g}" for nm in size]
    voxel = voxel if len(set(voxel)) > 1 else voxel[:1]
    return f"{said} of {times.join(voxel)} nm: {times.join(sides)} µm"


def _ordered(masks: Mapping[str, Array]) -> dict[str, Array]:
    """Cell and nucleus first: each then has the same colour in every report."""
    first = [name for name in ("cell", "nucleus") if name in masks]
    return {
        name: masks[name] for name in [*first, *(other for other in masks if other not in first)]
    }


def _slices(
    table: pd.DataFrame,
    volume: Array,
    labels: Array,
    masks: Mapping[str, Array],
    size: list[float] | None,
) -> list[Any]:
    column = "equivalent_diameter_px" if size is None else "equivalent_diameter_nm"
    diameters = dict(zip(table["label"], table[column], strict=True))
    return [
        draw_slice(z, volume, labels, masks, size, diameters)
        for z in chosen_slices(table, len(labels))
    ]


def _distributions(table: pd.DataFrame, curves: Mapping[str, Any]) -> list[dict[str, str]]:
    """Histograms of the columns that are known, each with its text for who cannot see it.

    A gap that has a curve, with its chance level, needs no histogram.
    """
    whole = table[~table["touches_border"].astype(bool)]
    gaps = [
        ((name, "nm"),)
        for name in table.columns
        if str(name).startswith("gap_") and f"within_{name.removeprefix('gap_')}" not in curves
    ]
    found: list[dict[str, str]] = []
    for group in (*_DISTRIBUTIONS, *gaps):
        for column, unit in group:
            source = whole if "diameter" in column else table
            values = source[column].to_numpy(float) if column in source else np.array([])
            values = values[np.isfinite(values)]
            if len(values):
                label = _LABELS.get(column, words.title(column))
                low, middle, high = np.percentile(values, [5, 50, 95])
                said = (
                    f"{words.count(len(values), 'granule')}. Median "
                    f"{words.with_unit(middle, unit)}; 9 of 10 from {words.number(low)} to "
                    f"{words.with_unit(high, unit)}."
                )
                if beyond := int((values > reach(values)).sum()):
                    said += f" {words.count(beyond, 'larger one')} not drawn."
                chart = histogram(values, label, unit, f"h{len(found)}")
                found.append({"title": label, "svg": chart, "text": said})
                break
    return found


def _curves(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Charts of the curves that are known, each with its text for who cannot see it."""
    return [
        {
            "title": words.title(name),
            "svg": curve_chart(curve, f"c{place}"),
            "about": curve["about"],
            "text": " ".join([words.reading(curve), _beyond(curve)]).strip(),
        }
        for place, (name, curve) in enumerate(summary["curves"].items())
        if any(value is not None for value in curve["y"])
    ]


def _groups(measures: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The measures with a chance level, those without, and those that are not known."""
    groups: dict[str, dict[str, Any]] = {"chance": {}, "plain": {}, "unknown": {}}
    for name, measure in measures.items():
        kind = "chance" if measure["chance"] else "plain"
        groups["unknown" if measure["value"] is None else kind][name] = measure
    return groups


def _beyond(curve: Mapping[str, Any]) -> str:
    """What a chart does not show of a curve, as a sentence; empty where it shows all."""
    if (end := top(curve)) is None:
        return ""
    high = [value for value in curve["y"] if value is not None and value > end]
    points = words.count(len(high), "point")
    return f"{points} above the axis, up to {words.with_unit(max(high), curve['y_unit'])}."


def _versions(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made the report, and of what."""
    made = [("isgseg", summary["isgseg"]), ("Python", platform.python_version())]
    made += [(name, version(name)) for name in _LIBRARIES]
    hashes = summary["sha256"].items()
    return made + [(f"SHA-256 of the {kind}", str(value)) for kind, value in hashes]
