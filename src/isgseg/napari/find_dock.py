"""The dock that finds granules: choose a network, watch it, move the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSlider,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from isgseg.napari.charts import Histogram
from isgseg.napari.finding import Found
from isgseg.napari.layers import IMAGE, LayerChoice, about, file_of, voxel_size_of
from isgseg.napari.network_choice import NetworkChoice
from isgseg.napari.reading import features
from isgseg.napari.searching import Search

WHOLE, IN_VIEW = "the whole volume", "slices in view"


class FindGranules(QWidget):
    """Find granules in an image layer."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.search: Search | None = None
        self.result: Found | None = None
        self.layer: Any = None
        self.threshold = 0.5
        self._build()
        self._update()

    def _build(self) -> None:
        self.images = LayerChoice(self.viewer, IMAGE, self._update)
        self.network = NetworkChoice(browse=True)
        self.where = QComboBox()
        self.where.addItems([WHOLE, IN_VIEW])
        self.where.currentIndexChanged.connect(lambda _: self._update())
        self.around = QSpinBox()
        self.around.setRange(1, 200)
        self.around.setValue(8)
        self.around.setSuffix(" slices to either side")
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)
        form.addRow("Tomogram", self.images)
        form.addRow("Network", self.network)
        form.addRow("Look in", self.where)
        form.addRow("", self.around)
        self.start, self.stop = QPushButton("Find granules"), QPushButton("Stop")
        self.start.clicked.connect(self.run)
        self.stop.clicked.connect(self.cancel)
        row = QHBoxLayout()
        row.addWidget(self.start, 1)
        row.addWidget(self.stop)
        self.bar = QProgressBar()
        self.status = QLabel()
        self.status.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(row)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(self._results())
        layout.addStretch(1)

    def _results(self) -> QGroupBox:
        self.slider = QSlider(Qt.Horizontal)
        self.slider.setRange(0, 100)
        self.slider.valueChanged.connect(lambda value: self.set_threshold(value / 100))
        self.score = QLabel()
        self.score.setMinimumWidth(34)
        self.count = QLabel()
        self.histogram = Histogram()
        self.review = QPushButton("Proofread these")
        self.review.clicked.connect(self._proofread)
        self.results = QGroupBox("Score of a granule, at least")
        row = QHBoxLayout()
        row.addWidget(self.slider, 1)
        row.addWidget(self.score)
        layout = QVBoxLayout(self.results)
        layout.addLayout(row)
        layout.addWidget(self.count)
        layout.addWidget(self.histogram)
        layout.addWidget(self.review)
        return self.results

    # What the buttons do.

    def run(self) -> None:
        """Starts the search."""
        image, network = self.images.layer(), self.network.currentData()
        if image is None or network is None or self.search is not None:
            return
        depth = image.data.shape[0]
        slices = self.slices_in_view(depth) if self.where.currentText() == IN_VIEW else (0, depth)
        size = voxel_size_of(image)
        self.result = None
        empty = np.zeros(image.data.shape, np.uint16)
        known = {"voxel_size": size, "tomogram": file_of(image)}
        self.layer = self.viewer.add_labels(
            empty,
            name=f"{image.name}_labels",
            metadata={"isgseg": known},
            scale=image.scale,
            units=image.units,
            translate=image.translate,
        )
        self.search = Search(np.asarray(image.data), size, network, slices)
        self.search.slice_done.connect(self._show_slice)
        self.search.found.connect(self._show)
        self.search.failed.connect(self._failed)
        self.bar.setRange(slices[0], slices[1])
        self.bar.setValue(slices[0])
        self.status.setText("Reading the network ...")
        self.search.start()
        self._update()

    def cancel(self) -> None:
        """Stops the search after the slice that it is at."""
        if self.search is not None:
            self.search.stopped = True
            self.status.setText("Stopping after this slice ...")

    def slices_in_view(self, depth: int) -> tuple[int, int]:
        """The slices around the one in view: the first, and the one after the last."""
        image: Any = self.images.layer()
        z = round(float(image.world_to_data(self.viewer.dims.point)[0]))
        z = min(max(z, 0), depth - 1)
        return max(z - self.around.value(), 0), min(z + self.around.value() + 1, depth)

    def set_threshold(self, threshold: float) -> None:
        """Shows the granules of a score at least."""
        if self.result is None or self.reviewed():
            return
        threshold = max(threshold, self.result.lowest)
        self.result.show(self.layer.data, self.threshold, threshold)
        self.threshold = threshold
        self.layer.metadata["isgseg"]["threshold"] = threshold
        self.layer.refresh()
        self._show_numbers()

    def reviewed(self) -> bool:
        """Whether somebody proofreads the labels, so that the threshold stays as it is."""
        return self.layer is None or bool(about(self.layer).get("reviewed"))

    # What the search says.

    def _show_slice(self, number: int, of: int, labels: Any) -> None:
        if self.search is None or self.layer is None:
            return
        self.bar.setValue(number + 1)
        self.status.setText(f"Slice {number + 1} of {of}")
        if labels is not None:
            self.layer.data[number] = labels
            if self.viewer.dims.ndisplay == 3 or self.viewer.dims.current_step[0] == number:
                self.layer.refresh()

    def _show(self, found: Found) -> None:
        self.result, self.threshold = found, found.threshold
        own = self.layer.metadata["isgseg"]
        own |= {"threshold": found.threshold, "offered": found.labels, "table": found.table}
        self.layer.data = found.shown(found.threshold)
        self.layer.features = features(found.table)
        self.slider.blockSignals(True)
        self.slider.setRange(int(np.ceil(100 * found.lowest)), 100)
        self.slider.setValue(round(100 * found.threshold))
        self.slider.blockSignals(False)
        self.status.setText(f"Done, with {found.network.name}")
        self._show_numbers()
        self._end()

    def _show_numbers(self) -> None:
        if self.result is None:
            return
        counts, edges, unit = self.result.histogram(self.threshold)
        self.score.setText(f"{self.threshold:.2f}")
        self.count.setText(f"{len(self.result.above(self.threshold))} granules")
        self.histogram.set_counts(counts.tolist(), float(edges[0]), float(edges[-1]), unit)

    def _failed(self, message: str) -> None:
        self.status.setText(message)
        self._end()

    def _end(self) -> None:
        if self.search is not None:
            self.search.wait()
            self.search = None
        self._update()

    def _proofread(self) -> None:
        """Opens the dock for proofreading with these labels."""
        _, dock = self.viewer.window.add_plugin_dock_widget("isgseg", "Proofread granules")
        dock.labels.choose(self.layer)
        dock.begin()
        self._update()

    def _update(self) -> None:
        """Which buttons can be pressed."""
        busy, there = self.search is not None, self.images.layer() is not None
        self.start.setEnabled(there and not busy)
        self.stop.setEnabled(busy)
        self.bar.setVisible(busy)
        self.around.setVisible(self.where.currentText() == IN_VIEW)
        has = self.result is not None
        self.results.setEnabled(has)
        self.slider.setEnabled(has and not self.reviewed())
        if not there:
            self.status.setText("Open a tomogram first: drop an .mrc file into the window.")
        elif not busy and not has and "Open a tomogram" in self.status.text():
            self.status.setText("")

    def closeEvent(self, event: Any) -> None:
        """Qt's: a search ends with the dock."""
        self.network.stop()
        if self.search is not None:
            self.search.stopped = True
            self.search.wait()
        super().closeEvent(event)
