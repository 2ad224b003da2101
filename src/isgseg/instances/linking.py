"""From label slices to 3D instances: which sections of neighbouring slices are one granule.

A *section* is what one label covers in one slice. The linker takes slice after slice, keeps the
pixels of the last few only, and notes how sections overlap. Then, with numbers alone, it

1. picks over the whole volume the best set of links in which no section has two successors or two
   predecessors (linear assignment, as in particle tracking: Jaqaman et al. 2008);
2. cuts the chains of sections at waists, where two granules meet;
3. joins across weak links only what is no granule by itself.

What may be *whole* is told by shape: a granule is about as high as it is wide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt, find_objects, grey_dilation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from skimage import measure

Labels = npt.NDArray[Any]
Table = npt.NDArray[np.void]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# What is known of a piece (8-connected) of a section; of a section too, but for ``piece``.
PIECE = np.dtype(
    [(name, np.int64) for name in ("z", "piece", "label", "area")]
    + [(name, np.float64) for name in ("y", "x", "score")]
)
# A run of sections may be a granule by itself from this height over width on (a ball has 1, half of
# it .5) and from this many slices on, as it has to rise and fall.
WHOLE_HEIGHT = 0.6
WHOLE_SLICES = 3
# The waist where a section is missing. It is judged by where the areas beside it point to, and
# those of one ball never point below 1.
BRIDGED_WAIST = 0.9
# What a weak link counts in the assignment: less than any strong one.
WEAK = 0.05


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
        numbers: per slice (pieces + 1,): the instance of each connected piece of a section, 0 for
            the background and for what was dropped.
        bridges: (M, 4) slice and piece before, slice and piece after a missing section.
        dropped: how many instances were below the minimum diameter.
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
            window.append(_pieces(labels[z]))
            if window[-1].max(initial=0) != len(numbers) - 1:
                raise ValueError(f"slice {z} of labels is not the slice that was linked")
            out[z] = numbers[window[-1]]
            for start, before, _, after in self.bridges[ends[z] : ends[z + 1]].tolist():
                between = [window[i - z - 1] for i in range(start, z + 1)]
                _fill(out[start + 1 : z], between, before, after, int(numbers[after]))
        return out


class SliceLinker:
    """Links label slices as they come: ``add`` each in order, then ``finish``.

    Args:
        voxel_size: (z, y, x), nm; None: cubes of side 1, and lengths count voxels.
        min_overlap: share of the smaller of two sections that must overlap; twice that over one
            missing section, and so on.
        max_distance: how many radii of the larger section the two centroids may lie apart.
        gap: how many missing sections in a row are bridged.
        waist: a chain is cut where its diameter falls to this share of the diameter on either
            side, if both sides may be whole; 0 never cuts.
        max_length: nm (slices where no voxel size is given): longer chains are cut at their
            thinnest place; None: any length.
        min_diameter: nm (voxels where no voxel size is given): instances smaller than a ball of
            this diameter are dropped; 0 keeps all.

    Raises:
        ValueError: a setting is out of range.

    Example:
        >>> column = np.array([[[7, 7]], [[2, 2]], [[0, 0]], [[9, 9]]])
        >>> linker = SliceLinker()
        >>> for section in column:
        ...     linker.add(section)
        >>> linker.finish().apply(column).ravel().tolist()
        [1, 1, 1, 1, 1, 1, 1, 1]
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
            raise ValueError(f"voxel_size must be three positive nm (z, y, x), not {voxel_size}")
        if not 0 < min_overlap <= 1:
            raise ValueError(f"min_overlap must be above 0 and at most 1, not {min_overlap}")
        if not 0 <= waist <= 1:
            raise ValueError(f"waist must be 0 to 1, not {waist}")
        if gap < 0 or gap != int(gap):
            raise ValueError(f"gap must be 0, 1, 2, ..., not {gap}")
        if max_distance <= 0 or min_diameter < 0:
            raise ValueError(f"negative max_distance {max_distance} or min_diameter {min_diameter}")
        if max_length is not None and max_length <= 0:
            raise ValueError(f"max_length must be positive or None, not {max_length}")
        self.voxel_size = (1.0, 1.0, 1.0) if voxel_size is None else tuple(map(float, voxel_size))
        self.min_overlap = min_overlap
        self.max_distance = max_distance
        self.waist = waist
        self.max_length = np.inf if max_length is None else max_length
        self.min_diameter = min_diameter
        # Of each earlier slice: what can still be seen of it from here, past the sections between.
        self._seen: deque[tuple[int, Ints]] = deque(maxlen=int(gap) + 1)
        self._pieces: list[Table] = []
        self._pairs: list[Ints] = []
        self._count = 0

    def add(self, labels: Labels, scores: npt.ArrayLike | None = None) -> None:
        """Take the next slice.

        Args:
            labels: (y, x) integers, numbers unique within the slice, 0 background. Neither kept
                nor changed.
            scores: (N,), that of label ``k`` at ``k - 1``; None: 1 for all.

        Raises:
            ValueError: not 2D, not integers, negative, of another shape than the slices before, or
                fewer scores than labels.
        """
        if labels.ndim != 2 or labels.dtype.kind not in "ui":
            raise ValueError(f"a label slice is 2D integers, not {labels.ndim}D {labels.dtype}")
        if labels.min(initial=0) < 0:
            raise ValueError(f"labels are not negative, slice {len(self._pieces)} has some")
        if self._seen and self._seen[-1][1].shape != labels.shape:
            raise ValueError(f"a slice of {labels.shape} after slices of {self._seen[-1][1].shape}")
        pieces = _pieces(labels)
        table = _measure(len(self._pieces), pieces, labels, scores)
        grown = pieces.copy()
        if self._seen:
            grown[pieces == 0] = grey_dilation(pieces, size=(3, 3))[pieces == 0]
        for steps, (first, seen) in enumerate(reversed(self._seen), start=1):
            pairs = _count_pairs(seen, pieces, grown if steps == 1 else pieces)
            pairs[:, :2] += [first - 1, self._count - 1]
            self._pairs.append(pairs)
            seen[pieces > 0] = 0
        self._pieces.append(table)
        self._seen.append((self._count, pieces))
        self._count += len(table)

    def finish(self) -> Linking:
        """Decide which sections are one instance.

        Returns:
            Numbers from 1 without holes, in the order of the first slice; every number is one
            26-connected body.
        """
        pieces = np.concatenate([np.zeros(0, PIECE), *self._pieces])
        pairs = np.concatenate([np.zeros((0, 4), np.int64), *self._pairs])
        sections, section = _sections(pieces)
        after, neck, weak = self._match(sections, _merged(pairs, section))
        runs = _Runs(self, sections, neck, len(self._pieces))
        chain = _chains(runs, after, weak)
        # A body hangs together by touching pieces, and over a missing section by the fill, which
        # is where both ends overlap.
        a, b = pairs[:, 0], pairs[:, 1]
        gaps = pieces["z"][b] - pieces["z"][a] - 1
        linked = after[section[a]] == section[b]
        joined = (chain[section[a]] == chain[section[b]]) & ((gaps == 0) | linked)
        body = _bodies(pieces, a[joined], b[joined], chain[section])
        bridged = joined & (gaps > 0) & (body[a] >= 0)
        a, b, gaps = a[bridged], b[bridged], gaps[bridged]
        filled = (pieces["area"][a] + pieces["area"][b]) / 2 * gaps
        size = _sums(np.r_[body, body[a]], np.r_[pieces["area"], filled])
        diameter = np.cbrt(6 / np.pi * size * np.prod(self.voxel_size))
        keep = diameter >= self.min_diameter
        number = np.r_[np.cumsum(keep) * keep, 0][body]  # body -1 takes the 0 at the end
        bridges = np.column_stack([pieces[name][i] for i in (a, b) for name in ("z", "piece")])
        bridges = bridges[number[a] > 0]
        starts = np.searchsorted(pieces["z"], np.arange(1, len(self._pieces)))
        tables = [np.r_[0, part] for part in np.split(number, starts)]
        return Linking(
            _describe(number, pieces, section, diameter[keep]),
            tables[: len(self._pieces)],
            bridges[np.argsort(bridges[:, 2], kind="stable")],
            int((~keep).sum()),
            int((body < 0).sum()),
        )

    def _match(self, sections: Table, joints: Ints) -> tuple[Ints, Floats, Bools]:
        """The best set of links in which no section has two successors or predecessors.

        Args:
            sections: (S,) of ``PIECE``.
            joints: (E, 4) earlier and later section, overlap and contact in pixels.

        Returns:
            (S,) the next section or -1; (S,) the area in which the two meet, pixels; (S,) whether
            the link is weak: they touch, but overlap too little.
        """
        a, b, overlap, contact = joints.T
        area = sections["area"]
        smaller, larger = np.minimum(area[a], area[b]), np.maximum(area[a], area[b])
        steps = sections["z"][b] - sections["z"][a]
        _, dy, dx = self.voxel_size
        y, x = sections["y"] * dy, sections["x"] * dx
        distance = np.hypot(y[a] - y[b], x[a] - x[b])
        radius = np.sqrt(larger * dy * dx / np.pi)
        share = overlap / smaller
        strong = (share >= self.min_overlap * steps) & (distance <= self.max_distance * radius)
        # Over the smaller area, because caps shrink fast; and over the union, because of several
        # sections under a large one the largest is its own.
        value = (share + overlap / (smaller + larger - overlap)) / 2 * 0.5 ** (steps - 1)
        value = np.where(strong, value, WEAK * np.minimum(contact / smaller, 1))
        usable = strong | (steps == 1)
        after = _assign(a[usable], b[usable], value[usable], len(sections))
        chosen = after[a] == b
        neck, weak = area.astype(np.float64), np.zeros(len(sections), np.bool_)
        # A jump of the centroid is a waist too: less overlaps than the smaller section.
        met = np.where(steps == 1, np.sqrt(smaller * overlap), smaller)
        neck[a[chosen]] = met[chosen]
        weak[a[chosen & ~strong]] = True
        return after, neck, weak


