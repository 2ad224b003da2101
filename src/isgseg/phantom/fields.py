"""Smooth random fields on a grid: the bumps, mottling and sheets of a synthetic cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SmoothField:
    """A Gaussian random field of unit variance, spanned by cubic B-splines.

    The field is evaluated one axis at a time, so that a slab of a large volume costs a slab.

    Attributes:
        coefficients: (z, y, x), one number a knot.
        origin: (z, y, x) of the first knot, in voxels.
        spacing: distance between knots, in voxels; features are about twice as wide.
    """

    coefficients: Array
    origin: tuple[float, ...]
    spacing: float

    def __call__(self, z: Array, y: Array, x: Array) -> Array:
        """Evaluate on the grid of three coordinate vectors (voxels): (len(z), len(y), len(x))."""
        bases = [
            _spline_basis((axis - start) / self.spacing, count)
            for axis, start, count in zip(
                (z, y, x), self.origin, self.coefficients.shape, strict=True
            )
        ]
        count = self.coefficients.shape[0]
        planes = bases[0] @ self.coefficients.reshape(count, -1)
        planes = planes.reshape(len(z), *self.coefficients.shape[1:])
        field: Array = np.matmul(bases[1], planes) @ bases[2].T
        return field


def smooth_field(
    rng: np.random.Generator, spacing: float, low: Sequence[float], high: Sequence[float]
) -> SmoothField:
    """Draw a field that covers the box from `low` to `high`, (z, y, x) in voxels."""
    knots = [int(np.ceil((b - a) / spacing)) + 4 for a, b in zip(low, high, strict=True)]
    coefficients = rng.standard_normal(knots, dtype=np.float32)
    return SmoothField(coefficients, tuple(a - 1.5 * spacing for a in low), spacing)


def _spline_basis(position: Array, count: int) -> Array:
    """Cubic B-splines at `position` (in knots): (len(position), count), rows of unit length.

    Unit rows give the field the same variance on a knot and between knots.
    """
    u = np.abs(position[:, None] - np.arange(count, dtype=np.float32))
    basis = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6)
    length = np.linalg.norm(basis, axis=1, keepdims=True)
    unit: Array = (basis / np.maximum(length, 1e-6)).astype(np.float32)
    return unit
