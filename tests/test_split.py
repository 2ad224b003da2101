"""Touching granules are told apart in 3D: known answers, and what must not matter."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import granules_of
from pydantic import ValidationError
from scipy import ndimage as ndi
from skimage.segmentation import watershed

from isgseg.evaluation.matching import match_instances
from isgseg.instances.merging import find_necks, merge_pieces
from isgseg.instances.parts import AROUND, FACES, components, with_room
from isgseg.instances.settings import SplitSettings
from isgseg.instances.split import find_seeds, join_small, split

Array = npt.NDArray[Any]


def ellipsoid(centre: Any, semi_axes: Any, side: int = 27, rotation: Any = None) -> Array:
    """(side, side, side) bool; semi-axes in voxels, one number for a ball."""
    places = np.indices((side,) * 3).reshape(3, -1).T - np.asarray(centre, float)
    along = places @ (np.eye(3) if rotation is None else rotation)
    inside: Array = ((along / semi_axes) ** 2).sum(1).reshape((side,) * 3) <= 1
    return inside


def rotation(random: np.random.Generator) -> Array:
    matrix, upper = np.linalg.qr(random.normal(size=(3, 3)))
    return np.asarray(matrix * np.sign(np.diag(upper)))


def touching(random: np.random.Generator, distance: float = 1.0) -> Array:
    """Two balls of 5 to 13 voxels, numbered; the distance is a share of the sum of their radii."""
    radii = random.uniform(2.5, 6.5, 2)
    direction = random.normal(size=3)
    step = direction / np.linalg.norm(direction) * radii.sum() * distance / 2
    middle = 16 + random.uniform(-0.5, 0.5, 3)
    one, other = (ellipsoid(middle + s * step, r, 33) for s, r in zip((-1, 1), radii, strict=True))
    return np.where(one, 1, np.where(other, 2, 0)).astype(np.uint16)


def cluster(seed: int, count: int = 4) -> Array:
    """Several balls, each of which touches another, numbered."""
    random = np.random.default_rng(seed)
    labels, centres, radii = np.zeros((40, 40, 40), np.uint16), [np.full(3, 20.0)], [4.0]
    while len(centres) < count:
        radius, mate = random.uniform(3, 5), random.integers(len(centres))
        direction = random.normal(size=3)
        step = direction / np.linalg.norm(direction) * (radius + radii[mate]) * 0.95
        centre = centres[mate] + step
        others = [i for i in range(len(centres)) if i != mate]
        clear = all(np.linalg.norm(centre - centres[i]) > radius + radii[i] + 1 for i in others)
        if clear and (abs(centre - 19.5) < 18.5 - radius).all():
            centres.append(centre)
            radii.append(radius)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), start=1):
        labels[ellipsoid(centre, radius, 40) & (labels == 0)] = number
    return labels


@pytest.mark.parametrize("diameter", [5, 6, 7, 9, 11, 13])
def test_a_ball_is_one_wherever_it_lies(diameter: int) -> None:
    random = np.random.default_rng(diameter)
    for _ in range(15):
        ball = ellipsoid(10 + random.uniform(-0.5, 0.5, 3), diameter / 2, 21)
        assert np.array_equal(split(ball), ball)


def test_an_ellipsoid_of_aspect_one_and_a_quarter_is_one() -> None:
    random = np.random.default_rng(0)
    for _ in range(40):
        radius = random.uniform(2.5, 6.5) / 1.25 ** (1 / 3)
        axes = [1.25 * radius, radius, radius]
        centre = 13 + random.uniform(-0.5, 0.5, 3)
        assert split(ellipsoid(centre, axes, rotation=rotation(random))).max() == 1


@pytest.mark.parametrize(("distance", "least"), [(1.0, 30), (0.9, 29), (0.8, 25)])
def test_two_balls_that_touch_are_two(distance: float, least: int) -> None:
    random = np.random.default_rng(1)
    found = 0
    for _ in range(30):
        labels = touching(random, distance)
        parts = split(labels > 0)
        found += parts.max() == 2 and match_instances(parts, labels).tp == 2
    assert found >= least


def test_two_balls_that_are_mostly_one_stay_one() -> None:
    random = np.random.default_rng(2)
    found = [split(touching(random, 0.4) > 0).max() for _ in range(20)]
    assert found == [1] * 20


@pytest.mark.parametrize("shape", ["cube", "slab", "rod", "shell"])
def test_plateaus_are_one_maximum(shape: str) -> None:
    solid = np.zeros((14, 14, 14), bool)
    solid[{"cube": np.s_[3:9, 3:9, 3:9], "slab": np.s_[5:7, 2:12, 2:12]}.get(shape, np.s_[:0])] = 1
    if shape == "rod":
        solid[4:8, 4:8, 3:9] = 1
    if shape == "shell":
        solid = ellipsoid((6.5,) * 3, 6, 14) & ~ellipsoid((6.5,) * 3, 4, 14)
    assert split(solid).max() == 1


def test_no_voxel_is_lost_and_numbers_follow_the_first_voxel() -> None:
    mask = cluster(3) > 0
    mask[0, 0, 0] = mask[0, 0, 5] = True  # specks
    parts = split(mask)
    assert np.array_equal(parts > 0, mask)
    numbers, first = np.unique(parts[parts > 0], return_index=True)
    assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert (np.diff(first) > 0).all()
    assert parts.dtype == np.uint16


def test_axes_and_directions_do_not_matter() -> None:
    labels = cluster(4)
    expected = split(labels > 0)
    assert expected.max() == 4
    for order in itertools.permutations(range(3)):
        for flips in ((), (0,), (1, 2), (0, 1, 2)):
            turned = np.flip(labels.transpose(order), flips)
            back = np.flip(split(turned > 0), flips).transpose(np.argsort(order))
            match = match_instances(back, expected, 0.9)
            assert (match.tp, match.fp, match.fn) == (4, 0, 0)


def test_what_the_volume_cuts_is_one_too() -> None:
    random = np.random.default_rng(6)
    for _ in range(20):
        ball = ellipsoid(9 + random.uniform(-0.5, 0.5, 3), random.uniform(2.5, 6.5), 19)
        cut = int(random.integers(7, 12))
        assert split(ball[cut:]).max() == split(ball[:, :, : cut + 1]).max() == 1
    full = np.ones((4, 5, 6), bool)
    assert np.array_equal(split(full), full)
    assert np.array_equal(split(full, inside=full * 0.5), full)


def test_what_else_is_in_the_volume_does_not_matter() -> None:
    labels = cluster(5)
    alone = split(labels > 0)
    wide = np.zeros((90, 60, 60), bool)
    wide[45:85, 15:55, 12:52] = labels > 0
    wide[2:20, 5:15, 40:50] = True
    parts = split(wide)[45:85, 15:55, 12:52]
    assert np.array_equal(parts > 0, alone > 0)
    assert match_instances(parts, alone, 1.0).tp == alone.max()


def test_each_instance_is_split_by_itself() -> None:
    labels = cluster(6)
    lumped = np.where(labels > 2, 7, np.where(labels > 0, 70_000, 0)).astype(np.uint32)
    parts = split(lumped)
    for number in (7, 70_000):
        assert len(np.unique(parts[lumped == number])) == len(np.unique(labels[lumped == number]))
    assert np.array_equal(split(labels) > 0, labels > 0)
    assert match_instances(split(labels), labels, 1.0).fn == 0


def test_a_map_that_is_given_says_where_granules_are() -> None:
    rod = np.zeros((11, 11, 40), bool)
    rod[2:9, 2:9, 2:38] = True
    assert split(rod).max() == 1
    x = np.arange(40.0)
    three = np.broadcast_to(np.sin((x - 2) / 36 * 3 * np.pi) ** 2, rod.shape) * rod
    parts = split(rod, inside=three, height=0.1)
    assert parts.max() == 3
    assert np.bincount(parts[rod])[1:].min() > 500
    assert split(rod, inside=three, height=1.5).max() == 1
    assert split(rod, inside=np.zeros(rod.shape, np.float32)).max() == 1


def test_a_map_is_smoothed_with_what_lies_around_the_box() -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[4:9, 4:9, 0:5] = True  # at the volume's edge too
    random = np.random.default_rng(0)
    given = random.random(mask.shape)
    whole = split(mask, inside=given, height=0.05, sigma=1.0)
    moved = np.pad(mask, ((3, 0), (0, 2), (0, 4)))
    padded = np.pad(given, ((3, 0), (0, 2), (0, 4)), mode="edge")
    again = split(moved, inside=padded, height=0.05, sigma=1.0)[3:, :-2, :-4]
    assert np.array_equal(whole, again)


def crowded_map(seed: int) -> tuple[Array, Array]:
    """A mask of parts of all sizes, specks among them, and a map with maxima in it."""
    random = np.random.default_rng(seed)
    noise = random.random((26, 30, 34))
    fine, coarse = (ndi.gaussian_filter(noise, sigma, mode="wrap") for sigma in (0.7, 1.6))
    depth = (255 * (coarse - coarse.min()) / np.ptp(coarse)).astype(np.uint8)
    return fine + 2 * coarse > np.quantile(fine + 2 * coarse, 0.75), depth


def in_whole_arrays(mask: Array, depth: Array, height: float, sigma: float, least: int) -> Array:
    """What `split` does, body by body, each in an array of the whole volume. Numbers differ."""
    smooth = np.pad(ndi.gaussian_filter(depth.astype(float), sigma, mode="nearest"), 1)
    pieces, count = np.zeros(mask.shape, np.int64), 0
    bodies, number_of_bodies = ndi.label(mask, FACES)
    for number in range(1, number_of_bodies + 1):
        body = np.pad(bodies == number, 1)
        of = body.astype(np.int64)
        hill = smooth * body
        if body.sum() >= 2 * least and (seeds := find_seeds(hill, height)).max() > 1:
            of = merge_pieces(watershed(-hill, seeds, mask=body).astype(np.int64), hill)
        of = of[1:-1, 1:-1, 1:-1]
        pieces[of > 0] = of[of > 0] + count
        count = int(pieces.max())
    parts, number_of_parts = ndi.label(mask, AROUND)
    for number in range(1, number_of_parts + 1):
        part = np.where(parts == number, pieces, 0)
        while True:
            numbers, sizes = np.unique(part[part > 0], return_counts=True)
            for small in numbers[np.argsort(sizes, kind="stable")][: (sizes < least).sum()]:
                own = part == small
                near = part[ndi.binary_dilation(own, AROUND) & ~own & (part > 0)]
                if near.size:
                    part[own] = np.bincount(near).argmax()
                    break
            else:
                break
        pieces[parts == number] = part[parts == number]
    return pieces


@pytest.mark.parametrize("seed", range(3))
def test_boxes_around_parts_and_bodies_change_nothing(seed: int) -> None:
    mask, depth = crowded_map(seed)
    found = split(mask, depth, height=6, sigma=0.5, min_voxels=8)
    expected = in_whole_arrays(mask, depth, 6, 0.5, 8)
    assert found.max() > 40
    assert np.bincount(found.ravel())[1:].min() < 8  # specks that touch nothing
    assert len(np.unique(found + (found.max() + 1.0) * expected)) == found.max() + 1
    assert len(np.unique(expected)) == found.max() + 1


def test_necks_are_the_highest_of_all_pairs_of_voxels() -> None:
    random = np.random.default_rng(0)
    pieces = random.integers(0, 4, (4, 5, 6))
    heights = random.random(pieces.shape)
    expected: dict[tuple[int, int], float] = {}
    places = np.argwhere(pieces)
    for one, other in itertools.combinations(map(tuple, places), 2):
        a, b = sorted((int(pieces[one]), int(pieces[other])))
        if a != b and np.abs(np.subtract(one, other)).max() == 1:
            lower = float(min(heights[one], heights[other]))
            expected[a, b] = max(lower, expected.get((a, b), 0.0))
    assert find_necks(pieces, heights) == expected
    assert find_necks(np.ones((3, 3, 3), np.int64), np.ones((3, 3, 3))) == {}


def test_what_is_too_small_goes_to_its_neighbour() -> None:
    pieces = np.zeros((3, 6, 12), np.int64)
    pieces[:, :, :6], pieces[:, :, 6:], pieces[1, 2, 3:5] = 1, 2, 3
    joined = join_small(pieces.copy(), 8)
    assert np.unique(joined).tolist() == [1, 2]
    assert (joined[:, :, :6] == 1).all()
    assert np.array_equal(join_small(pieces.copy(), 2), pieces)
    speck = np.zeros((3, 3, 3), np.int64)
    speck[1, 1, 1] = 1
    assert join_small(speck.copy(), 8).max() == 1


def test_height_and_sigma_change_what_is_a_maximum() -> None:
    hills = np.zeros((3, 3, 9))
    hills[1, 1] = [0, 3, 2, 2.5, 1, 4, 4, 0, 0]
    assert find_seeds(hills, 0.4).max() == 3
    assert find_seeds(hills, 0.6).max() == 2
    assert find_seeds(hills, 3.5).max() == 1
    hills[1, 1, 1] = 4  # as high as the other
    assert find_seeds(hills, 2.9).max() == 2
    assert find_seeds(hills, 3.1).max() == 1
    mask = touching(np.random.default_rng(3), 0.9) > 0
    assert split(mask).max() == 2
    assert split(mask, height=5.0).max() == split(mask, sigma=4.0).max() == 1


def test_pieces_of_one_ball_are_merged_and_two_balls_are_not() -> None:
    ball = ellipsoid((13, 13, 13), 6)
    halves = np.where(ball, 1, 0).astype(np.int64)
    halves[:, :, 13:][ball[:, :, 13:]] = 2
    flat = np.where(ball, 3.0, 0.0)  # no constriction
    assert find_necks(halves, flat) == {(1, 2): 3.0}
    assert np.unique(merge_pieces(halves, flat)).tolist() == [0, 1]
    waist = flat.copy()
    waist[:, :, 12:14] = np.minimum(waist[:, :, 12:14], 1.0)
    assert np.unique(merge_pieces(halves, waist)).tolist() == [0, 1, 2]
    pair = np.where(ellipsoid((13, 13, 6), 6), 1, np.where(ellipsoid((13, 13, 19), 6), 2, 0))
    assert np.unique(merge_pieces(pair.astype(np.int64), flat + 3)).tolist() == [0, 1, 2]


def test_components_are_joined_by_faces() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[0, 0, :2], labels[1, 1, 2], labels[3, 3] = 5, 5, 9
    assert np.unique(components(labels)).tolist() == [0, 1, 2, 3]
    assert np.array_equal(components(labels > 0) > 0, labels > 0)
    labels[0, 0, 2] = 9  # another number
    assert components(labels).max() == 4
    assert components(labels > 0).max() == 3


def test_more_parts_than_16_bits_hold() -> None:
    mask = np.zeros((82, 82, 82), bool)
    mask[::2, ::2, ::2] = True  # 68,921 voxels that do not touch
    numbers = components(mask)
    assert numbers.dtype == np.uint32
    assert np.array_equal(numbers[mask], np.arange(1, 68_922))
    labels = np.ones((2, 2, 2), np.uint16)
    assert with_room(labels, 2**16 - 1) is labels
    assert with_room(labels, 2**16).dtype == np.uint32


def test_blobfit_goes_by_the_tomogram() -> None:
    labels = touching(np.random.default_rng(5), 1.0)
    centres = [np.argwhere(labels == number).mean(0) for number in (1, 2)]
    distance = [((np.indices(labels.shape).T - c) ** 2).sum(-1).T for c in centres]
    bright = sum(np.exp(-d / 20) for d in distance)
    found = split(labels > 0, bright, assign="blobfit")
    assert match_instances(found, labels).tp == found.max() == 2
    one = np.exp(-distance[0] / 200)  # one bright point, and so one granule
    assert split(labels > 0, one, assign="blobfit").max() == 1
    specks = np.zeros((9, 9, 30), bool)
    specks[4, 4, 2:17] = True  # 15 voxels in which no ball fits
    assert split(specks, assign="blobfit").max() == 0
    specks[4, 4, 17] = True
    assert split(specks, assign="blobfit").max() == 1


def test_nothing_and_one_voxel() -> None:
    assert split(np.zeros((3, 4, 5), bool)).max() == 0
    one = np.zeros((3, 4, 5), np.uint8)
    one[2, 3, 4] = 255
    assert np.array_equal(split(one) > 0, one > 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"height": 0}, "height"), ({"sigma": -1}, "sigma"), ({"min_voxels": 0}, "min_voxels")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        split(np.zeros((2, 2, 2), bool), **settings)
    with pytest.raises(ValidationError, match="assign"):
        SplitSettings(assign="voronoi")  # type: ignore[arg-type]


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 2\), inside \(2, 2, 3\)"):
        split(np.zeros((2, 2, 2), bool), inside=np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match=r"one \(z, y, x\) shape"):
        split(np.zeros((2, 2), bool))


def detections(labels: Array) -> list[dict[str, Array]]:
    """One detection a slice and component, of everything that touches, with score .9."""
    found = []
    for plane in labels:
        y, x = np.nonzero(plane)
        if not len(y):
            found.append(
                {"masks": np.zeros((0, 28, 28)), "mask_boxes": np.zeros((0, 4)), "scores": y[:0]}
            )
            continue
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], float)
        mask = (plane[y.min() : y.max() + 1, x.min() : x.max() + 1] > 0).astype(float)
        side = max(mask.shape)
        square = np.zeros((1, side, side))
        square[0, : mask.shape[0], : mask.shape[1]] = mask
        box[0, 2:] = box[0, :2] + side
        found.append(
            {
                "masks": square.repeat(8, 1).repeat(8, 2),
                "mask_boxes": box,
                "scores": np.array([0.9]),
            }
        )
    return found


def test_linked_granules_are_split_unless_told_otherwise() -> None:
    labels = np.zeros((22, 22, 22), np.uint16)
    for number, z in enumerate((5.0, 14.5), start=1):
        labels[ellipsoid((z, 11, 11), 5, 22) & (labels == 0)] = number
    found, volume = detections(labels), labels.astype(np.float32)
    whole = {"constriction": 0.0}  # linking does not cut
    as_one = granules_of(found, volume, split=False, **whole)
    assert len(as_one.score) == as_one.labels.max() == 1
    apart = granules_of(found, volume, **whole)
    assert len(apart.score) == apart.labels.max() == 2
    assert match_instances(apart.labels, labels).tp == 2
    assert apart.score.tolist() == apart.best.tolist() == [as_one.score[0]] * 2
    assert sum(apart.slices) == as_one.slices[0] == 20
    for key, value in (("split_height", 9.0), ("split_sigma", 5.0), ("split_min_voxels", 2000)):
        kept = granules_of(found, volume, **whole, **{key: value})
        assert len(kept.score) == 1, key


def test_slices_that_are_not_linked_are_not_split() -> None:
    """Numbers of one slice have no shape in 3D."""
    labels = np.zeros((22, 22, 22), np.uint16)
    labels[ellipsoid((11, 11, 11), 5, 22)] = 1
    found, volume = detections(labels), labels.astype(np.float32)
    asked, unasked = (granules_of(found, volume, link=False, split=s) for s in (True, False))
    assert np.array_equal(asked.labels, unasked.labels)
    assert asked.labels.max() > 1
