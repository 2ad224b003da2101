"""The grey values of each granule beside its mean: core, spread, contrast to the cytoplasm, LAC."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from isgseg.analysis.voxels import FACES, Bools, GranuleVoxels, continues, granule_voxels
from isgseg.errors import InputError
from isgseg.io.formats import Array

Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

COLUMNS = ("core_intensity", "intensity_sd", "contrast", "lac_mean", "lac_core", "lac_sd")

# 1/um; what a cell can have at the energies of soft X-ray tomography. Published granules have .32
# to .42 and lipid droplets .6 (510 to 520 eV).
LAC_OF_CELLS = (0.1, 1.0)
CUBIC = 0.01  # sides that differ by less are those of a cube
_SAMPLE = 2_000_000  # voxels that a mode is taken from


def intensity_columns(
    labels: Array,
    volume: Array,
    voxel_size: Sequence[float] | None = None,
    cytoplasm: Bools | None = None,
    lac: Literal["auto", True, False] = "auto",
) -> pd.DataFrame:
    """The grey values of each granule; see `COLUMNS`. NaN is what cannot be known.

    - `intensity_sd`: standard deviation of its voxels, in the volume's unit
    - `core_intensity`: mean of the voxels whose six neighbours across faces belong to the granule
      too; blur and a wrong outline reach them least. Of all its voxels where it has none of these
    - `contrast`: mean of its voxels over the most frequent value of the cytoplasm. Blur takes more
      of it from small granules: compare granules of one size
    - `lac_mean`, `lac_core`, `lac_sd`: mean, core and standard deviation in 1/um, where the volume
      holds the linear absorption coefficient (LAC) per voxel; see `lac_per_um`

    Args:
        labels: (z, y, x), unsigned integers, 0 is background.
        volume: (z, y, x), grey values.
        voxel_size: nm, (z, y, x).
        cytoplasm: (z, y, x), True in the cytoplasm; None: not known.
        lac: whether the volume holds the LAC per voxel.

    Returns:
        One row a granule; the index is the label, rising.

    Raises:
        InputError: `lac` is true, and the voxel size is unknown or not that of a cube.
        ValueError: the arrays differ in shape.
    """
    for array in (volume, cytoplasm):
        if array is not None and array.shape != labels.shape:
            raise ValueError(f"labels are {labels.shape}, but another array is {array.shape}")
    voxels = granule_voxels(labels)
    values = volume[tuple(voxels.places.T)].astype(np.float64)
    mean = voxels.means(values)
    table = pd.DataFrame(index=pd.Index(voxels.labels, name="label"))
    table["core_intensity"] = core_means(voxels, labels, values)
    table["intensity_sd"] = np.sqrt(voxels.means((values - mean[voxels.owners]) ** 2))
    table["contrast"] = mean / background(volume, cytoplasm)
    factor = lac_per_um(mean, volume.dtype, voxel_size, lac)
    table["lac_mean"] = mean * factor
    table["lac_core"] = table["core_intensity"] * factor
    table["lac_sd"] = table["intensity_sd"] * factor
    return table


def core_means(voxels: GranuleVoxels, labels: Array, values: Floats) -> Floats:
    """(N,) the mean over the core of each granule.

    The core are the voxels that are more than one voxel from the nearest one outside, counted
    between centres: all six neighbours across faces are the granule's own, or beyond the volume's
    edge. Where there is none, every voxel is one voxel from the outside, and all are the core.

    Args:
        voxels: of N granules.
        labels: (z, y, x), which they are of.
        values: (V,) of the voxels.
    """
    core = np.ones(len(voxels.owners), bool)
    for step in FACES:
        core &= continues(voxels, labels, step, beyond=True)
    core |= ~voxels.any_of_each(core)[voxels.owners]
    return voxels.sums(values * core) / voxels.sums(core)


def background(volume: Array, cytoplasm: Bools | None) -> float:
    """The most frequent value of the cytoplasm; NaN where it is unknown, or not positive.

    A ratio to a value that is not positive says nothing.

    Args:
        volume: (z, y, x), grey values.
        cytoplasm: (z, y, x), True in the cytoplasm; None: not known.
    """
    if cytoplasm is None or not cytoplasm.any():
        return np.nan
    value = mode(sample(volume, cytoplasm))
    if value <= 0:
        log.warning("contrast stays empty: the cytoplasm's value is %.4g, not positive", value)
        return np.nan
    return value


def sample(volume: Array, mask: Bools, size: int = _SAMPLE) -> Floats:
    """At most about `size` values of a volume where a mask is true, evenly drawn.

    Args:
        volume: (z, y, x).
        mask: (z, y, x), True somewhere.
        size: how many to take; a mask with fewer is taken whole.
    """
    count = int(np.count_nonzero(mask))
    if count <= size:
        return np.asarray(volume[mask], np.float64)
    # Drawn, not strided: stripes of the image could keep step with a stride.
    drawn = np.random.default_rng(0).integers(mask.size, size=int(size * mask.size / count))
    where = np.unravel_index(drawn, mask.shape)
    return np.asarray(volume[where][mask[where]], np.float64)


def mode(values: Floats) -> float:
    """The most frequent value: where a smooth histogram is highest.

    The histogram has steps of a twentieth of Silverman's bandwidth, and is smoothed with it.

    Args:
        values: (V,), at least one.
    """
    low, quarter, half, three, high = np.percentile(values, (1, 25, 50, 75, 99))
    bandwidth = 0.9 * (three - quarter) / 1.34 * len(values) ** -0.2
    if bandwidth <= 0:
        return float(half)
    edges = np.arange(low, high + bandwidth, bandwidth / 20)
    counts = np.histogram(values, edges)[0].astype(np.float64)
    highest = int(ndimage.gaussian_filter1d(counts, 20, mode="constant").argmax())
    return float((edges[highest] + edges[highest + 1]) / 2)


def lac_per_um(
    means: Floats,
    dtype: np.dtype[np.generic],
    voxel_size: Sequence[float] | None,
    lac: Literal["auto", True, False] = "auto",
) -> float:
    """What makes 1/um of the volume's values: 1 over the voxel's side in um; NaN: nothing does.

    Reconstructions of soft X-ray tomography hold the LAC times the voxel's side. `auto` takes a
    volume for one if it holds fractions, its voxels are cubes of known size, and the median of its
    granules becomes a LAC that cells have, `LAC_OF_CELLS`. Grey values of 8 bits, values scaled to
    0 to 1, and a LAC that is in 1/um already, are far from that.

    Args:
        means: (N,) mean value of each granule.
        dtype: of the volume.
        voxel_size: nm, (z, y, x).
        lac: whether the volume holds the LAC per voxel; `auto` decides as above, and logs it.

    Raises:
        InputError: `lac` is true, and the voxel size is unknown or not that of a cube.
    """
    check_lac(voxel_size, lac)
    if lac is False or voxel_size is None or not _are_cubes(voxel_size):
        return np.nan
    factor = 1000 / float(np.mean(voxel_size))
    if lac is True:
        return factor
    middle = float(np.median(means)) * factor if len(means) else np.nan
    low, high = LAC_OF_CELLS
    if not (np.issubdtype(dtype, np.floating) and low <= middle <= high):
        return np.nan
    log.info(
        "The volume is taken to hold the LAC per voxel: its granules then have a median of %.3g "
        "1/um. Set lac=false if it holds something else",
        middle,
    )
    return factor


def check_lac(voxel_size: Sequence[float] | None, lac: Literal["auto", True, False]) -> None:
    """Refuses to make 1/um without the side of a cubic voxel.

    Args:
        voxel_size: nm, (z, y, x).
        lac: whether the volume holds the LAC per voxel.

    Raises:
        InputError: `lac` is true, and the voxel size is unknown or not that of a cube.
    """
    if lac is True and (voxel_size is None or not _are_cubes(voxel_size)):
        raise InputError(
            f"lac=true, but the voxel size is {voxel_size}: a LAC per voxel becomes 1/um with the "
            "side of a cubic voxel; give voxel_size= in nm, or lac=false"
        )


def _are_cubes(voxel_size: Sequence[float]) -> bool:
    return max(voxel_size) <= (1 + CUBIC) * min(voxel_size)
