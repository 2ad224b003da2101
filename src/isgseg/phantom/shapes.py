"""Painting small ellipsoids into a volume, each in its own box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.phantom.fields import Array

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid in voxels.

    Attributes:
        centre: (z, y, x); voxel centres are whole numbers.
        axes: three semi-axes.
        rotation: (3, 3), whose rows are the directions of the axes.
        ripple: added to `q` on the voxels around the centre, (n, n, n) with n odd; makes the
            surface uneven.
    """

    centre: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]
    rotation: npt.NDArray[np.float64]
    ripple: Array | None = None

    @property
    def radius(self) -> float:
        """Radius of the sphere of the same volume."""
        return float(np.prod(self.axes) ** (1 / 3))

    def box(self, shape: tuple[int, ...], margin: float = 0) -> Box | None:
        """The box that holds the ellipsoid and a margin, clipped; None outside the volume."""
        reach = float(self.axes.max()) + margin
        low = np.maximum(np.ceil(self.centre - reach), 0).astype(int)
        high = np.minimum(np.floor(self.centre + reach) + 1, shape).astype(int)
        if (low >= high).any():
            return None
        z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return z, y, x

    def q(self, box: Box) -> Array:
        """Scaled distance from the centre in a box: 1 on the surface, less inside."""
        grid = np.ogrid[box]
        offsets = [g - c for g, c in zip(grid, self.centre, strict=True)]
        square: npt.NDArray[np.floating] = np.zeros(1, dtype=np.float32)
        for direction, axis in zip(self.rotation, self.axes, strict=True):
            along = sum(o * d for o, d in zip(offsets, direction, strict=True))
            square = square + (along / axis) ** 2
        q: Array = np.sqrt(square).astype(np.float32)
        if self.ripple is not None:
            side = self.ripple.shape[0]
            first = np.rint(self.centre).astype(int) - side // 2
            index = [
                np.clip(np.arange(b.start, b.stop) - n, 0, side - 1)
                for b, n in zip(box, first, strict=True)
            ]
            q += self.ripple[np.ix_(*index)]
        return q


def ellipsoid(
    rng: np.random.Generator,
    centre: npt.NDArray[np.float64],
    radius: float,
    elongation: float,
    roughness: float = 0,
) -> Ellipsoid:
    """A randomly turned ellipsoid of a sphere's volume.

    Args:
        rng: the source of its axes and its surface.
        centre: (z, y, x), voxels.
        radius: of the sphere of the same volume, voxels.
        elongation: largest ratio of two axes.
        roughness: standard deviation of the surface's height, voxels.
    """
    stretch = elongation ** rng.uniform(-0.5, 0.5, 3)
    axes = radius * stretch / np.prod(stretch) ** (1 / 3)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    ripple = None
    if roughness:
        half = int(axes.max()) + 6  # room for the margin of a soft edge
        noise = rng.standard_normal((2 * half + 1,) * 3, dtype=np.float32)
        noise = ndi.gaussian_filter(noise, 1.1, truncate=3)
        ripple = noise * np.float32(roughness / radius / noise.std())
    return Ellipsoid(centre, axes, rotation, ripple)


def blend(volume: Array, weight: Array, lac: float) -> None:
    """Move `volume` towards `lac` by `weight` (0 to 1, same shape), in place."""
    volume += weight * (np.float32(lac) - volume)


def soft_weight(q: Array, radius: float, edge: float) -> Array:
    """1 inside, 0 outside, a ramp of `edge` voxels across the surface where q is 1."""
    weight: Array = np.clip((1 - q) * np.float32(radius / edge) + np.float32(0.5), 0, 1)
    return weight
