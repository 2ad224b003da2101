"""What is in a cell beside its granules: the cell itself, its nucleus, mitochondria and others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.analysis.cells import choose, counts, filled, number_cells
from isgseg.analysis.class_maps import MEMBRANE, map_masks
from isgseg.errors import InputError
from isgseg.io.formats import Array, VoxelSize
from isgseg.io.volumes import read_labels

Mask = npt.NDArray[np.bool_]
SPILT = 0.01  # share of a structure that may lie outside of cells without a word


@dataclass(frozen=True)
class Structures:
    """Masks of one cell.

    Attributes:
        masks: by name (z, y, x); `cell` and `nucleus` have no holes, the others are as given, less
            what lies in other cells.
        cells: (z, y, x) in which cell of those in view each voxel lies, 0: in none; None where no
            mask says.
        number: of the cell that the masks are of; None where no mask says.
        warnings: what a reader of the numbers must know, each a sentence.
    """

    masks: dict[str, Mask] = field(default_factory=dict)
    cells: npt.NDArray[np.uint8] | None = None
    number: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def cytoplasm(self) -> Mask | None:
        """(z, y, x) the cell without its nucleus; None without a cell."""
        if "cell" not in self.masks:
            return None
        nucleus = self.masks.get("nucleus")
        return self.masks["cell"].copy() if nucleus is None else self.masks["cell"] & ~nucleus

    @property
    def accessible(self) -> Mask | None:
        """(z, y, x) where granules can be: the cytoplasm without all that has a mask."""
        free = self.cytoplasm
        if free is not None:
            for name, mask in self.masks.items():
                if name not in ("cell", "nucleus"):
                    free &= ~mask
        return free


def read_structures(
    settings: Mapping[str, Any],
    shape: tuple[int, ...],
    voxel_size: VoxelSize | None,
    cell: int | None = None,
) -> Structures:
    """The structures that the configuration names, of one cell.

    Args:
        settings: `structures` of `conf/analyse.yaml`.
        shape: (z, y, x) of the volume.
        voxel_size: nm, (z, y, x), of the volume.
        cell: which of several cells; None: the one in the middle.

    Raises:
        InputError: a file cannot be read or does not belong to the volume, nothing says what the
            numbers of a map stand for, or there is no such cell.
    """
    files = {name: str(path) for name, path in settings.items() if path and name != "names"}
    if MEMBRANE in files:
        raise InputError(
            f"structures.{MEMBRANE}: the membrane is where the cell ends; give the whole cell as "
            "structures.cell"
        )
    masks: dict[str, Mask] = {}
    core, cells = None, None
    found: list[str] = []
    if "map" in files:
        path = files.pop("map")
        classes = map_masks(path, _read("map", path, shape, voxel_size, found), settings["names"])
        masks, core, found = classes.masks, classes.core, [*found, *classes.warnings]
    for name, path in files.items():
        data = _read(name, path, shape, voxel_size, found)
        masks[name] = data > 0
        if name == "cell":
            cells, core = data, None
    for name, mask in masks.items():
        if not mask.any():
            found.append(f"{name} has no voxel; what concerns it is not known.")
    return of_one_cell(masks, cells, core, cell, found)


def of_one_cell(
    masks: dict[str, Mask],
    cells: Array | None = None,
    core: Mask | None = None,
    cell: int | None = None,
    warnings: Iterable[str] = (),
) -> Structures:
    """Masks of all that is in view, cut to one cell.

    Args:
        masks: by name, (z, y, x).
        cells: (z, y, x), the file of the cell with its numbers; None: its mask says.
        core: (z, y, x), of `number_cells`; None: not known.
        cell: its number; None: the one in the middle.
        warnings: what is known already.

    Raises:
        InputError: there is no such cell.
    """
    masks, found = dict(masks), list(warnings)
    nucleus = masks.get("nucleus")
    if nucleus is not None:
        masks["nucleus"] = nucleus = filled(nucleus)
    found += _overlaps(masks)
    if "cell" not in masks or not masks["cell"].any():
        masks.pop("cell", None)
        if cell is not None:
            raise InputError(f"cell={cell}: no mask of cells is given; set structures.cell")
        return Structures(masks, None, None, tuple(found))
    # A mask of the cytoplasm has a hole for the nucleus, which may be open at the volume's edge.
    given = masks["cell"] if cells is None else cells
    if nucleus is not None and int(given.max()) <= 1:
        given = given.astype(bool) | nucleus
    numbers = number_cells(given, core)
    number = choose(numbers, cell)
    whole = filled(numbers == number)
    numbers[whole & (numbers == 0)] = number
    count = np.count_nonzero(counts(numbers)[1:])
    if count > 1:
        found.append(
            f"{count} cells are in view; the numbers are those of cell {number}"
            + (", the one in the middle; cell=N takes another." if cell is None else ".")
        )
    for name, mask in masks.items():
        outside = np.count_nonzero(mask & (numbers == 0)) if name != "cell" else 0
        if outside > SPILT * np.count_nonzero(mask):
            share = outside / np.count_nonzero(mask)
            found.append(f"{share:.0%} of {name} lies outside of every cell, and is left out.")
        masks[name] = mask & whole
    masks["cell"] = whole
    return Structures(masks, numbers, number, tuple(found))


def _overlaps(masks: Mapping[str, Mask]) -> list[str]:
    """Sentences about structures that overlap."""
    found = []
    for (first, one), (second, other) in combinations(masks.items(), 2):
        if "cell" in (first, second):
            continue
        shared = np.count_nonzero(one & other)
        if shared:
            least = min(np.count_nonzero(one), np.count_nonzero(other))
            found.append(
                f"{first} and {second} overlap in {shared} voxels ({shared / least:.1%} of the "
                "smaller one); each is measured as it is."
            )
    return found


def _read(
    name: str,
    path: str,
    shape: tuple[int, ...],
    voxel_size: VoxelSize | None,
    warnings: list[str],
) -> Array:
    """(z, y, x) the whole numbers of a file; what is odd about it is added to the warnings.

    Raises:
        InputError: it cannot be read, or has another shape.
    """
    try:
        volume = read_labels(path, check=False)
    except InputError as error:
        raise InputError(f"structures.{name}={error}") from error
    if volume.data.shape != shape:
        raise InputError(
            f"structures.{name}={path} is {volume.data.shape} (z, y, x), but the volume is "
            f"{shape}; a structure is a file of the volume's shape"
        )
    size = volume.voxel_size
    if (
        size
        and voxel_size
        and any(abs(a - b) > 0.01 * b for a, b in zip(size, voxel_size, strict=True))
    ):
        warnings.append(
            f"structures.{name} says voxels of {size} nm, the volume {voxel_size} nm, which "
            "is used."
        )
    return volume.data
