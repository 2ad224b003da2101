from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import ndimage as ndi

from isgseg.phantom import ORGANELLES, Phantom, PhantomSettings, make_phantom
from isgseg.phantom.character import TRAITS, draw_numbers
from isgseg.phantom.settings import ranges

CONF = Path(__file__).parents[1] / "conf" / "source" / "phantom.yaml"
SEEDS = ("train_seeds", "val_seeds")
SETTINGS: dict[str, Any] = {
    key: value
    for key, value in yaml.safe_load(CONF.read_text())["phantom"].items()
    if key not in SEEDS
}
QUIET: dict[str, Any] = {"bead_probability": 0, "capillary_probability": 0, "blank_probability": 0}
# A small cell crowded with everything, so that each parameter has something to act on.
CROWDED: dict[str, Any] = {
    **QUIET,
    "shape": (12, 96, 96),
    "cell_diameter": (0.8, 0.8),
    "nucleus_diameter": (0.3, 0.3),
    "body_density": (10, 10),
    "ring_density": (3, 3),
    "ring_diameter": (300, 400),
    "blebs": (3, 3),
    "debris_density": (6, 6),
    "lipid_density": (3, 3),
    "lipid_diameter": (150, 250),
    "vacuole_density": (3, 3),
    "vacuole_diameter": (150, 250),
    "speck_density": (20, 20),
    "granule_density": (12, 12),
    "mitochondria": (0.05, 0.05),
}


SMALLEST = ("granule_elongation", "cell_stretch")  # 1 is the least there is


@pytest.fixture(scope="module")
def crowded() -> Phantom:
    return make_phantom(3, **CROWDED)


@pytest.fixture(scope="module")
def slab() -> Phantom:
    return make_phantom(1, **{**QUIET, "shape": (24, 486, 473)})


def test_conf_lists_every_setting_with_its_default() -> None:
    defaults = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(PhantomSettings()).items()
    }
    assert defaults == SETTINGS
    assert list(defaults) == list(SETTINGS)


def test_settings_come_by_name_or_whole(crowded: Phantom) -> None:
    whole = make_phantom(3, PhantomSettings(**CROWDED))
    mixed = make_phantom(3, replace(PhantomSettings(**CROWDED), noise=(0, 0)), noise=(0.046, 0.062))
    for other in (whole, mixed):
        np.testing.assert_array_equal(other.volume, crowded.volume)
    with pytest.raises(TypeError, match="granule_densty"):
        make_phantom(3, granule_densty=(1, 1))


def test_arrays_have_the_promised_shape_and_types(crowded: Phantom) -> None:
    assert crowded.volume.shape == crowded.labels.shape == crowded.organelles.shape == (12, 96, 96)
    assert crowded.volume.dtype == np.float32
    assert crowded.labels.dtype == np.uint16
    assert crowded.organelles.dtype == np.uint8
    assert np.isfinite(crowded.volume).all()
    assert len(set(crowded.voxel_size)) == 1
    assert 30 <= crowded.voxel_size[0] <= 37


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 40, 64), [16, 96, 96], (40, 24, 32)])
def test_any_shape_works(shape: Any) -> None:
    assert make_phantom(0, shape=shape).volume.shape == tuple(shape)


def test_same_seed_same_cell(crowded: Phantom) -> None:
    again = make_phantom(3, **CROWDED)
    np.testing.assert_array_equal(crowded.volume, again.volume)
    np.testing.assert_array_equal(crowded.labels, again.labels)
    np.testing.assert_array_equal(crowded.organelles, again.organelles)
    assert crowded.voxel_size == again.voxel_size


def test_other_seed_other_cell(crowded: Phantom) -> None:
    other = make_phantom(4, **CROWDED)
    assert crowded.voxel_size != other.voxel_size
    assert (crowded.labels != other.labels).any()


@pytest.mark.parametrize(
    "name", [field.name for field in fields(PhantomSettings) if field.name != "shape"]
)
def test_every_parameter_changes_the_cell(name: str, crowded: Phantom) -> None:
    bead, wall, band = (f"{k}_probability" for k in ("bead", "capillary", "blank"))
    shown = {"bead_diameter": bead, "lac_bead": bead, "lac_capillary": wall, "blank_width": band}
    base, reference = CROWDED, crowded
    if name in shown:
        base = {**CROWDED, shown[name]: 1, "bead_diameter": (300, 700)}
        reference = make_phantom(3, **base)
    if name.endswith("_probability"):
        value: Any = 1
    elif name == "character":
        value = 0
    else:
        low, high = base.get(name, SETTINGS[name])
        value = (low / 2, low / 2) if low else (1.5 * high, 1.5 * high)
        if name == "body_mingling":
            value = (1, 1)
        if name in SMALLEST:
            value = (1.5 * low, 1.5 * low)
    changed = make_phantom(3, **{**base, name: value})
    assert (changed.volume != reference.volume).any()


