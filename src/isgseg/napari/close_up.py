"""A granule and its surroundings in 3D, in place of the whole cell.

A whole cell in 3D takes seconds for each image where the processor draws it, and a granule is hard
to find in it. So that in 3D a box around the granule that is looked at is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isgseg.instances.parts import Box
from isgseg.napari.layers import IMAGE, LABELS
from isgseg.napari.session import ABSENT, Session

DIAMETERS, LEAST = 2.0, 16  # from the middle of the granule to the side of the box: these or voxels
NOT_TO_EDIT = {"isgseg": {"shown_only": True}}


class CloseUp:
    """Two layers, image and labels, that are there in 3D; the whole ones are hidden meanwhile.

    Args:
        viewer: napari's.
        layer: of labels, (z, y, x).
        session: of the very labels.
        changed: is called when the box was opened or closed.

    Attributes:
        whole: the user wants to see the whole cell all the same.
        labels: the layer of the box; None while there is none.
        origin: voxel of the layer at which the box begins.
    """

    def __init__(
        self, viewer: Any, layer: Any, session: Session, changed: Callable[[], None]
    ) -> None:
        self.viewer, self.layer, self.session, self.changed = viewer, layer, session, changed
        self.whole, self.current = False, 0
        self.image: Any = None
        self.labels: Any = None
        self.origin = np.zeros(3)
        self._hidden: list[Any] = []
        self._box: Box = tuple(slice(0, min(2 * LEAST, side)) for side in layer.data.shape)
        viewer.dims.events.ndisplay.connect(self.switch)  # before napari draws the whole cell
        self.switch()

    @property
    def across(self) -> float:
        """The longest side of the box, voxels."""
        return float(max(side.stop - side.start for side in self._box))

    def switch(self, _event: Any = None) -> None:
        """Opens the box in 3D, and closes it in 2D."""
        wanted = self.viewer.dims.ndisplay == 3 and not self.whole
        if wanted != (self.labels is not None):
            self._open() if wanted else self._close()
            self.changed()

    def show_whole(self, whole: bool) -> None:
        """Shows the whole cell in 3D, or the box."""
        self.whole = whole
        self.switch()

    def show(self, label: int) -> None:
        """Shows a granule; one that is only offered too."""
        self.current = label
        middle = [(side.start + side.stop) // 2 for side in self.session.box(label)]
        diameter = float(self.session.table["equivalent_diameter_px"][label])
        half = max(LEAST, round(DIAMETERS * diameter))
        self._box = tuple(
            slice(max(m - half, 0), min(m + half, side))
            for m, side in zip(middle, self.layer.data.shape, strict=True)
        )
        self.refresh()

    def refresh(self) -> None:
        """Shows what became of the labels."""
        if self.labels is None:
            return
        self.origin = np.array([side.start for side in self._box], float)
        place = self.layer.data_to_world(self.origin)
        if self.image is not None and self.session.volume is not None:
            self.image.data = np.array(self.session.volume[self._box], np.float32)
            # The brightest voxel behind each point is shown: what is not above the middle is black.
            middle, most = np.percentile(self.image.data, (50, 99.9)).tolist()
            self.image.contrast_limits = (middle, max(most, np.nextafter(middle, np.inf)))
            self.image.translate = place
        self.labels.data = self._crop()
        self.labels.translate = place
        self.labels.selected_label = self.current
        self.labels.show_selected_label = self.layer.show_selected_label

    def end(self) -> None:
        """Leaves the viewer as it was."""
        self.viewer.dims.events.ndisplay.disconnect(self.switch)
        self._close()

    def _crop(self) -> Any:
        """(z, y, x) the labels in the box, with the granule that is offered."""
        crop, session = self.session.labels[self._box].copy(), self.session
        known = self.current in session.table.index
        if known and session.offered is not None and session.state(self.current) in ABSENT:
            crop[(session.offered[self._box] == self.current) & (crop == 0)] = self.current
        return crop

    def _open(self) -> None:
        viewer, layer = self.viewer, self.layer
        active = viewer.layers.selection.active
        shown = [other for other in viewer.layers if other.visible and other.ndim == 3]
        self._hidden = [other for other in shown if other._type_string in (IMAGE, LABELS)]
        for other in self._hidden:
            other.visible = False
        like = {"scale": layer.scale, "units": layer.units, "metadata": dict(NOT_TO_EDIT)}
        volume = self.session.volume
        if volume is not None:
            self.image = viewer.add_image(
                np.array(volume[self._box], np.float32),
                name="close-up",
                colormap="gray",
                opacity=0.6,
                **like,
            )
        self.labels = viewer.add_labels(self._crop(), name="close-up of labels", **like)
        self.labels.colormap = layer.colormap
        self.labels.editable = False
        self.refresh()
        viewer.layers.selection.active = active

    def _close(self) -> None:
        for own in (self.image, self.labels):
            if own is not None and own in self.viewer.layers:
                self.viewer.layers.remove(own)
        self.image = self.labels = None
        for other in self._hidden:
            if other in self.viewer.layers:
                other.visible = True
        self._hidden = []
