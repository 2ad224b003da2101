"""From label slices to 3D instances: which sections of neighbouring slices are one granule.

A *section* is what one label covers in one slice. The linker takes slice after slice, keeps the pixels of the last few only,
and notes how sections overlap. Then, with numbers alone, it (1) picks over the whole volume the best set of links in which
no section has two successors or two predecessors, (2) cuts the chains of sections at waists, (3) joins across weak links only
what is no granule by itself. Whether something is *whole* is asked of its shape: a granule is about as high as it is wide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, find_objects, grey_dilation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from skimage.measure import label as label_pieces

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# What is known of a piece (8-connected) of a section, and, without ``piece``, of a section.
PIECE = np.dtype(
    [(name, np.int64) for name in ("z", "piece", "label", "area")]
    + [(name, np.float64) for name in ("y", "x", "score")]
)
WHOLE = 0.6  # height over width from which a run of sections may be a granule by itself; a ball has 1, its cap below .5
BRIDGED_WAIST = 0.9  # a missing section is judged by where its neighbours' areas point to: for a ball, never below 1


@dataclass(frozen=True)
class Instances:
    """What is known of each instance but its voxels; row ``i`` is number ``i + 1``.

    Attributes:
        score: (N,) mean score of its sections, 1 where none were given.
        sections: (N,) how many slices support it, bridged ones not counted.
        first: (N,) the first slice it is in.
        last: (N,) the last slice it is in.
        diameter: (N,) of the ball of the same volume, nm (voxels where no voxel size was given).
    """

    score: Floats
    sections: Ints
    first: Ints
    last: Ints
    diameter: Floats

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Linking:
    """What the linker decided; ``apply`` writes it into the slices it was decided from.

    Attributes:
        instances: what is known of each instance.
        numbers: per slice (pieces + 1,): the instance of each connected piece of a section, 0 for background and dropped ones.
        bridges: (M, 4) slice and piece before, slice and piece after a place where the section is missing.
        dropped: how many instances were below the minimum diameter.
    """

    instances: Instances
    numbers: Sequence[Ints]
    bridges: Ints
    dropped: int

    @property
    def dtype(self) -> np.dtype[np.uint16] | np.dtype[np.uint32]:
        """The label type that holds every number: uint16, or uint32 beyond 65,535 instances."""
        return np.dtype(np.uint16) if len(self.instances) <= 65_535 else np.dtype(np.uint32)

    def apply(self, labels: Array, out: Array | None = None) -> Array:
        """Number the voxels and fill the bridged slices, holding a few slices only.

        Args:
            labels: (z, y, x), the very slices that were added.
            out: (z, y, x), where to write; default: into ``labels`` itself, or where its type cannot hold the
                numbers, into a new array of ``dtype``.

        Returns:
            ``out``: 1 to the number of instances, 0 background.

        Raises:
            ValueError: ``labels`` are not the slices that were linked.
        """
        if len(labels) != len(self.numbers):
            raise ValueError(
                f"{len(self.numbers)} slices were linked, but labels has {len(labels)}"
            )
        if out is None:
            fits = np.iinfo(labels.dtype).max >= len(self.instances)
            out = labels if fits else np.empty(labels.shape, self.dtype)
        reach = int((self.bridges[:, 2] - self.bridges[:, 0]).max(initial=1)) + 1
        window: deque[Ints] = deque(maxlen=reach)
        ends = np.searchsorted(self.bridges[:, 2], np.arange(len(labels) + 1))
        for z, numbers in enumerate(self.numbers):
            window.append(_pieces(labels[z]))
            if window[-1].max(initial=0) != len(numbers) - 1:
                raise ValueError(f"slice {z} of labels is not the slice that was linked")
            out[z] = numbers[window[-1]]
            for z0, before, _, after in self.bridges[ends[z] : ends[z + 1]].tolist():
                between = [window[i - z - 1] for i in range(z0, z + 1)]
                _fill(out[z0 + 1 : z], between, before, after, int(numbers[after]))
        return out


class SliceLinker:
    """Links label slices as they come: ``add`` each in order, then ``finish``.

    Args:
        voxel_size: (z, y, x), nm; None: cubes of side 1, and lengths count voxels.
        min_overlap: share of the smaller of two sections that must overlap; times 2 over one missing slice, and so on.
        max_distance: how many radii of the larger section the two centroids may lie apart.
        gap: how many missing slices in a row are bridged.
        waist: a chain is cut where it is thinner than this share of its diameter on either side; 0 never cuts.
        max_length: nm (slices where no voxel size is given): longer chains are cut at their thinnest place; None: any.
        min_diameter: nm (voxels): instances below it, as balls of the same volume, are dropped; 0 keeps all.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        *,
        voxel_size: Sequence[float] | None = None,
        min_overlap: float = 0.25,
        max_distance: float = 1.5,
        gap: int = 1,
        waist: float = 0.75,
        max_length: float | None = None,
        min_diameter: float = 0.0,
    ) -> None:
        if voxel_size is not None and (len(voxel_size) != 3 or min(voxel_size) <= 0):
            raise ValueError(
                f"voxel_size must be three positive numbers (z, y, x), not {voxel_size}"
            )
        if not 0 < min_overlap <= 1 or not 0 <= waist <= 1:
            raise ValueError(f"min_overlap ({min_overlap}) and waist ({waist}) are shares, 0 to 1")
        if (
            gap < 0
            or max_distance <= 0
            or min_diameter < 0
            or (max_length is not None and max_length <= 0)
        ):
            raise ValueError(
                f"gap ({gap}), max_distance ({max_distance}), max_length ({max_length}) and "
                f"min_diameter ({min_diameter}) cannot be negative"
            )
        self.voxel_size = (1.0, 1.0, 1.0) if voxel_size is None else tuple(map(float, voxel_size))
        self.min_overlap = min_overlap
        self.max_distance = max_distance
        self.waist = waist
        self.max_length = np.inf if max_length is None else max_length
        self.min_diameter = min_diameter
        # Of each earlier slice: what can still be seen of it from here, past the sections between.
        self._seen: deque[tuple[int, Ints]] = deque(maxlen=gap + 1)
        self._pieces: list[Array] = []
        self._pairs: list[Ints] = []
        self._count = 0

    def add(self, labels: Array, scores: npt.ArrayLike | None = None) -> None:
        """Take the next slice.

        Args:
            labels: (y, x) integers, numbers unique within the slice, 0 background. Not kept and not changed.
            scores: (N,), that of label ``k`` at ``k - 1``; None: 1 for all.

        Raises:
            ValueError: not 2D, not integers, of another shape than the slices before, or fewer scores than labels.
        """
        if labels.ndim != 2 or labels.dtype.kind not in "ui":
            raise ValueError(f"a label slice is 2D integers, not {labels.ndim}D {labels.dtype}")
        if self._seen and self._seen[-1][1].shape != labels.shape:
            raise ValueError(f"a slice of {labels.shape} after slices of {self._seen[-1][1].shape}")
        pieces = _pieces(labels)
        self._pieces.append(_measure(len(self._pieces), pieces, labels, scores))
        touching = pieces.copy()
        if self._seen:
            near = grey_dilation(pieces, size=(3, 3))
            touching[pieces == 0] = near[pieces == 0]
        for steps, (first, seen) in enumerate(reversed(self._seen), start=1):
            pairs = _count_pairs(seen, pieces, touching if steps == 1 else pieces)
            pairs[:, :2] += [first - 1, self._count - 1]
            self._pairs.append(pairs)
            seen[pieces > 0] = 0
        self._seen.append((self._count, pieces))
        self._count += len(self._pieces[-1])

    def finish(self) -> Linking:
        """Decide which sections are one instance.

        Returns:
            Numbers from 1 without holes, in the order of the first slice; every number is one 26-connected body.
        """
        pieces = np.concatenate([np.zeros(0, PIECE), *self._pieces])
        pairs = np.concatenate([np.zeros((0, 4), np.int64), *self._pairs])
        sections, section = _sections(pieces)
        after, weak = self._match(sections, _merged(pairs, section))
        chain = self._chains(sections, after, weak)
        # A body hangs together by touching pieces, and over a missing section by the fill, which is where both ends overlap.
        a, b = pairs[:, 0], pairs[:, 1]
        far = pieces["z"][b] - pieces["z"][a] > 1
        joined = (chain[section[a]] == chain[section[b]]) & (
            ~far | (after[section[a]] == section[b])
        )
        body = _bodies(pieces, a[joined], b[joined], chain[section])
        far &= joined & (body[a] >= 0)
        a, b = a[far], b[far]
        gaps = pieces["z"][b] - pieces["z"][a] - 1
        filled = (pieces["area"][a] + pieces["area"][b]) / 2 * gaps
        size = _sums(np.r_[body, body[a]], np.r_[pieces["area"], filled])
        diameter = np.cbrt(6 / np.pi * size * np.prod(self.voxel_size))
        keep = diameter >= self.min_diameter
        number = np.r_[np.cumsum(keep) * keep, 0][body]  # body -1 takes the 0 at the end
        bridges = np.column_stack([pieces[n][i] for i in (a, b) for n in ("z", "piece")])[
            number[a] > 0
        ]
        return Linking(
            _describe(number, pieces, section, diameter[keep]),
            [np.r_[0, number[pieces["z"] == z]] for z in range(len(self._pieces))],
            bridges[np.argsort(bridges[:, 2], kind="stable")],
            int((~keep).sum()),
        )

    def _match(self, sections: Array, joints: Ints) -> tuple[Ints, Bools]:
        """The best set of links in which no section has two successors or predecessors.

        Args:
            sections: (S,), fields of ``PIECE``.
            joints: (E, 4) earlier and later section, overlap and contact in pixels.

        Returns:
            (S,) the next section or -1, and (S,) whether that link is weak: touching, but not overlapping enough.
        """
        a, b, overlap, contact = joints.T
        z, area = sections["z"], sections["area"]
        smaller, larger = np.minimum(area[a], area[b]), np.maximum(area[a], area[b])
        steps = z[b] - z[a]
        _, dy, dx = self.voxel_size
        y, x = sections["y"] * dy, sections["x"] * dx
        distance = np.hypot(y[a] - y[b], x[a] - x[b])
        radius = np.sqrt(larger * dy * dx / np.pi)
        share = overlap / smaller
        strong = (share >= self.min_overlap * steps) & (distance <= self.max_distance * radius)
        # Over the smaller area, as caps shrink fast; over the union too, so that of several under a large one the largest wins.
        value = (share + overlap / (smaller + larger - overlap)) / 2 * 0.5 ** (steps - 1)
        value = np.where(strong, value, 0.05 * np.minimum(contact / smaller, 1))
        usable = strong | (steps == 1)
        after = _assign(a[usable], b[usable], value[usable], len(sections))
        weak = np.zeros(len(sections), np.bool_)
        weak[a[~strong & (after[a] == b)]] = True
        return after, weak

    def _chains(self, sections: Array, after: Ints, weak: Bools) -> Ints:
        """(S,) the chain each section is in, after cutting at waists and joining fragments across weak links."""
        runs = _Runs(sections, len(self._pieces), self.voxel_size, self.waist, self.max_length)
        first = np.ones(len(after), np.bool_)
        first[after[after >= 0]] = False
        chain = np.full(len(after), -1)
        count = 0
        for start in np.flatnonzero(first).tolist():
            done: list[Ints] = []
            run = [start]
            while run[-1] >= 0:
                following = int(after[run[-1]])
                if following >= 0 and not weak[run[-1]]:
                    run.append(following)
                    continue
                parts = runs.cut(np.array(run))
                if done and runs.joinable(done[-1], parts[0]):
                    parts[0] = np.r_[done.pop(), parts[0]]
                done += parts
                run = [following]
            for part in done:
                chain[part] = count
                count += 1
        return chain


