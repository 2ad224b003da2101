"""Every number of granules in their cell, against an answer that is known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from isgseg.analysis.cell import centroid, measure_granules
from isgseg.analysis.chance import Pool, make_pool, place
from isgseg.analysis.columns import granule_balls
from isgseg.analysis.correlations import intensity_measures
from isgseg.analysis.curves import pair_curves
from isgseg.analysis.distances import contact_columns, surfaces_of
from isgseg.analysis.granules import granule_table
from isgseg.analysis.measures import CellNumbers, chance_of
from isgseg.analysis.neighbours import clusters, nearest_neighbours, pair_counts, polarity
from isgseg.analysis.radial import positions, radial_profile
from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.analysis.structures import Structures, of_one_cell
from isgseg.analysis.surfaces import boundary, surface_of
from isgseg.analysis.voxels import granule_voxels, outermost, touching_pairs

NM = (30.0, 30.0, 30.0)
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint16]


def sphere(shape: tuple[int, int, int], centre: Any, radius: float) -> npt.NDArray[np.bool_]:
    grid = np.indices(shape).astype(np.float32)
    away = grid - np.array(centre, np.float32)[:, None, None, None]
    return np.asarray((away**2).sum(axis=0) <= radius**2)


def ball_labels(shape: tuple[int, int, int], centres: Any, radius: float) -> Labels:
    labels = np.zeros(shape, np.uint16)
    for number, centre in enumerate(centres, start=1):
        labels[sphere(shape, centre, radius)] = number
    return labels


def measured(
    labels: Labels, structures: Structures, placements: int = 19, **settings: Any
) -> tuple[pd.DataFrame, CellNumbers]:
    volume = np.ones(labels.shape, np.float32)
    return measure_granules(
        labels,
        granule_table(labels, volume, NM),
        structures,
        NM,
        RelationSettings(**settings),
        ChanceSettings(placements=placements),
    )


# --- distances


def test_gaps_of_balls_to_oblique_planes() -> None:
    """Ball of radius R whose centre is D from a plane: D - R, by centroid and by nearest voxel."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(40):
        normal = rng.standard_normal(3)
        normal /= np.linalg.norm(normal)
        radius, gap = rng.uniform(2.5, 6.5), rng.uniform(0, 6)
        centre = 20 + rng.uniform(-0.5, 0.5, 3)
        depth = np.einsum("i,izyx->zyx", normal, np.indices((41,) * 3)) - normal @ centre
        labels = sphere((41,) * 3, centre, radius).astype(np.uint16)
        plane = (depth >= radius + gap) & (labels == 0)
        surfaces = surfaces_of({"wall": plane}, NM)
        balls = granule_balls(granule_table(labels, None, NM), surfaces, NM)
        near = contact_columns(granule_voxels(labels), labels, surfaces, NM)["near_wall"]
        errors.append([balls.gaps["wall"][0] / 30 - gap, near.iloc[0] / 30 - gap])
    (bias, bias_near), (scatter, scatter_near) = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert abs(bias) < 0.1
    assert abs(bias_near) < 0.1
    assert scatter < 0.15
    assert scatter_near < 0.25


@pytest.mark.parametrize(
    ("offset", "contact", "near"),
    [
        ((0, 0, 1), 1, 0.5),
        ((0, 1, 1), 1, 2**0.5 - 0.5),
        ((1, 1, 1), 1, 3**0.5 - 0.5),
        ((0, 0, 2), 0, 1.5),
        ((0, 2, 2), 0, 8**0.5 - 0.5),
        ((0, 0, 0), 1, 0),
    ],
)
def test_contacts_of_placed_pairs(offset: tuple[int, int, int], contact: int, near: float) -> None:
    labels, mask = np.zeros((9, 9, 9), np.uint16), np.zeros((9, 9, 9), bool)
    labels[2:5, 2:5, 2:5] = 3
    mask[4 + offset[0], 4 + offset[1], 4 + offset[2]] = True
    table = contact_columns(granule_voxels(labels), labels, surfaces_of({"er": mask}, NM), NM)
    assert table.index.tolist() == [3]
    assert table["contact_er"].tolist() == [contact]
    assert table["near_er"].tolist() == pytest.approx([30 * near])


