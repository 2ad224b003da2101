"""From label slices to 3D instances: which masks of neighbouring slices are one granule.

A *mask* is what one label covers in one slice. The linker takes slice after slice, keeps the
pixels of the last few only, and notes how masks overlap. Then, with numbers alone, it

1. picks over the whole volume the best set of links in which no mask has two successors or two
   predecessors (linear assignment, as in particle tracking: Jaqaman et al. 2008);
2. cuts the tracks of masks at constrictions, where two granules meet;
3. joins across weak links only what is no granule by itself.

What may be *whole* is told by shape: a granule is about as high as it is wide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.instances.assignment import find_links
from isgseg.instances.components import (
    COMPONENT,
    Components,
    Floats,
    Ints,
    Labels,
    Table,
    connect_components,
    count_pairs,
    find_components,
    grow,
    join_masks,
    measure_components,
    merge_pairs,
    sums,
)
from isgseg.instances.numbering import Instances, Linking
from isgseg.instances.settings import LinkSettings
from isgseg.instances.tracks import Tracklets, find_tracks


class SliceLinker:
    """Links label slices as they come: ``add`` each in order, then ``finish``.

    Args:
        settings: what counts as one granule; default: ``LinkSettings()``.
        voxel_size: (z, y, x), nm; None: cubes of side 1, and lengths count voxels.
        threshold: instances none of whose masks reaches this score are dropped.

    Raises:
        ValueError: ``voxel_size`` is not three positive numbers.

    Example:
        >>> column = np.array([[[7, 7]], [[2, 2]], [[0, 0]], [[9, 9]]])
        >>> linker = SliceLinker()
        >>> for mask in column:
        ...     linker.add(mask)
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
        # Of each earlier slice: what can still be seen of it from here, past the masks between.
        self._seen: deque[tuple[int, Components]] = deque(maxlen=int(self.settings.max_gap) + 1)
        self._components: list[Table] = []
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
            raise ValueError(f"labels are not negative, slice {len(self._components)} has some")
        if self._seen and self._seen[-1][1].shape != labels.shape:
            raise ValueError(f"a slice of {labels.shape} after slices of {self._seen[-1][1].shape}")
        components = find_components(labels)
        table = measure_components(len(self._components), components, labels, scores)
        grown = grow(components) if self._seen else components
        for steps, (first, seen) in enumerate(reversed(self._seen), start=1):
            pairs = count_pairs(seen, components, grown if steps == 1 else components)
            pairs[:, :2] += [first - 1, self._count - 1]
            self._pairs.append(pairs)
            seen[components > 0] = 0
        self._components.append(table)
        self._seen.append((self._count, components))
        self._count += len(table)

    def finish(self) -> Linking:
        """Decide which masks are one instance.

        Returns:
            Numbers from 1 without holes, in the order of the first slice; every number is one
            26-connected instance.
        """
        components = np.concatenate([np.zeros(0, COMPONENT), *self._components])
        pairs = np.concatenate([np.zeros((0, 4), np.int64), *self._pairs])
        masks, mask = join_masks(components)
        after, neck, weak = find_links(
            masks,
            merge_pairs(pairs, mask),
            voxel_size=self.voxel_size,
            min_overlap=self.settings.min_overlap,
            max_distance=self.settings.max_distance,
        )
        tracklets = Tracklets(
            masks,
            neck,
            len(self._components),
            voxel_size=self.voxel_size,
            constriction=self.settings.constriction,
            max_length_nm=self.settings.max_length_nm,
        )
        track = find_tracks(tracklets, after, weak)
        # A instance hangs together by touching components, and over a missing mask by the fill,
        # which is where both ends overlap.
        a, b = pairs[:, 0], pairs[:, 1]
        gaps = components["z"][b] - components["z"][a] - 1
        linked = after[mask[a]] == mask[b]
        joined = (track[mask[a]] == track[mask[b]]) & ((gaps == 0) | linked)
        instance = connect_components(components, a[joined], b[joined], track[mask])
        bridged = joined & (gaps > 0) & (instance[a] >= 0)
        a, b, gaps = a[bridged], b[bridged], gaps[bridged]
        filled = (components["area"][a] + components["area"][b]) / 2 * gaps
        size = sums(np.r_[instance, instance[a]], np.r_[components["area"], filled])
        diameter = np.cbrt(6 / np.pi * size * np.prod(self.voxel_size))
        found = _describe(instance, components, mask, diameter)
        keep = diameter >= self.settings.min_diameter_nm
        keep &= found.masks >= self.settings.min_slices
        keep &= found.score >= self.settings.min_score
        keep &= found.best >= self.threshold
        number = np.r_[np.cumsum(keep) * keep, 0][instance]  # instance -1 takes the 0 at the end
        bridges = np.column_stack(
            [components[name][i] for i in (a, b) for name in ("z", "component")]
        )
        bridges = bridges[number[a] > 0]
        starts = np.searchsorted(components["z"], np.arange(1, len(self._components)))
        tables = [np.r_[0, part] for part in np.split(number, starts)]
        return Linking(
            found[keep],
            tables[: len(self._components)],
            bridges[np.argsort(bridges[:, 2], kind="stable")],
            int((~keep).sum()),
            int((instance < 0).sum()),
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


def _describe(instance: Ints, components: Table, mask: Ints, diameter: Floats) -> Instances:
    """The table of instances; a mask in several components counts once."""
    rows = np.unique(np.column_stack([instance, mask]), axis=0, return_index=True)[1]
    rows = rows[instance[rows] >= 0]
    of, z, count = instance[rows], components["z"][rows], len(diameter)
    masks = np.bincount(of, minlength=count).astype(np.int64)
    first, last = np.full(count, len(components)), np.zeros(count, np.int64)
    np.minimum.at(first, of, z)
    np.maximum.at(last, of, z)
    scores, best = components["score"][rows], np.zeros(count)
    np.maximum.at(best, of, scores)
    score = np.bincount(of, scores, count) / masks
    return Instances(score, best, masks, first, last, diameter)