class _Runs:
    """Judges runs of sections by their shape; a run is an array of section indices in the order of z."""

    def __init__(
        self,
        sections: Array,
        depth: int,
        voxel_size: Sequence[float],
        waist: float,
        max_length: float,
    ) -> None:
        self.z = sections["z"]
        self.area = sections["area"]
        self.width = 2 * np.sqrt(self.area * voxel_size[1] * voxel_size[2] / np.pi)
        self.thickness = voxel_size[0]
        self.last = depth - 1
        self.waist = waist
        self.max_length = max_length

    def height(self, run: Ints) -> float:
        return float(self.z[run[-1]] - self.z[run[0]] + 1) * self.thickness

    def whole(self, run: Ints) -> bool:
        """May it be a granule by itself: about as high as wide, or cut by the end of the volume."""
        open_end = self.z[run[0]] == 0 or self.z[run[-1]] == self.last
        return bool(open_end or self.height(run) >= WHOLE * self.width[run].max())

    def joinable(self, run: Ints, following: Ints) -> bool:
        """Two runs that barely touch are two granules if both are whole, and otherwise one with a shifted section."""
        both = self.height(np.r_[run, following])
        return both <= self.max_length and not (self.whole(run) and self.whole(following))

    def cut(self, run: Ints) -> list[Ints]:
        """Cut where two granules meet (a waist with a whole granule on either side), and what is longer than allowed."""
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
        if len(run) < 2:
            return None
        width = self.width[run]
        thin = self._thinness(run)
        # Among equally thin links, that between the smallest sections.
        order = np.lexsort((width[:-1] + width[1:], np.round(thin, 6)))
        for i in order.tolist():
            if thin[i] >= 1:
                break
            if self.whole(run[: i + 1]) and self.whole(run[i + 1 :]):
                return i + 1
        return int(order[0]) + 1 if self.height(run) > self.max_length else None

    def _thinness(self, run: Ints) -> Floats:
        """(links,) width at each link over the lesser of the greatest widths on either side, in units of the waist: below 1 it is one."""
        width, z, area = self.width[run], self.z[run], self.area[run]
        left = np.maximum.accumulate(width)[:-1]
        right = np.maximum.accumulate(width[::-1])[::-1][1:]
        peak = np.minimum(left, right)
        thin: Floats = np.minimum(width[:-1], width[1:]) / peak / max(self.waist, 1e-9)
        for i in np.flatnonzero(np.diff(z) > 1).tolist() if self.waist else []:
            # Halfway across the gap, from the slope of the areas on either side: two balls fall towards it, one does not.
            half = (z[i + 1] - z[i]) / 2
            before = area[i] + half * (area[i] - area[i - 1]) / (z[i] - z[i - 1]) if i else area[i]
            behind = area[i + 1]
            if i + 2 < len(run):
                behind += half * (area[i + 1] - area[i + 2]) / (z[i + 2] - z[i + 1])
            inside = self.width[run[i]] * np.sqrt(max(before + behind, 0) / 2 / area[i])
            thin[i] = min(thin[i], inside / peak[i] / BRIDGED_WAIST)
        return thin


