"""Rows of the table of granules, of a few granules only, as after an edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from isgseg.analysis.granules import granule_table
from isgseg.instances.components import Ints, Labels
from isgseg.instances.parts import Box
from isgseg.io.formats import Array

INHERITED = ("score", "supporting_slices")


def granule_rows(
    labels: Labels,
    boxes: Mapping[int, Box | None],
    volume: Array | None,
    voxel_size: Sequence[float] | None,
) -> pd.DataFrame:
    """As `granule_table`, of granules in boxes that are at least as large as they are.

    Args:
        labels: (z, y, x).
        boxes: by label; None: it has no voxel.
        volume: (z, y, x), or None.
        voxel_size: nm, (z, y, x), or None.

    Returns:
        Indexed by label, without those that have no voxel.
    """
    rows = []
    nm = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size  # without a warning for each
    for label, box in boxes.items():
        if box is None:
            continue
        own = np.where(labels[box] == label, labels[box], 0)
        if not own.any():
            continue
        row = granule_table(own, None if volume is None else np.asarray(volume[box]), nm)
        for axis, side, length in zip("zyx", box, nm, strict=True):
            row[[f"{axis}0", f"{axis}1"]] += side.start
            row[f"centroid_{axis}"] += side.start
            row[f"centroid_{axis}_nm"] = row[f"centroid_{axis}"] * length
        row["touches_border"] = any(
            int(row[f"{axis}0"].iloc[0]) == 0 or int(row[f"{axis}1"].iloc[0]) == depth
            for axis, depth in zip("zyx", labels.shape, strict=True)
        )
        rows.append(row)
    table = pd.concat(rows) if rows else granule_table(np.zeros((1, 1, 1), np.uint16), None, nm)
    if voxel_size is None:
        table[[name for name in table.columns if name.endswith(("_nm", "_nm3", "_um3"))]] = np.nan
    return table.set_index("label", drop=False)


def inherited(
    table: pd.DataFrame, touched: Sequence[int], before: Array, after: Array
) -> pd.DataFrame:
    """Score and slices of granules after an edit: a new one has those of what it was part of.

    Args:
        table: before the edit, indexed by label.
        touched: labels.
        before: (V,) the labels that voxels had.
        after: (V,) those that they have.
    """
    parents = {}
    for label in touched:
        own = before[(after == label) & (before > 0)]
        parent = label if label in table.index else int(own[0]) if len(own) else 0
        if parent in table.index:
            parents[label] = parent
    values = table.loc[list(parents.values()), list(INHERITED)].astype(float)
    return values.set_axis(pd.Index(list(parents), dtype=np.int64), axis=0)


def numbers_in(labels: Labels) -> Ints:
    """The numbers of a label volume, rising, without 0; quick for any that are not huge."""
    found = np.zeros(int(labels.max(initial=0)) + 1, bool)
    for plane in labels:
        found[plane.ravel()] = True
    found[0] = False
    return np.flatnonzero(found)


def hull(places: Sequence[Ints], box: Box | None) -> Box | None:
    """The smallest box around voxels, z, y and x, and a box; None where there is neither."""
    if not len(places[0]):
        return box
    low = [int(axis.min()) for axis in places]
    high = [int(axis.max()) + 1 for axis in places]
    if box is not None:
        low = [min(a, side.start) for a, side in zip(low, box, strict=True)]
        high = [max(b, side.stop) for b, side in zip(high, box, strict=True)]
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))
