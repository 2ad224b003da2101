"""What must hold for any input: hypothesis looks for one for which it does not.

The inputs are small and drawn alike in every run (`derandomize`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from isgseg.data.polygons import encode, run_lengths
from isgseg.evaluation.matching import match_instances, match_thresholds
from isgseg.instances.consensus import merge_instances
from isgseg.instances.linking import link_slices
from isgseg.instances.split import split
from isgseg.io.volumes import read_labels, read_volume, write_volume
from isgseg.models.tta import SYMMETRIES, Symmetry

Array = npt.NDArray[Any]
settings.register_profile(
    "isgseg",
    max_examples=25,
    deadline=None,  # other tests run beside these
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("isgseg")

masks = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
label_volumes = arrays.arrays(np.uint16, (3, 5, 5), elements=st.integers(0, 4))
symmetries = st.builds(Symmetry, st.booleans(), st.booleans(), st.booleans(), st.booleans())
voxel_sizes = st.tuples(*[st.floats(5, 500)] * 3)


@st.composite
def granules(draw: st.DrawFn) -> Array:
    """Balls in a volume, (14, 24, 24), that touch or not, numbered from 1."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = np.zeros((14, 24, 24), np.uint16)
    grid = np.indices(labels.shape)
    for _ in range(draw(st.integers(0, 6))):
        radius, centre = random.uniform(2, 4), random.uniform(2, np.array(labels.shape) - 2)
        away = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
        inside = np.asarray(away) <= radius**2
        if not labels[inside].any():
            labels[inside] = labels.max() + 1
    return labels


def same_instances(a: Array, b: Array) -> bool:
    """Whether two label volumes are equal but for their numbers."""
    matching = match_instances(a, b, iou=1.0)
    return not matching.fp and not matching.fn


def renumbered(labels: Array, seed: int) -> Array:
    """The labels with other numbers, in each slice other ones."""
    out = np.zeros(labels.shape, np.uint16)
    random = np.random.default_rng(seed)
    for plane, source in zip(out, labels, strict=True):
        numbers = np.unique(source[source > 0])
        others = random.permutation(500)[: len(numbers)] + 1
        for number, other in zip(numbers, others, strict=True):
            plane[source == number] = other
    return out


@given(masks)
def test_a_mask_comes_back_from_its_polygons(mask: Array) -> None:
    if not mask.any():
        return
    height, width = mask.shape
    from pycocotools import mask as coco_mask

    decoded = coco_mask.decode(run_lengths(encode(mask), height, width, "the mask"))
    assert np.array_equal(decoded.astype(bool), mask)


@given(symmetries, st.integers(1, 5), st.integers(1, 5))
def test_a_symmetry_and_its_inverse_leave_an_image_as_it_is(
    symmetry: Symmetry, height: int, width: int
) -> None:
    image = torch.arange(height * width).reshape(height, width)
    assert torch.equal(symmetry.inverse.turn(symmetry.turn(image)), image)


