"""Label volumes as runs of equal numbers: a few kilobytes a slice, whatever its size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.instances.components import Ints, Labels


class RunLabels:
    """Label slices, each kept as the runs of equal numbers along its rows.

    Like an array it has `shape`, `dtype`, `len`, iteration over slices, and indexing of z by
    numbers and ranges; `numpy.asarray` gives all of it. Slices are added by `append`.

    Args:
        shape: (y, x) of a slice.
        dtype: of the numbers.

    Example:
        >>> labels = RunLabels((2, 3), np.uint16)
        >>> labels.append(np.array([[0, 7, 7], [7, 0, 0]]))
        >>> labels.shape, labels[0].tolist()
        ((1, 2, 3), [[0, 7, 7], [7, 0, 0]])
    """

    ndim = 3

    def __init__(self, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        self._plane = tuple(int(side) for side in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._starts: list[npt.NDArray[np.int32 | np.int64]] = []
        self._values: list[Labels] = []

    @classmethod
    def of(cls, planes: Iterable[Labels], shape: Sequence[int], dtype: npt.DTypeLike) -> RunLabels:
        """Of slices as they come; see the class for the arguments."""
        labels = cls(shape, dtype)
        for plane in planes:
            labels.append(plane)
        return labels

    def append(self, plane: Labels) -> None:
        """Adds the next slice, (y, x) non-negative integers that fit the type."""
        if plane.shape != self._plane:
            raise ValueError(f"a slice of {plane.shape} after slices of {self._plane}")
        flat = plane.ravel()
        starts = np.flatnonzero(np.r_[True, flat[1:] != flat[:-1]][: flat.size])
        kind = np.int32 if flat.size <= np.iinfo(np.int32).max else np.int64
        self._starts.append(starts.astype(kind))
        self._values.append(flat[starts].astype(self.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x)."""
        return (len(self), *self._plane)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return len(self) * int(np.prod(self._plane))

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Labels]:
        return (self[z] for z in range(len(self)))

    def __getitem__(self, key: int | slice) -> Labels:
        if isinstance(key, slice):
            numbers = range(len(self))[key]
            slab = np.empty((len(numbers), *self._plane), self.dtype)
            for part, z in zip(slab, numbers, strict=True):
                part[:] = self[z]
            return slab
        z = range(len(self))[key]
        starts = self._starts[z]
        lengths = np.diff(starts, append=int(np.prod(self._plane)))
        return np.repeat(self._values[z], lengths).reshape(self._plane)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Labels:
        """All of it, (z, y, x)."""
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def max(self) -> int:
        """The highest number; 0 where there is no slice."""
        return max((int(values.max(initial=0)) for values in self._values), default=0)

    def in_order(self, z: int) -> Labels:
        """The numbers in a slice, each once, in the order of their first pixels; 0 is one too."""
        numbers, first = np.unique(self._values[z], return_index=True)
        return numbers[np.argsort(first)]

    def spans(self) -> tuple[Ints, Ints]:
        """(N + 1,) the first and the last slice that each number is in; -1 where it is in none."""
        first, last = np.full((2, self.max() + 1), -1, np.int64)
        for z, values in enumerate(self._values):
            last[values] = z
            first[values[first[values] < 0]] = z
        return first, last

    def windows(self, voxels: int = 2**25) -> Iterator[tuple[int, Labels]]:
        """Windows along z that together hold each instance once, and as a whole.

        Args:
            voxels: that a window holds about, beside what reaches into it from before.

        Returns:
            Of each window its first slice, and (n, y, x) the instances that end in its slab; what
            goes on is left out, and comes with a later window.
        """
        first, last = self.spans()
        slab = max(1, voxels // max(1, int(np.prod(self._plane))))
        for start in range(0, len(self), slab):
            stop = min(start + slab, len(self))
            ends = (start <= last) & (last < stop)
            ends[0] = False
            numbers = np.flatnonzero(ends).astype(self.dtype)
            if not len(numbers):
                continue
            low = int(first[numbers].min())
            kept = np.where(ends, np.arange(len(ends)), 0).astype(self.dtype)
            window = self[low:stop]
            for plane in window:
                plane[:] = kept[plane]
            yield low, window
