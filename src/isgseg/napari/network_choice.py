"""The list of networks in the docks."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog

from isgseg.napari import networks

BROWSE = "another file ..."


class NetworkChoice(QComboBox):
    """The networks that are known, always up to date; one that was taught comes first.

    Args:
        browse: offer files too.
    """

    def __init__(self, browse: bool = False) -> None:
        super().__init__()
        self.browse = browse
        self.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        self.activated.connect(self._chosen)
        self.stop = networks.listen(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Lists the networks anew and keeps the choice, unless a new one was taught."""
        before = self.currentData()
        self.clear()
        for name, path in networks.known_networks():
            self.addItem(name, path)
            self.setItemData(self.count() - 1, str(path), Qt.ToolTipRole)
        if self.browse:
            self.addItem(BROWSE, None)
        newest = self.itemText(0).startswith("taught")
        self.setCurrentIndex(0)
        if before is not None and not newest:
            self.choose(before)

    def choose(self, network: Path) -> None:
        """Chooses a network, where it is in the list."""
        for place in range(self.count()):
            if self.itemData(place) == network:
                self.setCurrentIndex(place)

    def _chosen(self, place: int) -> None:
        if self.itemText(place) != BROWSE:
            return
        name, _ = QFileDialog.getOpenFileName(self, "A network", "", "Networks (*.pth)")
        if name:
            self.insertItem(0, Path(name).name, Path(name))
        self.setCurrentIndex(0)