def test_of_an_empty_structure_nothing_is_known() -> None:
    labels = ball_labels((12, 12, 12), [(6, 6, 6)], 3)
    columns, numbers = measured(labels, Structures({"er": np.zeros(labels.shape, bool)}))
    assert columns[["gap_er", "near_er", "contact_er"]].isna().all(axis=None)
    assert np.isnan(numbers.measures["mean_gap_er"].value)
    assert np.isnan(numbers.measures["near_share_er"].value)
    assert np.isnan(numbers.measures["contacts_er"].value)
    assert np.isnan(numbers.curves["within_er"].y).all()


def test_the_volumes_edge_is_no_membrane() -> None:
    cell = np.ones((20, 20, 20), bool)
    cell[:, :, 15:] = False
    labels = ball_labels(cell.shape, [(1.0, 10.0, 7.0)], 3)
    columns, _ = measured(labels, of_one_cell({"cell": cell}))
    assert columns["gap_membrane"].iloc[0] > 3 * 30


def test_boundary_is_what_shares_a_face_with_the_outside() -> None:
    mask = np.zeros((5, 5, 5), bool)
    mask[1:4, 1:4, 1:4] = True
    assert len(boundary(mask)) == 26
    assert len(boundary(mask, inverted=True)) == 54
    assert len(boundary(np.ones((5, 5, 5), bool))) == 0


# --- positions


def test_position_between_concentric_spheres() -> None:
    shape, inner, outer = (81, 81, 81), 12.0, 38.0
    nucleus = surface_of(sphere(shape, (40,) * 3, inner), NM)
    membrane = surface_of(sphere(shape, (40,) * 3, outer), NM, inverted=True)
    rng = np.random.default_rng(1)
    direction = rng.standard_normal((200, 3))
    direction /= np.linalg.norm(direction, axis=1)[:, None]
    radius = rng.uniform(inner + 1, outer - 1, 200)
    points = (40 + direction * radius[:, None]) * 30
    position, slope = positions(nucleus.away(points), membrane.away(points), 30)
    true = (radius - inner) / (outer - inner)
    assert abs((position - true).mean()) < 0.005
    assert (position - true).std() < 0.015
    assert slope == pytest.approx(1 / (outer - inner) / 30, rel=0.1)


def test_profile_of_uniform_balls_is_one_and_of_one_shell_its_share() -> None:
    rng = np.random.default_rng(2)
    inner, outer, steps = 1.0, 2.0, 8
    radius = np.cbrt(rng.uniform(inner**3, outer**3, 200_000))  # uniform in the shell
    edges = np.linspace(inner, outer, steps + 1)
    volume = np.diff(edges**3)
    position, slope = radius - inner, np.ones(len(radius))
    tiny = np.full(len(radius), 1e-6)
    assert radial_profile(position, slope, tiny, volume, steps) == pytest.approx(1, abs=0.03)
    one = (position > 3 / 8) & (position < 4 / 8)
    profile = radial_profile(position[one], slope[one], tiny[one], volume, steps)
    assert profile[3] == pytest.approx(volume.sum() / volume[3], rel=1e-4)
    assert profile[[0, 1, 2, 4, 5, 6, 7]].sum() == pytest.approx(0, abs=1e-3)


def test_profile_shares_a_ball_as_planes_cut_it() -> None:
    """Half of a ball lies on either side of its centre, 27/32 below half its radius."""
    position, slope, radii = np.array([0.5]), np.array([0.01]), np.array([10.0])
    flat = np.ones(2)
    assert radial_profile(position, slope, radii, flat, 2) == pytest.approx([1, 1])
    lower = radial_profile(position - 0.05, slope, radii, flat, 2)
    assert lower == pytest.approx([2 * 27 / 32, 2 * 5 / 32])


# --- neighbours


def test_neighbours_of_a_cubic_lattice() -> None:
    side, radius = 300.0, 90.0
    centres = np.array(np.argwhere(np.ones((6, 6, 6))) * side, float)
    found = nearest_neighbours(centres, np.full(len(centres), radius))
    assert found.distance == pytest.approx(side)
    assert found.gap == pytest.approx(side - 2 * radius)


