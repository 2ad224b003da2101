"""The dock that teaches a network with what was proofread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from isgseg.errors import InputError
from isgseg.napari import networks, steps
from isgseg.napari.charts import Curve
from isgseg.napari.job import Job
from isgseg.napari.network_choice import NetworkChoice
from isgseg.napari.proofread_dock import REVIEWS
from isgseg.napari.teaching import Lesson, base_of, losses, trained_network

DEFAULT = "isgseg_lessons"  # a folder where napari was started
_EVERY = 1000  # milliseconds between two looks at a run


class Teach(QWidget):
    """Add proofread volumes to a lesson, and go on with a network."""

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.lesson = Lesson(Path(DEFAULT).absolute())
        self.job: Job | None = None
        self.run_folder: Path | None = None
        self._build()
        self.timer = QTimer(self)
        self.timer.setInterval(_EVERY)
        self.timer.timeout.connect(self.look)
        self._update()

    def _build(self) -> None:
        self.folder = QPushButton()
        self.folder.clicked.connect(self._choose_folder)
        self.volumes = QListWidget()
        self.volumes.setMaximumHeight(110)
        self.add = QPushButton("Add the volume that is proofread")
        self.add.setToolTip("its reviewed slices, in place of those that were added before")
        self.add.clicked.connect(partial(self._act, self.add_volume))
        self.network = NetworkChoice()
        self.epochs = QSpinBox()
        self.epochs.setRange(1, 500)
        self.epochs.setValue(10)
        self.start, self.stop = QPushButton("Teach"), QPushButton("Stop")
        self.start.clicked.connect(partial(self._act, self.teach))
        self.stop.clicked.connect(self.cancel)
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.curve, self.message = Curve(), QLabel()
        self.message.setWordWrap(True)
        self.message.setAlignment(Qt.AlignTop)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.AllNonFixedFieldsGrow)
        form.addRow("Go on with", self.network)
        form.addRow("Epochs", self.epochs)
        row = QHBoxLayout()
        row.addWidget(self.start, 1)
        row.addWidget(self.stop)
        layout = QVBoxLayout(self)
        for widget in (QLabel("Folder of the lesson"), self.folder, self.volumes, self.add):
            layout.addWidget(widget)
        layout.addLayout(form)
        layout.addLayout(row)
        for widget in (self.bar, self.curve, self.message):
            layout.addWidget(widget)
        layout.addStretch(1)

    def add_volume(self) -> None:
        """Adds the reviewed slices of the volume that is proofread.

        Raises:
            InputError: none is, its tomogram is not open, or too little of it was reviewed.
        """
        review = next((dock for dock in reversed(REVIEWS) if dock.session is not None), None)
        if review is None or review.session is None:
            raise InputError("begin to proofread a volume first: Plugins, Proofread granules")
        session = review.session
        if session.volume is None:
            raise InputError("the tomogram is not open; open it, and begin the review again")
        name = str(review.layer.name).removesuffix("_labels").replace("/", "_")
        slices = steps.reviewed_slices(session)
        size = None if session.voxel_size is None else tuple(session.voxel_size)
        self.lesson.add(name, session.volume, session.labels, slices, size)  # type: ignore[arg-type]
        self._list_volumes()
        self.message.setText(f"{len(slices)} of {len(session.labels)} slices of {name} were added.")

    def teach(self) -> None:
        """Makes the dataset, and trains; the window goes on meanwhile.

        Raises:
            InputError: nothing was added, or the network cannot be taught.
        """
        network = self.network.currentData()
        if network is None or self.job is not None:
            return
        context, normalization = base_of(network)
        prepare = self.lesson.prepare_command(context, normalization)
        self.run_folder = self.lesson.new_run()
        train = self.lesson.train_command(network, self.epochs.value(), self.run_folder)
        self.curve.set_points([], "")
        self.job = Job([prepare, train], self.run_folder.with_suffix(".log"))
        self.timer.start()
        self.message.setText("Making the dataset ...")
        self._update()

    def look(self) -> None:
        """Shows how far the training is."""
        if self.job is None or self.run_folder is None:
            return
        code = self.job.poll()
        self.curve.set_points(losses(self.run_folder), "step")
        if code is None:
            self.message.setText(self.job.last_line()[-200:])
            return
        self.timer.stop()
        network, log, last = trained_network(self.run_folder), self.job.log, self.job.last_line()
        self.job = None
        if code == 0 and network is not None:
            networks.offer(network)
            self.message.setText(f"Done. The new network is in the lists: {network}")
        else:
            self.message.setText(f"It ended early: {last[-300:]}\nAll of it is in {log}")
        self._update()

    def cancel(self) -> None:
        """Ends the training; what was learnt at the last checkpoint stays in its folder."""
        if self.job is not None:
            self.job.stop()
            self.look()

    def _choose_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(
            self, "Folder of the lesson", str(self.lesson.folder)
        )
        if name:
            self.lesson = Lesson(Path(name))
            self._update()

    def _list_volumes(self) -> None:
        self.volumes.clear()
        self.volumes.addItems([image.stem for image in self.lesson.images()])
        self._update()

    def _act(self, action: Callable[[], None], _checked: bool = False) -> None:
        try:
            action()
        except InputError as error:
            self.message.setText(str(error))

    def _update(self) -> None:
        busy = self.job is not None
        self.folder.setText(self.lesson.folder.name)
        self.folder.setToolTip(str(self.lesson.folder))
        if self.volumes.count() != len(self.lesson.images()):
            self.volumes.clear()
            self.volumes.addItems([image.stem for image in self.lesson.images()])
        self.start.setEnabled(not busy and self.volumes.count() > 0)
        self.add.setEnabled(not busy)
        self.folder.setEnabled(not busy)
        self.stop.setEnabled(busy)
        self.bar.setVisible(busy)

    def closeEvent(self, event: Any) -> None:
        """Qt's: a training ends with the dock."""
        self.network.stop()
        self.timer.stop()
        if self.job is not None:
            self.job.stop()
        super().closeEvent(event)
