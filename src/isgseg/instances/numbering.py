"""What linking decided, and how it is written into the slices, missed masks filled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from isgseg.instances.components import Bools, Components, Floats, Ints, Labels, find_components
from isgseg.instances.interpolation import fill_gap
from isgseg.instances.runs import RunLabels


@dataclass(frozen=True)
class Instances:
    """What is known of each instance but its voxels; row ``i`` is number ``i + 1``.

    Attributes:
        score: (N,) mean score of its masks, 1 where none were given.
        best: (N,) the highest of them.
        masks: (N,) in how many slices it was detected, bridged ones not counted.
        first: (N,) the first slice it is in.
        last: (N,) the last slice it is in.
        diameter: (N,) of the ball of the same volume, nm (voxels where no voxel size was given).
    """

    score: Floats
    best: Floats
    masks: Ints
    first: Ints
    last: Ints
    diameter: Floats

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: Bools) -> Instances:
        """Those for which ``rows`` (N,) is true."""
        return Instances(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class Linking:
    """What the linker decided; ``apply`` writes it into the slices it was decided from.

    Attributes:
        instances: what is known of each instance.
        numbers: per slice (components + 1,): the instance of each connected component of a mask, 0
            for the background and for what was dropped.
        bridges: (M, 4) slice and component before, slice and component after a missing mask.
        dropped: how many instances were too small, in too few slices, or of too low a score.
        specks: how many components were dropped because they touch nothing else of their instance.
    """

    instances: Instances
    numbers: Sequence[Ints]
    bridges: Ints
    dropped: int
    specks: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The label type that holds every number: uint16, or uint32 beyond 65,535 instances."""
        return np.dtype(np.uint16 if len(self.instances) <= 65_535 else np.uint32)

    def apply(self, labels: Labels, out: Labels | None = None) -> Labels:
        """Number the voxels and fill the bridged slices, holding a few slices only.

        Args:
            labels: (z, y, x), the very slices that were added.
            out: (z, y, x), where to write; default: into ``labels`` itself, or where its type
                cannot hold the numbers, into a new array of ``dtype``.

        Returns:
            ``out``: 1 to the number of instances, 0 background.

        Raises:
            ValueError: ``labels`` are not the slices that were linked, or the type of ``out``
                cannot hold the numbers.
        """
        count = len(self.instances)
        if out is None:
            fits = np.iinfo(labels.dtype).max >= count
            out = labels if fits else np.empty(labels.shape, self.dtype)
        elif np.iinfo(out.dtype).max < count:
            raise ValueError(f"{count} instances do not fit into {out.dtype}")
        # A slice comes after the next ones were read, so that `out` may be `labels`.
        for z, plane in enumerate(self.slices(labels)):
            out[z] = plane
        return out

    def slices(self, labels: Labels | RunLabels) -> Iterator[Labels]:
        """The same, one slice after the other.

        Args:
            labels: (z, y, x), the very slices that were added.

        Raises:
            ValueError: they are not the slices that were linked.
        """
        if len(labels) != len(self.numbers):
            raise ValueError(f"{len(self.numbers)} slices were linked, labels has {len(labels)}")
        span = int((self.bridges[:, 2] - self.bridges[:, 0]).max(initial=1)) + 1
        window: deque[Components] = deque(maxlen=span)
        waiting: deque[Labels] = deque()  # of which a slice to come may still fill a gap
        ends = np.searchsorted(self.bridges[:, 2], np.arange(len(labels) + 1))
        for z, numbers in enumerate(self.numbers):
            window.append(find_components(labels[z]))
            if window[-1].max(initial=0) != len(numbers) - 1:
                raise ValueError(f"slice {z} of labels is not the slice that was linked")
            waiting.append(numbers.astype(self.dtype)[window[-1]])
            for start, before, _, after in self.bridges[ends[z] : ends[z + 1]].tolist():
                between = [window[i - z - 1] for i in range(start, z + 1)]
                gap = [waiting[i - z - 1] for i in range(start + 1, z)]
                fill_gap(gap, between, before, after, int(numbers[after]))
            if len(waiting) == span:
                yield waiting.popleft()
        yield from waiting