def link_slices(
    labels: Array,
    *,
    voxel_size: Sequence[float] | None = None,
    min_overlap: float = 0.25,
    max_distance: float = 1.5,
    gap: int = 1,
    waist: float = 0.75,
    max_length: float | None = None,
    min_diameter: float = 0.0,
) -> Array:
    """Link a whole label volume; settings and method are those of ``SliceLinker``.

    Args:
        labels: (z, y, x) integers, numbers unique within a slice only. Not changed.

    Returns:
        (z, y, x) instances from 1 without holes; uint16, or uint32 beyond 65,535 of them.

    Raises:
        ValueError: ``labels`` is not 3D integers, or a setting is out of range.

    Example:
        >>> column = np.array([[[7, 7]], [[2, 2]], [[0, 0]], [[9, 9]]])
        >>> link_slices(column).ravel().tolist()
        [1, 1, 1, 1, 1, 1, 1, 1]
    """
    if labels.ndim != 3 or labels.dtype.kind not in "ui":
        raise ValueError(f"a label volume is 3D integers, not {labels.ndim}D {labels.dtype}")
    linker = SliceLinker(
        voxel_size=voxel_size,
        min_overlap=min_overlap,
        max_distance=max_distance,
        gap=gap,
        waist=waist,
        max_length=max_length,
        min_diameter=min_diameter,
    )
    for section in labels:
        linker.add(section)
    linking = linker.finish()
    return linking.apply(labels, out=np.empty(labels.shape, linking.dtype))


