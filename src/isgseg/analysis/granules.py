"""The table of granules: where each one is, how large, how dense."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from isgseg.errors import InputError
from isgseg.instances.runs import RunLabels
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

log = logging.getLogger(__name__)
_BEGIN = "label,centroid_z,"


def granule_table(
    labels: Array | RunLabels,
    volume: Array | None = None,
    voxel_size: Sequence[float] | None = None,
    *,
    score: Array | None = None,
    supporting_slices: Array | None = None,
) -> pd.DataFrame:
    """One row a granule, ordered by label; time and memory grow with the labelled voxels.

    Of labels as runs, slabs of the volume are in memory, and the voxels of granules that reach
    beyond them.

    The columns are always the same; what cannot be known is NaN (an empty field of the CSV).

    - `label`; `voxels`; `volume_nm3`, `volume_um3`
    - `centroid_z`, `_y`, `_x`: pixels, the first voxel's centre is 0; `centroid_z_nm` and so on: nm
    - `equivalent_diameter_px`, `_nm`: of the ball of the same volume; px are voxels' cube roots
    - `z0`, `y0`, `x0`, `z1`, `y1`, `x1`: bounding box, pixels, half-open; `slices`: `z1 - z0`
    - `mean_intensity`: of `volume`, in its unit
    - `touches_border`: the granule reaches the volume's edge, so part of it may be missing
    - `score`, `supporting_slices`: as given

    Args:
        labels: (z, y, x), unsigned integers, 0 is background.
        volume: (z, y, x), grey values.
        voxel_size: nm, (z, y, x).
        score: (N,) mean score of the detections of label `i + 1`.
        supporting_slices: (N,) how many slices label `i + 1` was detected in.

    Raises:
        ValueError: `labels` and `volume` differ in shape, or there are more labels than scores.
    """
    if volume is not None and volume.shape != labels.shape:
        raise ValueError(f"labels are {labels.shape} but the volume is {volume.shape} (z, y, x)")
    if voxel_size is None:
        log.warning("no voxel size: the columns in nm stay empty")
    nm = np.array(voxel_size if voxel_size is not None else [np.nan] * 3, dtype=float)
    parts = [_rows(voxels, labels.shape, nm) for voxels in _voxels(labels, volume)]
    if not parts:  # runs without a granule
        nothing = np.zeros((0, *labels.shape[1:]), labels.dtype)
        parts = [_rows(next(_voxels(nothing, volume)), labels.shape, nm)]
    table = pd.concat(parts).sort_index() if len(parts) > 1 else parts[0]
    table["score"] = _given(score, table.index)
    table["supporting_slices"] = _given(supporting_slices, table.index)
    return table.reset_index()


def _voxels(labels: Array | RunLabels, volume: Array | None) -> Iterator[pd.DataFrame]:
    """The voxels of granules, each granule whole, in raster order; of runs window by window."""
    windows = labels.windows() if isinstance(labels, RunLabels) else [(0, labels)]
    for start, window in windows:
        where = np.nonzero(window)
        grey = np.full(1, np.nan, np.float32)
        if volume is not None:
            grey = volume[start : start + len(window)][where]
        yield pd.DataFrame(
            {"label": window[where]}
            | {"z": (where[0] + start).astype(np.int32)}
            | {axis: where[i].astype(np.int32) for i, axis in ((1, "y"), (2, "x"))}
            | {"intensity": np.broadcast_to(grey, where[0].shape)}
        )


def _rows(voxels: pd.DataFrame, shape: tuple[int, ...], nm: Array) -> pd.DataFrame:
    """The rows of granules, by label, from all of their voxels."""
    groups = voxels.groupby("label")
    low, high = groups[["z", "y", "x"]].min(), groups[["z", "y", "x"]].max() + 1
    centroid = groups[["z", "y", "x"]].mean()
    count = groups.size()
    table = pd.DataFrame(index=count.index)
    table[[f"centroid_{axis}" for axis in "zyx"]] = centroid
    table[[f"centroid_{axis}_nm" for axis in "zyx"]] = centroid * nm
    table["voxels"] = count
    table["volume_nm3"] = count * nm.prod()
    table["volume_um3"] = table["volume_nm3"] / 1e9
    table["equivalent_diameter_px"] = np.cbrt(count * 6 / math.pi)
    table["equivalent_diameter_nm"] = np.cbrt(table["volume_nm3"] * 6 / math.pi)
    table[["z0", "y0", "x0"]] = low
    table[["z1", "y1", "x1"]] = high
    table["slices"] = high["z"] - low["z"]
    # In the order of the voxels and in double precision, so that windows change no bit of it.
    table["mean_intensity"] = np.bincount(groups.ngroup(), voxels["intensity"]) / count
    table["touches_border"] = (low == 0).any(axis=1) | (high == list(shape)).any(axis=1)
    return table


def _given(values: Array | None, labels: pd.Index[int]) -> Array:
    """The value of each label, NaN where none are given."""
    if values is None:
        return np.full(len(labels), np.nan)
    if len(labels) and labels.max() > len(values):
        raise ValueError(f"label {labels.max()}, but values of {len(values)} granules")
    return np.asarray(values[labels.to_numpy() - 1])


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Writes a CSV, whole or not at all; its folder is created."""
    with replacing(path) as scratch:
        table.to_csv(scratch, index=False, float_format="%.8g")
    return path


def is_table(path: Path) -> bool:
    """Whether a CSV begins as the tables of isgseg do."""
    try:
        with path.open() as file:
            return file.read(len(_BEGIN)) == _BEGIN
    except (OSError, ValueError):
        return False


def write_parquet(path: Path, table: pd.DataFrame) -> Path:
    """Writes a Parquet file, whole or not at all; its folder is created.

    Raises:
        InputError: pyarrow is not installed, or the file cannot be written.
    """
    check_parquet()
    with replacing(path) as scratch:
        table.to_parquet(scratch, engine="pyarrow", index=False)
    return path


def check_parquet() -> None:
    """Says what is missing for Parquet before anything is computed.

    Raises:
        InputError: pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            "parquet=true needs pyarrow, which is not installed: pip install 'isgseg[parquet]', or "
            "set parquet=false; the CSV has the same columns"
        )


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Count, and mean, median, min and max of volume and diameter.

    In um3 and nm, or in voxels where nm are unknown; the count alone where there is no granule.
    """
    columns = ["volume_um3", "equivalent_diameter_nm"]
    if table["volume_um3"].isna().all():
        columns = ["voxels", "equivalent_diameter_px"]
    numbers: dict[str, float] = {"count": len(table)}
    for column in columns if len(table) else ():
        for name in ("mean", "median", "min", "max"):
            numbers[f"{column}_{name}"] = float(table[column].agg(name))
    return numbers
