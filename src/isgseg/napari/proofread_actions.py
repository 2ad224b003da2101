"""What a person can do with granules in the dock for proofreading."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtWidgets import QFileDialog, QWidget

from isgseg.errors import InputError
from isgseg.napari import steps
from isgseg.napari.close_up import CloseUp
from isgseg.napari.following import Follower
from isgseg.napari.layers import about, file_of
from isgseg.napari.pointing import Cursor, go_to, place_under
from isgseg.napari.proofread_form import Form
from isgseg.napari.saving import save_review
from isgseg.napari.session import ABSENT, ACCEPTED, OFFERED, REJECTED, Session

AROUND = 14  # diameters that the view is wide in 2D


class Actions(QWidget):
    """The actions of the dock, each a method that `ACTIONS` names.

    Attributes:
        session: of the labels that are proofread; None before `begin`.
        current: the label that is looked at.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.follower: Follower | None = None
        self.layer: Any = None
        self.close_up: CloseUp | None = None
        self.outline: Any = None  # a layer that shows what is offered, when it is looked at
        self.current: int | None = None
        # What is done with two places that are clicked next, and those that were.
        self.asked: Callable[[list[Sequence[float]]], None] | None = None
        self.places: list[Sequence[float]] = []
        self.form: Form

    def accept(self) -> None:
        """Says that the granules are right, and goes on; offered ones are taken in."""
        session, chosen = self._session(), self.chosen()
        for label in chosen:
            if session.state(label) in ABSENT:
                self._do(steps.take_in(session, label), {label: ACCEPTED})
        session.say([label for label in chosen if label in session.table.index], ACCEPTED)
        self._go_on(chosen)

    def delete(self) -> None:
        """Removes the granules, and goes on; offered ones are turned down."""
        session, chosen = self._session(), self.chosen()
        offered = [label for label in chosen if session.state(label) == OFFERED]
        following = steps.next_open(session, chosen[-1]) if chosen else None
        self._do(steps.delete(session, chosen))
        session.say(offered, REJECTED)
        self._go_on(chosen, following)

    def merge(self) -> None:
        """Makes one granule of those that are chosen."""
        edit = steps.merge(self._session(), self.chosen())
        kept = int(edit.values[0]) if len(edit.values) else None
        self._do(edit)
        self.look_at(kept)

    def split(self) -> None:
        """Splits the granule by its shape."""
        label = self._one()
        self._do(steps.split(self._session(), label))
        self.look_at(label)

    def cut_between(self) -> None:
        """Splits the granule between the places that are clicked next."""
        label = self._one()
        self.ask(partial(self._cut, label), f"Click into each of the two parts of granule {label}.")

    def _cut(self, label: int, places: list[Sequence[float]]) -> None:
        self._do(steps.split(self._session(), label, places))
        self.look_at(label, move=False)

    def draw(self) -> None:
        """Adds a ball of the usual size where the pointer is."""
        session = self._session()
        number = session.next_number
        place = place_under(self.layer, Cursor(self.viewer))
        if place is None or self.viewer.dims.ndisplay == 3:
            raise InputError("point at the middle of the new granule in a slice, and press W there")
        self._do(steps.add_ball(session, place))
        self.look_at(number, move=False)

    def draw_across(self) -> None:
        """Adds a ball that reaches from one of two places, clicked next, to the other."""
        self._session()
        self.ask(self._draw_across, "Click on two opposite edges of the new granule, in a slice.")

    def _draw_across(self, places: list[Sequence[float]]) -> None:
        session = self._session()
        number = session.next_number
        self._do(steps.ball_across(session, places[0], places[1]))
        self.look_at(number, move=False)

    def ask(self, then: Callable[[list[Sequence[float]]], None], words: str) -> None:
        """Asks for two clicks, and does something with them."""
        self.asked, self.places = then, []
        self.say(f"{words} Escape ends it.")

    def stop_asking(self) -> None:
        """Clicks choose granules again."""
        if self.asked is not None:
            self.asked = None
            self.say("")

    def paint(self) -> None:
        """Takes napari's brush, in 3D, with a new number."""
        self.layer.selected_label = self._session().next_number
        self.layer.n_edit_dimensions = 3
        self.layer.preserve_labels = True
        self.layer.mode = "paint"
        self.viewer.layers.selection.active = self.layer
        self.say("Paint the granule; [ and ] change the brush, 6 gives the hand back.")

    def complete(self) -> None:
        """Says that nothing is missing in the slice in view, or takes it back."""
        session = self._session()
        z = int(np.clip(round(float(self.layer.world_to_data(self.viewer.dims.point)[0])), 0, None))
        done = z not in session.complete
        session.say_complete([z], done)
        self.say(f"Slice {z} is {'complete' if done else 'no longer said to be complete'}.")

    def undo(self) -> None:
        """Napari's undo."""
        self._session()
        self.layer.undo()

    def forward(self) -> None:
        """Goes to the next granule that nobody has looked at."""
        self.look_at(steps.next_open(self._session(), self.current))

    def backward(self) -> None:
        """Goes to the one before."""
        self.look_at(steps.next_open(self._session(), self.current, -1))

    def save(self) -> None:
        """Saves the labels, to another file unless the user says otherwise."""
        session = self._session()
        file = file_of(self.layer)
        tomogram = about(self.layer).get("tomogram")
        base = file or (Path(tomogram) if tomogram else Path(f"{self.layer.name}.tif"))
        beside = base.parent / "corrected" / f"{base.stem.removesuffix('_labels')}_labels.tif"
        beside.parent.mkdir(parents=True, exist_ok=True) if base.parent.is_dir() else None
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the corrected labels", str(beside), "Labels (*.tif *.mrc)"
        )
        if name:
            written = save_review(session, Path(name), file)
            about(self.layer)["file"] = name
            self.say("Saved: " + ", ".join(path.name for path in written))

    def shown_close_up(self) -> CloseUp | None:
        """The close-up, while it is in the place of the whole cell."""
        there = self.close_up is not None and self.close_up.labels is not None
        return self.close_up if there else None

    def look_at(self, label: int | None, move: bool = True, fit: bool = False) -> None:
        """Shows a granule, and its row; see `go_to` for `fit`."""
        session = self._session()
        if label is None or label not in session.table.index:
            if not steps.left(session):
                self.say("All granules are reviewed. Save the labels, or teach a network.")
            return
        self.current = label
        with self.layer.events.selected_label.blocker(self._label_selected):
            self.layer.selected_label = label
        self.form.select(label)
        near = self.shown_close_up()
        if self.close_up is not None:
            self.close_up.show(label)
        if move:
            across = AROUND * float(session.table["equivalent_diameter_px"][label])
            across = near.across if near is not None else across
            go_to(self.viewer, self.layer, steps.centre(session, label), across, fit)
        state = session.state(label)
        if self.outline is not None and self.outline in self.viewer.layers:
            self.outline.visible = state in ABSENT and near is None
            self.outline.selected_label = label
        reason = str(session.table["reason"][label]) or "no reason to doubt"
        self.say(f"Granule {label}{f' ({state})' if state else ''}: {reason}")

    def chosen(self) -> list[int]:
        """The labels that are selected in the table, or the one that is looked at."""
        labels = self.form.selected() or ([] if self.current is None else [self.current])
        return [label for label in labels if label in self._session().table.index]

    def _do(self, edit: Any, states: dict[int, str] | None = None) -> None:
        if self.follower is not None and len(edit.values):
            self.follower.do(edit, states)

    def _go_on(self, chosen: Sequence[int], following: int | None = None) -> None:
        session = self._session()
        if following not in session.table.index:
            following = steps.next_open(session, chosen[-1] if chosen else self.current)
        self.refresh()
        self.look_at(following)

    def _session(self) -> Session:
        if self.session is None:
            raise InputError("choose a layer of labels above, and press Begin")
        return self.session

    def _one(self) -> int:
        chosen = self.chosen()
        if len(chosen) != 1:
            raise InputError("choose one granule, in the table or by a click")
        return chosen[0]

    def say(self, text: str) -> None:
        """Shows a sentence below the buttons."""
        self.form.message.setText(text)

    def refresh(self) -> None:
        """Shows what is known anew."""
        raise NotImplementedError
