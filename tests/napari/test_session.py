"""Proofreading without a window: the table follows the voxels, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from isgseg.analysis.granules import granule_table
from isgseg.errors import InputError
from isgseg.napari import steps
from isgseg.napari.journal import Journal, journal_path
from isgseg.napari.session import ACCEPTED, CORRECTED, OFFERED, REJECTED, Session

SIZE = (30.0, 20.0, 20.0)


def scene() -> npt.NDArray[np.uint16]:
    """(16, 40, 60): granule 1 is two balls that touch, 2 and 3 are halves of one, 5 is alone."""
    z, y, x = np.indices((16, 40, 60))

    def round_(cz: float, cy: float, cx: float, radius: float) -> npt.NDArray[np.bool_]:
        near: npt.NDArray[np.bool_] = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= radius**2
        return near

    labels = np.zeros(z.shape, np.uint16)
    labels[round_(7, 10, 10, 5) | round_(7, 10, 19, 5)] = 1
    labels[round_(7, 28, 12, 5) & (x <= 12)] = 2
    labels[round_(7, 28, 12, 5) & (x > 12)] = 3
    labels[round_(8, 26, 45, 5)] = 5
    return labels


def plain(table: pd.DataFrame, labels: npt.NDArray[Any]) -> pd.DataFrame:
    """The columns of a session's table that follow from the voxels."""
    columns = granule_table(labels, None, SIZE).columns.drop(["score", "supporting_slices"])
    return table[columns].sort_index().reset_index(drop=True)


def assert_in_step(session: Session) -> None:
    known = plain(steps.granules(session).set_index("label", drop=False), session.labels)
    expected = granule_table(session.labels, None, SIZE)[known.columns]
    pd.testing.assert_frame_equal(known, expected, check_dtype=False)


def test_the_reasons_name_what_is_wrong() -> None:
    session = Session(scene(), SIZE)
    assert "may be 2 granules" in session.table["reason"][1]
    assert "may be one granule with 3" in session.table["reason"][2]
    assert steps.in_order(session)[-1] == 5
    assert session.table["suspicion"][5] < 0.2


def test_the_table_follows_every_edit() -> None:
    session = Session(scene(), SIZE)
    session.apply(steps.merge(session, [2, 3]))
    assert_in_step(session)
    session.apply(steps.split(session, 1))
    assert_in_step(session)
    assert sorted(session.table.index) in ([1, 2, 5, 6], [1, 3, 5, 6])
    session.apply(steps.split(session, 5, [(8, 26, 41), (8, 26, 49)]))
    session.apply(steps.add_ball(session, (8, 8, 50)))
    assert_in_step(session)
    session.apply(steps.delete(session, [1, 5]))
    assert_in_step(session)
    assert set(session.table["state"]) == {CORRECTED}
    with pytest.raises(InputError, match="no granule 1"):
        session.state(1)


def test_undone_edits_give_back_table_and_states() -> None:
    session = Session(scene(), SIZE)
    session.say([2], ACCEPTED)
    before = session.table.sort_index().copy()
    edit = steps.merge(session, [2, 3])
    old = session.labels[edit.where].copy()
    edit.apply(session.labels)
    former = session.changed(edit.where, old)
    new = session.labels[edit.where].copy()
    session.labels[edit.where] = old
    session.changed(edit.where, new, former)
    pd.testing.assert_frame_equal(session.table.sort_index(), before, check_dtype=False)


def test_next_goes_by_suspicion_over_what_is_open() -> None:
    session = Session(scene(), SIZE)
    first, second, *_ = order = steps.in_order(session)
    assert steps.next_open(session) == first
    assert steps.next_open(session, first) == second
    assert steps.next_open(session, first, -1) == order[-1]
    session.say(order[:-1], ACCEPTED)
    assert steps.next_open(session, first) == order[-1]
    assert steps.left(session) == 1
    session.say(order, ACCEPTED)
    assert steps.next_open(session, first) is None


