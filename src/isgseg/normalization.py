"""Voxels to the 8-bit grey that the network sees: one function for training and for prediction.

The numbers are fixed once per volume, never per slice, so that a bead, a capillary wall or a blank
band in one slice changes no granule in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from skimage.filters import threshold_otsu

METHODS = ("mode", "window", "percentile", "slice")
_SAMPLE = 4_000_000  # voxels looked at when numbers are estimated: enough for a stable histogram


@dataclass(frozen=True)
class Normalization:
    """How grey values come from voxels, as kept in `dataset.yaml` and in a checkpoint.

    Attributes:
        method: `mode` maps v to v^p / (v^p + cytoplasm^p), where p is the power and cytoplasm the
            volume's own most frequent value above the background: the cytoplasm is always mid-grey,
            and nothing, however bright, is clipped. `window` maps [low, high] in the file's own
            units (LAC per voxel, say) to [0, 1]. `percentile` does so between two percentiles of
            the volume. `slice` stretches each slice by itself to [0, 1]: what plain torchvision
            models were trained with, and nothing else.
        low: lower end of the window, or percentile; unused by `mode`.
        high: upper end of the window, or percentile; unused by `mode`.
        power: of `mode`: contrast around the cytoplasm's value; unused by the others.
    """

    method: str = "mode"
    low: float | None = None
    high: float | None = None
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"normalization.method is '{self.method}'; choose one of {', '.join(METHODS)}"
            )
        if self.power <= 0:
            raise ValueError(f"normalization.power is {self.power}; it must be above 0")
        if self.method in ("window", "percentile") and (
            self.low is None or self.high is None or self.low >= self.high
        ):
            raise ValueError(
                f"normalization.method={self.method} needs normalization.low < normalization.high, "
                f"got {self.low} and {self.high}"
            )

    def fit(self, volume: npt.NDArray[Any], name: str = "the volume") -> Grey:
        """Fixes the numbers for one volume.

        Args:
            volume: (z, y, x) or (y, x), any real type.
            name: what an error calls the volume.

        Raises:
            ValueError: the volume is constant, or its cytoplasm is not positive.
        """
        if self.method == "slice":
            return Grey(self.method, 0.0, 1.0)
        if self.method == "window":
            assert self.low is not None
            assert self.high is not None
            return Grey(self.method, float(self.low), float(self.high))
        step = max(1, round((volume.size / _SAMPLE) ** (1 / volume.ndim)))
        sample = volume[(slice(None, None, step),) * volume.ndim].astype(np.float32)
        if self.method == "percentile":
            low, high = np.percentile(sample, [self.low, self.high])
        else:
            low, high = 0.0, cytoplasm_mode(sample)
            if high <= 0:
                raise ValueError(
                    f"{name}: the most frequent value above the background is {high:.4g}, not "
                    "positive, so normalization.method=mode has no meaning; set "
                    "normalization.method=percentile normalization.low=0.5 normalization.high=99.9"
                )
        if not low < high:
            raise ValueError(f"{name}: all voxels are {low:.4g}; there is nothing to see in it")
        return Grey(self.method, float(low), float(high), self.power)


@dataclass(frozen=True)
class Grey:
    """The normalization of one volume, with its numbers fixed; call it on slices.

    Attributes:
        method: as in `Normalization`.
        low: voxel value that becomes 0.
        high: voxel value that becomes 1, or 1/2 with the method `mode`.
        power: as in `Normalization`.
    """

    method: str
    low: float
    high: float
    power: float = 1.0

    def __call__(self, voxels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Voxels of any shape to uint8 of the same shape."""
        low, high = self.low, self.high
        if self.method == "slice":
            low, high = float(voxels.min()), float(voxels.max())
        unit = np.maximum((voxels.astype(np.float32) - low) / max(high - low, 1e-30), 0)
        if self.method == "mode":  # the logistic function of the logarithm: no overflow
            with np.errstate(divide="ignore"):
                unit = expit(self.power * np.log(unit))
        else:
            unit = np.minimum(unit, 1)
        grey: npt.NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
        return grey


def cytoplasm_mode(values: npt.NDArray[np.float32]) -> float:
    """The most frequent value of the brighter class, in the units of the values.

    Otsu's threshold (1979) separates the outside from the cell, within percentiles 0.5 to 85, so
    that beads, capillary walls and lipid of up to 15 % of the voxels have no say. The peak is that
    of a histogram smoothed over three bins.

    Args:
        values: any shape.
    """
    low, high = np.percentile(values, [0.5, 85])
    if low == high:
        return float(high)
    bulk = values[(values >= low) & (values <= high)]
    cell = bulk[bulk > threshold_otsu(bulk)]
    counts, edges = np.histogram(cell if cell.size else bulk, bins=64)
    peak = int(np.argmax(np.convolve(counts, [1, 1, 1], mode="same")))
    return float((edges[peak] + edges[peak + 1]) / 2)