def _pieces(labels: Array) -> Ints:
    """(y, x) the 8-connected pieces of the sections, numbered from 1 in raster order."""
    return np.asarray(label_pieces(labels.astype(np.int64), connectivity=2), np.int64)


def _measure(z: int, pieces: Ints, labels: Array, scores: npt.ArrayLike | None) -> Array:
    """(P,) of ``PIECE``: what is known of the pieces of slice ``z``."""
    where = np.flatnonzero(pieces)
    of = pieces.ravel()[where] - 1
    table = np.zeros(of.max(initial=-1) + 1, PIECE)
    table["z"], table["piece"] = z, np.arange(1, len(table) + 1)
    table["label"][of] = labels.ravel()[where]
    table["area"] = np.bincount(of, minlength=len(table))
    for name, position in zip("yx", np.divmod(where, pieces.shape[1]), strict=True):
        table[name] = np.bincount(of, position, len(table)) / table["area"]
    table["score"] = 1
    if scores is not None:
        scores = np.asarray(scores, np.float64)
        if table["label"].max(initial=0) > len(scores):
            raise ValueError(
                f"slice {z} has label {table['label'].max()}, but {len(scores)} scores"
            )
        table["score"] = scores[table["label"] - 1]
    return table


def _count_pairs(seen: Ints, pieces: Ints, touching: Ints) -> Ints:
    """(E, 4): piece of ``seen``, piece of ``pieces``, pixels that overlap, pixels of the one under the other made ``touching``."""
    where = np.flatnonzero((seen > 0) & (touching > 0))
    base = int(touching.max(initial=0)) + 1
    keys, inverse, contact = np.unique(
        seen.ravel()[where] * base + touching.ravel()[where],
        return_inverse=True,
        return_counts=True,
    )
    overlap = np.bincount(inverse[pieces.ravel()[where] > 0], minlength=len(keys))
    return np.column_stack([keys // base, keys % base, overlap, contact])


def _sums(groups: Ints, values: Floats) -> Floats:
    """(groups,) the sum of the values in each group; group -1 is left out."""
    return np.bincount(groups[groups >= 0], values[groups >= 0])


def _sections(pieces: Array) -> tuple[Array, Ints]:
    """The sections, their area and centroid over all pieces; and (P,) the section of each piece."""
    _, first, section = np.unique(pieces[["z", "label"]], return_index=True, return_inverse=True)
    sections = pieces[first]
    sections["area"] = np.bincount(section, pieces["area"])
    for name in "yx":
        sections[name] = np.bincount(section, pieces[name] * pieces["area"]) / sections["area"]
    return sections, section


def _merged(pairs: Ints, section: Ints) -> Ints:
    """(E, 4) pairs of pieces as pairs of sections, overlap and contact summed."""
    ends, inverse = np.unique(section[pairs[:, :2]], axis=0, return_inverse=True)
    counts = [np.bincount(inverse.ravel(), pairs[:, i], len(ends)).astype(np.int64) for i in (2, 3)]
    return np.column_stack([ends, *counts])


def _assign(a: Ints, b: Ints, value: Floats, count: int) -> Ints:
    """(count,) for each ``a`` its ``b`` or -1, each used once, with the greatest sum of values; sparse (LAPJVsp)."""
    every = np.arange(count)
    # Each may also stay alone, at the price of the value it forgoes; the solver wants a full matching of non-zero costs.
    cost = coo_array(
        (np.r_[2 - value, np.full(count, 2.0)], (np.r_[a, every], np.r_[b, count + every])),
        (count, 2 * count),
    )
    if not count:
        return every
    chosen = np.asarray(min_weight_full_bipartite_matching(cost.tocsr())[1], np.int64)
    return np.where(chosen < count, chosen, -1)


def _bodies(pieces: Array, a: Ints, b: Ints, chain: Ints) -> Ints:
    """(P,) the connected body of each piece, in the order of first appearance; -1 for specks.

    A mask may have pieces apart. What touches nothing else of its chain and is in one slice only is a speck, not a granule.
    """
    count = len(pieces)
    _, body = connected_components(
        coo_array((np.ones(len(a)), (a, b)), (count, count)), directed=False
    )
    body = body.astype(np.int64)
    area = np.bincount(body, pieces["area"])
    slices = np.bincount(np.unique(np.column_stack([body, pieces["z"]]), axis=0)[:, 0])
    owner = np.zeros(len(area), np.int64)
    owner[body] = chain
    largest = np.zeros(len(area), np.bool_)
    order = np.lexsort((-area, owner))
    largest[order[np.unique(owner[order], return_index=True)[1]]] = True
    body = np.where((largest | (slices > 1))[body], body, -1)
    kept, first, inverse = np.unique(body[body >= 0], return_index=True, return_inverse=True)
    rank = np.empty(len(kept), np.int64)
    rank[np.argsort(first)] = np.arange(len(kept))
    body[body >= 0] = rank[inverse]
    return body


def _describe(number: Ints, pieces: Array, section: Ints, diameter: Floats) -> Instances:
    """The table of instances; a section in several pieces counts once."""
    rows = np.unique(np.column_stack([number, section]), axis=0, return_index=True)[1]
    rows = rows[number[rows] > 0]
    of, count = number[rows] - 1, len(diameter)
    sections = np.bincount(of, minlength=count)
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, of, pieces["z"][rows])
    last = np.zeros(count, np.int64)
    np.maximum.at(last, of, pieces["z"][rows])
    return Instances(
        np.bincount(of, pieces["score"][rows], count) / sections, sections, first, last, diameter
    )


def _fill(out: Array, window: Sequence[Ints], before: int, after: int, number: int) -> None:
    """Write ``number`` into the slices between two sections, as the average of their signed distances (Raya, Udupa 1990).

    Only background is written, and only where above and below there is nothing but these two sections, so that fills never
    compete. Where both overlap the average is positive: the fill always joins them.

    Args:
        out: (gap, y, x), the slices between.
        window: gap + 2 slices of pieces, from that of ``before`` to that of ``after``.
    """
    boxes = [find_objects(w, n)[n - 1] for w, n in ((window[0], before), (window[-1], after))]
    # One pixel around, for the distance to the background.
    y, x = (
        slice(max(0, min(p.start for p in pair) - 1), max(p.stop for p in pair) + 1)
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
