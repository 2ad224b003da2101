"""Tracklets of masks judged by shape: where two granules meet in z, and which fragments are one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isgseg.instances.components import Bools, Floats, Ints, Table

# A tracklet of masks may be a granule by itself from this height over width on (a ball has 1, half
# of it .5) and from this many slices on, as it has to rise and fall.
WHOLE_HEIGHT = 0.6
WHOLE_SLICES = 3
# The constriction where a mask is missing. It is judged by where the areas beside it point to, and
# those of one ball never point below 1.
BRIDGED_CONSTRICTION = 0.9
# Where a mask is missing, what is higher than this many widths is two granules.
BRIDGED_HEIGHT = 1.5


class Tracklets:
    """Judges tracklets by shape. A tracklet is an array of mask indices in order of z.

    Args:
        masks: (S,) of `COMPONENT`.
        neck: (S,) the area in which each meets the next, pixels.
        depth: slices of the volume.
        voxel_size: (z, y, x), nm.
        constriction: as in `LinkSettings`, as the next.
        max_length_nm: see there.
    """

    def __init__(
        self,
        masks: Table,
        neck: Floats,
        depth: int,
        *,
        voxel_size: Sequence[float],
        constriction: float,
        max_length_nm: float | None,
    ) -> None:
        self.thickness, dy, dx = voxel_size
        self.max_length_nm = np.inf if max_length_nm is None else max_length_nm
        self.constriction = constriction
        self.last = depth - 1
        self.z = masks["z"]
        self.area = masks["area"]
        self.width = 2 * np.sqrt(self.area * dy * dx / np.pi)
        self.neck = 2 * np.sqrt(neck * dy * dx / np.pi)

    def height(self, tracklet: Ints) -> float:
        """From below the first mask to above the last, nm."""
        return float(self.z[tracklet[-1]] - self.z[tracklet[0]] + 1) * self.thickness

    def whole(self, tracklet: Ints) -> bool:
        """May it be a granule by itself? Who can tell of one that leaves the volume: yes."""
        if self.z[tracklet[0]] == 0 or self.z[tracklet[-1]] == self.last:
            return True
        least = max(WHOLE_HEIGHT * self.width[tracklet].max(), WHOLE_SLICES * self.thickness)
        return bool(self.height(tracklet) >= least)

    def fragments(self, tracklet: Ints, following: Ints) -> bool:
        """Tracklets that barely touch are two granules if both are whole.

        Otherwise one, drawn askew.
        """
        return not (self.whole(tracklet) and self.whole(following))

    def cut(self, tracklet: Ints) -> list[Ints]:
        """Cut where two granules meet, and what is longer than a granule can be."""
        todo, done = [tracklet], []
        while todo:
            tracklet = todo.pop()
            place = self._place(tracklet)
            if place is None:
                done.append(tracklet)
            else:
                todo += [tracklet[place:], tracklet[:place]]
        return done

    def _place(self, tracklet: Ints) -> int | None:
        """Before which mask of the tracklet to cut; None: nowhere."""
        if len(tracklet) < 2:
            return None
        thin = self._thinness(tracklet)
        # Of equally thin places that beside the least masks, then that nearest the middle, so
        # that a volume upside down is cut alike.
        beside = self.width[tracklet[:-1]] + self.width[tracklet[1:]]
        before = np.cumsum(self.area[tracklet])
        order = np.lexsort((abs(2 * before[:-1] - before[-1]), beside, thin.round(6)))
        for i in order.tolist():
            if thin[i] >= 1:
                break
            if self.whole(tracklet[: i + 1]) and self.whole(tracklet[i + 1 :]):
                return int(i) + 1
        return int(order[0]) + 1 if self.height(tracklet) > self.max_length_nm else None

    def _thinness(self, tracklet: Ints) -> Floats:
        """(links,) the width at each link over the lesser of the greatest widths on either side.

        In units of the constriction: it is one below 1.
        """
        width, z, area = self.width[tracklet], self.z[tracklet], self.area[tracklet]
        left = np.maximum.accumulate(width)[:-1]
        right = np.maximum.accumulate(width[::-1])[::-1][1:]
        peak = np.minimum(left, right)
        thin: Floats = self.neck[tracklet[:-1]] / peak / max(self.constriction, 1e-9)
        for i in np.flatnonzero(np.diff(z) > 1).tolist() if self.constriction else []:
            # Halfway across the gap, from the slopes of the area on either side: that of one ball
            # does not fall towards it from both. Nor is one ball much higher than wide.
            half = (z[i + 1] - z[i]) / 2
            inside = float(area[i] + area[i + 1])
            if i > 0:
                inside += half * (area[i] - area[i - 1]) / (z[i] - z[i - 1])
            if i + 2 < len(tracklet):
                inside += half * (area[i + 1] - area[i + 2]) / (z[i + 2] - z[i + 1])
            across = width[i] * np.sqrt(max(inside, 0) / 2 / area[i])
            tall = self.height(tracklet) / width.max() / BRIDGED_HEIGHT
            thin[i] = min(thin[i], across / peak[i] / BRIDGED_CONSTRICTION, 1 / tall)
        return thin


def find_tracks(tracklets: Tracklets, after: Ints, weak: Bools) -> Ints:
    """(S,) the track each mask is in: cut at constrictions, fragments joined across weak links."""
    first = np.ones(len(after), np.bool_)
    first[after[after >= 0]] = False
    track = np.full(len(after), -1)
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
        for tracklet in strong:
            parts = tracklets.cut(np.array(tracklet))
            # Judged as they are before joining, so that it does not matter where one starts.
            fragments = previous is not None and tracklets.fragments(previous, parts[0])
            previous = parts[-1]
            if fragments and tracklets.height(np.r_[done[-1], parts[0]]) <= tracklets.max_length_nm:
                parts[0] = np.r_[done.pop(), parts[0]]
            done += parts
        for part in done:
            track[part] = count
            count += 1
    return track
