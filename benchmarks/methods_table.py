"""The table of `benchmarks/methods.py`, and its numbers for the page of all benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from record import Result

Rows = Mapping[str, Mapping[str, Any]]
DIAMETERS = ((0, 200), (200, 250), (250, 300), (300, 10_000))  # nm
COLUMNS = ("F1", "F1 at IoU .3", "SQ", "count error", "splits", "merges")
WHOLE_CELL = 473  # slices of 486 x 473


def fill(result: Result, rows: Rows) -> None:
    """Adds rows and their numbers to a result."""
    for row in rows.values():
        title, scores = row["title"], row["scores"]
        result.add("quality", f"{title}: F1 in 3D at IoU .5", scores["f1"])
        result.add("quality", f"{title}: count error", scores["count_error_relative"])
        seconds = row["predict"]["seconds_a_slice"]
        result.add("speed", f"{title}: processor time a slice", seconds, "s")
        memory = row["predict"]["memory_mb"]
        result.add("memory", f"{title}: a cell of 64 slices", memory, "MB")
    result.details["rows"] = dict(rows)


def f1_by_diameter(scores: Mapping[str, Any]) -> list[float | None]:
    """F1 at IoU .5 between the edges of `DIAMETERS`; None where nothing is.

    A true instance counts at its own diameter, a prediction at its own.
    """
    found: list[float | None] = []
    for low, high in DIAMETERS:
        bins = [
            part
            for part in scores["by_diameter"]
            if (part["from_nm"] or 0) >= low and (part["to_nm"] or high) <= high
        ]
        total = sum(part["ground_truth"] + part["predicted"] for part in bins)
        lost = sum(part["false_negatives"] + part["false_positives"] for part in bins)
        found.append((total - lost) / total if total else None)
    return found
