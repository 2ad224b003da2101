"""What the dock for proofreading looks like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QItemSelectionModel, QObject, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from isgseg.napari.layers import LABELS, LayerChoice
from isgseg.napari.table import GranuleModel

# Method of the dock: what the button says, its key, and what it does.
ACTIONS = {
    "backward": ("Previous", "Shift-N", "the granule before that nobody has looked at"),
    "forward": ("Next", "N", "the most doubtful granule that nobody has looked at"),
    "accept": ("Accept", "A", "these are granules as they are; goes on"),
    "delete": ("Delete", "D", "these are none; goes on"),
    "merge": ("Merge", "G", "those that are chosen are one granule"),
    "split": ("Split", "S", "at constrictions of its shape"),
    "cut_between": ("Cut", "K", "between two places that you click"),
    "draw": ("New ball", "W", "a granule of the usual size where the pointer is"),
    "draw_across": ("Ball across", "B", "a new granule between two edges that you click"),
    "paint": ("Brush", "", "napari's brush, in 3D, with a new number"),
    "complete": ("Slice is complete", "C", "nothing is missing in the slice in view"),
    "undo": ("Undo", "Control-Z", "the last step; Ctrl+Shift+Z does it again"),
}
_COLUMNS = (48, 58, 66, 48, 46, 34)
_WIDE = {"complete": 2}  # buttons over two columns


class Form(QObject):
    """The widgets of the dock.

    Args:
        dock: that they are laid out in.
        viewer: napari's.
        begin: begins a review.
        refresh: shows what is known anew.
    """

    chosen = Signal(int)

    def __init__(
        self, dock: QWidget, viewer: Any, begin: Callable[[], None], refresh: Callable[[], None]
    ) -> None:
        super().__init__(dock)
        self.labels = LayerChoice(viewer, LABELS, refresh)
        self.begin = QPushButton("Begin")
        self.begin.clicked.connect(lambda _: begin())
        self.status, self.message = QLabel(), QLabel()
        for text in (self.status, self.message):
            text.setWordWrap(True)
        self.message.setMinimumHeight(34)
        self.message.setAlignment(Qt.AlignTop)
        self.only_open = QCheckBox("only open ones")
        self.only_open.setToolTip("hides rows of granules that somebody has looked at")
        self.only_open.toggled.connect(self._filter)
        self.one = QCheckBox("only the chosen one")
        self.one.setToolTip("hides the labels of all others")
        self.whole = QCheckBox("whole cell in 3D")
        self.whole.setToolTip("not only the surroundings of the granule; slow without a GPU")
        self.save = QPushButton("Save ...")
        self.save.setToolTip("to another file than the original, with table and manifest")
        self.buttons = {
            name: QPushButton(f"{title}  {key.replace('Control', 'Ctrl')}".strip())
            for name, (title, key, _) in ACTIONS.items()
        }
        for name, button in self.buttons.items():
            button.setToolTip(ACTIONS[name][2])
        self.model = GranuleModel()
        self.table = self._table()
        self._session: Any = None
        self._lay_out(dock)

    def _table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.model)
        table.setSelectionBehavior(QAbstractItemView.SelectRows)
        table.setSelectionMode(QAbstractItemView.ExtendedSelection)
        table.setSortingEnabled(True)
        table.horizontalHeader().setSortIndicator(1, Qt.DescendingOrder)
        table.horizontalHeader().setStretchLastSection(True)
        table.horizontalHeader().setMinimumSectionSize(30)
        for column, width in enumerate(_COLUMNS):
            table.setColumnWidth(column, width)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(22)
        table.setMinimumHeight(180)
        table.clicked.connect(lambda index: self._clicked(index.row()))
        return table

    def _lay_out(self, dock: QWidget) -> None:
        layout = QVBoxLayout(dock)
        row = QHBoxLayout()
        row.addWidget(QLabel("Labels"))
        row.addWidget(self.labels, 1)
        row.addWidget(self.begin)
        layout.addLayout(row)
        layout.addWidget(self.status)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.message)
        grid = QGridLayout()
        place = 0
        for name, button in self.buttons.items():
            wide = _WIDE.get(name, 1)
            if place % 3 + wide > 3:
                place += 3 - place % 3
            grid.addWidget(button, place // 3, place % 3, 1, wide)
            place += wide
        layout.addLayout(grid)
        row = QHBoxLayout()
        row.addWidget(self.only_open)
        row.addWidget(self.one)
        layout.addLayout(row)
        row = QHBoxLayout()
        row.addWidget(self.whole)
        row.addStretch(1)
        row.addWidget(self.save)
        layout.addLayout(row)

    def show_session(self, session: Any, text: str) -> None:
        """Shows the table of a session, or none."""
        chosen = self.selected()
        self._session = session
        if session is not None:
            self.model.set_table(session.table)
            for label in chosen:
                self.select(label, more=True)
        for widget in (
            *self.buttons.values(),
            self.save,
            self.only_open,
            self.one,
            self.whole,
            self.table,
        ):
            widget.setEnabled(session is not None)
        there = self.labels.layer() is not None
        self.begin.setEnabled(there)
        self.status.setVisible(bool(text) or session is None)
        hint = "Choose a layer of labels, and begin." if there else "There are no labels yet."
        self.status.setText(text if session is not None else hint)

    def selected(self) -> list[int]:
        """The labels that are selected, in the order of the table."""
        model = self.table.selectionModel()
        rows = sorted(index.row() for index in model.selectedRows())
        return self.model.labels(rows)

    def select(self, label: int, more: bool = False) -> None:
        """Selects the row of a label, alone or with those that are selected."""
        row = self.model.row(label)
        if row is None:
            return
        index, flag = self.model.index(row, 0), QItemSelectionModel.SelectionFlag
        how = flag.Select if more else flag.ClearAndSelect
        self.table.selectionModel().select(index, how | flag.Rows)
        self.table.scrollTo(index)

    def _clicked(self, row: int) -> None:
        if len(self.table.selectionModel().selectedRows()) == 1:
            self.chosen.emit(self.model.labels([row])[0])

    def _filter(self, only_open: bool) -> None:
        self.model.only_open = only_open
        if self._session is not None:
            self.model.set_table(self._session.table)
