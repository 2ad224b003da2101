"""The summaries that `isgseg-analyse` writes of cells, read again and checked."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from isgseg.errors import InputError, InputFileNotFoundError, check
from isgseg.io.paths import Patterns, as_list, matches
from isgseg.words import shown

log = logging.getLogger(__name__)

# Settings that say which files were read and written; they differ from cell to cell.
_PLACES = {"volume", "labels", "cell", "output_dir", "overwrite", "paths", "task_name", "slice"}
_OUTPUTS = {"report", "meshes", "parquet", "progress"}
_LISTED = 5  # names that a message gives


class Number(BaseModel):
    """One number of a cell."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    value: float | None
    unit: str = ""
    about: str = ""


class Summary(BaseModel):
    """What `isgseg-analyse` writes of a cell, as far as it is compared."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    isgseg: str
    volume: str = Field(min_length=1)
    sha256: dict[str, str | None] = {}
    voxel_size_nm: tuple[float, float, float] | None
    settings: dict[str, Any] = {}
    measures: dict[str, Number]


def read_summaries(patterns: Patterns) -> dict[Path, Summary]:
    """The summaries that paths and globs name, each once.

    Raises:
        InputFileNotFoundError: a pattern matches nothing.
        InputError: a file is no summary, or two are of one cell.
    """
    found: dict[Path, Summary] = {}
    for pattern in as_list(patterns):
        files = matches(pattern)
        if not files:
            raise InputFileNotFoundError(
                f"no file matches {pattern}; give the *_summary.json of isgseg-analyse, such as "
                "'outputs/analyse/*/*_summary.json'"
            )
        for file in files:
            found.setdefault(file.resolve(), read_summary(file))
    _each_cell_once(found)
    return found


def read_summary(path: Path) -> Summary:
    """One summary, checked.

    Raises:
        InputError: it cannot be read, or is no summary.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON: {error}; give a *_summary.json of isgseg-analyse"
        ) from error
    if not isinstance(content, dict) or "measures" not in content:
        raise InputError(f"{path} has no measures; give a *_summary.json of isgseg-analyse")
    return check(Summary, content, str(path))


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON, which has null for it")


def _each_cell_once(summaries: Mapping[Path, Summary]) -> None:
    """One cell that counts twice would make any difference look surer than it is.

    Several cells of one volume are told apart by their numbers, the key `cell` of isgseg-analyse.
    """
    seen: dict[str, list[tuple[Path, Any]]] = {}
    for path, summary in summaries.items():
        cell = summary.settings.get("cell")
        content = summary.sha256.get("volume")
        for key in {f"name {summary.volume}", f"content {content or path}"}:
            for other, its_cell in seen.setdefault(key, []):
                if cell is None or its_cell is None or cell == its_cell:
                    raise InputError(
                        f"{other} and {path} are of one cell, {shown(summary.volume)}; give one of "
                        "them. Two cells need two names, in the summaries and in conditions="
                    )
            seen[key].append((path, cell))


def units(summaries: Collection[Summary], names: Sequence[str]) -> dict[str, str]:
    """The unit of each measure.

    Raises:
        InputError: it differs from cell to cell.
    """
    found: dict[str, str] = {}
    for name in names:
        of_cells = {item.measures[name].unit: item for item in summaries if name in item.measures}
        if len(of_cells) > 1:
            said = " and ".join(f"{unit or 'none'} in {it.volume}" for unit, it in of_cells.items())
            raise InputError(
                f"{name} has the units {said}; analyse all cells with the same isgseg and with "
                "known voxel sizes"
            )
        found[name] = next(iter(of_cells), "")
    return found


def check_alike(summaries: Sequence[Summary]) -> list[str]:
    """What makes cells hard to compare, in words.

    Raises:
        InputError: some voxel sizes are known and others are not.
    """
    unknown = [item.volume for item in summaries if item.voxel_size_nm is None]
    if unknown and len(unknown) < len(summaries):
        raise InputError(
            f"the voxel size of {listed(unknown)} is not known, that of the others is; analyse "
            "them again with voxel_size=, or leave them out"
        )
    warnings = []
    sizes = Counter(item.voxel_size_nm for item in summaries)
    if len(sizes) > 1:
        said = ", ".join(f"{list(size or ())} nm ({count})" for size, count in sizes.items())
        warnings.append(
            f"Voxel sizes differ (cells): {said}. Small granules are missed more often where "
            "voxels are large; a difference between conditions may come from that."
        )
    versions = Counter(item.isgseg for item in summaries)
    if len(versions) > 1:
        said = ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
        warnings.append(f"Versions of isgseg differ (cells): {said}. Analyse all cells with one.")
    flat = [_settings(item) for item in summaries]
    for key in sorted({key for settings in flat for key in settings}):
        values = Counter(shown(settings.get(key)) for settings in flat)
        if len(values) > 1:
            said = ", ".join(f"{value} ({count})" for value, count in values.items())
            warnings.append(f"Settings differ: {key} is {said}. Analyse all cells with one.")
    return warnings


def _settings(summary: Summary) -> dict[str, Any]:
    """Settings that change numbers, by dotted key; of a structure only whether it is given."""

    def walk(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in content.items():
            if isinstance(value, Mapping):
                flat |= walk(value, f"{prefix}{key}.")
            elif prefix == "structures." and (value is None or isinstance(value, str)):
                flat[prefix + key] = "given" if value else None
            else:
                flat[prefix + key] = value
        return flat

    settings = dict(summary.settings)
    settings.pop("voxel_size", None)  # that of the summary itself is compared
    return walk({k: v for k, v in settings.items() if k not in _PLACES | _OUTPUTS}, "")


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first of many."""
    more = len(names) - _LISTED
    return ", ".join(map(shown, names[:_LISTED])) + (f" and {more} more" if more > 0 else "")