def test_labels_are_contiguous_and_each_one_piece(crowded: Phantom) -> None:
    count = int(crowded.labels.max())
    assert count > 20
    np.testing.assert_array_equal(np.unique(crowded.labels), np.arange(count + 1))
    for label, box in enumerate(ndi.find_objects(crowded.labels), start=1):
        assert ndi.label(crowded.labels[box] == label)[1] == 1, label


def test_labels_and_organelles_agree(crowded: Phantom) -> None:
    np.testing.assert_array_equal(crowded.labels > 0, crowded.organelles == ORGANELLES["granule"])


def test_organelles_have_the_order_of_brightness_of_real_ones(slab: Phantom) -> None:
    names = ("outside", "nucleus", "cytoplasm", "mitochondrion", "body")
    mean = {k: slab.volume[slab.organelles == ORGANELLES[k]].mean() for k in names}
    granule = slab.volume[slab.labels > 0].mean()
    assert mean["outside"] < 0.65 * mean["cytoplasm"]
    assert mean["outside"] < mean["nucleus"] < mean["cytoplasm"]
    assert mean["cytoplasm"] < mean["mitochondrion"] < granule
    assert mean["cytoplasm"] < mean["body"] < granule
    assert granule == pytest.approx(0.0145, abs=0.0012)


def test_brightness_alone_does_not_tell_granules_from_bodies(slab: Phantom) -> None:
    granule = slab.volume[slab.labels > 0]
    body = slab.volume[slab.organelles == ORGANELLES["body"]]
    assert (body > np.median(granule)).mean() > 0.01
    assert (body > np.percentile(granule, 20)).mean() > 0.1


def test_traits_name_settings_once() -> None:
    members = [name.lstrip("-") for trait in TRAITS.values() for name in trait]
    assert len(set(members)) == len(members)
    assert set(members) <= set(ranges())


@pytest.mark.parametrize(
    ("character", "least", "most"), [(0, -0.3, 0.3), (0.7, 0.5, 1), (1, 0.99, 1)]
)
def test_settings_of_a_trait_rise_together(character: float, least: float, most: float) -> None:
    settings = PhantomSettings(character=character)
    cells = [draw_numbers(np.random.default_rng(seed), settings) for seed in range(60)]
    pair = np.array([[cell["mitochondria"], cell["body_density"]] for cell in cells])
    fall = np.array([[cell["blur"], -cell["noise"]] for cell in cells])
    for both in (pair, fall):
        assert least <= np.corrcoef(both.T)[0, 1] <= most
    for name in ranges():
        low, high = getattr(settings, name)
        assert all(low <= cell[name] <= high for cell in cells), name


def test_granules_have_the_configured_diameters() -> None:
    one = {"granule_diameter": (250, 350), "granule_mean_diameter": (300, 300), "touching": (0, 0)}
    cell = make_phantom(5, **{**CROWDED, "shape": (24, 128, 128), "voxel_size": (33, 33), **one})
    boxes = ndi.find_objects(cell.labels)
    whole = [
        k
        for k, box in enumerate(boxes, start=1)
        if all(s.start > 0 and s.stop < n for s, n in zip(box, cell.labels.shape, strict=True))
    ]
    volumes = np.bincount(cell.labels.ravel())[whole]
    diameters = 33 * (6 * volumes / np.pi) ** (1 / 3)
    assert len(whole) > 5
    # An uneven surface of some 20 nm leaves the volume a few percent off.
    assert diameters.min() > 230
    assert diameters.max() < 385


def touching_share(labels: np.ndarray) -> float:
    """Share of the granules that have a voxel face to face with another granule."""
    found: set[int] = set()
    for axis in range(3):
        a, b = (np.moveaxis(labels, axis, 0)[s] for s in (slice(None, -1), slice(1, None)))
        met = (a != b) & (a > 0) & (b > 0)
        found |= set(a[met].tolist()) | set(b[met].tolist())
    return len(found) / int(labels.max())


def test_touching_is_a_matter_of_its_rate() -> None:
    base = {**CROWDED, "shape": (24, 160, 160), "granule_density": (4, 4)}
    never = make_phantom(0, **{**base, "touching": (0, 0)})
    often = make_phantom(0, **{**base, "touching": (0.9, 0.9)})
    assert touching_share(never.labels) < 0.02
    assert touching_share(often.labels) > 0.4


