"""Voxels to the 8-bit grey that the network sees: one function for training and for prediction.

The numbers are fixed once per volume, never per slice, so that a bead, a capillary wall or a blank
band in one slice changes no granule in another.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy.special import expit
from skimage.filters import threshold_otsu

from isgseg.errors import InputError

Method = Literal["mode", "window", "percentile", "slice"]
Number = Annotated[float, Field(strict=True)]
Power = Annotated[float, Field(strict=True, gt=0, le=100)]
_PLAIN = ConfigDict(extra="forbid", allow_inf_nan=False)
_MASKED = 0.3  # share of one value, exactly, from which on it is a mask's: noise has none such
_SAMPLE = 4_000_000  # voxels looked at when numbers are estimated: enough for a stable histogram


@dataclass(frozen=True, config=_PLAIN)
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

    Raises:
        ValueError: a value is out of range.
    """

    method: Method = "mode"
    low: Number | None = None
    high: Number | None = None
    power: Power = 1.0

    def __post_init__(self) -> None:
        if self.method not in ("window", "percentile"):
            return
        if self.low is None or self.high is None or self.low >= self.high:
            raise ValueError(
                f"normalization.method={self.method} needs normalization.low < normalization.high, "
                f"got {self.low} and {self.high}"
            )
        if self.method == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(
                "normalization.method=percentile needs normalization.low and normalization.high "
                f"from 0 to 100, got {self.low} and {self.high}"
            )

    def fit(self, volume: npt.NDArray[Any], name: str = "the volume") -> Normalizer:
        """Fixes the numbers for one volume.

        Args:
            volume: (z, y, x) or (y, x), any real type.
            name: what an error calls the volume.

        Raises:
            InputError: the volume is constant or wholly outside of the window, or its cytoplasm is
                not positive.
        """
        lowest, highest = float(volume.min()), float(volume.max())
        if self.method == "slice":
            return Normalizer(self.method, 0.0, 1.0)
        if self.method == "window":
            assert self.low is not None
            assert self.high is not None
            if highest <= self.low or self.high <= lowest:
                raise InputError(
                    f"{name}: normalization.low={self.low:g} and normalization.high={self.high:g} "
                    f"leave nothing to see of values from {lowest:.4g} to {highest:.4g}; give "
                    "values of the volume's own units"
                )
            return Normalizer(self.method, float(self.low), float(self.high))
        step = max(1, round((volume.size / _SAMPLE) ** (1 / volume.ndim)))
        sample = volume[(slice(None, None, step),) * volume.ndim].astype(np.float32)
        if lowest == highest:
            low = high = lowest
        elif self.method == "percentile":
            low, high = np.percentile(sample, [self.low, self.high])
        else:
            try:
                low, high = 0.0, cytoplasm_mode(sample)
            except (ValueError, IndexError) as error:  # of a histogram; the second is numpy 2.0's
                raise InputError(
                    f"{name}: values from {sample.min():.8g} to {sample.max():.8g} have no "
                    f"histogram ({error}), which normalization.method=mode needs; set "
                    "normalization.method=percentile normalization.low=0.5 normalization.high=99.9"
                ) from error
            if high <= 0:
                raise InputError(
                    f"{name}: the most frequent value above the background is {high:.4g}, not "
                    "positive, so normalization.method=mode has no meaning; set "
                    "normalization.method=percentile normalization.low=0.5 normalization.high=99.9"
                )
        if not low < high:
            raise InputError(
                f"{name}: all voxels are {low:.4g}, or nearly all; there is nothing to see in it. "
                "Give the tomogram itself, not a mask or an empty file"
            )
        return Normalizer(self.method, float(low), float(high), self.power)


@dataclass(frozen=True, config=_PLAIN)
class Normalizer:
    """The normalization of one volume, with its numbers fixed; call it on slices.

    Attributes:
        method: as in `Normalization`.
        low: voxel value that becomes 0.
        high: voxel value that becomes 1, or 1/2 with the method `mode`.
        power: as in `Normalization`.
    """

    method: Method
    low: Number
    high: Number
    power: Power = 1.0

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
        normalizer: npt.NDArray[np.uint8] = np.rint(unit * 255).astype(np.uint8)
        return normalizer


def cytoplasm_mode(values: npt.NDArray[np.float32]) -> float:
    """The most frequent value of the brighter class, in the units of the values.

    Otsu's threshold (1979) separates the outside from the cell, within percentiles 0.5 to 85, so
    that beads, capillary walls and lipid of up to 15 % of the voxels have no say. The peak is that
    of a histogram smoothed over three bins. Where a mask has set the outside of the cell to one
    value, only some of its voxels count: of more, the percentiles would not see the cell.

    Args:
        values: any shape.

    Raises:
        ValueError: the values are too close to each other for a histogram.
    """
    outside = values == values.min()
    masked, of_cell = int(outside.sum()), values.size - int(outside.sum())
    if masked > _MASKED * values.size and of_cell:
        fill = np.full(min(masked, of_cell // 2), values.min(), values.dtype)
        values = np.concatenate([values[~outside], fill])
    low, high = np.percentile(values, [0.5, 85])
    if low == high:
        return float(high)
    bulk = values[(values >= low) & (values <= high)]
    cell = bulk[bulk > threshold_otsu(bulk)]
    counts, edges = np.histogram(cell if cell.size else bulk, bins=64)
    peak = int(np.argmax(np.convolve(counts, [1, 1, 1], mode="same")))
    return float((edges[peak] + edges[peak + 1]) / 2)
