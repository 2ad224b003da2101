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
SMALL = 32**3  # voxels of a box; such granules are measured together


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
    nm = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size  # without a warning for each
    there = {label: box for label, box in boxes.items() if box is not None}
    small = {label: box for label, box in there.items() if _voxels(box) <= SMALL}
    tables = [_packed(labels, small, volume, nm)]
    tables += [_packed(labels, {i: box}, volume, nm) for i, box in there.items() if i not in small]
    table = pd.concat(tables) if len(tables) > 1 else tables[0]
    for axis, depth in zip("zyx", labels.shape, strict=True):
        table["touches_border"] |= (table[f"{axis}0"] == 0) | (table[f"{axis}1"] == depth)
    if voxel_size is None:
        table[[name for name in table.columns if name.endswith(("_nm", "_nm3", "_um3"))]] = np.nan
    table = table.set_index("label", drop=False)
    return table.loc[[label for label in there if label in table.index]]


def _packed(
    labels: Labels, boxes: Mapping[int, Box], volume: Array | None, nm: Sequence[float]
) -> pd.DataFrame:
    """Rows of granules, cut out and stacked along z: a table of many costs what one of one does."""
    depth = [box[0].stop - box[0].start for box in boxes.values()]
    sides = [max((b[i].stop - b[i].start for b in boxes.values()), default=1) for i in (1, 2)]
    own = np.zeros((sum(depth), *sides), labels.dtype)
    grey = None if volume is None else np.zeros(own.shape, np.float32)
    starts = np.cumsum([0, *depth])
    for (label, box), start in zip(boxes.items(), starts, strict=False):
        part = tuple(slice(0, side.stop - side.start) for side in box)
        place = (slice(start, start + part[0].stop), *part[1:])
        own[place] = np.where(labels[box] == label, label, 0)
        if grey is not None and volume is not None:
            grey[place] = volume[box]
    table = granule_table(own, grey, nm)
    corners = np.array([[side.start for side in box] for box in boxes.values()]).reshape(-1, 3)
    corners[:, 0] -= starts[:-1]
    for axis, corner, length in zip("zyx", corners.T, nm, strict=True):
        shift = table["label"].map(dict(zip(boxes, corner.tolist(), strict=True)))
        for column in (f"{axis}0", f"{axis}1", f"centroid_{axis}"):
            table[column] = table[column] + shift
        table[f"centroid_{axis}_nm"] = table[f"centroid_{axis}"] * length
    return table.assign(touches_border=False)


def _voxels(box: Box) -> int:
    return int(np.prod([side.stop - side.start for side in box]))


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
