from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.data.normalization import Normalization, cytoplasm_mode
from isgseg.errors import InputError, check


def cell(seed: int = 0) -> npt.NDArray[np.float32]:
    """A third outside at .0045, the rest cytoplasm at .0101, with 5 % noise."""
    volume = np.full((12, 90, 90), 0.0101, np.float32)
    volume[:, :, :30] = 0.0045
    return volume + np.random.default_rng(seed).normal(0, 0.0005, volume.shape).astype(np.float32)


def test_mode_is_the_cytoplasm_whatever_bright_or_blank_things_are_in_view() -> None:
    clean = cell()
    bead, blank = clean.copy(), clean.copy()
    bead[:, 20:50, 40:70] = 0.3  # a ninth of every slice
    blank[:, :6] = 0
    assert cytoplasm_mode(clean) == pytest.approx(0.0101, rel=0.02)
    for other in (bead, blank):
        assert cytoplasm_mode(other) == pytest.approx(cytoplasm_mode(clean), rel=0.02)


def test_one_bright_voxel_rescales_nothing() -> None:
    volume = cell()
    bright = volume.copy()
    bright[5, 40, 60] = 1000.0
    before, after = Normalization().fit(volume)(volume), Normalization().fit(bright)(bright)
    before[5, 40, 60] = after[5, 40, 60]
    assert np.abs(before.astype(int) - after).max() <= 1


def test_mode_puts_the_cytoplasm_at_mid_grey_and_never_clips() -> None:
    normalizer = Normalization("mode").fit(cell())
    assert normalizer(np.array([normalizer.high])) == 128
    values = normalizer(np.array([0.0101, 0.0145, 0.03, 0.3]))
    assert (np.diff(values.astype(int)) > 0).all()
    assert normalizer(np.array([-1.0])) == 0


@pytest.mark.parametrize("power", [0.5, 1, 3])
def test_power_is_the_contrast_around_the_cytoplasm(power: float) -> None:
    normalizer = Normalization("mode", power=power).fit(cell())
    assert normalizer(np.array([normalizer.high])) == 128
    brighter = (1.2**power / (1.2**power + 1)) * 255
    assert int(normalizer(np.array([1.2 * normalizer.high]))[0]) == pytest.approx(brighter, abs=1)
    assert normalizer(np.array([-1.0, 0.0, 1e30])).tolist() == [0, 0, 255]


def test_window_is_in_the_units_of_the_file() -> None:
    normalizer = Normalization("window", 0.0, 0.02).fit(cell())
    assert normalizer(np.array([0.0, 0.01, 0.02, 0.5])).tolist() == [0, 128, 255, 255]


def test_percentile_is_of_the_whole_volume() -> None:
    volume = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    normalizer = Normalization("percentile", 10, 90).fit(volume)
    assert normalizer(volume[0]).max() == 0
    assert normalizer(volume[-1]).min() == 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": 0}, "power=0: must be a number above 0 and at most 100"),
        ({"power": math.nan}, "power=nan: must be a finite number above 0"),
        ({"power": "high"}, "power=high: must be a number"),
        ({"method": "median"}, "method=median: must be mode, window, percentile or slice"),
        ({"method": "window"}, r"needs normalization\.low < normalization\.high"),
        ({"method": "window", "low": 0, "high": math.inf}, "high=inf: must be a finite number"),
        ({"method": "percentile", "low": 90, "high": 10}, "got 90.* and 10"),
        ({"method": "percentile", "low": 0, "high": 101}, "from 0 to 100"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"normalization: .*{message}"):
        check(Normalization, settings, "normalization")
    with pytest.raises(ValueError, match="Normalization"):
        Normalization(**settings)


def test_volumes_without_a_cytoplasm_say_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"a\.mrc.*normalization.method=percentile"):
        Normalization().fit(-cell(), "a.mrc")
    with pytest.raises(ValueError, match="all voxels are 3"):
        Normalization("percentile", 1, 99).fit(np.full((4, 4, 4), 3.0), "a.mrc")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.7, 0.8, 0.85, 0.9, 0.97])
@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_the_outside_may_be_masked(share: float, fill: float) -> None:
    """Most of a volume is 0 where its cell was cut out; its cytoplasm is found all the same."""
    random = np.random.default_rng(0)
    cell = random.normal(1.0, 0.04, 100_000)
    cell[:20_000] *= 0.9  # nucleus
    cell[-5_000:] *= 1.45  # granules
    medium = random.normal(0.45, 0.03, 20_000)
    volume = np.full(round(120_000 / (1 - share)), fill)
    volume[:120_000] = np.concatenate([cell, medium])
    shuffled = random.permutation(volume)[: volume.size // 10 * 10].reshape(-1, 10, 1)
    normalizer = Normalization("mode").fit(shuffled.astype(np.float32))
    assert normalizer.high == pytest.approx(1.0, abs=0.03)


def test_values_too_close_for_a_histogram_name_the_file() -> None:
    volume = np.full((4, 5, 6), 2.0**24, np.float32)
    volume[::2] += 2
    with pytest.raises(InputError, match=r"cell\.mrc: values from .* have no histogram"):
        Normalization("mode").fit(volume, "cell.mrc")
