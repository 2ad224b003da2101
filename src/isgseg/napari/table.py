"""The table of granules in the proofreading dock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtGui import QColor

from isgseg.napari.session import ABSENT, ACCEPTED, CORRECTED, OPEN

_SHOWN = {  # column of the table: its title, and how it is written
    "label": ("label", "{:d}"),
    "suspicion": ("doubt", "{:.2f}"),
    "state": ("state", "{}"),
    "score": ("score", "{:.2f}"),
    "equivalent_diameter_nm": ("nm", "{:.0f}"),
    "centroid_z": ("z", "{:.0f}"),
    "reason": ("reason", "{}"),
}
_COLOURS = {ACCEPTED: QColor(90, 190, 110), CORRECTED: QColor(90, 160, 230)}


class GranuleModel(QAbstractTableModel):
    """Rows of a session's table, sorted by one of the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.table = pd.DataFrame(columns=list(_SHOWN))
        self.columns = list(_SHOWN)
        self.by, self.descending, self.only_open = "suspicion", True, False

    def set_table(self, table: pd.DataFrame) -> None:
        """Shows another table, or what became of it."""
        self.beginResetModel()
        rows = table[table["state"].isin(OPEN)] if self.only_open else table
        order = np.argsort(rows.index.to_numpy(), kind="stable")
        rows = rows.iloc[order]
        self.table = rows.sort_values(self.by, ascending=not self.descending, kind="stable")
        unknown = len(self.table) > 0 and self.table["equivalent_diameter_nm"].isna().all()
        diameter = "equivalent_diameter_px" if unknown else "equivalent_diameter_nm"
        self.columns = [diameter if "diameter" in name else name for name in _SHOWN]
        self.endResetModel()

    def labels(self, rows: list[int]) -> list[int]:
        """The labels in rows."""
        found: list[int] = self.table.index.to_numpy()[rows].tolist()
        return found

    def row(self, label: int) -> int | None:
        """The row of a label; None where it is not shown."""
        where = np.flatnonzero(self.table.index.to_numpy() == label)
        return int(where[0]) if len(where) else None

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return 0 if parent is not None and parent.isValid() else len(self.table)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Qt's."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def headerData(self, section: int, orientation: Any, role: Any = Qt.DisplayRole) -> Any:
        """Qt's: titles."""
        if role != Qt.DisplayRole or orientation != Qt.Horizontal:
            return None
        return _SHOWN.get(self.columns[section], ("voxels", ""))[0]

    def data(self, index: QModelIndex, role: Any = Qt.DisplayRole) -> Any:
        """Qt's: what a cell shows."""
        name = self.columns[index.column()]
        row = self.table.iloc[index.row()]
        if role == Qt.DisplayRole:
            value = row[name]
            if isinstance(value, float) and not np.isfinite(value):
                return ""
            return _SHOWN.get(name, ("", "{:.1f}"))[1].format(value)
        if role == Qt.ToolTipRole:
            return str(row["reason"]) or "no reason to doubt"
        if role == Qt.ForegroundRole and row["state"] in _COLOURS:
            return _COLOURS[row["state"]]
        if role == Qt.ForegroundRole and row["state"] in ABSENT:
            return QColor(150, 150, 150)
        return None

    def sort(self, column: int, order: Any = Qt.AscendingOrder) -> None:
        """Qt's: by a column, which keeps the sorting of later tables."""
        self.by, self.descending = self.columns[column], order == Qt.DescendingOrder
        self.set_table(self.table)