def link_slices(
    labels: Labels,
    *,
    voxel_size: Sequence[float] | None = None,
    min_overlap: float = 0.25,
    max_distance: float = 1.5,
    gap: int = 1,
    waist: float = 0.75,
    max_length: float | None = None,
    min_diameter: float = 0.0,
) -> Labels:
    """Link a whole label volume.

    Args:
        labels: (z, y, x) integers, numbers unique within a slice only. Not changed.
        voxel_size: this and the others as in ``SliceLinker``.
        min_overlap: share of the smaller section.
        max_distance: radii of the larger section.
        gap: slices.
        waist: share of the diameter.
        max_length: nm.
        min_diameter: nm.

    Returns:
        (z, y, x) instances from 1 without holes; uint16, or uint32 beyond 65,535 of them.

    Raises:
        ValueError: ``labels`` is not 3D integers, or a setting is out of range.
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
    for plane in labels:
        linker.add(plane)
    linking = linker.finish()
    return linking.apply(labels, out=np.empty(labels.shape, linking.dtype))


class _Runs:
    """Judges runs of sections by their shape; a run is an array of section indices, in order of z.

    Args:
        settings: voxel size, waist and the greatest length.
        sections: (S,) of ``PIECE``.
        neck: (S,) the area in which each meets the next, pixels.
        depth: slices of the volume.
    """

    def __init__(self, settings: SliceLinker, sections: Table, neck: Floats, depth: int) -> None:
        self.thickness, dy, dx = settings.voxel_size
        self.max_length = settings.max_length
        self.waist = settings.waist
        self.last = depth - 1
        self.z = sections["z"]
        self.area = sections["area"]
        self.width = 2 * np.sqrt(self.area * dy * dx / np.pi)
        self.neck = 2 * np.sqrt(neck * dy * dx / np.pi)

    def height(self, run: Ints) -> float:
        return float(self.z[run[-1]] - self.z[run[0]] + 1) * self.thickness

    def whole(self, run: Ints) -> bool:
        """May it be a granule by itself? Who can tell of one that leaves the volume: yes."""
        if self.z[run[0]] == 0 or self.z[run[-1]] == self.last:
            return True
        least = max(WHOLE_HEIGHT * self.width[run].max(), WHOLE_SLICES * self.thickness)
        return bool(self.height(run) >= least)

    def joinable(self, run: Ints, following: Ints) -> bool:
        """Runs that barely touch: two granules if both are whole, otherwise one, drawn askew."""
        fits = self.height(np.r_[run, following]) <= self.max_length
        return fits and not (self.whole(run) and self.whole(following))

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
                return i + 1
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
            # does not fall towards it from both.
            half = (z[i + 1] - z[i]) / 2
            inside = float(area[i] + area[i + 1])
            if i > 0:
                inside += half * (area[i] - area[i - 1]) / (z[i] - z[i - 1])
            if i + 2 < len(run):
                inside += half * (area[i + 1] - area[i + 2]) / (z[i + 2] - z[i + 1])
            across = width[i] * np.sqrt(max(inside, 0) / 2 / area[i])
            thin[i] = min(thin[i], across / peak[i] / BRIDGED_WAIST)
        return thin


def _chains(runs: _Runs, after: Ints, weak: Bools) -> Ints:
    """(S,) the chain each section is in: cut at waists, fragments joined across weak links."""
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


def _pieces(labels: Labels) -> Ints:
    """(y, x) the 8-connected pieces of the sections, numbered from 1 in raster order."""
    return np.asarray(measure.label(labels.astype(np.int64), connectivity=2), np.int64)


def _measure(z: int, pieces: Ints, labels: Labels, scores: npt.ArrayLike | None) -> Table:
    """(P,) of ``PIECE``: what is known of the pieces of slice ``z``."""
    where = np.flatnonzero(pieces)
    of = pieces.ravel()[where] - 1
    table = np.zeros(of.max(initial=-1) + 1, PIECE)
    table["z"], table["piece"], table["score"] = z, np.arange(1, len(table) + 1), 1
    table["label"][of] = labels.ravel()[where]
    table["area"] = np.bincount(of, minlength=len(table))
    for name, position in zip("yx", np.divmod(where, pieces.shape[1]), strict=True):
        table[name] = np.bincount(of, position, len(table)) / table["area"]
    if scores is not None:
        given = np.asarray(scores, np.float64)
        if table["label"].max(initial=0) > len(given):
            raise ValueError(f"slice {z} has label {table['label'].max()}, but {len(given)} scores")
        table["score"] = given[table["label"] - 1]
    return table


def _count_pairs(seen: Ints, pieces: Ints, grown: Ints) -> Ints:
    """(E, 4) piece of ``seen``, piece of ``pieces``, pixels they share, pixels shared if grown."""
    where = np.flatnonzero((seen > 0) & (grown > 0))
    base = int(grown.max(initial=0)) + 1
    keys, inverse, contact = np.unique(
        seen.ravel()[where] * base + grown.ravel()[where], return_inverse=True, return_counts=True
    )
    overlap = np.bincount(inverse[pieces.ravel()[where] > 0], minlength=len(keys))
    return np.column_stack([keys // base, keys % base, overlap, contact])


def _sums(groups: Ints, values: Floats) -> Floats:
    """(groups,) the sum of the values in each group; group -1 is left out."""
    return np.bincount(groups[groups >= 0], values[groups >= 0]).astype(np.float64)


def _sections(pieces: Table) -> tuple[Table, Ints]:
    """The sections, their area and centroid over all pieces; and (P,) the section of each piece."""
    names = np.column_stack([pieces["z"], pieces["label"]])
    _, first, inverse = np.unique(names, axis=0, return_index=True, return_inverse=True)
    section = inverse.ravel()
    sections = pieces[first]
    sections["area"] = np.bincount(section, pieces["area"], len(first))
    for name in "yx":
        moment = np.bincount(section, pieces[name] * pieces["area"], len(first))
        sections[name] = moment / sections["area"]
    return sections, section


def _merged(pairs: Ints, section: Ints) -> Ints:
    """(E, 4) pairs of pieces as pairs of sections, overlap and contact summed."""
    ends, inverse = np.unique(section[pairs[:, :2]], axis=0, return_inverse=True)
    sums = [np.bincount(inverse.ravel(), pairs[:, i], len(ends)) for i in (2, 3)]
    return np.column_stack([ends, *sums]).astype(np.int64)


def _assign(a: Ints, b: Ints, value: Floats, count: int) -> Ints:
    """(count,) for each ``a`` its ``b`` or -1, each used once, of the greatest sum of values."""
    every = np.arange(count)
    if not count:
        return every
    # Sparse (LAPJVsp). Each may also stay alone; the solver wants a full matching, no cost of 0.
    cost = np.r_[2 - value, np.full(count, 2.0)]
    table = coo_array((cost, (np.r_[a, every], np.r_[b, count + every])), (count, 2 * count))
    chosen = np.asarray(min_weight_full_bipartite_matching(table.tocsr())[1], np.int64)
    return np.where(chosen < count, chosen, -1)


def _bodies(pieces: Table, a: Ints, b: Ints, chain: Ints) -> Ints:
    """(P,) the connected body of each piece, in order of first appearance; -1 for specks.

    A mask may be in pieces. One that touches nothing else of its chain, in one slice only, is a
    speck and no granule; through several slices it is an instance of its own.
    """
    count = len(pieces)
    graph = coo_array((np.ones(len(a)), (a, b)), (count, count))
    body = connected_components(graph, directed=False)[1].astype(np.int64)
    area = np.bincount(body, pieces["area"])
    slices = np.bincount(np.unique(np.column_stack([body, pieces["z"]]), axis=0)[:, 0])
    owner = np.zeros(len(area), np.int64)
    owner[body] = chain
    order = np.lexsort((-area, owner))
    largest = order[np.unique(owner[order], return_index=True)[1]]
    kept = slices > 1
    kept[largest] = True
    # connected_components numbers by first appearance, and that order stays.
    return np.where(kept, np.cumsum(kept) - 1, -1)[body]


def _describe(number: Ints, pieces: Table, section: Ints, diameter: Floats) -> Instances:
    """The table of instances; a section in several pieces counts once."""
    named = np.column_stack([number, section])
    rows = np.unique(named, axis=0, return_index=True)[1]
    rows = rows[number[rows] > 0]
    of, z, count = number[rows] - 1, pieces["z"][rows], len(diameter)
    sections = np.bincount(of, minlength=count).astype(np.int64)
    first, last = np.full(count, len(pieces)), np.zeros(count, np.int64)
    np.minimum.at(first, of, z)
    np.maximum.at(last, of, z)
    score = np.bincount(of, pieces["score"][rows], count) / sections
    return Instances(score, sections, first, last, diameter)


def _fill(out: Labels, window: Sequence[Ints], before: int, after: int, number: int) -> None:
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
