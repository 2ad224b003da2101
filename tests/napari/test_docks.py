"""The docks in a window, under Xvfb."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_session import SIZE, scene

from isgseg.analysis.granules import granule_table
from isgseg.instances import editing
from isgseg.napari import networks, steps
from isgseg.napari.loading import load_torch
from isgseg.napari.session import ACCEPTED, OFFERED
from isgseg.napari.teaching import base_of

pytest.importorskip("napari", reason="the extra napari is not installed")
pytest.importorskip("pytestqt", reason="pytest-qt is not installed")
pytest.importorskip("PySide6", reason="no Qt binding is installed")
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    pytest.skip("no display; run it by xvfb-run", allow_module_level=True)

load_torch()  # the tests import parts of it later on, when there is a window
DOCKS: list[Any] = []  # of a test


def opened(dock: Any) -> Any:
    """A dock that is closed and deleted after the test."""
    DOCKS.append(dock)
    return dock


def delete(qapp: Any) -> None:
    """Deletes what was closed now, while there is an application: not when Python ends."""
    from qtpy.QtCore import QEvent

    for _ in range(2):
        gc.collect()
        qapp.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        qapp.processEvents()


@pytest.fixture(scope="module")
def window(qapp: Any) -> Iterator[Any]:
    import napari

    made = napari.Viewer(show=False)  # type: ignore[attr-defined, unused-ignore]
    yield made
    made.close()
    del made
    delete(qapp)


@pytest.fixture
def viewer(window: Any, qtbot: Any, qapp: Any) -> Iterator[Any]:
    """The window, which takes a second to make, without layers."""
    yield window
    for dock in [*DOCKS]:
        dock.close()
        dock.deleteLater()
    DOCKS.clear()
    window.dims.ndisplay = 2
    window.layers.clear()
    window.keymap.clear()
    delete(qapp)


def tomogram() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.05, scene().shape)
    return (np.where(scene() > 0, 1.6, 1.0) + noise).astype(np.float32)


def open_cell(viewer: Any, tmp_path: Path | None = None) -> Any:
    about: dict[str, Any] = {"voxel_size": SIZE}
    if tmp_path is not None:
        about["file"] = str(tmp_path / "cell_labels.tif")
    nm = {"scale": SIZE, "units": ("nm",) * 3}
    viewer.add_image(tomogram(), name="cell", metadata={"isgseg": {"voxel_size": SIZE}}, **nm)
    return viewer.add_labels(scene(), name="cell_labels", metadata={"isgseg": about}, **nm)


@pytest.fixture
def review(viewer: Any, tmp_path: Path) -> Any:
    from isgseg.napari.proofread_dock import Proofread

    open_cell(viewer, tmp_path)
    dock = opened(Proofread(viewer))
    dock.begin()
    return dock


def test_the_table_and_the_labels_are_linked_both_ways(review: Any, viewer: Any) -> None:
    first = steps.in_order(review.session)[0]
    assert review.current == first == viewer.layers["cell_labels"].selected_label
    row = review.form.model.row(5)
    review.form.table.selectRow(row)
    review.form._clicked(row)
    layer = viewer.layers["cell_labels"]
    assert layer.selected_label == 5
    z = layer.world_to_data(viewer.dims.point)[0]
    assert abs(z - steps.centre(review.session, 5)[0]) <= 0.5
    layer.selected_label = 2
    assert review.form.selected() == [2]


def test_a_review_by_the_buttons(review: Any) -> None:
    layer, session = review.layer, review.session
    review.form.select(2)
    review.form.select(3, more=True)
    review.form.buttons["merge"].click()
    assert len(session.table) == 3
    review.look_at(1)
    review.form.buttons["split"].click()
    assert len(session.table) == 4
    review.look_at(5)
    review.form.buttons["accept"].click()
    assert session.state(5) == ACCEPTED
    assert "All granules are reviewed" in review.form.message.text()
    review.form.buttons["undo"].click()
    review.form.buttons["undo"].click()
    assert np.array_equal(layer.data, scene())
    assert review.form.model.rowCount() == 4
    review.form.select(1)
    review.form.select(2, more=True)
    review.form.buttons["delete"].click()
    assert set(np.unique(layer.data)) == {0, 3, 5}
    assert review.current == 3


def test_the_keys_that_are_shown_work(review: Any, viewer: Any) -> None:
    review.look_at(5)
    pressed = {str(key): act for key, act in viewer.keymap.items()}
    pressed["A"](viewer)
    assert review.session.state(5) == ACCEPTED
    pressed["N"](viewer)
    assert review.current != 5
    pressed["G"](viewer)
    assert "choose two granules" in review.form.message.text()


def test_a_cut_between_two_clicks(review: Any) -> None:
    review.look_at(5)
    review.form.buttons["cut_between"].click()
    for place in ((8, 26, 41), (8, 26, 49)):
        review._add_place(place)
    assert len(review.session.table) == 5
    assert review.layer.data[8, 26, 41] == 5
    assert review.layer.data[8, 26, 49] == 6


def test_clicks_choose_granules_in_2d_and_3d(review: Any, viewer: Any) -> None:
    class Event:
        position = tuple(np.array((8, 26, 45)) * SIZE)
        view_direction = None
        dims_displayed = (1, 2)
        modifiers = ()

    review._clicked(viewer, Event())
    assert review.current == 5
    review.form.whole.setChecked(True)
    viewer.dims.ndisplay = 3
    event = Event()
    event.position = tuple(np.array((0, 10, 10)) * SIZE)  # type: ignore[assignment, unused-ignore]
    event.view_direction = np.array((1.0, 0.0, 0.0))  # type: ignore[assignment, unused-ignore]
    event.dims_displayed = (0, 1, 2)  # type: ignore[assignment, unused-ignore]
    review._clicked(viewer, event)
    assert review.current == 1
    review.form.whole.setChecked(False)
    review.look_at(2)
    event.position = tuple(np.array((0, 28, 15)) * SIZE)  # type: ignore[assignment, unused-ignore]
    review._clicked(viewer, event)
    assert review.current == 3


def test_3d_shows_the_surroundings_of_the_granule_and_follows_edits(
    review: Any, viewer: Any
) -> None:
    def shown() -> list[str]:
        return [layer.name for layer in viewer.layers if layer.visible]

    before = shown()
    review.look_at(5)
    viewer.dims.ndisplay = 3
    assert shown() == ["close-up", "close-up of labels"]
    box = review.close_up.labels
    assert max(box.data.shape) < 50
    assert set(np.unique(box.data)) == {0, 5}
    assert np.allclose(box.data_to_world((0, 0, 0)), np.array(review.close_up.origin) * SIZE)
    assert viewer.layers.selection.active is review.layer
    review.form.buttons["delete"].click()
    review._act(review.layer.undo)
    review.look_at(5)
    assert set(np.unique(box.data)) == {0, 5}
    review.form.whole.setChecked(True)
    assert shown() == before
    review.form.whole.setChecked(False)
    viewer.dims.ndisplay = 2
    assert shown() == before
    assert len(viewer.layers) == 2
    assert review.labels.count() == 1


def test_a_ball_between_two_clicks(review: Any) -> None:
    review.form.buttons["draw_across"].click()
    review.stop_asking()
    assert review.form.message.text() == ""
    review.form.buttons["draw_across"].click()
    for place in ((8, 10, 40), (8, 10, 48)):
        review._add_place(place)
    layer = review.layer
    assert review.current == 6
    assert layer.data[8, 10, 44] == 6
    assert [side.stop - side.start for side in review.session.box(6)][1:] == [9, 9]
    review.form.buttons["draw_across"].click()
    for _ in range(2):
        review._act(lambda: review._add_place((8, 10, 40)))
    assert "two opposite edges" in review.form.message.text()


def test_saving_goes_on_in_the_new_file(
    review: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QFileDialog

    from isgseg.napari.reading import get_reader

    target = tmp_path / "corrected" / "cell_labels.tif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    review.session.say([5], ACCEPTED)
    review._do(steps.split(review.session, 1))
    review.form.save.click()
    assert (tmp_path / "corrected" / "cell_granules.csv").exists()
    read = get_reader(str(target))
    assert read is not None
    data, settings, kind = read(str(target))[0]
    assert kind == "labels"
    assert np.array_equal(data, review.layer.data)
    assert settings["scale"] == pytest.approx(SIZE)
    assert len(settings["features"]) == len(review.session.table)
    review._do(steps.delete(review.session, [2]))
    again = opened(type(review)(review.viewer))
    review.end()
    layer = review.viewer.add_labels(data, **{k: settings[k] for k in ("scale", "metadata")})
    again.labels.choose(layer)
    again.begin()
    assert 2 not in again.session.table.index
    assert again.session.state(5) == ACCEPTED
    again.close()


def test_labels_of_another_journal_are_told(viewer: Any, tmp_path: Path) -> None:
    from isgseg.napari.proofread_dock import Proofread

    (tmp_path / "cell_labels.review.jsonl").write_text('{"isgseg_review": 1}\n')
    open_cell(viewer, tmp_path)
    dock = opened(Proofread(viewer))
    dock.form.begin.click()
    assert "other labels" in dock.form.message.text()
    assert dock.session is None
    dock.close()


def found() -> Any:
    from isgseg.napari.finding import Found

    table = granule_table(scene(), tomogram(), SIZE, score=np.array([0.9, 0.8, 0.7, 0, 0.4]))
    return Found(
        scene(), table.assign(best=table["score"]), 0.5, 0.2, SIZE, Path("isg_mask_rcnn.pth")
    )


@pytest.fixture
def finding(viewer: Any, monkeypatch: pytest.MonkeyPatch, qtbot: Any) -> Any:
    from isgseg.napari import searching
    from isgseg.napari.find_dock import FindGranules

    def quick(volume: Any, size: Any, network: Any, told: Any, slices: Any) -> Any:
        for z in range(*slices):
            told(z, slices[1], scene()[z])
        return found()

    monkeypatch.setattr(searching, "find", quick)
    viewer.add_image(tomogram(), name="cell", metadata={"isgseg": {"voxel_size": SIZE}})
    return opened(FindGranules(viewer))


def test_the_slider_shows_and_hides_at_once(finding: Any, qtbot: Any) -> None:
    finding.run()
    qtbot.waitUntil(lambda: finding.result is not None, timeout=20_000)
    layer = finding.layer
    assert set(np.unique(layer.data)) == {0, 1, 2, 3}
    assert finding.count.text() == "3 granules"
    finding.slider.setValue(75)
    assert set(np.unique(layer.data)) == {0, 1, 2}
    finding.slider.setValue(30)
    assert np.array_equal(layer.data, scene())
    assert sum(finding.histogram.counts) == 4
    finding.slider.setValue(85)
    assert set(np.unique(layer.data)) == {0, 1}


def test_what_was_found_is_proofread_with_what_lies_below_the_threshold(
    finding: Any, viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QMessageBox

    from isgseg.napari.proofread_dock import Proofread

    asked = []
    monkeypatch.setattr(QMessageBox, "question", lambda *words: asked.append(words[-1]))

    finding.run()
    qtbot.waitUntil(lambda: finding.result is not None, timeout=20_000)
    dock: Any = opened(Proofread(viewer))
    dock.labels.choose(finding.layer)
    dock.begin()
    assert dock.session.state(5) == OFFERED
    dock.look_at(5)
    dock.form.buttons["accept"].click()
    assert (finding.layer.data == 5).any()
    assert dock.session.state(5) == ACCEPTED
    finding.slider.setValue(30)
    assert set(np.unique(finding.layer.data)) == {0, 1, 2, 3, 5}
    dock.close()
    assert "never saved" in asked[0]


def test_a_search_can_be_stopped(finding: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from isgseg.napari import searching

    def slow(volume: Any, size: Any, network: Any, told: Any, slices: Any) -> Any:
        for z in range(1000):
            told(z % 16, 16, None)
            time.sleep(0.01)

    monkeypatch.setattr(searching, "find", slow)
    finding.run()
    finding.cancel()
    qtbot.waitUntil(lambda: finding.search is None, timeout=20_000)
    assert "Stopped" in finding.status.text()
    assert finding.start.isEnabled()


def test_reviewed_slices_become_a_lesson(
    review: Any, viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isgseg.napari.teach_dock import Teach

    monkeypatch.chdir(tmp_path)
    dock = opened(Teach(viewer))
    dock.add.click()
    assert "slices are reviewed" in dock.message.text()
    assert not dock.start.isEnabled()
    review.session.say([1, 2, 3, 5], ACCEPTED)
    dock.add.click()
    assert "16 of 16 slices" in dock.message.text()
    assert dock.volumes.count() == 2
    assert dock.start.isEnabled()
    before = dock.network.count()
    network = tmp_path / "run_1" / "checkpoints" / "isg_mask_rcnn_best.pth"
    network.parent.mkdir(parents=True)
    network.touch()
    networks.offer(network)
    assert dock.network.count() == before + 1
    assert dock.network.currentText() == "taught: run_1"
    networks._taught.clear()
    dock.close()


DRAWN_FIRST = """
import napari
from qtpy.QtWidgets import QApplication
viewer = napari.Viewer(show=True)
QApplication.instance().processEvents()
from isgseg.napari.loading import load_torch
load_torch()
import torchvision
viewer.close()
QApplication.instance().processEvents()
"""


@pytest.mark.slow
def test_pytorch_is_imported_after_the_window_was_drawn() -> None:
    run = subprocess.run([sys.executable, "-c", DRAWN_FIRST], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_corrections_teach_a_network_that_is_offered_then(
    review: Any, viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isgseg.models.locate import shipped_model
    from isgseg.napari.find_dock import FindGranules
    from isgseg.napari.teach_dock import Teach

    monkeypatch.chdir(tmp_path)
    review._do(steps.merge(review.session, [2, 3]))
    review.session.say([1], ACCEPTED)
    review.session.say_complete([4, 5, 6, 7, 8, 9, 10])  # 5 is in them, and nobody looked at it
    dock, finder = opened(Teach(viewer)), opened(FindGranules(viewer))
    dock.add.click()
    lesson = [image.stem for image in dock.lesson.images()]
    # In slice 2 all is reviewed, in 3 and from 11 on nobody looked at granule 5.
    reviewed = ["cell_z0002to0002_train", "cell_z0004to0008_train", "cell_z0009to0010_val"]
    assert lesson == reviewed
    dock.network.choose(shipped_model())
    dock.epochs.setValue(1)
    dock.start.click()
    assert dock.stop.isEnabled(), dock.message.text()
    qtbot.waitUntil(lambda: dock.job is None, timeout=1_100_000)
    assert "Done" in dock.message.text(), dock.message.text()
    assert dock.curve.points
    for list_ in (dock.network, finder.network):
        assert list_.currentText().startswith("taught: run_")
    assert base_of(dock.network.currentData())[0] == base_of(shipped_model())[0]
    networks._taught.clear()


def test_nothing_is_edited_without_a_review(viewer: Any) -> None:
    from isgseg.napari.proofread_dock import Proofread

    dock = opened(Proofread(viewer))
    assert "no labels yet" in dock.form.status.text()
    assert not dock.form.buttons["accept"].isEnabled()
    dock._act(dock.accept)
    assert "press Begin" in dock.form.message.text()
    assert editing.HEIGHTS[0] > editing.HEIGHTS[1]
    dock.close()
