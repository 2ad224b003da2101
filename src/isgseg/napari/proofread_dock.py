"""The dock for proofreading: a table by doubt, and one key for each thing that can be done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from qtpy.QtWidgets import QMessageBox

from isgseg.errors import InputError
from isgseg.napari import steps
from isgseg.napari.close_up import NOT_TO_EDIT, CloseUp
from isgseg.napari.following import Follower
from isgseg.napari.layers import IMAGE, about, file_of, layers_of, voxel_size_of
from isgseg.napari.pointing import label_under, place_under
from isgseg.napari.proofread_actions import Actions
from isgseg.napari.proofread_form import ACTIONS, Form
from isgseg.napari.reading import read_table, table_path
from isgseg.napari.session import Session

log = logging.getLogger(__name__)
REVIEWS: list[Proofread] = []


class Proofread(Actions):
    """Look at granules, the most doubtful first, and put them right."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.form = Form(self, napari_viewer, self.begin, self.refresh)
        self.labels = self.form.labels
        for name, (_, key, _) in ACTIONS.items():
            self.form.buttons[name].clicked.connect(partial(self._act, getattr(self, name)))
            if key and not key.startswith("Control"):
                act = partial(self._act, getattr(self, name))
                self.viewer.bind_key(key, lambda _viewer, act=act: act(), overwrite=True)
        self.form.chosen.connect(self._row_chosen)
        self.form.one.toggled.connect(self._show_one)
        self.form.whole.toggled.connect(self._show_whole)
        self.viewer.bind_key("Escape", lambda _: self.stop_asking(), overwrite=True)
        self.form.save.clicked.connect(partial(self._act, self.save))
        self.viewer.mouse_drag_callbacks.append(self._clicked)
        REVIEWS.append(self)
        self.refresh()

    def begin(self) -> None:
        """Begins, or goes on with, the review of the layer that is chosen."""
        layer = self.labels.layer()
        if layer is not None and layer is not self.layer:
            self._act(lambda: self._begin(layer))

    def _begin(self, layer: Any) -> None:
        for dock in REVIEWS:
            if dock.layer is layer:  # one that napari took out of the window
                dock.end()
        self.end()
        known, file, size = about(layer), file_of(layer), voxel_size_of(layer)
        table = known.get("table")
        if table is None and file is not None:
            table = read_table(table_path(file))
        images = layers_of(self.viewer, IMAGE)
        volume = next((i.data for i in images if i.data.shape == layer.data.shape), None)
        if not isinstance(layer.data, np.ndarray) or not layer.data.flags.writeable:
            layer.data = np.array(layer.data)
        self.session = Session(
            layer.data,
            size,
            volume=volume,
            table=table,
            threshold=known.get("threshold"),
            offered=known.get("offered"),
            file=file,
        )
        layer.metadata.setdefault("isgseg", {})["reviewed"] = True
        self.layer = layer
        self.follower = Follower(layer, self.session, self.refresh)
        layer.events.selected_label.connect(self._label_selected)
        layer.refresh()
        if self.session.offered is not None:
            self.outline = self.viewer.add_labels(
                self.session.offered,
                name=f"{layer.name} (offered)",
                visible=False,
                metadata=dict(NOT_TO_EDIT),
                scale=layer.scale,
                units=layer.units,
                translate=layer.translate,
            )
            self.outline.contour = 1
            self.outline.show_selected_label = True
            self.outline.editable = False
        self.close_up = CloseUp(self.viewer, layer, self.session, self._look_again)
        self.close_up.show_whole(self.form.whole.isChecked())
        self.viewer.layers.selection.active = layer
        self.refresh()
        resumed = f"{self.session.resumed} entries of the journal were done again. "
        self.say(resumed if self.session.resumed else "")
        self.look_at(steps.next_open(self.session))

    def end(self) -> None:
        """Lets go of the layer."""
        if self.follower is not None:
            self.layer.events.selected_label.disconnect(self._label_selected)
            self.follower.stop()
        if self.session is not None:
            self.session.close()
        if self.close_up is not None:
            self.close_up.end()
        if self.outline is not None and self.outline in self.viewer.layers:
            self.viewer.layers.remove(self.outline)
        self.session = self.follower = self.layer = self.outline = self.close_up = None
        self.current = self.asked = None
        self.refresh()

    def _act(self, action: Callable[[], None], _checked: bool = False) -> None:
        """Does something; what the user can mend is said in the dock."""
        try:
            action()
        except InputError as error:
            self.say(str(error))

    def _show_one(self, alone: bool) -> None:
        if self.layer is not None and self.close_up is not None:
            self.layer.show_selected_label = alone
            self.close_up.refresh()

    def _show_whole(self, whole: bool) -> None:
        if self.close_up is not None:
            self.close_up.show_whole(whole)

    def _look_again(self) -> None:
        """After a change between 2D and 3D."""
        if self.current is not None and self.current in self._session().table.index:
            self.look_at(self.current, fit=True)

    def _row_chosen(self, label: int) -> None:
        self._act(partial(self.look_at, label))

    def _label_selected(self, _event: Any = None) -> None:
        label = int(self.layer.selected_label)
        if self.session is not None and label in self.session.table.index:
            self._act(partial(self.look_at, label, move=False))

    def _clicked(self, _viewer: Any, event: Any) -> None:
        """A click on a granule chooses it, unless places are asked for."""
        layer = self.layer
        if self.session is None or layer is None or layer.mode not in ("pan_zoom", "transform"):
            return
        origin = np.zeros(3)
        if (near := self.shown_close_up()) is not None:
            layer, origin = near.labels, near.origin
        if self.asked is not None:
            place = place_under(layer, event)
            if place is not None:
                self._act(partial(self._add_place, (origin + place).tolist()))
        elif (label := label_under(layer, event)) in self.session.table.index:
            more = "Control" in event.modifiers
            self.form.select(label, more)
            self._act(partial(self.look_at, label, move=False) if not more else lambda: None)

    def _add_place(self, place: Sequence[float]) -> None:
        self.places.append(place)
        if len(self.places) == 2 and self.asked is not None:
            then, self.asked = self.asked, None
            then(self.places)

    def refresh(self) -> None:
        """Shows what is known anew."""
        session, text = self.session, ""
        if self.close_up is not None:
            self.close_up.refresh()
        if session is not None:
            done = len(session.table) - steps.left(session)
            text = f"{done} of {len(session.table)} reviewed. "
            where = session.journal.path.name if session.journal else ""
            text += (
                f"Every step is kept in {where}."
                if where
                else "Not saved to a file yet: steps are kept only in memory. Save to change that."
            )
        self.form.show_session(session, text)

    def closeEvent(self, event: Any) -> None:
        """Qt's: the review ends with the dock; nothing is lost that is in a file."""
        if self.session is not None and self.session.journal is None and self._is_changed():
            question = "These labels were never saved to a file. Save them now?"
            if QMessageBox.question(self, "isgseg", question) == QMessageBox.Yes:
                self._act(self.save)
        self.end()
        if self in REVIEWS:
            self.viewer.mouse_drag_callbacks.remove(self._clicked)
            REVIEWS.remove(self)
        super().closeEvent(event)

    def _is_changed(self) -> bool:
        return self.session is not None and bool((self.session.table["state"] != "").any())
