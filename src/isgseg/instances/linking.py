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
from scipy.ndimage import grey_dilation
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from isgseg.instances.gaps import fill_gap
from isgseg.instances.runs import Runs, find_chains
from isgseg.instances.sections import (
    PIECE,
    Bools,
    Floats,
    Ints,
    Labels,
    Table,
    count_pairs,
    find_bodies,
    find_pieces,
    join_sections,
    measure_pieces,
    merge_pairs,
    sums,
)

# What a weak link counts in the assignment: less than any strong one.
WEAK = 0.05
# How many candidate links the assignment takes at a time, if they fall into groups.
BLOCK = 1000


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
            window.append(find_pieces(labels[z]))
            if window[-1].max(initial=0) != len(numbers) - 1:
                raise ValueError(f"slice {z} of labels is not the slice that was linked")
            out[z] = numbers[window[-1]]
            for start, before, _, after in self.bridges[ends[z] : ends[z + 1]].tolist():
                between = [window[i - z - 1] for i in range(start, z + 1)]
                fill_gap(out[start + 1 : z], between, before, after, int(numbers[after]))
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
        pieces = find_pieces(labels)
        table = measure_pieces(len(self._pieces), pieces, labels, scores)
        grown = pieces.copy()
        if self._seen:
            grown[pieces == 0] = grey_dilation(pieces, size=(3, 3))[pieces == 0]
        for steps, (first, seen) in enumerate(reversed(self._seen), start=1):
            pairs = count_pairs(seen, pieces, grown if steps == 1 else pieces)
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
        sections, section = join_sections(pieces)
        after, neck, weak = self._match(sections, merge_pairs(pairs, section))
        runs = Runs(
            sections,
            neck,
            len(self._pieces),
            voxel_size=self.voxel_size,
            waist=self.waist,
            max_length=self.max_length,
        )
        chain = find_chains(runs, after, weak)
        # A body hangs together by touching pieces, and over a missing section by the fill, which
        # is where both ends overlap.
        a, b = pairs[:, 0], pairs[:, 1]
        gaps = pieces["z"][b] - pieces["z"][a] - 1
        linked = after[section[a]] == section[b]
        joined = (chain[section[a]] == chain[section[b]]) & ((gaps == 0) | linked)
        body = find_bodies(pieces, a[joined], b[joined], chain[section])
        bridged = joined & (gaps > 0) & (body[a] >= 0)
        a, b, gaps = a[bridged], b[bridged], gaps[bridged]
        filled = (pieces["area"][a] + pieces["area"][b]) / 2 * gaps
        size = sums(np.r_[body, body[a]], np.r_[pieces["area"], filled])
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


def _assign(a: Ints, b: Ints, value: Floats, count: int) -> Ints:
    """(count,) for each ``a`` its ``b`` or -1, each used once, of the greatest sum of values."""
    after = np.full(count, -1)
    graph = coo_array((np.ones(len(a)), (a, count + b)), (2 * count, 2 * count))
    group = connected_components(graph, directed=False)[1][a]
    order = np.argsort(group, kind="stable")
    # The solver's time grows with the square of the rows: some hundred whole groups at a time.
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = begins[np.searchsorted(begins, np.arange(BLOCK, begins.max(initial=0) + 1, BLOCK))]
    for pairs in np.split(order, np.unique(cuts)) if len(a) else []:
        rows, i = np.unique(a[pairs], return_inverse=True)
        columns, j = np.unique(b[pairs], return_inverse=True)
        # Each may also stay alone; the solver wants a full matching and no cost of 0.
        every = np.arange(len(rows))
        cost = np.r_[2 - value[pairs], np.full(len(rows), 2.0)]
        place = np.r_[i, every], np.r_[j, len(columns) + every]
        table = coo_array((cost, place), (len(rows), len(columns) + len(rows)))
        chosen = min_weight_full_bipartite_matching(table.tocsr())[1]
        after[rows] = np.r_[columns, np.full(len(rows), -1)][chosen]
    return after


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
