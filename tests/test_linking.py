from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from isgseg.evaluation.matching import match_instances
from isgseg.instances.components import grow
from isgseg.instances.linking import SliceLinker, link_slices
from isgseg.instances.numbering import Linking
from isgseg.instances.settings import LinkSettings

Labels = npt.NDArray[Any]
CELL = 20  # voxels of room for one ball


def ball(shape: tuple[int, ...], centre: npt.ArrayLike, radius: float) -> npt.NDArray[np.bool_]:
    offset = np.indices(shape).T - np.asarray(centre, np.float64)
    inside: npt.NDArray[np.bool_] = (offset.T**2).sum(0) <= radius**2
    return inside


def balls(count: int, seed: int = 0, radius: tuple[float, float] = (2.5, 6.5)) -> Labels:
    """A row of separate balls along x, away from the ends of the volume."""
    rng = np.random.default_rng(seed)
    volume = np.zeros((CELL, CELL, CELL * count), np.uint16)
    for i in range(count):
        view = volume[:, :, i * CELL : (i + 1) * CELL]
        centre = (CELL - 1) / 2 + rng.uniform(-0.5, 0.5, 3)
        view[ball(view.shape, centre, rng.uniform(*radius))] = i + 1
    return volume


@pytest.mark.parametrize("shape", [(12, 17), (1, 9), (9, 1), (1, 1)], ids=str)
def test_components_grow_by_a_pixel_and_never_over_another(shape: tuple[int, int]) -> None:
    components = np.random.default_rng(0).integers(0, 9, shape).astype(np.int32)
    components[components < 6] = 0
    wide = ndimage.grey_dilation(components, size=(3, 3))
    np.testing.assert_array_equal(grow(components), np.where(components, components, wide))


def touching(direction: tuple[float, float, float], radii: tuple[float, float]) -> Labels:
    volume = np.zeros((40, 40, 40), np.uint16)
    unit = np.array(direction) / np.linalg.norm(direction)
    contact = np.array([19.7, 20.1, 19.6])
    first = ball(volume.shape, contact - unit * radii[0], radii[0])
    volume[first] = 1
    volume[ball(volume.shape, contact + unit * radii[1], radii[1]) & ~first] = 2
    return volume


