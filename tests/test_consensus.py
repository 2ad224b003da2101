from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Compose, granules_of
from scipy import ndimage as ndi

from isgseg.evaluation.matching import match_instances
from isgseg.inference.method import Granules
from isgseg.inference.segmentation import find_consensus
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.consensus import merge_instances
from isgseg.io.volumes import read_labels, write_volume
from isgseg.predict import predict

Labels = npt.NDArray[Any]
SHAPE = (24, 26, 40)


def balls(*places: tuple[float, float, float, float]) -> Labels:
    """Balls at (z, y, x, radius), numbered from 1; in doubt the first."""
    labels = np.zeros(SHAPE, np.uint16)
    for number, (*centre, radius) in enumerate(places, start=1):
        offset = np.indices(SHAPE).T - np.array(centre)
        labels[((offset.T**2).sum(0) <= radius**2) & (labels == 0)] = number
    return labels


# Two that touch, and one alone.
PLACES = [(11.0, 12.0, 10.0, 4.4), (11.0, 12.0, 18.0, 4.0), (12.0, 13.0, 31.0, 5.0)]


@pytest.fixture
def ground_truth() -> Labels:
    return balls(*PLACES)


def assert_same(a: Labels, b: Labels) -> None:
    """The same instances up to their numbers."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    assert all(len(np.unique(side)) == pairs.shape[1] for side in pairs)


def test_identical_stacks_are_what_they_were(ground_truth: Labels) -> None:
    renumbered = np.array([0, 3, 1, 2], np.uint8)[ground_truth]
    merged, members = merge_instances([ground_truth, renumbered, ground_truth], min_votes=3)
    assert merged.dtype == np.uint16
    assert_same(merged, ground_truth)
    for number, row in enumerate(members, start=1):
        seen = [
            np.unique(s[merged == number]).tolist()
            for s in (ground_truth, renumbered, ground_truth)
        ]
        assert seen == [[n] for n in row]


def test_what_one_stack_alone_sees_vanishes(ground_truth: Labels) -> None:
    false_positives = ground_truth.copy()
    false_positives[2:5, 2:5, 2:5] = 4
    merged, members = merge_instances([ground_truth, false_positives, ground_truth])
    assert_same(merged, ground_truth)
    assert len(members) == 3


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_one_stack_misses_stays(ground_truth: Labels, place: int) -> None:
    stacks = [ground_truth.copy() for _ in range(3)]
    stacks[place][ground_truth == 2] = 0
    merged, members = merge_instances(stacks)
    assert_same(merged, ground_truth)
    assert [row[place] for row in members.tolist() if 2 in row] == [0]
    assert merge_instances(stacks, min_votes=3)[0].max() == 2


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("radius", [4.0, 2.5])
def test_a_merge_on_one_axis_is_undone(place: int, radius: float) -> None:
    ground_truth = balls(PLACES[0], (11.0, 12.0, 16.0, radius), PLACES[2])
    stacks = [ground_truth.copy() for _ in range(3)]
    stacks[place][ground_truth == 2] = 1
    assert_same(merge_instances(stacks)[0], ground_truth)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("cut", [9, 11, 13])
def test_a_split_on_one_axis_is_undone(ground_truth: Labels, place: int, cut: int) -> None:
    stacks = [ground_truth.copy() for _ in range(3)]
    stacks[place][cut:][ground_truth[cut:] == 3] = 4
    merged, members = merge_instances(stacks)
    assert_same(merged, ground_truth)
    assert len(members) == 3


def test_a_merge_does_not_track_through_a_disputed_border(ground_truth: Labels) -> None:
    """One axis draws the border elsewhere, another draws none."""
    shifted, merged_pair = ground_truth.copy(), ground_truth.copy()
    shifted[:, :, :12][ground_truth[:, :, :12] == 1] = 1
    shifted[:, :, 12:20][ground_truth[:, :, 12:20] > 0] = 2
    merged_pair[ground_truth == 2] = 1
    found = match_instances(merge_instances([ground_truth, shifted, merged_pair])[0], ground_truth)
    assert (found.tp, found.fp, found.fn) == (3, 0, 0)


def test_voxels_go_by_majority() -> None:
    stacks = [balls((11.0, 12.0, 12.0 + shift, 5.0)) for shift in (-1, 0, 1)]
    merged, _ = merge_instances(stacks)
    assert np.array_equal(merged > 0, np.sum(stacks, axis=0) >= 2)


def test_min_iou_decides_what_is_the_same() -> None:
    stacks = [balls((11.0, 12.0, 12.0, 5.0)), balls((11.0, 12.0, 15.0, 5.0))]
    share = np.logical_and(*stacks).sum() / np.logical_or(*stacks).sum()
    assert merge_instances(stacks, min_iou=share - 0.01)[0].max() == 1
    assert not merge_instances(stacks, min_iou=share + 0.01)[0].any()


def test_every_instance_is_one_body_and_large_enough() -> None:
    """Dumb-bells whose bars do not agree fall apart; their larger end stays."""
    stacks = []
    for column in (8, 12):
        labels = balls((11.0, 10.0, 8.0, 4.0), (11.0, 10.0, 24.0, 3.0)).clip(max=1)
        labels[11, column, 8:24] = 1
        stacks.append(labels)
    merged, _ = merge_instances(stacks, min_iou=0.1)
    assert merged.max() == 1
    assert ndi.label(merged, np.ones((3, 3, 3)))[1] == 1
    size = int((merged > 0).sum())
    assert merge_instances(stacks, min_voxels=size)[0].max() == 1
    empty, members = merge_instances(stacks, min_voxels=size + 1)
    assert not empty.any()
    assert members.shape == (0, 2)


def test_nothing_to_agree_on() -> None:
    merged, members = merge_instances([np.zeros(SHAPE, np.uint16)] * 3)
    assert merged.dtype == np.uint16
    assert not merged.any()
    assert members.shape == (0, 3)


def test_more_instances_than_uint16_holds() -> None:
    labels = np.zeros((1, 540, 540), np.uint32)
    labels[0, ::2, ::2] = np.arange(1, 270 * 270 + 1).reshape(270, 270)
    merged, _ = merge_instances([labels, labels])
    assert merged.dtype == np.uint32
    assert np.array_equal(np.unique(merged), np.arange(270 * 270 + 1))


@pytest.mark.parametrize("votes", [0, 1, 3])
def test_votes_that_cannot_be_had(ground_truth: Labels, votes: int) -> None:
    with pytest.raises(ValueError, match=f"min_votes must be 2 to 2, the stacks, not {votes}"):
        merge_instances([ground_truth, ground_truth], min_votes=votes)


def test_shapes_that_differ(ground_truth: Labels) -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        merge_instances([ground_truth, ground_truth[1:]])


def test_score_is_the_mean_over_the_axes_that_see_it(ground_truth: Labels) -> None:
    false_negatives = ground_truth.copy()
    false_negatives[ground_truth == 2] = 0
    score, slices = np.array([0.9, 0.6, 0.3]), np.array([9, 7, 11])
    best = score + 0.05
    found = [
        Granules(labels, score * k, best * k, slices)
        for labels, k in ((ground_truth, 1.0), (false_negatives, 0.5))
    ]
    found.append(found[0])
    granules = find_consensus(found, SegmentationSettings(axes="zyx"), None)
    numbers = [int(granules.labels[int(z), int(y), int(x)]) - 1 for z, y, x, _ in PLACES]
    assert granules.score[numbers] == pytest.approx([0.75, 0.6, 0.25])
    assert granules.best[numbers] == pytest.approx([0.95, 0.65, 0.35])
    assert granules.slices[numbers].tolist() == [27, 14, 33]


def fake_detections(volume: Labels) -> Any:
    """Each ground truth in each slice, whatever the axis.

    Boxes and square masks as a network gives.
    """
    for plane in volume:
        boxes = [box for box in ndi.find_objects(plane.astype(int)) if box is not None]
        numbers = [n for n, box in enumerate(ndi.find_objects(plane.astype(int)), 1) if box]
        mask_probs = np.zeros((len(boxes), 28, 28), np.float32)
        for grid, number, box in zip(mask_probs, numbers, boxes, strict=True):
            mask = plane[box] == number
            rows, columns = ((np.arange(28) * side) // 28 for side in mask.shape)
            grid[:] = mask[np.ix_(rows, columns)]
        yield {
            "masks": mask_probs,
            "mask_boxes": np.array(
                [[b[1].start, b[0].start, b[1].stop, b[0].stop] for b in boxes], float
            ).reshape(-1, 4),
            "scores": np.full(len(boxes), 0.9),
        }


def label(ground_truth: Labels, voxel_size: Any = None, **settings: Any) -> Granules:
    return granules_of(fake_detections, ground_truth, voxel_size=voxel_size, **settings)


@pytest.mark.parametrize("axes", ["z", "y", "x", "zx", "zyx"])
def test_slices_across_any_axis_give_the_instances(ground_truth: Labels, axes: str) -> None:
    found = label(ground_truth, axes=axes)
    assert found.labels.shape == ground_truth.shape
    matching = match_instances(found.labels, ground_truth)
    assert (matching.tp, matching.fp, matching.fn) == (3, 0, 0)
    assert matching.sq > 0.9
    assert len(found.score) == len(found.slices) == 3


@pytest.mark.parametrize("override", [{"axes": "z"}, {"min_votes": 3}, {"min_iou": 0.99}])
def test_each_key_of_consensus_changes_the_labels(
    ground_truth: Labels, override: dict[str, Any]
) -> None:
    """Each axis loses the caps of the balls on its own side."""
    consensus: dict[str, Any] = {"axes": "zyx", "min_pixels": 14}
    other = label(ground_truth, **consensus | override)
    assert not np.array_equal(label(ground_truth, **consensus).labels, other.labels)


def test_the_linker_knows_the_voxels_of_each_axis(ground_truth: Labels) -> None:
    """A length of 8 slices of 40 nm is 16 of 20 nm: only across z are tracks too long."""
    voxel_size = (40.0, 20.0, 20.0)
    along_z = label(ground_truth, voxel_size, axes="z", max_length_nm=320.0)
    along_y = label(ground_truth, voxel_size, axes="y", max_length_nm=320.0)
    assert len(along_z.score) > 3
    assert len(along_y.score) == 3


def test_min_diameter_is_that_of_the_granules_agreed_on(ground_truth: Labels) -> None:
    voxel_size = (20.0, 20.0, 20.0)
    sizes = np.bincount(label(ground_truth, voxel_size, axes="zyx").labels.ravel())[1:]
    diameter = np.cbrt(6 / np.pi * np.sort(sizes)) * 20
    kept = label(ground_truth, voxel_size, axes="zyx", min_diameter_nm=float(diameter[1]) - 0.01)
    assert len(kept.score) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": "zz"}, "axes must be some of z, y and x"),
        ({"axes": "zw"}, "not 'zw'"),
        ({"axes": ""}, "axes must be some of"),
        ({"axes": "zy", "link": False}, "link=false"),
        ({"axes": "zy", "min_votes": 3}, "min_votes must be 2 to 2, not 3"),
    ],
)
def test_axes_that_cannot_agree(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentationSettings(**settings)


def test_a_cell_predicted_along_three_axes(
    trained: Path,
    tmp_path: Path,
    config: Compose,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of voxels twice as high as wide; the network learnt discs of radius 5."""
    caplog.set_level("INFO")
    shape = (60, 64, 68)
    volume, ground_truth = np.full(shape, 100.0, np.float32), np.zeros(shape, np.uint16)
    volume += np.random.default_rng(0).normal(0, 5, shape)
    for number, centre in enumerate([(12, 20, 20), (40, 45, 48)], start=1):
        offset = np.indices(shape).T - np.array(centre)
        ground_truth[(offset.T**2).sum(0) <= 6**2] = number
    volume[ground_truth > 0] += 60
    cell = write_volume(tmp_path / "cell.mrc", volume, (60.0, 30.0, 30.0))
    cfg = config(
        "predict",
        f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
        f"volumes={cell}",
        "segmentation=consensus",
        "segmentation.mask_threshold=0.5",
        "threshold=0.5",
        "normalization={method:window,low:0,high:255}",
        "precision=32-true",
        "device=cpu",
    )
    (path,) = predict(cfg)
    labels = read_labels(path)
    assert labels.voxel_size == pytest.approx((60, 30, 30))
    matching = match_instances(labels.data, ground_truth)
    assert (matching.tp, matching.fp, matching.fn) == (2, 0, 0)
    bars = capsys.readouterr().err
    for axis, slices in zip("zyx", shape, strict=True):
        assert f"cell.mrc along {axis}: 100%" in bars
        assert f"{slices}/{slices}" in bars
    assert "so that slices along y and x show granules distorted" in caplog.text
    assert re.search(r"cell\.mrc: 2 granules agreed on, of \d+ along z, \d+ along y", caplog.text)
