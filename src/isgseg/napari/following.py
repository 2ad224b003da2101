"""A session and a napari labels layer kept in step, whatever changes the layer.

Edits of the docks, brush and bucket, undo and redo: all go through napari's own history, and the
session hears of each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from isgseg.instances.components import Ints
from isgseg.instances.editing import Edit
from isgseg.napari.session import Session, Where

log = logging.getLogger(__name__)


class Follower:
    """Makes edits in a layer, and tells the session of all changes.

    Args:
        layer: `napari.layers.Labels`, 3D, of a numpy array.
        session: of the very array of the layer.
        told: is called after each change.
    """

    def __init__(self, layer: Any, session: Session, told: Callable[[], None]) -> None:
        self.layer, self.session, self.told = layer, session, told
        self._undo: list[tuple[Where, dict[int, str]]] = []
        self._redo: list[tuple[Where, dict[int, str]]] = []
        self._waiting: list[Any] = []
        self._states: dict[int, str] | None = None
        # napari tells of paint, but not of undo and redo; its keys and menus call these methods.
        self._originals = layer.undo, layer.redo
        layer.undo, layer.redo = self.undo, self.redo
        layer.events.paint.connect(self._painted)
        layer.events.labels_update.connect(self._catch_up)
        layer.events.set_data.connect(self._catch_up)

    def stop(self) -> None:
        """Lets go of the layer."""
        del self.layer.undo, self.layer.redo
        self.layer.events.paint.disconnect(self._painted)
        self.layer.events.labels_update.disconnect(self._catch_up)
        self.layer.events.set_data.disconnect(self._catch_up)

    def do(self, edit: Edit, states: dict[int, str] | None = None) -> None:
        """Makes an edit, one step of napari's undo.

        Args:
            edit: of the session's labels.
            states: of granules afterwards; others that were changed are corrected.
        """
        self._states = states
        try:
            with self.layer.block_history():
                self._set(edit.where, edit.values.astype(self.layer.data.dtype))
        finally:
            self._states = None

    def _set(self, where: Where, values: Ints) -> None:
        """Napari's `data_setitem`; of a hidden layer it fails, as no slice of it is known."""
        layer = self.layer
        if layer.visible:
            layer.data_setitem(where, values)
            return
        before = layer.data[where]
        moved = before != values
        if moved.any():
            where = (where[0][moved], where[1][moved], where[2][moved])
            layer._save_history((where, before[moved], values[moved]))
            layer.data[where] = values[moved]

    def undo(self) -> None:
        """Napari's undo, which the session follows."""
        self._step(self._originals[0], self._undo, self._redo)

    def redo(self) -> None:
        """Napari's redo, which the session follows."""
        self._step(self._originals[1], self._redo, self._undo)

    def _step(
        self,
        step: Callable[[], None],
        taken: list[tuple[Where, dict[int, str]]],
        given: list[tuple[Where, dict[int, str]]],
    ) -> None:
        if not taken:
            step()
            return
        where, states = taken[-1]
        before = self.layer.data[where].copy()
        step()
        if np.array_equal(self.layer.data[where], before):
            return  # napari remembers fewer steps
        taken.pop()
        given.append((where, self.session.changed(where, before, states)))
        self.told()

    def _painted(self, event: Any) -> None:
        self._waiting.append(event.value)
        self._catch_up()

    def _catch_up(self, _event: Any = None) -> None:
        """Tells the session of what was painted, once it is in the data: napari tells before."""
        while self._waiting:
            where, before, after = _changes(self._waiting[0])
            if len(after) and not np.array_equal(self.layer.data[where], after):
                return
            self._waiting.pop(0)
            former = self.session.changed(where, before, self._states)
            self._undo.append((where, former))
            self._redo.clear()
            self.told()


def _changes(item: list[Any]) -> tuple[Where, Ints, Ints]:
    """Voxels of a step of napari's history, each once, with the first and the last value."""
    parts = [_of_atom(atom) for atom in item]
    where = [np.concatenate([part[0][axis] for part in parts]) for axis in range(3)]
    before = np.concatenate([part[1] for part in parts])
    after = np.concatenate([part[2] for part in parts])
    if len(parts) > 1:
        places = np.stack(where, axis=1)
        _, first = np.unique(places, axis=0, return_index=True)
        _, last = np.unique(places[::-1], axis=0, return_index=True)
        where = [axis[first] for axis in where]
        before, after = before[first], after[::-1][last]
    z, y, x = where
    return (z, y, x), before, after


def _of_atom(atom: Any) -> tuple[Where, Ints, Ints]:
    """Voxels, their values before and after, of one change: of indices, or of a box with a mask."""
    if hasattr(atom, "slice_key"):
        starts = [side.start for side in atom.slice_key]
        shape = [side.stop - side.start for side in atom.slice_key]
        mask = np.ones(shape, bool) if atom.mask is None else atom.mask
        old = np.asarray(atom.old_values)
        before = old[mask] if old.ndim == 3 else old.ravel()
        z, y, x = (axis + start for axis, start in zip(np.nonzero(mask), starts, strict=True))
        return (z, y, x), before, np.full(len(z), atom.new_value)
    indices, before, after = atom
    z, y, x = (np.atleast_1d(np.asarray(axis, np.int64)) for axis in indices)
    return (z, y, x), np.asarray(before), np.broadcast_to(np.asarray(after), z.shape).copy()
