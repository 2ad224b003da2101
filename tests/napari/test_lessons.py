"""What was found slice by slice, and what a lesson holds."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import balls
from test_session import SIZE, scene

from isgseg.errors import InputError
from isgseg.io.volumes import Volume, read_labels, read_volume
from isgseg.napari.finding import Cancelled, find
from isgseg.napari.job import Job
from isgseg.napari.teaching import Lesson, base_of, lesson_parts, losses, trained_network


def test_the_slider_shows_what_a_prediction_with_that_threshold_finds(trained: Path) -> None:
    from isgseg.inference.candidates import lowest_score
    from isgseg.inference.predictor import Predictor

    volume = balls(7, 30)[0] * 100
    network = trained / "isg_mask_rcnn_final.pth"
    told: list[Any] = []
    found = find(volume, None, network, lambda z, of, labels: told.append((z, of, labels)))
    assert [z for z, _, _ in told] == list(range(7))
    assert any(labels.any() for _, _, labels in told)
    predictor = Predictor.from_checkpoint(network, progress=False)
    assert found.lowest == min(lowest_score(predictor), predictor.thresholds.object)
    shown = found.shown(found.lowest)
    for threshold in (found.lowest, predictor.thresholds.object, 0.97):
        method = predictor.method
        thresholds = predictor.thresholds._replace(object=threshold)
        object.__setattr__(method, "thresholds", thresholds)
        same = predictor.segment(Volume(volume, None)).labels
        found.show(shown, found.lowest, threshold)
        assert np.array_equal(shown, found.shown(threshold))
        assert np.array_equal(shown > 0, same > 0)
        found.show(shown, threshold, found.lowest)


def test_some_slices_are_found_as_in_the_whole_and_a_search_stops(trained: Path) -> None:
    volume = balls(9, 30)[0] * 100
    network = trained / "isg_mask_rcnn_final.pth"

    def stop(number: int, *_: object) -> None:
        if number == 4:
            raise Cancelled

    found = find(volume, None, network, lambda *_: None, slices=(2, 6))
    assert not found.labels[:2].any()
    assert not found.labels[6:].any()
    assert found.labels[2:6].any()
    with pytest.raises(Cancelled):
        find(volume, None, network, stop)
    with pytest.raises(InputError, match="slices 5 to 99"):
        find(volume, None, network, stop, slices=(5, 99))


def test_a_lesson_holds_the_reviewed_slices_and_no_others(tmp_path: Path) -> None:
    volume = np.arange(scene().size, dtype=np.float32).reshape(scene().shape)
    lesson = Lesson(tmp_path)
    written = lesson.add("cell", volume, scene(), np.r_[3:7, 9:13], SIZE)
    names = [path.stem for path in written]
    assert names == ["cell_z0003to0006_train", "cell_z0009to0010_train", "cell_z0011to0012_val"]
    whole = read_volume(written[0])
    assert np.array_equal(whole.data, volume[3:7])
    assert whole.voxel_size == pytest.approx(SIZE)
    labels = read_labels(written[2].with_stem(f"{names[2]}_labels"))
    assert np.array_equal(labels.data, scene()[11:13])
    lesson.add("cell", volume, scene(), np.arange(16), SIZE)
    assert len(lesson.images()) == 2
    command = lesson.prepare_command(2, {"method": "mode", "low": None})
    assert "patches.z_context=2" in command
    assert "normalization.low=null" in command
    assert any("cell_z0013to0015_val" in part for part in command if part.startswith("val="))


def test_too_little_for_a_lesson_is_told() -> None:
    with pytest.raises(InputError, match="3 slices are reviewed"):
        lesson_parts(scene(), np.arange(3))
    with pytest.raises(InputError, match="no granule"):
        lesson_parts(np.zeros((9, 9, 9), np.uint16), np.arange(9))
    with pytest.raises(InputError, match="add a volume"):
        Lesson(Path("nowhere")).prepare_command(0, {})


def test_the_dataset_is_as_the_network_learnt_it(trained: Path) -> None:
    context, normalization = base_of(trained / "isg_mask_rcnn_final.pth")
    assert context == 0
    assert normalization == {} or "method" in normalization


def test_a_job_runs_its_commands_and_tells_what_failed(tmp_path: Path) -> None:
    def wait(job: Job) -> int | None:
        end = time.monotonic() + 60
        while job.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return job.poll()

    say = [sys.executable, "-c", "print('said')"]
    fail = [sys.executable, "-c", "import sys; sys.exit('broken')"]
    job = Job([say, say], tmp_path / "log")
    assert wait(job) == 0
    assert (tmp_path / "log").read_text() == "said\nsaid\n"
    job = Job([fail, say], tmp_path / "log")
    assert wait(job) == 1
    assert job.last_line() == "broken"
    job = Job([[sys.executable, "-c", "import time; time.sleep(60)"]], tmp_path / "log")
    job.stop()
    assert job.poll() not in (None, 0)


def test_the_loss_is_read_while_it_is_written(tmp_path: Path) -> None:
    assert losses(tmp_path) == []
    (tmp_path / "csv").mkdir()
    table = "epoch,step,train/loss,val/f1\n0,0,2.5,\n0,1,,0.1\n0,2,1.5,\n0,3,1."
    (tmp_path / "csv" / "metrics.csv").write_text(table)
    assert losses(tmp_path)[:2] == [(0.0, 2.5), (2.0, 1.5)]
    assert trained_network(tmp_path) is None
