"""What docks have to know of napari layers: which are volumes, of which file, with which voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QComboBox

from isgseg.io.formats import VoxelSize, is_voxel_size

IMAGE, LABELS = "image", "labels"


def layers_of(viewer: Any, kind: str) -> list[Any]:
    """The layers of a kind that are volumes, (z, y, x), the topmost first; no close-ups."""
    found = [layer for layer in viewer.layers if layer._type_string == kind]
    volumes = [layer for layer in reversed(found) if layer.data.ndim == 3 and not layer.multiscale]
    return [layer for layer in volumes if not about(layer).get("shown_only")]


def voxel_size_of(layer: Any) -> VoxelSize | None:
    """The voxel size, nm: that of the file, or the scale where napari says that it is in nm."""
    known = about(layer).get("voxel_size")
    if known is not None:
        return tuple(known)
    in_nm = all(str(unit) in ("nanometer", "nm") for unit in layer.units)
    size = tuple(float(side) for side in layer.scale)
    return size if in_nm and is_voxel_size(size) else None  # type: ignore[return-value]


def file_of(layer: Any) -> Path | None:
    """The file that a layer was read from, or saved to; None where there is none."""
    name = about(layer).get("file") or layer.source.path
    return None if not name else Path(name)


def about(layer: Any) -> dict[str, Any]:
    """What isgseg keeps of a layer."""
    own = layer.metadata.get("isgseg")
    return own if isinstance(own, dict) else {}


class LayerChoice(QComboBox):
    """A list of the viewer's layers of one kind, always up to date.

    Args:
        viewer: napari's.
        kind: `IMAGE` or `LABELS`.
        changed: is called when another layer is chosen.
    """

    def __init__(self, viewer: Any, kind: str, changed: Callable[[], None]) -> None:
        super().__init__()
        self.viewer, self.kind = viewer, kind
        self.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(12)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self.refresh)
        self.refresh()
        self.currentIndexChanged.connect(lambda _: changed())

    def refresh(self, _event: Any = None) -> None:
        """Lists the layers anew and keeps the choice, where it is still there."""
        before = self.layer()
        self.blockSignals(True)
        self.clear()
        for layer in layers_of(self.viewer, self.kind):
            self.addItem(layer.name, layer)
        self.blockSignals(False)
        place = next((i for i in range(self.count()) if self.itemData(i) is before), 0)
        self.setCurrentIndex(place)
        if self.layer() is not before:
            self.currentIndexChanged.emit(self.currentIndex())

    def layer(self) -> Any | None:
        """The layer that is chosen."""
        return self.currentData()

    def choose(self, layer: Any) -> None:
        """Chooses a layer."""
        for place in range(self.count()):
            if self.itemData(place) is layer:
                self.setCurrentIndex(place)
