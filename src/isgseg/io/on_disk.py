"""Volumes that stay on the disk: slices are read when they are asked for."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError
from isgseg.io.damage import described
from isgseg.io.formats import Array, VolumeError, check_bytes

Reader = Callable[[int, int], Array]
_KEPT = 2**28  # bytes of a slab up to which the one before is kept too


class OnDisk:
    """A volume of which a few slices are in memory; it stands in for an array of three axes.

    It has what a pipeline over slices asks of arrays: `shape`, `dtype`, `len`, iteration over
    slices, indexing of z by numbers and ranges, `min` and `max`. `numpy.asarray` reads all of it.

    Args:
        path: of the file, for messages.
        shape: (z, y, x).
        dtype: of the voxels, in any byte order; slices come in the machine's own.
        read: the voxels from one slice to another, half-open: (n, y, x).
        slab: so many slices are read at once. Of compressed chunks, their depth.
    """

    def __init__(
        self, path: Path, shape: Sequence[int], dtype: npt.DTypeLike, read: Reader, slab: int = 1
    ) -> None:
        depth, height, width = shape
        self.path, self.slab = path, min(slab, depth)
        self.shape = (int(depth), int(height), int(width))
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self._read = read
        self._slabs: OrderedDict[int, Array] = OrderedDict()
        self._range: tuple[Any, Any] | None = None

    ndim = 3

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the whole array would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[z] for z in range(len(self)))

    def __getitem__(self, key: Any) -> Array:
        """What an array gives for a number or a range of z, with or without y and x after it.

        Raises:
            VolumeError: the file cannot be read there.
        """
        first, *rest = key if isinstance(key, tuple) else (key,)
        if not isinstance(first, slice):
            plane: Array = self._slice(range(len(self))[first])[tuple(rest)]
            return plane
        numbers = range(len(self))[first]
        one = np.broadcast_to(np.zeros((), self.dtype), self.shape[1:])[tuple(rest)]
        found = np.empty((len(numbers), *one.shape), self.dtype)
        for part, z in zip(found, numbers, strict=True):
            part[...] = self._slice(z)[tuple(rest)]
        return found

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """All of it in memory.

        Raises:
            ValueError: it does not fit into memory; the message says so.
        """
        check_bytes(self.nbytes)
        whole = np.empty(self.shape, self.dtype)
        for start in range(0, len(self), self.slab):
            stop = min(start + self.slab, len(self))
            whole[start:stop] = self._checked(start, stop)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def min(self) -> Any:
        """The smallest value; NaN where there is one. All of the file is read, once."""
        return self._extremes()[0]

    def max(self) -> Any:
        """The largest value, as `min`."""
        return self._extremes()[1]

    def map(self, change: Callable[[Array], Array], dtype: npt.DTypeLike) -> OnDisk:
        """The same with every voxel changed, when it is read."""
        return OnDisk(
            self.path, self.shape, dtype, lambda a, b: change(self._read(a, b)), self.slab
        )

    def _extremes(self) -> tuple[Any, Any]:
        if self._range is None:
            both = [(plane.min(), plane.max()) for plane in self]
            lows, highs = zip(*both, strict=True)
            self._range = np.min(lows), np.max(highs)
        return self._range

    def _slice(self, z: int) -> Array:
        number = z // self.slab
        if number not in self._slabs:
            start = number * self.slab
            kept = 2 if self.nbytes / len(self) * self.slab <= _KEPT else 1
            while len(self._slabs) >= kept:
                self._slabs.popitem(last=False)
            self._slabs[number] = self._checked(start, min(start + self.slab, len(self)))
        plane: Array = self._slabs[number][z - number * self.slab]
        return plane

    def _checked(self, start: int, stop: int) -> Array:
        try:
            read = np.ascontiguousarray(self._read(start, stop), self.dtype)
            if read.shape != (stop - start, *self.shape[1:]):
                raise ValueError(f"slices {start} to {stop} have the shape {read.shape}")
        except InputError:
            raise
        except Exception as error:  # of damaged files the libraries raise nearly anything
            reason = described(self.path, error)
            raise VolumeError(f"{self.path}: slice {start} cannot be read: {reason}") from error
        return read


def raw_voxels(path: Path, offset: int, shape: Sequence[int], dtype: npt.DTypeLike) -> OnDisk:
    """Uncompressed voxels of a file, slice after slice.

    Reading is by slices, not by a map of memory: a file that is cut meanwhile is an error and no
    crash, and the address space does not grow by its size.

    Args:
        path: of the file.
        offset: bytes before the first voxel.
        shape: (z, y, x).
        dtype: of the voxels.
    """
    kind, plane = np.dtype(dtype), math.prod(shape[1:])

    def read(start: int, stop: int) -> Array:
        with path.open("rb") as file:
            file.seek(offset + start * plane * kind.itemsize)
            found = np.fromfile(file, kind, (stop - start) * plane)
        if found.size < (stop - start) * plane:
            raise ValueError("the file ends before; copy or export it again")
        return found.reshape(stop - start, *shape[1:])

    return OnDisk(path, shape, kind, read)