def shuffled(volume: Labels, seed: int = 0) -> Labels:
    """Numbers drawn anew in each slice."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(volume)
    for z, plane in enumerate(volume):
        table = np.r_[0, rng.permutation(int(volume.max())) + 1]
        out[z] = table[plane]
    return out


def damaged(
    volume: Labels, false_negatives: float, jitter: int, seed: int = 0, in_a_row: bool = False
) -> Labels:
    """Sections missed at random (by default never two in a row), the others moved."""
    rng = np.random.default_rng(seed)
    out = np.zeros_like(volume)
    lost: set[int] = set()
    for z, plane in enumerate(volume):
        numbers = np.unique(plane[plane > 0]).tolist()
        before = set() if in_a_row else lost
        lost = {n for n in numbers if rng.random() < false_negatives and n not in before}
        for number in numbers:
            if number in lost:
                continue
            y, x = np.nonzero(plane == number)
            dy, dx = rng.integers(-jitter, jitter + 1, 2)
            out[z, y + dy, np.clip(x + dx, 0, plane.shape[1] - 1)] = number
    return out


def same_instances(a: Labels, b: Labels) -> bool:
    """Are they the same up to renumbering?"""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return all(len(np.unique(side)) == pairs.shape[1] for side in pairs)


def stream(volume: Labels, voxel_size: Sequence[float] | None = None, **settings: Any) -> Linking:
    linker = SliceLinker(LinkSettings(**settings), voxel_size=voxel_size)
    for plane in volume:
        linker.add(plane)
    return linker.finish()


def assert_whole(labels: Labels) -> None:
    """Numbers are contiguous from 1, and each is one 26-connected body."""
    boxes = ndimage.find_objects(labels)
    assert len(boxes) == labels.max(initial=0)
    for number, box in enumerate(boxes, start=1):
        assert box is not None, number
        assert ndimage.label(labels[box] == number, np.ones((3, 3, 3)))[1] == 1, number


@pytest.fixture(scope="module")
def row() -> Labels:
    return balls(60)


def test_perfect_spheres_are_not_split(row: Labels) -> None:
    linked = link_slices(shuffled(row))
    assert same_instances(linked, row)
    assert linked.dtype == np.uint16


@pytest.mark.parametrize(("max_gap", "in_a_row"), [(1, False), (2, True)])
def test_false_negatives_and_jittered_sections_hardly_matter(max_gap: int, in_a_row: bool) -> None:
    ground_truth = balls(300, seed=3)
    slices = damaged(ground_truth, false_negatives=0.1, jitter=1, in_a_row=in_a_row)
    linked = link_slices(shuffled(slices), max_gap=max_gap)
    found = match_instances(linked, ground_truth)
    assert found.splits + found.merges <= 0.02 * 300
    assert_whole(linked)


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 0), (2, 1, 1)])
@pytest.mark.parametrize("radii", [(2.5, 2.5), (3.2, 5.9), (6.5, 4.0), (6.5, 6.5)])
def test_touching_pairs_stay_two(
    direction: tuple[float, float, float], radii: tuple[float, float]
) -> None:
    ground_truth = touching(direction, radii)
    found = match_instances(link_slices(shuffled(ground_truth)), ground_truth)
    assert (found.tp, found.fp, found.fn) == (2, 0, 0)


def test_a_track_is_not_cut_where_constrictions_are_allowed() -> None:
    ground_truth = touching((1, 0, 0), (6.0, 6.0))
    assert link_slices(ground_truth, constriction=0).max() == 1


def test_a_thin_section_in_a_ball_is_no_constriction() -> None:
    ground_truth = balls(1, radius=(6, 6))
    middle = ground_truth[10]
    middle[~ndimage.binary_erosion(middle, iterations=3)] = 0
    assert link_slices(ground_truth).max() == 1


@pytest.mark.parametrize("place", [0, 9, -1])
def test_a_blank_slice_neither_crashes_nor_merges(row: Labels, place: int) -> None:
    ground_truth = row[2:-2].copy() if place else row.copy()
    ground_truth[place] = 0
    linked = link_slices(shuffled(ground_truth))
    found = match_instances(linked, row[2:-2] if place else row)
    assert (found.tp, found.splits, found.merges) == (60, 0, 0)
    assert_whole(linked)


def test_a_bridged_slice_is_filled(row: Labels) -> None:
    ground_truth = row.copy()
    ground_truth[9] = 0
    linked = link_slices(ground_truth)
    inside = (ground_truth[8] > 0) & (ground_truth[8] == ground_truth[10])
    assert (linked[9][inside] == linked[8][inside]).all()
    assert not linked[9][(ground_truth[8] == 0) & (ground_truth[10] == 0)].any()
    found = match_instances(linked[9], row[9])
    assert found.f1 == 1
    assert found.sq > 0.85


def test_fills_write_background_only() -> None:
    volume = np.zeros((9, 12, 24), np.uint8)
    volume[:, 2:10, 2:9] = 1
    volume[:, 2:10, 9:20] = 2
    volume[4, 2:10, 2:9] = 0  # missing, and the neighbour reaches over
    volume[4, 2:10, 7:9] = 2
    linked = link_slices(volume)
    assert linked.max() == 2
    assert (linked[4, 2:10, 2:7] == linked[3, 5, 5]).all()
    assert (linked[4, 2:10, 7:20] == linked[3, 5, 15]).all()


@pytest.mark.parametrize("max_gap", [0, 1, 2, 3])
def test_gap_is_how_many_missing_sections_are_bridged(max_gap: int) -> None:
    column = np.zeros((14, 14, 14), np.uint8)
    column[:, 1:13, 1:13] = 1
    for missing in (1, 2, 3):
        volume = column.copy()
        volume[5 : 5 + missing] = 0
        linked = link_slices(volume, max_gap=max_gap)
        assert linked.max() == (1 if missing <= max_gap else 2)
        assert_whole(linked)


def test_what_would_be_too_tall_is_not_bridged() -> None:
    """No constriction tells these two apart, but one granule is not twice as high as wide."""
    column = np.zeros((17, 9, 9), np.uint8)
    column[1:8, 1:8, 1:8] = column[9:16, 1:8, 1:8] = 1
    assert link_slices(column).max() == 2
    assert link_slices(column, voxel_size=(10, 30, 30)).max() == 1


def test_no_detections_at_all() -> None:
    nothing = np.zeros((5, 8, 8), np.uint16)
    linked = link_slices(nothing)
    assert linked.dtype == np.uint16
    assert not linked.any()
    assert len(stream(nothing).instances) == 0


def test_no_slices_at_all() -> None:
    linking = SliceLinker().finish()
    assert len(linking.instances) == 0
    assert linking.apply(np.zeros((0, 8, 8), np.uint16)).shape == (0, 8, 8)


def test_one_slice() -> None:
    ground_truth = balls(12)[9:10]
    assert same_instances(link_slices(shuffled(ground_truth)), ground_truth)


@pytest.mark.parametrize("axis", [1, 2])
def test_one_voxel_thick(axis: int) -> None:
    volume = np.expand_dims(np.repeat([[1, 1, 0, 3, 3]], 6, axis=0), axis).astype(np.uint8)
    linked = link_slices(volume)
    assert linked.shape == volume.shape
    assert same_instances(linked, volume)


def test_upside_down_is_the_same() -> None:
    ground_truth = balls(80, seed=5)
    slices = shuffled(damaged(ground_truth, false_negatives=0.1, jitter=1, seed=6))
    assert same_instances(link_slices(slices[::-1])[::-1], link_slices(slices))


def test_more_instances_than_uint16_holds() -> None:
    plane = np.zeros((2, 540, 540), np.uint32)
    plane[0, ::2, ::2] = np.arange(1, 270 * 270 + 1).reshape(270, 270)
    plane[1] = plane[0][::-1, ::-1].max() + 1 - plane[0]
    plane[1][plane[0] == 0] = 0
    linked = link_slices(plane)
    assert linked.dtype == np.uint32
    assert linked.max() == 270 * 270
    assert (linked[0] == linked[1]).all()


def test_the_stream_in_place_is_the_same(row: Labels) -> None:
    slices = shuffled(damaged(row, false_negatives=0.1, jitter=1))
    linking = stream(slices)
    volume = slices.copy()
    assert linking.apply(volume) is volume
    np.testing.assert_array_equal(volume, link_slices(slices))
    assert volume.max() == len(linking.instances)


def test_labels_too_narrow_for_the_numbers_are_copied() -> None:
    volume = np.zeros((3, 40, 40), np.uint8)
    for z in range(3):
        # 200 sections in each slice, nothing above or below them.
        volume[z, z * 13 : z * 13 + 10 : 2, ::2] = np.arange(1, 101).reshape(5, 20)
    linking = stream(volume)
    numbered = linking.apply(volume)
    assert numbered.dtype == np.uint16
    assert numbered.max() == 300
    with pytest.raises(ValueError, match="300 instances do not fit into uint8"):
        linking.apply(volume, out=np.empty_like(volume))


def test_input_is_not_changed(row: Labels) -> None:
    slices = shuffled(row)
    kept = slices.copy()
    link_slices(slices)
    np.testing.assert_array_equal(slices, kept)


def test_numbers_rise_with_the_first_slice(row: Labels) -> None:
    first = stream(shuffled(row)).instances.first
    assert (np.diff(first) >= 0).all()


def test_scores_and_counts_are_carried() -> None:
    volume = np.zeros((7, 8, 16), np.uint8)
    volume[1:6, 1:7, 1:7] = 2
    volume[2:5, 1:7, 9:15] = 1
    volume[3, 1:7, 1:7] = 0
    linker = SliceLinker()
    for z, plane in enumerate(volume):
        linker.add(plane, scores=[0.5 + 0.1 * z, 0.1 * z])
    table = linker.finish().instances
    np.testing.assert_array_equal(table.masks, [4, 3])
    np.testing.assert_array_equal(table.first, [1, 2])
    np.testing.assert_array_equal(table.last, [5, 4])
    np.testing.assert_allclose(table.score, [0.3, 0.8])


def test_scores_are_one_where_none_are_given(row: Labels) -> None:
    assert (stream(row).instances.score == 1).all()


def test_min_diameter_is_in_nm_of_anisotropic_voxels() -> None:
    # 4 slices of 50 nm by 6 x 6 pixels of 20 x 10 nm: 1.44e6 nm3, a ball of 140.1 nm.
    volume = np.zeros((8, 10, 10), np.uint8)
    volume[2:6, 2:8, 2:8] = 1
    voxel_size = (50, 20, 10)
    diameter = stream(volume, voxel_size=voxel_size).instances.diameter
    np.testing.assert_allclose(diameter, np.cbrt(6 / np.pi * 1.44e6))
    assert link_slices(volume, voxel_size=voxel_size, min_diameter_nm=140).max() == 1
    dropped = stream(volume, voxel_size=voxel_size, min_diameter_nm=141)
    assert dropped.dropped == 1
    assert not dropped.apply(volume).any()


def test_min_slices_drops_what_too_few_slices_support() -> None:
    volume = np.zeros((9, 8, 24), np.uint8)
    volume[1:8, 1:7, 1:7] = 1
    volume[4, 1:7, 1:7] = 0  # bridged, and no support
    volume[3:5, 1:7, 9:15] = 2
    volume[6, 1:7, 17:23] = 3
    for least, left in ((1, [1, 2, 3]), (2, [1, 2]), (6, [1]), (7, [])):
        linking = stream(volume, min_slices=least)
        assert linking.dropped == 3 - len(left)
        linked = linking.apply(volume.copy())
        assert np.unique(linked[linked > 0]).tolist() == left
        assert np.array_equal(linked[3] > 0, np.isin(volume[3], left))
        assert (linking.instances.masks >= least).all()


def test_min_score_drops_instances_of_a_low_mean_score() -> None:
    volume = np.zeros((4, 8, 16), np.uint8)
    volume[:, 1:7, 1:7] = 1
    volume[:, 1:7, 9:15] = 2

    def linking(least: float) -> Linking:
        linker = SliceLinker(LinkSettings(min_score=least))
        for z, plane in enumerate(volume):
            linker.add(plane, scores=[0.3 + 0.2 * z, 0.4])
        return linker.finish()

    assert len(linking(0.4).instances) == 2
    high = linking(0.5)  # one section of .3 does not drag down a granule of .6
    np.testing.assert_allclose(high.instances.score, [0.6])
    assert high.dropped == 1
    assert not high.apply(volume)[:, 1:7, 9:15].any()


def test_the_threshold_asks_for_one_section_that_reaches_it() -> None:
    volume = np.zeros((3, 8, 16), np.uint8)
    volume[:, 1:7, 1:7] = 1
    volume[:, 1:7, 9:15] = 2

    def linking(threshold: float) -> Linking:
        linker = SliceLinker(threshold=threshold)
        for plane, first in zip(volume, (0.2, 0.9, 0.1), strict=True):
            linker.add(plane, scores=[first, 0.5])
        return linker.finish()

    assert linking(0.5).instances.best.tolist() == pytest.approx([0.9, 0.5])
    strict = linking(0.6)  # its weak sections stay, the granule that is nowhere sure goes
    assert strict.instances.masks.tolist() == [3]
    assert strict.instances.score.tolist() == pytest.approx([0.4])
    assert strict.dropped == 1


def test_dropping_leaves_no_holes_in_the_numbers() -> None:
    ground_truth = balls(40, radius=(2.5, 6.5))
    linked = link_slices(ground_truth, min_diameter_nm=8)
    assert 0 < linked.max() < 40
    assert_whole(linked)


@pytest.mark.parametrize(("voxel_size", "max_length_nm"), [(None, 7), ((30, 10, 10), 210)])
def test_max_length_in_slices_or_nm(
    voxel_size: tuple[float, float, float] | None, max_length_nm: float
) -> None:
    column = np.zeros((22, 9, 9), np.uint8)
    column[:, 1:8, 1:8] = 1
    linking = stream(column, voxel_size=voxel_size, max_length_nm=max_length_nm)
    lengths = linking.instances.last - linking.instances.first + 1
    assert lengths.max() <= 7
    assert lengths.sum() == 22
    assert link_slices(column, voxel_size=voxel_size).max() == 1


def test_a_fragment_askew_joins_what_it_touches() -> None:
    volume = np.zeros((12, 20, 20), np.uint8)
    volume[3:9, 5:11, 5:11] = 1
    volume[9, 11:15, 11:15] = 1  # touches by a corner
    assert link_slices(volume).max() == 1


def test_a_mask_in_two_pieces_is_one_where_a_neighbour_joins_them() -> None:
    volume = np.zeros((9, 12, 20), np.uint8)
    volume[2:5, 3:9, 2:8] = 5  # two legs under one number
    volume[2:5, 3:9, 11:17] = 5
    volume[5:7, 3:9, 2:17] = 5
    assert link_slices(volume).max() == 1
    volume[5:7] = 0
    linked = link_slices(volume)
    assert linked.max() == 2
    assert_whole(linked)


def test_specks_of_a_mask_are_dropped_and_counted() -> None:
    volume = balls(1)
    volume[10, 1, 1] = 1
    linking = stream(volume)
    assert linking.specks == 1
    assert_whole(linking.apply(volume))


def test_signed_labels_and_large_numbers() -> None:
    ground_truth = balls(5).astype(np.int64)
    assert same_instances(link_slices(ground_truth * 10**9), ground_truth)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"voxel_size": (1, 2)}, "voxel_size"),
        ({"voxel_size": (0, 1, 1)}, "voxel_size"),
        ({"min_overlap": 0}, "min_overlap"),
        ({"constriction": 2}, "constriction"),
        ({"max_gap": -1}, "max_gap"),
        ({"max_distance": 0}, "max_distance"),
        ({"max_length_nm": 0}, "max_length_nm"),
        ({"min_diameter_nm": -1}, "min_diameter_nm"),
        ({"min_slices": 0}, "min_slices"),
        ({"min_score": 1.1}, "min_score"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(np.zeros((1, 2, 2), np.uint8), **settings)


def test_what_is_no_label_slice() -> None:
    linker = SliceLinker()
    linker.add(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        linker.add(np.zeros((4, 5)))
    with pytest.raises(ValueError, match="3D"):
        linker.add(np.zeros((1, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="negative"):
        linker.add(np.full((4, 5), -1))
    with pytest.raises(ValueError, match=r"\(5, 4\)"):
        linker.add(np.zeros((5, 4), np.uint8))
    with pytest.raises(ValueError, match="label 3, but 2 scores"):
        linker.add(np.full((4, 5), 3, np.uint8), scores=[0.1, 0.2])
    with pytest.raises(ValueError, match="3D integers, not 2D"):
        link_slices(np.zeros((4, 5), np.uint8))
    # What was refused left no trace.
    assert len(linker.finish().numbers) == 1


def test_apply_wants_the_slices_that_were_linked(row: Labels) -> None:
    linking = stream(row)
    with pytest.raises(ValueError, match="20 slices were linked"):
        linking.apply(row[1:].copy())
    other = row.copy()
    other[5] = np.arange(other[5].size).reshape(other[5].shape) % 2
    with pytest.raises(ValueError, match="slice 5"):
        linking.apply(other)
