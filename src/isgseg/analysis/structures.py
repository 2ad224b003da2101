"""What is in a cell beside its granules: the cell itself, its nucleus, mitochondria and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError
from isgseg.io.formats import VoxelSize
from isgseg.io.volumes import read_classes

Mask = npt.NDArray[np.bool_]


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
    """The structures that the configuration names.

    Args:
        settings: `structures` of `conf/analyse.yaml`.
        shape: (z, y, x) of the volume.
        voxel_size: nm, (z, y, x), of the volume.
        cell: which of several cells; None: the one in the middle.

    Raises:
        InputError: a file cannot be read, or does not belong to the volume.
    """
    masks = {}
    for name, path in settings.items():
        if path is not None and name not in ("map", "names"):
            volume = read_classes(path)
            if volume.data.shape != shape:
                raise InputError(f"structures.{name}={path} is {volume.data.shape}, not {shape}")
            masks[name] = volume.data > 0
    cells = masks["cell"].astype(np.uint8) if "cell" in masks else None
    return Structures(masks, cells, None if cells is None else 1)