def test_neighbours_of_poisson_points() -> None:
    """Mean .5540 / cbrt(density), of points far from the edge. Hertz, Math. Ann. 67:387, 1909."""
    points = np.random.default_rng(3).random((8000, 3)) * 20
    found = nearest_neighbours(points, np.zeros(len(points)))
    inside = ((points > 2) & (points < 18)).all(axis=1)
    assert found.distance[inside].mean() == pytest.approx(0.5540, rel=0.02)


def test_the_smallest_gap_may_be_to_a_ball_that_is_not_nearest() -> None:
    centres = np.array([[0, 0, 0], *([0, 0, 10.0 + i / 10] for i in range(20)), [100.0, 0, 0]])
    radii = np.array([1.0] * 21 + [95.0])
    found = nearest_neighbours(centres, radii)
    assert found.nearest[0] == 1
    assert found.gap[0] == pytest.approx(4)


@pytest.mark.parametrize("count", [0, 1])
def test_without_another_ball_there_is_no_neighbour(count: int) -> None:
    found = nearest_neighbours(np.zeros((count, 3)), np.ones(count))
    assert found.nearest.tolist() == [-1] * count
    assert np.isnan(found.distance).all()
    assert len(clusters(np.zeros((count, 3)), np.ones(count), 1)) == count


def test_balls_at_one_place_are_neighbours() -> None:
    found = nearest_neighbours(np.zeros((12, 3)), np.ones(12))
    assert (found.nearest != np.arange(12)).all()
    assert found.gap == pytest.approx(-2)


def test_a_chain_is_one_cluster() -> None:
    centres = np.array([[0, 0, 25.0 * i] for i in range(7)] + [[0, 0, 1000.0], [0, 500.0, 0]])
    of = clusters(centres, np.full(9, 10.0), 5.1)
    assert sorted(np.bincount(of)[1:].tolist()) == [1, 1, 7]
    assert len(set(clusters(centres, np.full(9, 10.0), 4.9))) == 9


def test_granules_touch_by_faces_and_edges() -> None:
    labels = np.zeros((8, 8, 8), np.uint16)
    labels[0, 0, 0], labels[0, 0, 1] = 2, 5  # by a face
    labels[4, 4, 4], labels[4, 5, 5] = 7, 9  # by an edge
    labels[7, 0, 0], labels[6, 1, 1] = 11, 40  # by a corner
    assert touching_pairs(granule_voxels(labels), labels).tolist() == [[0, 1], [2, 3]]


def test_the_outermost_voxels_of_a_granule() -> None:
    labels = np.zeros((9, 9, 9), np.uint16)
    labels[1:5, 1:5, 1:5], labels[5:8, 1:4, 1:4] = 4, 2
    outer = outermost(granule_voxels(labels), labels)
    assert outer.labels.tolist() == [2, 4]
    assert np.bincount(outer.owners).tolist() == [26, 56]


# --- pairs and chance


def test_pairs_of_poisson_points_give_k_of_a_ball() -> None:
    rng = np.random.default_rng(4)
    edges = np.arange(0, 2001, 100.0)
    placed = [pair_counts(rng.random((1500, 3)) * 10_000, edges) for _ in range(30)]
    curves = pair_curves(placed[0], np.array(placed[1:]), edges)
    radii = edges[1:] / 1000
    assert curves["k"].y[4:] == pytest.approx(4 / 3 * np.pi * radii[4:] ** 3, rel=0.15)
    assert curves["g"].y[9:] == pytest.approx(1, abs=0.15)
    assert curves["l"].y[4:] == pytest.approx(0, abs=30)
    assert curves["l"].chance is not None
    assert curves["l"].chance.low[9] < 0 < curves["l"].chance.high[9]


def test_pairs_of_a_lattice_are_counted() -> None:
    centres = np.array(np.argwhere(np.ones((4, 4, 4))) * 10.0, float)
    counts = pair_counts(centres, np.array([0, 9, 11, 14.5, 17.5]))
    assert counts.tolist() == [0, 144, 216, 108]


