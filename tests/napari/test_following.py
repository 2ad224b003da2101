"""The session hears of every change of a napari layer; no window is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_session import SIZE, assert_in_step, scene

from isgseg.napari import steps
from isgseg.napari.following import Follower
from isgseg.napari.session import ACCEPTED, CORRECTED, Session

components = pytest.importorskip("napari.components", reason="the extra napari is not installed")


@pytest.fixture
def review() -> tuple[Any, Session, Follower]:
    viewer = components.ViewerModel()
    layer = viewer.add_labels(scene(), scale=SIZE)
    session = Session(layer.data, SIZE)
    return layer, session, Follower(layer, session, lambda: None)


def test_merge_and_split_are_undone_and_done_again(review: tuple[Any, Session, Follower]) -> None:
    layer, session, follower = review
    session.say([2], ACCEPTED)
    before = session.table.sort_index().copy()
    follower.do(steps.merge(session, [2, 3]))
    merged = layer.data.copy()
    follower.do(steps.split(session, 1))
    assert_in_step(session)
    layer.undo()
    layer.undo()
    assert np.array_equal(layer.data, scene())
    pd.testing.assert_frame_equal(session.table.sort_index(), before, check_dtype=False)
    layer.redo()
    assert np.array_equal(layer.data, merged)
    assert_in_step(session)
    assert len(session.table) == 3


def test_many_are_deleted_in_one_step(review: tuple[Any, Session, Follower]) -> None:
    layer, session, follower = review
    follower.do(steps.delete(session, [1, 2, 3, 5]))
    assert not len(session.table)
    layer.undo()
    assert np.array_equal(layer.data, scene())
    assert_in_step(session)


@pytest.mark.parametrize("block", [True, False])
def test_brush_and_bucket_are_followed(review: tuple[Any, Session, Follower], block: bool) -> None:
    layer, session, _ = review
    layer.brush_size = 3
    if block:
        with layer.block_history():
            for x in (40, 41, 42):
                layer.paint((7, 5, x), 9)
    else:
        layer.paint((7, 5, 40), 9)
    assert_in_step(session)
    assert session.state(9) == CORRECTED
    layer.fill((8, 26, 45), 12)
    assert_in_step(session)
    layer.undo()
    layer.undo()
    assert np.array_equal(layer.data, scene())
    assert_in_step(session)


def test_after_it_stops_the_layer_is_as_it_was(review: tuple[Any, Session, Follower]) -> None:
    layer, session, follower = review
    follower.stop()
    layer.paint((7, 5, 40), 9)
    assert 9 not in session.table.index
    layer.undo()
    assert np.array_equal(layer.data, scene())