@given(symmetries, st.integers(2, 6), st.integers(2, 6), st.data())
def test_boxes_turn_as_the_image_does(
    symmetry: Symmetry, height: int, width: int, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    image = torch.zeros(height, width)
    image[y, x] = 1
    box = torch.tensor([[x, y, x + 1, y + 1]])
    ((there_y, there_x),) = symmetry.turn(image).nonzero().tolist()
    assert symmetry.boxes(box, (height, width))[0].tolist() == [
        there_x,
        there_y,
        there_x + 1,
        there_y + 1,
    ]


def test_the_eight_symmetries_differ() -> None:
    corner = torch.arange(4).reshape(2, 2)
    assert len({tuple(s.turn(corner).flatten().tolist()) for s in SYMMETRIES}) == 8


@given(granules(), st.integers(0, 1000))
def test_linking_depends_on_no_number_of_a_slice(labels: Array, seed: int) -> None:
    assert same_instances(link_slices(labels), link_slices(renumbered(labels, seed)))


@given(granules(), st.sampled_from([0, 1, 2]))
def test_linking_is_the_same_from_the_other_side(labels: Array, axis: int) -> None:
    assert same_instances(np.flip(link_slices(np.flip(labels, axis)), axis), link_slices(labels))


@given(granules())
def test_linking_is_the_same_with_x_and_y_exchanged(labels: Array) -> None:
    turned = link_slices(np.ascontiguousarray(labels.transpose(0, 2, 1)))
    assert same_instances(turned.transpose(0, 2, 1), link_slices(labels))


@given(granules())
def test_linking_changes_no_pixel_between_background_and_granule(labels: Array) -> None:
    linked = link_slices(labels, max_gap=0)
    assert np.array_equal(linked > 0, labels > 0)
    assert set(np.unique(linked)) == set(range(linked.max() + 1)) | {0}


@given(granules())
def test_a_split_neither_adds_nor_loses_a_voxel(labels: Array) -> None:
    assert np.array_equal(split(labels > 0) > 0, labels > 0)
    pieces = split(labels)  # no piece is of two granules
    for number in np.unique(pieces[pieces > 0]):
        assert len(np.unique(labels[pieces == number])) == 1


@given(label_volumes, label_volumes, st.sampled_from([0.1, 0.3, 0.5, 0.7, 1.0]))
def test_precision_of_one_side_is_recall_of_the_other(a: Array, b: Array, iou: float) -> None:
    there, back = match_instances(a, b, iou), match_instances(b, a, iou)
    assert (there.tp, there.fp, there.fn) == (back.tp, back.fn, back.fp)
    assert there.sq == pytest.approx(back.sq)
    assert (there.precision, there.f1) == (back.recall, back.f1)
    assert there.tp + there.fn == len(np.unique(b[b > 0]))


@given(label_volumes, label_volumes)
def test_a_stricter_match_finds_no_more(a: Array, b: Array) -> None:
    found = [matching.tp for matching in match_thresholds(a, b).matchings]
    assert found == sorted(found, reverse=True)


@given(label_volumes, label_volumes, st.permutations(range(1, 5)))
def test_scores_depend_on_no_number(a: Array, b: Array, order: list[int]) -> None:
    other = np.array([0, *order], np.uint16)[a]
    first, second = match_instances(a, b), match_instances(other, b)
    assert (first.tp, first.fp, first.fn) == (second.tp, second.fp, second.fn)


@given(granules())
def test_stacks_that_agree_are_their_consensus(labels: Array) -> None:
    merged, members = merge_instances([labels, labels, labels])
    assert same_instances(merged, labels)
    assert len(members) == labels.max()


@pytest.mark.parametrize("suffix", [".mrc", ".mrc.gz", ".rec", ".tif", ".ome.tif", ".npy"])
@settings(max_examples=6)
@given(data=st.data(), size=voxel_sizes)
def test_what_was_written_is_read(
    suffix: str, data: st.DataObject, size: tuple[float, float, float]
) -> None:
    shape = data.draw(shapes)
    whole = {"u1": (0, 255), "u2": (0, 65_535), "i2": (-32_768, 32_767)}
    kind = data.draw(st.sampled_from([*whole, "f4"]))
    elements = st.integers(*whole[kind]) if kind in whole else st.floats(-1e6, 1e6, width=32)
    volume = data.draw(arrays.arrays(np.dtype(kind), shape, elements=elements))
    with tempfile.TemporaryDirectory() as folder:
        read = read_volume(write_volume(Path(folder) / f"a{suffix}", volume, size))
    assert np.array_equal(read.data.astype(np.float64), volume.astype(np.float64))
    if suffix == ".npy":
        assert read.voxel_size is None
    else:
        assert read.voxel_size == pytest.approx(size, rel=1e-4)


@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".npy"])
@settings(max_examples=8)
@given(highest=st.sampled_from([1, 255, 256, 65_535]), seed=st.integers(0, 100))
def test_labels_keep_their_numbers(suffix: str, highest: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, highest + 1, (2, 4, 4)).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        path = write_volume(Path(folder) / f"a_labels{suffix}", labels, (30.0, 30.0, 30.0))
        read = read_labels(path, check=False)
    assert read.data.dtype == np.uint16
    assert np.array_equal(read.data, labels)