def test_polarity() -> None:
    assert polarity(np.array([[0, 0, 5.0], [0, 0, 9.0]]), np.zeros(3)) == pytest.approx(1)
    points = np.random.default_rng(5).standard_normal((20, 3))
    assert polarity(np.vstack([points, -points]), np.zeros(3)) == pytest.approx(0)
    # The mean direction of an octant is 1/2 along each axis.
    octant = np.abs(np.random.default_rng(6).standard_normal((50_000, 3)))
    assert polarity(octant, np.zeros(3)) == pytest.approx(0.75**0.5, abs=0.01)


def test_rank_of_what_was_observed() -> None:
    placed = np.arange(99.0)
    low, middle, high = (chance_of(value, placed) for value in (-1.0, 49.0, 1000.0))
    assert low is not None
    assert middle is not None
    assert high is not None
    assert (low.p, high.p) == (0.02, 0.02)
    assert middle.p == 1
    assert (low.mean, low.low, low.high) == pytest.approx((49, 2.45, 95.55))
    assert chance_of(1.0, []) is None
    assert chance_of(np.nan, placed) is None


@pytest.fixture(scope="module")
def pool() -> Pool:
    cell = sphere((50, 50, 50), (24.5,) * 3, 23)
    nucleus = sphere((50, 50, 50), (24.5,) * 3, 9)
    masks = {"cell": cell, "nucleus": nucleus}
    rng = np.random.default_rng(7)
    return make_pool(cell & ~nucleus, surfaces_of(masks, NM), NM, rng, 100)


def test_placed_balls_reach_no_structure_and_no_other_ball(pool: Pool) -> None:
    radii = np.random.default_rng(8).uniform(60, 140, 15)
    placement = place(pool, radii, np.random.default_rng(9))
    assert placement.forced == 0
    centres = pool.points[placement.places]
    radius = np.linalg.norm(centres - 24.5 * 30, axis=1)
    assert (radius + radii < 23 * 30 + 15).all()
    assert (radius - radii > 9 * 30 - 15).all()
    assert nearest_neighbours(centres, radii).gap.min() >= 0
    again = place(pool, radii, np.random.default_rng(9))
    assert again.places.tolist() == placement.places.tolist()


def test_balls_that_find_no_place_are_counted(pool: Pool) -> None:
    assert place(pool, np.array([900.0, 100.0]), np.random.default_rng(0)).forced == 1
    crowd = place(pool, np.full(150, 200.0), np.random.default_rng(0))
    assert 0 < crowd.forced < 150


def test_placed_balls_are_uniform(pool: Pool) -> None:
    rng = np.random.default_rng(10)
    radii = np.full(20, 30.0)
    position = [pool.position[place(pool, radii, rng).places] for _ in range(150)]
    radius = 9 + 14 * np.concatenate(position)
    # Centres lie a radius, 1 voxel, from both surfaces; volumes are uniform between.
    share = (radius**3 - 10**3) / (22**3 - 10**3)
    assert np.quantile(share, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.03)


def test_poisson_granules_are_as_chance_has_them() -> None:
    """Clark-Evans 1 +- 2/sqrt(n), profile 1, p not small, in a cell whose edges matter."""
    shape = (64, 64, 64)
    cell, nucleus = sphere(shape, (31.5,) * 3, 30), sphere(shape, (31.5,) * 3, 12)
    structures = of_one_cell({"cell": cell, "nucleus": nucleus})
    grid = np.argwhere(cell & ~nucleus)
    rng = np.random.default_rng(11)
    labels = np.zeros(shape, np.uint16)
    for number, voxel in enumerate(rng.permutation(grid)[:200], start=1):
        labels[tuple(voxel)] = number
    _, numbers = measured(labels, structures, radial_steps=4)
    found = numbers.measures
    assert found["clark_evans"].value == pytest.approx(1, abs=2 / 200**0.5)
    assert found["polarity"].value < 0.2
    assert numbers.curves["radial_profile"].y == pytest.approx(1, abs=0.35)
    for name in ("mean_gap_membrane", "mean_gap_nucleus", "mean_position", "clark_evans"):
        level = found[name].chance
        assert level is not None
        assert level.p is not None
        assert level.p > 0.05


