"""Runs of sections judged by shape: where two granules meet in z, and which fragments are one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isgseg.instances.sections import Bools, Floats, Ints, Table

# A run of sections may be a granule by itself from this height over width on (a ball has 1, half of
# it .5) and from this many slices on, as it has to rise and fall.
WHOLE_HEIGHT = 0.6
WHOLE_SLICES = 3
# The waist where a section is missing. It is judged by where the areas beside it point to, and
# those of one ball never point below 1.
BRIDGED_WAIST = 0.9
# Where a section is missing, what is higher than this many widths is two granules.
BRIDGED_HEIGHT = 1.5


class Runs:
    """Judges runs of sections by their shape; a run is an array of section indices, in order of z.

    Args:
        sections: (S,) of `PIECE`.
        neck: (S,) the area in which each meets the next, pixels.
        depth: slices of the volume.
        voxel_size: (z, y, x), nm.
        waist: as in `LinkSettings`, as the next.
        max_length: see there.
    """

    def __init__(
        self,
        sections: Table,
        neck: Floats,
        depth: int,
        *,
        voxel_size: Sequence[float],
        waist: float,
        max_length: float | None,
    ) -> None:
        self.thickness, dy, dx = voxel_size
        self.max_length = np.inf if max_length is None else max_length
        self.waist = waist
        self.last = depth - 1
        self.z = sections["z"]
        self.area = sections["area"]
        self.width = 2 * np.sqrt(self.area * dy * dx / np.pi)
        self.neck = 2 * np.sqrt(neck * dy * dx / np.pi)

    def height(self, run: Ints) -> float:
        """From below the first section to above the last, nm."""
        return float(self.z[run[-1]] - self.z[run[0]] + 1) * self.thickness

    def whole(self, run: Ints) -> bool:
        """May it be a granule by itself? Who can tell of one that leaves the volume: yes."""
        if self.z[run[0]] == 0 or self.z[run[-1]] == self.last:
            return True
        least = max(WHOLE_HEIGHT * self.width[run].max(), WHOLE_SLICES * self.thickness)
        return bool(self.height(run) >= least)

    def fragments(self, run: Ints, following: Ints) -> bool:
        """Runs that barely touch are two granules if both are whole; otherwise one, drawn askew."""
        return not (self.whole(run) and self.whole(following))

    def cut(self, run: Ints) -> list[Ints]:
        """Cut where two granules meet, and what is longer than a granule can be."""
        todo, done = [run], []
        while todo:
            run = todo.pop()
            place = self._place(run)
            if place is None:
                done.append(run)
            else:
                todo += [run[place:], run[:place]]
        return done

    def _place(self, run: Ints) -> int | None:
        """Before which section of the run to cut; None: nowhere."""
        if len(run) < 2:
            return None
        thin = self._thinness(run)
        # Of equally thin places that beside the least sections, then that nearest the middle, so
        # that a volume upside down is cut alike.
        beside = self.width[run[:-1]] + self.width[run[1:]]
        before = np.cumsum(self.area[run])
        order = np.lexsort((abs(2 * before[:-1] - before[-1]), beside, thin.round(6)))
        for i in order.tolist():
            if thin[i] >= 1:
                break
            if self.whole(run[: i + 1]) and self.whole(run[i + 1 :]):
                return int(i) + 1
        return int(order[0]) + 1 if self.height(run) > self.max_length else None

    def _thinness(self, run: Ints) -> Floats:
        """(links,) the width at each link over the lesser of the greatest widths on either side.

        In units of the waist: it is one below 1.
        """
        width, z, area = self.width[run], self.z[run], self.area[run]
        left = np.maximum.accumulate(width)[:-1]
        right = np.maximum.accumulate(width[::-1])[::-1][1:]
        peak = np.minimum(left, right)
        thin: Floats = self.neck[run[:-1]] / peak / max(self.waist, 1e-9)
        for i in np.flatnonzero(np.diff(z) > 1).tolist() if self.waist else []:
            # Halfway across the gap, from the slopes of the area on either side: that of one ball
            # does not fall towards it from both. Nor is one ball much higher than wide.
            half = (z[i + 1] - z[i]) / 2
            inside = float(area[i] + area[i + 1])
            if i > 0:
                inside += half * (area[i] - area[i - 1]) / (z[i] - z[i - 1])
            if i + 2 < len(run):
                inside += half * (area[i + 1] - area[i + 2]) / (z[i + 2] - z[i + 1])
            across = width[i] * np.sqrt(max(inside, 0) / 2 / area[i])
            tall = self.height(run) / width.max() / BRIDGED_HEIGHT
            thin[i] = min(thin[i], across / peak[i] / BRIDGED_WAIST, 1 / tall)
        return thin


def find_chains(runs: Runs, after: Ints, weak: Bools) -> Ints:
    """(S,) the chain each section is in: cut at waists, fragments joined across weak links."""
    first = np.ones(len(after), np.bool_)
    first[after[after >= 0]] = False
    chain = np.full(len(after), -1)
    count = 0
    for start in np.flatnonzero(first).tolist():
        strong: list[list[int]] = [[start]]
        while (following := int(after[strong[-1][-1]])) >= 0:
            if weak[strong[-1][-1]]:
                strong.append([following])
            else:
                strong[-1].append(following)
        done: list[Ints] = []
        previous: Ints | None = None
        for run in strong:
            parts = runs.cut(np.array(run))
            # Judged as they are before joining, so that it does not matter where one starts.
            fragments = previous is not None and runs.fragments(previous, parts[0])
            previous = parts[-1]
            if fragments and runs.height(np.r_[done[-1], parts[0]]) <= runs.max_length:
                parts[0] = np.r_[done.pop(), parts[0]]
            done += parts
        for part in done:
            chain[part] = count
            count += 1
    return chain
