"""Edits by hand: what changes, and nothing else does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage as ndi

from isgseg.errors import InputError
from isgseg.instances.editing import (
    Edit,
    add,
    ball,
    check_free,
    delete,
    merge,
    split_between,
    split_by_shape,
)


def two_balls(distance: float = 9.0) -> np.ndarray:
    """(20, 20, 34) label 1: two balls of radius 5 that touch; label 2: a ball apart."""
    z, y, x = np.indices((20, 20, 34))
    labels = np.zeros(z.shape, np.uint16)
    for centre in (7.0, 7.0 + distance):
        labels[(z - 9) ** 2 + (y - 9) ** 2 + (x - centre) ** 2 <= 25] = 1
    labels[(z - 9) ** 2 + (y - 9) ** 2 + (x - 28) ** 2 <= 16] = 2
    return labels


def boxes_of(labels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    found = ndi.find_objects(labels)
    return {number: box for number, box in enumerate(found, start=1) if box is not None}


def after(labels: np.ndarray, edit: Edit) -> np.ndarray:
    changed = labels.copy()
    edit.apply(changed)
    return changed


def test_deleting_clears_the_granules_and_no_other() -> None:
    labels = two_balls()
    assert set(np.unique(after(labels, delete(labels, [1], boxes_of(labels))))) == {0, 2}
    assert not after(labels, delete(labels, [1, 2], boxes_of(labels))).any()


def test_merging_keeps_the_first_number_and_every_voxel() -> None:
    labels = two_balls()
    merged = after(labels, merge(labels, [2, 1], boxes_of(labels)))
    assert np.array_equal(merged > 0, labels > 0)
    assert set(np.unique(merged)) == {0, 2}
    with pytest.raises(InputError, match="two granules"):
        merge(labels, [2, 2], boxes_of(labels))


def test_a_split_by_shape_cuts_at_the_neck() -> None:
    labels = two_balls()
    parts = after(labels, split_by_shape(labels, 1, boxes_of(labels)[1], 3))
    sizes = np.bincount(parts.ravel())[1:]
    assert np.array_equal(parts > 0, labels > 0)
    assert sizes[1] == (labels == 2).sum()
    assert abs(int(sizes[0]) - int(sizes[2])) < 0.1 * sizes[0]
    with pytest.raises(InputError, match="shape of one granule"):
        split_by_shape(labels, 2, boxes_of(labels)[2], 3)


def test_a_split_between_points_leaves_two_connected_parts() -> None:
    labels = two_balls(distance=6.0)  # no splitter would
    box = boxes_of(labels)[1]
    parts = after(labels, split_between(labels, 1, box, [(9, 9, 4), (9, 9, 30)], 3))
    assert parts[9, 9, 4] == 1  # that of the first point keeps the number
    assert parts[9, 9, 18] == 3  # the second was beside the granule
    assert np.array_equal(parts > 0, labels > 0)
    for number in (1, 3):
        assert ndi.label(parts == number)[1] == 1
    with pytest.raises(InputError, match="point in each part"):
        split_between(labels, 1, box, [(9, 9, 4), (9, 9, 4)], 3)


def test_three_points_make_three_parts() -> None:
    labels = np.zeros((5, 5, 21), np.uint16)
    labels[1:4, 1:4, 1:20] = 4
    parts = after(
        labels,
        split_between(labels, 4, boxes_of(labels)[4], [(2, 2, x) for x in (3, 10, 17)], 5),
    )
    assert set(np.unique(parts)) == {0, 4, 5, 6}
    runs = parts[2, 2, 1:20]
    assert sum(a != b for a, b in pairwise(runs.tolist())) == 2


def test_a_new_granule_takes_the_background_only() -> None:
    labels = two_balls()
    drawn = after(labels, ball(labels, (9, 9, 25), (4, 4, 4), 3))
    assert np.array_equal(drawn[labels > 0], labels[labels > 0])
    assert (drawn == 3).any()
    inside = np.ones((2, 2, 2), bool)
    box = (slice(9, 11), slice(9, 11), slice(7, 9))
    with pytest.raises(InputError, match="no background"):
        add(labels, inside, box, 3)
    with pytest.raises(InputError, match="no background"):
        ball(labels, (-50, 9, 9), (4, 4, 4), 3)


def test_a_ball_is_round_in_nm_and_cut_by_the_volume() -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    drawn = after(labels, ball(labels, (10, 0, 10), (2, 4, 4), 1))
    z, _, x = np.nonzero(drawn)
    assert np.ptp(z) == 4
    assert np.ptp(x) == 8


def test_a_number_that_the_type_cannot_hold_is_refused() -> None:
    assert check_free(np.zeros((1, 1, 1), np.uint16), 65_535) == 65_535
    with pytest.raises(InputError, match="32-bit"):
        check_free(np.zeros((1, 1, 1), np.uint16), 65_536)
