"""Proofreading: which granules there are, how doubtful each is, and what was said of it.

A session follows a label volume that something else changes, a napari layer or `apply`. It keeps
the table of granules in step with the voxels, and writes everything into the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isgseg.analysis.granules import granule_table
from isgseg.analysis.review import COLUMNS, Usual, box_of, review_offered, review_rows
from isgseg.errors import InputError
from isgseg.instances.components import Ints, Labels
from isgseg.instances.editing import Edit, check_free
from isgseg.instances.parts import Box
from isgseg.io.formats import Array
from isgseg.napari.journal import Journal, journal_path
from isgseg.napari.rows import granule_rows, hull, inherited, numbers_in

UNREVIEWED, ACCEPTED, CORRECTED = "", "accepted", "corrected"
OFFERED, REJECTED = "offered", "rejected"  # below the threshold: in the table, not in the labels
OPEN, ABSENT = (UNREVIEWED, OFFERED), (OFFERED, REJECTED)
STATES = (UNREVIEWED, ACCEPTED, CORRECTED, OFFERED, REJECTED)
Where = tuple[Ints, Ints, Ints]


class Session:
    """A review of the granules of one label volume.

    Args:
        labels: (z, y, x), unsigned integers, 0 background; changed in place, by its owner.
        voxel_size: nm, (z, y, x), or None.
        volume: (z, y, x), grey values, for the intensities of the table.
        table: of `granule_table`, with scores; None makes one without.
        threshold: object score threshold that the granules have passed; None: .5.
        offered: (z, y, x), granules of a lower score too, under the same numbers; they can be taken
            in.
        file: of the labels; the journal lies beside it. None: nothing is written down.

    Attributes:
        table: indexed by label: the columns of `granule_table`, `suspicion`, `reason`, `state`.
        complete: slices of which a person said that nothing is missing in them.
        resumed: how many entries of the journal were done again.

    Raises:
        InputError: the journal beside the file is of other labels, or damaged.
    """

    def __init__(
        self,
        labels: Labels,
        voxel_size: Sequence[float] | None = None,
        *,
        volume: Array | None = None,
        table: pd.DataFrame | None = None,
        threshold: float | None = None,
        offered: Labels | None = None,
        file: Path | None = None,
    ) -> None:
        self.labels, self.voxel_size, self.volume = labels, voxel_size, volume
        self.threshold, self.offered = threshold, offered
        self.complete: set[int] = set()
        self.journal: Journal | None = None
        everything = labels if offered is None else offered
        journal = None if file is None else Journal(journal_path(file), labels)
        there = numbers_in(everything)
        if table is None or not fits(table, there):
            table = granule_table(everything, volume, voxel_size)
        table = table[table["label"].isin(there)].set_index("label", drop=False)
        absent = ~table.index.isin(there if offered is None else numbers_in(labels))
        self.usual = Usual.of(table[~absent])
        self.table = table
        if absent.any() or not set(COLUMNS) <= set(table.columns):
            doubts = [
                review_rows(labels, table, table.index[~absent].tolist(), self.usual, threshold),
                review_offered(everything, table[absent], threshold, self.usual),
            ]
            without = table.drop(columns=list(COLUMNS), errors="ignore")
            self.table = without.join(pd.concat([part for part in doubts if len(part)] or doubts))
        self.table["reason"] = self.table["reason"].fillna("").astype(object)
        self.table["state"] = np.where(absent, OFFERED, UNREVIEWED).astype(object)
        self._highest = int(there.max(initial=0))
        self.resumed = 0 if journal is None else self._resume(journal)

    @property
    def next_number(self) -> int:
        """A number that no granule has or had.

        Raises:
            InputError: the type of the labels holds no further one.
        """
        return check_free(self.labels, self._highest + 1)

    def known(self, label: int) -> int:
        """The label, where there is such a granule.

        Raises:
            InputError: there is none.
        """
        if label not in self.table.index:
            raise InputError(f"there is no granule {label}; it may have been merged or deleted")
        return int(label)

    def box(self, label: int, margin: int = 0) -> Box:
        """The bounding box of a granule, and some voxels around it."""
        return box_of(self.table.loc[self.known(label)], margin)

    def state(self, label: int) -> str:
        """What was said of a granule."""
        return str(self.table.at[self.known(label), "state"])

    def apply(self, edit: Edit) -> None:
        """Makes an edit; for labels that no napari layer holds."""
        before = self.labels[edit.where]
        edit.apply(self.labels)
        self.changed(edit.where, before)

    def changed(
        self, where: Where, before: Array, states: Mapping[int, str] | None = None
    ) -> dict[int, str]:
        """Takes note of voxels that were changed.

        Args:
            where: z, y and x of (V,) voxels.
            before: (V,) the labels they had.
            states: of granules afterwards; None: whatever was changed is `corrected`.

        Returns:
            The states that the granules had.
        """
        after = self.labels[where]
        moved = np.broadcast_to(before, after.shape) != after
        where = (where[0][moved], where[1][moved], where[2][moved])
        before, after = np.broadcast_to(before, moved.shape)[moved], after[moved]
        if not len(after):
            return {}
        if self.journal is not None:
            self.journal.add_edit(Edit(where, after.astype(np.int64)))
        touched = [int(i) for i in np.unique(np.concatenate([before, after])) if i]
        former = {label: self.state(label) for label in touched if label in self.table.index}
        self._follow(touched, where, before, after)
        if states is not None:
            self._set_states({label: states[label] for label in touched if label in states})
        return former

    def say(self, labels: Sequence[int], state: str) -> None:
        """Gives granules a state, such as `ACCEPTED`."""
        self._set_states({self.known(label): state for label in labels})

    def say_complete(self, slices: Sequence[int], complete: bool = True) -> None:
        """Says that nothing is missing in slices, or takes it back."""
        said = {int(z): complete for z in slices}
        if self.journal is not None:
            self.journal.add_slices(said)
        self._set_complete(said)

    def close(self) -> None:
        """Closes the journal."""
        if self.journal is not None:
            self.journal.close()

    def _follow(self, touched: list[int], where: Where, before: Array, after: Array) -> None:
        """The table after a change."""
        boxes = {
            label: hull(
                [axis[after == label] for axis in where],
                self.box(label) if label in self.table.index else None,
            )
            for label in touched
        }
        rows = granule_rows(self.labels, boxes, self.volume, self.voxel_size)
        values = inherited(self.table, touched, before, after)
        for name in values.columns:
            rows[name] = values[name].reindex(rows.index)
        rows["suspicion"], rows["reason"], rows["state"] = 0.0, "", CORRECTED
        self._highest = max(self._highest, *touched)
        gone = [label for label in touched if label not in rows.index]
        absent = self.table.index.isin(gone) & self._was_offered(self.table.index)
        self.table.loc[absent, "state"] = REJECTED
        drop = self.table.index.isin(touched) & ~absent
        self.table = pd.concat([self.table[~drop], rows]) if len(rows) else self.table[~drop]
        if len(rows):
            wanted = rows.index.tolist()
            doubts = review_rows(self.labels, self.table, wanted, self.usual, self.threshold)
            self.table.loc[wanted, list(doubts.columns)] = doubts

    def _was_offered(self, index: pd.Index[int]) -> Array:
        """(N,) whether a granule is in `offered`, so that it can be taken in again."""
        if self.offered is None:
            return np.zeros(len(index), bool)
        flags: list[bool] = []
        for label in index:
            flags.append(bool((self.offered[self.box(label)] == label).any()))
        return np.array(flags, bool)

    def _set_states(self, states: Mapping[int, str]) -> None:
        if self.journal is not None and states:
            self.journal.add_states(states)
        for label, state in states.items():
            if label in self.table.index and state in STATES:
                self.table.at[label, "state"] = state

    def _set_complete(self, said: Mapping[int, bool]) -> None:
        depth = self.labels.shape[0]
        self.complete |= {z for z, done in said.items() if done and 0 <= z < depth}
        self.complete -= {z for z, done in said.items() if not done}

    def _resume(self, journal: Journal) -> int:
        """Does again what the journal holds, and goes on with it."""
        for entry in journal.edits():
            if isinstance(entry, Edit):
                check_free(self.labels, int(entry.values.max(initial=0)))
                self.apply(entry)
            else:
                said: Mapping[str, Mapping[str, Any]] = entry
                states, slices = said.get("states", {}), said.get("slices", {})
                self._set_states({int(key): str(value) for key, value in states.items()})
                self._set_complete({int(key): bool(value) for key, value in slices.items()})
        self.journal = journal
        return len(journal.entries)


def fits(table: pd.DataFrame, there: Ints) -> bool:
    """Whether a table has the columns of `granule_table`, and a row for each number."""
    needed = {"label", "score", "supporting_slices", "z0", "touches_border", "slices"}
    return needed <= set(table.columns) and bool(np.isin(there, table["label"]).all())
