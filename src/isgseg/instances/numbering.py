"""What linking decided, and how it is written into the slices, missed sections filled."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects

from isgseg.instances.sections import Bools, Floats, Ints, Labels, find_pieces


@dataclass(frozen=True)
class Instances:
    """What is known of each instance but its voxels; row ``i`` is number ``i + 1``.

    Attributes:
        score: (N,) mean score of its sections, 1 where none were given.
        best: (N,) the highest of them.
        sections: (N,) how many slices support it, bridged ones not counted.
        first: (N,) the first slice it is in.
        last: (N,) the last slice it is in.
        diameter: (N,) of the ball of the same volume, nm (voxels where no voxel size was given).
    """

    score: Floats
    best: Floats
    sections: Ints
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
        numbers: per slice (pieces + 1,): the instance of each connected piece of a section, 0 for
            the background and for what was dropped.
        bridges: (M, 4) slice and piece before, slice and piece after a missing section.
        dropped: how many instances were too small, in too few slices, or of too low a score.
        specks: how many pieces were dropped because they touch nothing else of their instance.
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
        if len(labels) != len(self.numbers):
            raise ValueError(f"{len(self.numbers)} slices were linked, labels has {len(labels)}")
        if out is None:
            fits = np.iinfo(labels.dtype).max >= count
            out = labels if fits else np.empty(labels.shape, self.dtype)
        elif np.iinfo(out.dtype).max < count:
            raise ValueError(f"{count} instances do not fit into {out.dtype}")
        reach = int((self.bridges[:, 2] - self.bridges[:, 0]).max(initial=1)) + 1
        window: deque[Ints] = deque(maxlen=reach)
        ends = np.searchsorted(self.bridges[:, 2], np.arange(len(labels) + 1))
        for z, numbers in enumerate(self.numbers):
            window.append(find_pieces(labels[z]))
            if window[-1].max(initial=0) != len(numbers) - 1:
                raise ValueError(f"slice {z} of labels is not the slice that was linked")
            out[z] = numbers[window[-1]]
            for start, before, _, after in self.bridges[ends[z] : ends[z + 1]].tolist():
                between = [window[i - z - 1] for i in range(start, z + 1)]
                fill_gap(out[start + 1 : z], between, before, after, int(numbers[after]))
        return out


def fill_gap(out: Labels, window: Sequence[Ints], before: int, after: int, number: int) -> None:
    """Write ``number`` into the slices between two sections: shape-based interpolation.

    The shape is where the average of their signed distances is positive (Raya and Udupa 1990);
    where both overlap it always is, so the fill joins them. Only background is written, and only
    where nothing but these two is above and below, so that fills do not compete.

    Args:
        out: (gap, y, x), the slices between.
        window: gap + 2 slices (y, x) of pieces, from that of ``before`` to that of ``after``.
        before: the piece in the first of them.
        after: the piece in the last of them.
        number: what to write.
    """
    boxes = [find_objects(w, n)[n - 1] for w, n in ((window[0], before), (window[-1], after))]
    y, x = (
        slice(min(p.start for p in pair), max(p.stop for p in pair))
        for pair in zip(*boxes, strict=True)
    )
    ends = [(window[0][y, x], before), (window[-1][y, x], after)]
    free = np.logical_and.reduce(
        [(w == 0) | (w == n) for w, n in ends] + [w[y, x] == 0 for w in window[1:-1]]
    )
    below, above = (_signed_distance(w == n) for w, n in ends)
    for i, plane in enumerate(out, start=1):
        share = i / (len(window) - 1)
        part = plane[y, x]
        part[free & ((1 - share) * below + share * above > 0) & (part == 0)] = number


def _signed_distance(mask: Bools) -> Floats:
    """(y, x) pixels to the border of the mask, positive inside; outside the array is background."""
    padded = np.pad(mask, 1)
    distance = distance_transform_edt(padded) - distance_transform_edt(~padded)
    return np.asarray(distance[1:-1, 1:-1], np.float64)