def test_only_slices_that_somebody_looked_at_teach() -> None:
    session = Session(scene(), SIZE)
    assert not len(steps.reviewed_slices(session))
    session.say([1, 2, 3], ACCEPTED)
    # Granule 5 reaches from 3 to 13, the others from 2 to 12; where there is none, nobody looked.
    assert steps.reviewed_slices(session).tolist() == [2]
    session.say_complete([0, 1])
    assert steps.reviewed_slices(session).tolist() == [0, 1, 2]
    session.say([5], ACCEPTED)
    assert len(steps.reviewed_slices(session)) == 16


def test_granules_below_the_threshold_are_offered_and_taken_in() -> None:
    offered = scene()
    labels = np.where(offered == 5, 0, offered)
    table = granule_table(offered, None, SIZE, score=np.array([0.9, 0.9, 0.9, 0, 0.3]))
    session = Session(labels, SIZE, table=table, offered=offered)
    assert session.state(5) == OFFERED
    assert 5 not in steps.granules(session).index
    with pytest.raises(InputError, match="only offered"):
        steps.merge(session, [1, 5])
    assert not len(steps.delete(session, [5]).values)
    session.apply(steps.take_in(session, 5))
    assert np.array_equal(labels, offered)
    assert session.state(5) == CORRECTED
    session.apply(steps.delete(session, [5]))
    assert session.state(5) == REJECTED
    session.apply(steps.take_in(session, 5))
    assert np.array_equal(labels, offered)


def test_a_review_goes_on_where_it_was_left(tmp_path: Path) -> None:
    file = tmp_path / "cell_labels.tif"
    first = Session(scene(), SIZE, file=file)
    first.apply(steps.split(first, 1))
    first.apply(steps.merge(first, [2, 3]))
    first.say([5], ACCEPTED)
    first.say_complete([4, 5])
    first.close()
    assert journal_path(file).name == "cell_labels.review.jsonl"
    second = Session(scene(), SIZE, file=file)
    assert second.resumed == 4
    assert np.array_equal(second.labels, first.labels)
    pd.testing.assert_frame_equal(
        second.table.sort_index(), first.table.sort_index(), check_dtype=False
    )
    assert second.complete == {4, 5}


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "cell_labels.tif"
    session = Session(scene(), SIZE, file=file)
    session.say([2], ACCEPTED)
    whole = journal_path(file).read_bytes()
    session.say([3], ACCEPTED)
    session.close()
    journal_path(file).write_bytes(journal_path(file).read_bytes()[:-3])
    again = Session(scene(), SIZE, file=file)
    assert again.state(2) == ACCEPTED
    assert again.state(3) == ""
    assert journal_path(file).read_bytes() == whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe not json\n", "no journal"),
        (b'{"isgseg_review": 9}\n', "newer isgseg"),
        (b'{"isgseg_review": 1, "labels_sha256": "00"}\n', "other labels"),
    ],
)
def test_what_is_no_journal_of_these_labels_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "cell_labels.tif"
    journal_path(file).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Session(scene(), SIZE, file=file)
    assert journal_path(file).read_bytes() == content


def test_a_damaged_edit_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "cell_labels.tif"
    Journal(journal_path(file), scene()).close()
    with journal_path(file).open("ab") as stream:
        stream.write(b'{"at": "AAAA", "to": "AAAA"}\n')
    with pytest.raises(InputError, match="line 2: damaged"):
        Session(scene(), SIZE, file=file)


KILLED = """
import sys, time
sys.path[:0] = [{folder!r}]
from pathlib import Path
from test_session import SIZE, scene
from isgseg.napari import steps
from isgseg.napari.session import Session
session = Session(scene(), SIZE, file=Path({file!r}))
session.apply(steps.split(session, 1))
session.apply(steps.delete(session, [5]))
print("edited", flush=True)
time.sleep(60)
"""


def test_nothing_is_lost_when_the_program_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "cell_labels.tif"
    code = KILLED.format(folder=str(Path(__file__).parent), file=str(file))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "edited\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    session = Session(scene(), SIZE, file=file)
    assert session.resumed == 2
    assert 5 not in session.table.index
    assert session.labels.max() == 6
