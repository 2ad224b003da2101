from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.normalization import Normalization, cytoplasm_mode


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
    grey = Normalization("mode").fit(cell())
    assert grey(np.array([grey.high])) == 128
    values = grey(np.array([0.0101, 0.0145, 0.03, 0.3]))
    assert (np.diff(values.astype(int)) > 0).all()
    assert grey(np.array([-1.0])) == 0


@pytest.mark.parametrize("power", [0.5, 1, 3])
def test_power_is_the_contrast_around_the_cytoplasm(power: float) -> None:
    grey = Normalization("mode", power=power).fit(cell())
    assert grey(np.array([grey.high])) == 128
    brighter = (1.2**power / (1.2**power + 1)) * 255
    assert int(grey(np.array([1.2 * grey.high]))[0]) == pytest.approx(brighter, abs=1)
    assert grey(np.array([-1.0, 0.0, 1e30])).tolist() == [0, 0, 255]


def test_window_is_in_the_units_of_the_file() -> None:
    grey = Normalization("window", 0.0, 0.02).fit(cell())
    assert grey(np.array([0.0, 0.01, 0.02, 0.5])).tolist() == [0, 128, 255, 255]


def test_percentile_is_of_the_whole_volume() -> None:
    volume = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    grey = Normalization("percentile", 10, 90).fit(volume)
    assert grey(volume[0]).max() == 0
    assert grey(volume[-1]).min() == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mode", None, None, 0), r"normalization\.power is 0; it must be above 0"),
        (("median",), "choose one of mode, window, percentile"),
        (("window",), "needs normalization.low < normalization.high"),
        (("percentile", 90, 10), "got 90 and 10"),
    ],
)
def test_bad_settings(arguments: tuple[str, float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Normalization(*arguments)


def test_volumes_without_a_cytoplasm_say_what_to_set() -> None:
    with pytest.raises(ValueError, match=r"a\.mrc.*normalization.method=percentile"):
        Normalization().fit(-cell(), "a.mrc")
    with pytest.raises(ValueError, match="all voxels are 3"):
        Normalization("percentile", 1, 99).fit(np.full((4, 4, 4), 3.0), "a.mrc")
