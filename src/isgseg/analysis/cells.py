"""Which cells are in view, and which of them to analyse."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.analysis.surfaces import Mask
from isgseg.errors import InputError
from isgseg.io.formats import Array
from isgseg.words import one_of

Cells = npt.NDArray[np.uint8]
LEAST = 0.01  # share of the largest part that makes a part a cell
MOST = 254  # cells in view
STEP = 8  # voxels between those that are looked at for the cell in the middle
_FACES = np.array([s * np.eye(3, dtype=int)[a] for a in range(3) for s in (-1, 1)])


def number_cells(given: Array, core: Mask | None = None) -> Cells:
    """(z, y, x) a number for each cell, 0 outside: the given ones, or one for each connected part.

    Parts of less than 1 % of the largest are dropped. Cells that touch are one part, unless their
    cores are given.

    Args:
        given: (z, y, x), 0 is outside of cells.
        core: (z, y, x), part of the cells; what else is in them goes to the core it touches. None:
            not known.
    """
    used = np.flatnonzero(counts(given)[1:]) + 1
    if len(used) > 1:
        if used[-1] > MOST:
            raise InputError(
                f"structures.cell holds numbers up to {used[-1]}; each is a cell, and {MOST} can "
                "be told apart. Is this the file of the granules?"
            )
        return given.astype(np.uint8)
    inside = given > 0
    parts, _ = ndi.label(inside if core is None else inside & core)
    sizes = counts(parts)
    sizes[0] = 0
    if not sizes.any():
        return np.zeros(given.shape, np.uint8)
    kept = np.flatnonzero(sizes >= LEAST * sizes.max())
    kept = kept[np.argsort(-sizes[kept], kind="stable")][:MOST]
    table = np.zeros(len(sizes), np.uint8)
    table[kept] = np.arange(1, len(kept) + 1)
    cells: Cells = table[parts]
    if core is not None:
        _grow(cells, inside)
    return cells


def filled(mask: Mask) -> Mask:
    """A mask (z, y, x) with what it encloses: what is outside reaches the volume's edge."""
    if not mask.any():
        return mask
    box = box_of(mask)
    gaps, count = ndi.label(~mask[box])
    enclosed = np.ones(count + 1, bool)  # the mask itself, 0, too
    for face in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1], gaps[:, :, 0], gaps[:, :, -1]):
        enclosed[face[face > 0]] = False
    if not enclosed[1:].any():
        return mask
    result = mask.copy()
    result[box] = enclosed[gaps]
    return result


def box_of(mask: Mask) -> tuple[slice, ...]:
    """The box of a mask (z, y, x) that is not empty, wider by a voxel where the volume is."""
    planes = mask.any(axis=(1, 2)), mask.any(axis=(0, 2)), mask.any(axis=(0, 1))
    ends = [np.flatnonzero(plane)[[0, -1]] for plane in planes]
    return tuple(slice(max(int(first) - 1, 0), int(last) + 2) for first, last in ends)


def choose(cells: Cells, wanted: int | None) -> int:
    """The number of a cell: the wanted one, or the one in the middle of the volume.

    Args:
        cells: (z, y, x), of `number_cells`, with one cell at least.
        wanted: None: the cell at the volume's middle, or the nearest to it.

    Raises:
        InputError: there is no such cell.
    """
    numbers = np.flatnonzero(counts(cells)[1:]) + 1
    if wanted is not None:
        if wanted not in numbers:
            raise InputError(f"cell={wanted}: choose {one_of(numbers.tolist())}")
        return wanted
    coarse = cells[::STEP, ::STEP, ::STEP] if min(cells.shape) > 4 * STEP else cells
    step = STEP if coarse is not cells else 1
    places = np.argwhere(coarse) * step
    if not len(places):
        return int(numbers[0])
    away = ((places - np.array(cells.shape) / 2) ** 2).sum(axis=1)
    return int(coarse[tuple(places[away.argmin()] // step)])


def counts(image: Array) -> npt.NDArray[np.int64]:
    """(highest + 1,) how often each whole number is there; (z, y, x), not negative."""
    found = np.zeros(int(image.max(initial=0)) + 1, np.int64)
    for plane in image.astype(np.uint8) if image.dtype == bool else image:
        found += np.bincount(plane.ravel(), minlength=len(found))  # of a volume: 64-bit copies
    return found


def _grow(cells: Cells, inside: Mask) -> None:
    """Gives what is inside and has no number the number of a neighbour, in place."""
    left = np.argwhere(inside & (cells == 0)).astype(np.int32)
    highest = np.array(cells.shape, np.int32) - 1
    while len(left):
        found = np.zeros(len(left), np.uint8)
        for step in _FACES:
            z, y, x = np.clip(left + step.astype(np.int32), 0, highest).T
            np.maximum(found, cells[z, y, x], out=found)
        if not found.any():
            return  # parts that are too small to be cells
        cells[tuple(left[found > 0].T)] = found[found > 0]
        left = left[found == 0]
