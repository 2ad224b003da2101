"""The condition of each cell, and the table of cells that `isgseg-compare` works on."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from isgseg.analysis.summaries import Summary, listed, units
from isgseg.errors import InputError, InputFileNotFoundError
from isgseg.io.paths import matches
from isgseg.io.volumes import SUFFIXES
from isgseg.words import nearest, shown

KEYS = ("volume", "condition", "summary")  # columns of the table of cells that are no measure


def read_conditions(path: str | Path) -> dict[str, str]:
    """The condition of each volume, in the order of the file.

    Args:
        path: a CSV file with the columns `volume` (its name, with or without suffix) and
            `condition`.

    Raises:
        InputFileNotFoundError: there is no such file.
        InputError: a column is missing, a field is empty, or a volume has two conditions.
    """
    files = matches(path)
    if len(files) != 1:
        raise InputFileNotFoundError(f"conditions={path}: no such file")
    try:
        with files[0].open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}; give a CSV in UTF-8") from error
    conditions: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if missing := {"volume", "condition"} - row.keys():
            raise InputError(
                f"{path} has no column {', '.join(sorted(missing))}; its first line must be "
                "volume,condition"
            )
        volume, condition = ((row[key] or "").strip() for key in ("volume", "condition"))
        if not volume or not condition:
            raise InputError(f"{path}, row {number}: volume and condition must not be empty")
        if conditions.setdefault(volume, condition) != condition:
            raise InputError(
                f"{path}, row {number}: {volume} is {conditions[volume]} above and {condition} "
                "here; a cell has one condition"
            )
    if not conditions:
        raise InputError(f"{path} has no row; give one line a cell: volume,condition")
    return conditions


def cell_table(
    summaries: Mapping[Path, Summary],
    conditions: Mapping[str, str],
    measures: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row a cell: `volume`, `condition`, `summary` (its file), and one column a measure.

    Args:
        summaries: by their files.
        conditions: of volumes, by name, with or without suffix.
        measures: which columns; None takes all.

    Raises:
        InputError: a cell has no condition, a condition has no cell, there is no such measure, or
            cells measure in different units.
    """
    condition_of = {path: _condition(item, conditions) for path, item in summaries.items()}
    if missing := [summaries[path].volume for path, it in condition_of.items() if it is None]:
        raise InputError(
            f"conditions= has no row for {listed(missing)}; add volume,condition for each, or "
            "leave their summaries out"
        )
    if empty := set(conditions.values()) - set(condition_of.values()):
        raise InputError(
            f"no cell of condition {listed(sorted(empty))} is among the {len(summaries)} "
            "summaries; analyse its cells, or take its rows out of conditions="
        )
    known = list(dict.fromkeys(name for item in summaries.values() for name in item.measures))
    names = list(known) if measures is None else list(measures)
    for name in names:
        if name not in known:
            raise InputError(f"measures={shown(name)}: no summary has it; {nearest(name, known)}")
    units(list(summaries.values()), names)
    rows: list[dict[str, Any]] = [
        {"volume": item.volume, "condition": condition_of[path], "summary": str(path)}
        | {name: item.measures[name].value if name in item.measures else None for name in names}
        for path, item in summaries.items()
    ]
    table = pd.DataFrame(rows).astype(dict.fromkeys(names, float))
    rank = {name: place for place, name in enumerate(dict.fromkeys(conditions.values()))}
    return table.sort_values("condition", key=lambda column: column.map(rank), kind="stable")


def _condition(summary: Summary, conditions: Mapping[str, str]) -> str | None:
    """That of the volume's name; else of its name without suffix, on either side."""
    if summary.volume in conditions:
        return conditions[summary.volume]
    name = _bare(summary.volume)
    found = {condition for volume, condition in conditions.items() if _bare(volume) == name}
    return found.pop() if len(found) == 1 else None


def _bare(volume: str) -> str:
    """A volume's name without folder and suffix."""
    name = Path(volume).name
    suffix = max((end for end in SUFFIXES if name.lower().endswith(end)), key=len, default="")
    return name.removesuffix(name[len(name) - len(suffix) :]) if suffix else name
