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

from isgseg.instances.links import find_links
from isgseg.instances.numbering import Instances, Linking
from isgseg.instances.runs import Runs, find_chains
from isgseg.instances.sections import (
    PIECE,
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


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """What counts as one granule.

    Attributes:
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
        min_slices: instances supported by fewer slices are dropped, bridged ones not counted.
        min_score: instances of a lower mean score are dropped.

    Raises:
        ValueError: a setting is out of range.
    """

    min_overlap: float = 0.25
    max_distance: float = 1.5
    gap: int = 1
    waist: float = 0.75
    max_length: float | None = None
    min_diameter: float = 0.0
    min_slices: int = 1
    min_score: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_overlap <= 1:
            raise ValueError(f"min_overlap must be above 0 and at most 1, not {self.min_overlap}")
        if self.max_distance <= 0:
            raise ValueError(f"max_distance must be positive, not {self.max_distance}")
        if self.gap < 0 or self.gap != int(self.gap):
            raise ValueError(f"gap must be 0, 1, 2, ..., not {self.gap}")
        if not 0 <= self.waist <= 1:
            raise ValueError(f"waist must be 0 to 1, not {self.waist}")
        if self.max_length is not None and self.max_length <= 0:
            raise ValueError(f"max_length must be positive or None, not {self.max_length}")
        if self.min_diameter < 0:
            raise ValueError(f"min_diameter must not be negative, is {self.min_diameter}")
        if self.min_slices < 1:
            raise ValueError(f"min_slices must be 1 or more, not {self.min_slices}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be 0 to 1, not {self.min_score}")


class SliceLinker:
    """Links label slices as they come: ``add`` each in order, then ``finish``.

    Args:
        settings: what counts as one granule; default: ``LinkSettings()``.
        voxel_size: (z, y, x), nm; None: cubes of side 1, and lengths count voxels.
        threshold: instances none of whose sections reaches this score are dropped.

    Raises:
        ValueError: ``voxel_size`` is not three positive numbers.

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
        settings: LinkSettings | None = None,
        *,
        voxel_size: Sequence[float] | None = None,
        threshold: float = 0.0,
    ) -> None:
        if voxel_size is not None and (len(voxel_size) != 3 or min(voxel_size) <= 0):
            raise ValueError(f"voxel_size must be three positive nm (z, y, x), not {voxel_size}")
        self.settings = settings or LinkSettings()
        self.threshold = threshold
        self.voxel_size = (1.0, 1.0, 1.0) if voxel_size is None else tuple(map(float, voxel_size))
        # Of each earlier slice: what can still be seen of it from here, past the sections between.
        self._seen: deque[tuple[int, Ints]] = deque(maxlen=int(self.settings.gap) + 1)
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
        after, neck, weak = find_links(
            sections,
            merge_pairs(pairs, section),
            voxel_size=self.voxel_size,
            min_overlap=self.settings.min_overlap,
            max_distance=self.settings.max_distance,
        )
        runs = Runs(
            sections,
            neck,
            len(self._pieces),
            voxel_size=self.voxel_size,
            waist=self.settings.waist,
            max_length=self.settings.max_length,
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
        found = _describe(body, pieces, section, diameter)
        keep = diameter >= self.settings.min_diameter
        keep &= found.sections >= self.settings.min_slices
        keep &= found.score >= self.settings.min_score
        keep &= found.best >= self.threshold
        number = np.r_[np.cumsum(keep) * keep, 0][body]  # body -1 takes the 0 at the end
        bridges = np.column_stack([pieces[name][i] for i in (a, b) for name in ("z", "piece")])
        bridges = bridges[number[a] > 0]
        starts = np.searchsorted(pieces["z"], np.arange(1, len(self._pieces)))
        tables = [np.r_[0, part] for part in np.split(number, starts)]
        return Linking(
            found[keep],
            tables[: len(self._pieces)],
            bridges[np.argsort(bridges[:, 2], kind="stable")],
            int((~keep).sum()),
            int((body < 0).sum()),
        )


def link_slices(
    labels: Labels, *, voxel_size: Sequence[float] | None = None, **settings: Any
) -> Labels:
    """Link a whole label volume.

    Args:
        labels: (z, y, x) integers, numbers unique within a slice only. Not changed.
        voxel_size: (z, y, x), nm; None: cubes of side 1, and lengths count voxels.
        **settings: of ``LinkSettings``.

    Returns:
        (z, y, x) instances from 1 without holes; uint16, or uint32 beyond 65,535 of them.

    Raises:
        ValueError: ``labels`` is not 3D integers, or a setting is out of range.
    """
    if labels.ndim != 3 or labels.dtype.kind not in "ui":
        raise ValueError(f"a label volume is 3D integers, not {labels.ndim}D {labels.dtype}")
    linker = SliceLinker(LinkSettings(**settings), voxel_size=voxel_size)
    for plane in labels:
        linker.add(plane)
    linking = linker.finish()
    return linking.apply(labels, out=np.empty(labels.shape, linking.dtype))


def _describe(body: Ints, pieces: Table, section: Ints, diameter: Floats) -> Instances:
    """The table of bodies; a section in several pieces counts once."""
    rows = np.unique(np.column_stack([body, section]), axis=0, return_index=True)[1]
    rows = rows[body[rows] >= 0]
    of, z, count = body[rows], pieces["z"][rows], len(diameter)
    sections = np.bincount(of, minlength=count).astype(np.int64)
    first, last = np.full(count, len(pieces)), np.zeros(count, np.int64)
    np.minimum.at(first, of, z)
    np.maximum.at(last, of, z)
    scores, best = pieces["score"][rows], np.zeros(count)
    np.maximum.at(best, of, scores)
    score = np.bincount(of, scores, count) / sections
    return Instances(score, best, sections, first, last, diameter)
