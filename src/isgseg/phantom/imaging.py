"""From what is there to what a soft X-ray tomogram shows: blur, missing wedge, noise, rings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy import ndimage as ndi

from isgseg.phantom.character import Numbers
from isgseg.phantom.fields import Array

PAD = 12  # voxels mirrored around a slice before its Fourier transform


def image_volume(
    rng: np.random.Generator,
    volume: Array,
    cytoplasm: float,
    voxel_size: float,
    numbers: Numbers,
) -> None:
    """Degrade a volume as a tomogram taken around the z axis is degraded, in place.

    Slices are worked on one after the other, so a slab costs a slab. Noise is that of the
    projections: it lies in every slice, is stronger where there is more material and towards one
    edge, and its correlation falls with distance as in real slices.

    Args:
        rng: the source of noise, lines and rings.
        volume: (z, y, x), LAC per voxel.
        cytoplasm: LAC per voxel, to which noise, lines and rings are relative.
        voxel_size: nm.
        numbers: of the cell, see `PhantomSettings`.
    """
    blur, noise = numbers["blur"] / voxel_size, numbers["noise"]
    correlation = (numbers["noise_correlation_y"], numbers["noise_correlation_x"])
    for start in range(0, volume.shape[1] if blur else 0, 32):
        part = volume[:, start : start + 32]
        ndi.gaussian_filter1d(part, blur, axis=0, output=part, mode="nearest", truncate=3)
    padded = tuple(fft.next_fast_len(n + 2 * PAD, real=True) for n in volume.shape[1:])
    signal, colour = _transfer(
        padded, blur, numbers["wedge_angle"], numbers["wedge_strength"], correlation
    )
    along_z = numbers["noise_correlation_z"]
    growth = _growth(rng, padded, numbers["noise_growth"]) * np.float32(noise * cytoplasm)
    lines = _Lines(rng, volume.shape[1:], numbers["line_noise"] * cytoplasm)
    old, rings = np.zeros(padded, dtype=np.float32), _Rings(rng, volume.shape[1:])
    for z, plane in enumerate(volume):
        fresh = rng.standard_normal(padded, dtype=np.float32)
        old = fresh if z == 0 else along_z * old + np.float32((1 - along_z**2) ** 0.5) * fresh
        extra = [n - m for n, m in zip(padded, plane.shape, strict=True)]
        wide = np.pad(plane, [(PAD, e - PAD) for e in extra], mode="symmetric")
        level = np.sqrt(np.clip(wide / cytoplasm, 0.2, 3.0)) * growth
        spectrum = fft.rfft2(wide) * signal + fft.rfft2(old * level) * colour
        inner = tuple(slice(PAD, PAD + n) for n in plane.shape)
        plane[:] = fft.irfft2(spectrum, padded)[inner]
        plane += rings.next() * np.float32(numbers["ring_strength"] * cytoplasm)
        plane += lines.next()


def _growth(rng: np.random.Generator, shape: tuple[int, ...], growth: float) -> Array:
    """Factor on the noise, (y, 1) or (1, x): 1 in most of a slice, 1 + growth at one edge."""
    axis, far = int(rng.uniform() < 0.2), rng.uniform() < 0.5
    distance = np.arange(shape[axis], dtype=np.float32) / shape[axis]
    ramp = 1 + growth * np.exp(-(((1 - distance) if far else distance) / rng.uniform(0.1, 0.3)))
    factor: Array = (ramp[None] if axis else ramp[:, None]).astype(np.float32)
    return factor


class _Lines:
    """Lines along x, sharp along y, stronger in some rows; they differ from slice to slice."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...], strength: float) -> None:
        self._rng, self._shape = rng, shape
        rows = np.clip(rng.standard_normal(shape[0]) - 0.5, 0, None)  # most rows are clean
        self._gain = (strength * rows[:, None]).astype(np.float32)

    def next(self) -> Array:
        height, width = self._shape
        along = self._rng.standard_normal((height, width // 24 + 2), dtype=np.float32)
        at = np.arange(width) / 24
        left = at.astype(np.intp)
        part = (at - left).astype(np.float32)
        pattern: Array = self._gain * ((1 - part) * along[:, left] + part * along[:, left + 1])
        return pattern


class _Rings:
    """Rings around the rotation axis, from detector pixels that read a little wrong.

    They change slowly from slice to slice.
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self._rng = rng
        centre = [n / 2 + rng.uniform(-4, 4) for n in shape]
        y, x = np.ogrid[: shape[0], : shape[1]]
        self._radius = np.hypot(y - centre[0], x - centre[1]).astype(np.intp)
        self._count = int(self._radius.max()) + 1
        # Few pixels are bad, and a bad one smears over a shorter ring near the axis.
        bad = rng.uniform(size=self._count) < 0.15
        self._gain = (bad / np.sqrt(0.15)).astype(np.float32)
        self._gain *= np.clip(40 / (np.arange(self._count) + 20), 0.4, 1.5)
        self._state = self._draw()

    def next(self) -> Array:
        self._state = np.float32(0.95) * self._state + np.float32(0.312) * self._draw()
        pattern: Array = (self._state * self._gain)[self._radius]
        return pattern

    def _draw(self) -> Array:
        return self._rng.standard_normal(self._count, dtype=np.float32)


def _transfer(
    shape: tuple[int, ...],
    blur: float,
    wedge_angle: float,
    wedge_strength: float,
    correlation: tuple[float, ...],
) -> tuple[Array, Array]:
    """Transfer functions of signal and noise for `rfft2` of a (y, x) slice."""
    ky = fft.fftfreq(shape[0])[:, None]
    kx = fft.rfftfreq(shape[1])[None]
    angle = np.degrees(np.arctan2(np.abs(ky), np.abs(kx)))
    missing = 1 / (1 + np.exp((angle - wedge_angle) / 2))
    # The coarsest structure is spared: reconstructions are constrained to the cell's support.
    missing *= 1 - np.exp(-(kx**2 + ky**2) / (2 * 0.01**2))
    gauss = np.exp(-2 * (np.pi * blur) ** 2 * (kx**2 + ky**2))
    colour = _noise_spectrum(shape[0], correlation[0])[:, None]
    colour = colour * _noise_spectrum(shape[1], correlation[1])[: shape[1] // 2 + 1]
    return (
        (gauss * (1 - wedge_strength * missing)).astype(np.float32),
        colour.astype(np.float32),
    )


def _noise_spectrum(count: int, neighbour: float) -> npt.NDArray[np.float64]:
    """Amplitudes (count,) of unit noise whose correlation at d is neighbour ** (d ** 1.15).

    The exponent is fitted to the correlation of real slices at 1, 2 and 3 voxels.
    """
    distance = np.minimum(np.arange(count), count - np.arange(count))
    power = fft.fft(neighbour ** (distance**1.15)).real
    amplitude: npt.NDArray[np.float64] = np.sqrt(np.clip(power, 0, None))
    return amplitude