def test_planted_contacts_are_found() -> None:
    shape = (60, 60, 60)
    cell, rod = sphere(shape, (29.5,) * 3, 29), np.zeros(shape, bool)
    rod[26:34, 26:34, 8:52] = True
    places = [(23.0, 29.5, 10 + 7 * i) for i in range(6)]
    places += [(29.5, 36.5, 12 + 7 * i) for i in range(5)]
    labels = ball_labels(shape, places, 2.9)
    labels[rod] = 0
    columns, numbers = measured(labels, of_one_cell({"cell": cell, "mitochondria": rod}))
    assert columns["contact_mitochondria"].tolist() == [1] * 11
    share = numbers.measures["near_share_mitochondria"]
    assert share.value == 1
    assert share.chance is not None
    assert share.chance.p == 0.1  # the least of 19 placements
    assert share.chance.high < 1
    within = numbers.curves["within_mitochondria"]
    assert within.y[-1] == 1
    assert (np.diff(within.y) >= 0).all()


def test_brighter_granules_towards_the_membrane_are_found() -> None:
    columns = pd.DataFrame({"gap_er": np.arange(30.0), "position": [np.nan] * 30})
    table = pd.DataFrame({"mean_intensity": np.exp(-np.arange(30.0))})
    found = intensity_measures(table, columns, ChanceSettings())
    assert found["intensity_with_gap_er"].value == pytest.approx(-1)
    level = found["intensity_with_gap_er"].chance
    assert level is not None
    assert level.p == 0.02
    assert abs(level.mean) < 0.1
    assert np.isnan(found["intensity_with_position"].value)


# --- the whole of it


def test_densities_are_exact() -> None:
    cell = np.zeros((20, 20, 20), bool)
    cell[2:18, 2:18, 2:18] = True
    nucleus = np.zeros_like(cell)
    nucleus[8:12, 8:12, 8:12] = True
    labels = np.zeros(cell.shape, np.uint16)
    labels[4:6, 4:6, 4:6], labels[14:17, 14:17, 14:17] = 1, 2
    _, numbers = measured(labels, of_one_cell({"cell": cell, "nucleus": nucleus}))
    um3, value = 0.03**3, {name: each.value for name, each in numbers.measures.items()}
    assert value["cell_volume"] == pytest.approx(16**3 * um3)
    assert value["cytoplasm_volume"] == pytest.approx((16**3 - 64) * um3)
    assert value["number_density"] == pytest.approx(2 / ((16**3 - 64) * um3))
    assert value["number_density_cell"] == pytest.approx(2 / (16**3 * um3))
    assert value["volume_density"] == pytest.approx(35 / (16**3 - 64))
    assert value["volume_density_cell"] == pytest.approx(35 / 16**3)


def test_centroid_of_a_mask() -> None:
    mask = np.random.default_rng(12).random((7, 8, 9)) > 0.7
    assert centroid(mask) == pytest.approx(np.argwhere(mask).mean(axis=0))


def test_numbers_are_the_same_again_and_change_with_the_seed() -> None:
    cell = sphere((40, 40, 40), (19.5,) * 3, 18)
    labels = ball_labels(cell.shape, [(12, 15, 12), (25, 25, 25), (20, 12, 30)], 3)
    structures, table = of_one_cell({"cell": cell}), granule_table(labels, None, NM)

    def chance_mean(seed: int, placements: int = 9) -> float:
        chance = ChanceSettings(placements=placements, seed=seed)
        _, numbers = measure_granules(labels, table, structures, NM, RelationSettings(), chance)
        level = numbers.measures["mean_nn_distance"].chance
        return np.nan if level is None else float(level.mean)

    assert chance_mean(0) == chance_mean(0) != chance_mean(1)
    assert np.isnan(chance_mean(0, placements=0))


def test_turning_a_cell_changes_no_column() -> None:
    cell = sphere((30, 34, 38), (15, 17, 19), 14)
    labels = ball_labels(cell.shape, [(12, 15, 12), (18, 22, 25), (20, 12, 22)], 3)
    columns, _ = measured(labels, of_one_cell({"cell": cell}), placements=0)
    turned = np.ascontiguousarray(labels.transpose(2, 0, 1)[:, ::-1])
    around = np.ascontiguousarray(cell.transpose(2, 0, 1)[:, ::-1])
    again, _ = measured(turned, of_one_cell({"cell": around}), placements=0)
    pd.testing.assert_frame_equal(columns, again)
