"""What a person can do in a session, and what comes next.

Each step is an `Edit`, which whoever holds the labels applies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isgseg.errors import InputError
from isgseg.instances import editing
from isgseg.instances.components import Ints
from isgseg.instances.editing import Edit
from isgseg.napari.session import ABSENT, OPEN, Session

NOTHING = Edit((np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)), np.zeros(0, int))


def delete(session: Session, labels: Sequence[int]) -> Edit:
    """See `isgseg.instances.editing.delete`; those that are only offered are not there."""
    there = [label for label in labels if session.state(label) not in ABSENT]
    return editing.delete(session.labels, there, _boxes(session, there)) if there else NOTHING


def merge(session: Session, labels: Sequence[int]) -> Edit:
    """See `isgseg.instances.editing.merge`; the largest keeps its number."""
    _are_there(session, labels)
    sizes = session.table["voxels"].loc[list(labels)].to_numpy()
    ordered = [labels[i] for i in np.argsort(-sizes, kind="stable").tolist()]
    return editing.merge(session.labels, ordered, _boxes(session, ordered))


def split(session: Session, label: int, points: Sequence[Sequence[float]] = ()) -> Edit:
    """By shape, or between points, (z, y, x) voxels, where any are given."""
    _are_there(session, [label])
    new, box = session.next_number, session.box(label)
    if points:
        return editing.split_between(session.labels, label, box, points, new)
    return editing.split_by_shape(session.labels, label, box, new)


def add_ball(session: Session, centre: Sequence[float], diameter_nm: float | None = None) -> Edit:
    """A new granule, a ball of the usual size, or of a diameter, nm (voxels without a size).

    Args:
        session: of the labels.
        centre: (z, y, x), voxels.
        diameter_nm: None: the usual one.
    """
    side = np.array(session.voxel_size or (1.0, 1.0, 1.0))
    usual = session.usual.diameter * float(np.cbrt(side.prod()))
    radius = (usual if diameter_nm is None else diameter_nm) / 2 / side
    return editing.ball(session.labels, centre, radius.tolist(), session.next_number)


def ball_across(session: Session, one: Sequence[float], other: Sequence[float]) -> Edit:
    """A new granule, the ball that reaches from one place to another, (z, y, x) voxels.

    Raises:
        InputError: both are one place.
    """
    ends = np.array([one, other], float)
    side = np.array(session.voxel_size or (1.0, 1.0, 1.0))
    across = float(np.linalg.norm((ends[1] - ends[0]) * side))
    if across == 0:
        raise InputError("both places are one; click on two opposite edges of the granule")
    return add_ball(session, ends.mean(axis=0).tolist(), across)


def take_in(session: Session, label: int) -> Edit:
    """A granule that was offered, below the threshold, becomes one.

    Raises:
        InputError: it is one already.
    """
    if session.offered is None or session.state(label) not in ABSENT:
        raise InputError(f"granule {label} is there already")
    box = session.box(label)
    return editing.add(session.labels, session.offered[box] == label, box, label)


def in_order(session: Session) -> list[int]:
    """All labels, the most doubtful first."""
    table = session.table
    order = np.lexsort([table.index.to_numpy(), -table["suspicion"].to_numpy(float)])
    labels: list[int] = table.index.to_numpy()[order].tolist()
    return labels


def next_open(session: Session, label: int | None = None, step: int = 1) -> int | None:
    """The next granule that nobody has looked at, by suspicion; None where there is no other.

    Args:
        session: of the labels.
        label: after which; None begins with the most doubtful.
        step: 1 forward, -1 backward.
    """
    order = in_order(session)
    place = order.index(label) if label in order else (-1 if step > 0 else 0)
    is_open = session.table["state"].isin(OPEN)
    ahead = (order[(place + step * i) % len(order)] for i in range(1, len(order) + 1))
    return next((other for other in ahead if other != label and is_open.at[other]), None)


def left(session: Session) -> int:
    """How many granules nobody has looked at."""
    return int(session.table["state"].isin(OPEN).sum())


def centre(session: Session, label: int) -> tuple[float, float, float]:
    """The middle of a granule's bounding box, (z, y, x), voxels."""
    z, y, x = ((side.start + side.stop - 1) / 2 for side in session.box(label))
    return z, y, x


def granules(session: Session) -> pd.DataFrame:
    """The table of the granules that are there, for a file."""
    table = session.table[~session.table["state"].isin(ABSENT)]
    return table.sort_index().reset_index(drop=True)


def reviewed_slices(session: Session) -> Ints:
    """The slices that can teach: said to be complete, or all of whose granules are reviewed.

    A slice without any granule is one of them only if somebody said so, or if every granule of
    the volume is reviewed.
    """
    depth = session.labels.shape[0]
    there = granules(session)
    if len(there) and not there["state"].isin(OPEN).any():
        return np.arange(depth)
    count = np.zeros((2, depth + 1), np.int64)
    for row, rows in zip(count, (there, there[there["state"].isin(OPEN)]), strict=True):
        np.add.at(row, rows["z0"].to_numpy(int), 1)
        np.add.at(row, rows["z1"].to_numpy(int), -1)
    all_of, unreviewed = np.cumsum(count, axis=1)[:, :depth]
    done = (all_of > 0) & (unreviewed == 0)
    done[sorted(session.complete)] = True
    return np.flatnonzero(done)


def _are_there(session: Session, labels: Sequence[int]) -> None:
    absent = [label for label in labels if session.state(label) in ABSENT]
    if absent:
        raise InputError(f"granule {absent[0]} is only offered; accept it first")


def _boxes(session: Session, labels: Sequence[int]) -> editing.Boxes:
    return {label: session.box(label) for label in labels}