@pytest.mark.parametrize(
    ("probability", "organelle"),
    [
        ("bead_probability", "bead"),
        ("capillary_probability", "capillary"),
        ("blank_probability", "blank"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_intruders_appear_when_asked_for(probability: str, organelle: str, seed: int) -> None:
    base = {**CROWDED, "bead_diameter": (1000, 1500), "blur": (15, 15)}
    without = make_phantom(seed, **base)
    assert ORGANELLES[organelle] not in without.organelles
    shown = make_phantom(seed, **{**base, probability: 1})
    there = shown.organelles == ORGANELLES[organelle]
    assert there.sum() > 50
    assert not shown.labels[there].any()
    if organelle == "blank":
        assert np.ptp(shown.volume[there]) == 0
    else:  # far brighter than any granule
        assert np.percentile(shown.volume[there], 95) > 0.018


def test_a_slab_is_the_middle_of_the_same_cell() -> None:
    base: dict[str, Any] = {**QUIET, "granule_density": (0, 0), "cell_roughness": (0, 0)}
    thin = make_phantom(2, **base, shape=(4, 96, 96)).organelles[2]
    thick = make_phantom(2, **base, shape=(32, 96, 96)).organelles[16]
    inside = [np.isin(o, [0, 2]) for o in (thin, thick)]
    assert (inside[0] == inside[1]).mean() > 0.97


def test_slices_have_the_statistics_of_real_ones(slab: Phantom) -> None:
    planes = range(2, 24, 4)
    measured = [measure_slice(slab.volume[z].astype(float)) for z in planes]
    background, noise, x, y = np.median(measured, axis=0)
    assert 0.37 < background < 0.74
    assert 0.044 < noise < 0.059
    assert x == pytest.approx(0.60, abs=0.06)
    assert y == pytest.approx(0.34, abs=0.06)

    sides, contrasts, neighbours, counts = [], [], [], []
    for z in planes:
        plane, labels = slab.volume[z], slab.labels[z]
        cytoplasm = np.median(plane[plane > np.percentile(plane, 25)])
        centres = []
        for box in filter(None, ndi.find_objects(labels)):
            (y0, y1), (x0, x1) = ((s.start, s.stop) for s in box)
            sides.append(((y1 - y0) * (x1 - x0)) ** 0.5)
            cy, cx = (y0 + y1) // 2, (x0 + x1) // 2
            core = plane[max(cy - 1, 0) : cy + 2, max(cx - 1, 0) : cx + 2].mean()
            around = np.median(plane[max(y0 - 6, 0) : y1 + 6, max(x0 - 6, 0) : x1 + 6])
            contrasts.append((core - around) / cytoplasm)
            centres.append(((y0 + y1) / 2, (x0 + x1) / 2))
        distance = np.linalg.norm(np.array(centres)[:, None] - centres, axis=-1)
        np.fill_diagonal(distance, np.inf)
        neighbours += distance.min(axis=1).tolist()
        counts.append(len(centres))
    assert min(counts) >= 5
    assert max(counts) <= 55
    # A slab holds few granules, so the bounds are wider than for the median over cells.
    assert np.median(sides) == pytest.approx(4.5, abs=1.2)
    assert 6.5 < np.percentile(sides, 95) < 13
    assert np.percentile(sides, 10) < 3.6
    assert np.median(contrasts) == pytest.approx(0.33, abs=0.07)
    assert np.percentile(contrasts, 10) < 0.25
    assert 8 < np.median(neighbours) < 23


def measure_slice(plane: np.ndarray) -> tuple[float, float, float, float]:
    """Background and noise over cytoplasm, and the noise's correlation along x and y.

    Measured inside the cell, in its quietest quarter, after removing what is broader than noise.
    """
    cytoplasm = np.median(plane[plane > np.percentile(plane, 25)])
    mean = ndi.uniform_filter(plane, 9)
    std = np.sqrt(np.clip(ndi.uniform_filter(plane**2, 9) - mean**2, 0, None))
    inside = (mean > 0.75 * cytoplasm) & (mean < 1.15 * cytoplasm)
    quiet = inside & (std < np.percentile(std[inside], 25))
    rest = plane - ndi.gaussian_filter(plane, 4)
    power = (rest[quiet] ** 2).mean()
    x = (rest[:, :-1] * rest[:, 1:])[quiet[:, :-1]].mean() / power
    y = (rest[:-1] * rest[1:])[quiet[:-1]].mean() / power
    background = np.percentile(plane, 2) / cytoplasm
    return background, np.percentile(std[inside], 15) / cytoplasm, x, y


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("voxel_size", (37, 30)),
        ("noise", (0.05,)),
        ("blur", 20.0),
        ("lac_granule", (float("nan"), 0.02)),
        ("granule_density", (-1, 1)),
        ("touching", (0.5, 1.5)),
        ("cluster_size", (0.5, 2)),
        ("bead_probability", 1.5),
        ("shape", (64, 486)),
        ("shape", (0, 486, 473)),
        ("shape", (4.5, 48, 47)),
        ("shape", 64),
    ],
)
def test_bad_parameters_are_named_with_their_value(name: str, value: Any) -> None:
    settings: dict[str, Any] = {"shape": (4, 24, 24), name: value}
    with pytest.raises(ValueError, match=name) as error:
        make_phantom(0, **settings)
    assert repr(value) in str(error.value)


def test_more_granules_than_labels_can_number_are_refused() -> None:
    from isgseg.phantom.granules import paint_granules

    arrays = np.zeros((2, 2, 2)), np.zeros((2, 2, 2), np.uint16), np.zeros((2, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="70000 granules do not fit labels of type uint16"):
        paint_granules(*arrays, granules=[None] * 70000)  # type: ignore[arg-type, list-item]
