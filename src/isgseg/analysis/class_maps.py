"""Class maps: one file in which each number is a structure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isgseg.analysis.cells import counts
from isgseg.analysis.surfaces import Mask
from isgseg.errors import InputError
from isgseg.io.formats import Array
from isgseg.phantom.cell import ORGANELLES
from isgseg.words import one_of

MAP_SUFFIX = "_organelles"  # how the class maps of isgseg's phantoms are called
OUTSIDE = ("outside", "background")  # names of what is in no cell
# Classes of a cell that are no structure of their own: granules can be there, or are these.
CYTOPLASM = ("cell", "cytoplasm", "cytosol")
GRANULES = ("granule", "granules")
MEMBRANE = "membrane"  # of the cell, too; cells that touch are told apart by it
# The phantom's class to the structure; classes that are not here are outside of cells.
PHANTOM = {
    "cytoplasm": "cytoplasm",
    "membrane": MEMBRANE,
    "nucleus": "nucleus",
    "envelope": "nucleus",
    "nucleolus": "nucleus",
    "reticulum": "cytoplasm",  # granules lie among its sheets
    "mitochondrion": "mitochondria",
    "lipid_droplet": "lipid_droplets",
    "vacuole": "vacuoles",
    "speck": "granules",  # as small, and as near to the membrane
    "granule": "granules",
    "body": "bodies",
    "ring": "bodies",
}


@dataclass(frozen=True)
class MapMasks:
    """What a class map holds.

    Attributes:
        masks: by name (z, y, x), `cell` among them where the map names cytoplasm.
        core: (z, y, x) cytoplasm and nuclei, which the membrane keeps apart from those of other
            cells, as granules and organelles in it may not; None where the map names no membrane.
        warnings: each a sentence.
    """

    masks: dict[str, Mask]
    core: Mask | None
    warnings: tuple[str, ...]


def map_names(
    path: str, names: Mapping[int, str] | str | None, numbers: list[int]
) -> dict[int, str]:
    """What each number of a class map stands for.

    Args:
        path: of the map.
        names: of the configuration: by number, `phantom`, or None.
        numbers: that the map holds.

    Raises:
        InputError: nothing says what they stand for.
    """
    if isinstance(names, Mapping):
        return {int(number): str(name) for number, name in names.items()}
    known = {number: PHANTOM.get(name, OUTSIDE[0]) for name, number in ORGANELLES.items()}
    unknown = sorted(set(numbers) - known.keys())
    if unknown or (names is None and MAP_SUFFIX not in path.rsplit("/", 1)[-1]):
        held = f"it holds {', '.join(map(str, numbers[:20]))}"
        raise InputError(
            f"structures.map={path}: nothing says what its numbers stand for ({held}); set "
            "structures.names, such as {1: cytoplasm, 2: nucleus, 3: mitochondria}; "
            f"structures.names=phantom is for the maps {MAP_SUFFIX} of isgseg's phantoms"
        )
    # A cell without vacuoles is no mistake: only what somebody named has to be there.
    return {number: name for number, name in known.items() if number in numbers}


def map_masks(path: str, data: Array, names: Mapping[int, str] | str | None) -> MapMasks:
    """The masks of a class map; several numbers of one name are one structure.

    The cell is all that has a name, but for `outside` and `background`, where one is named `cell`
    or `cytoplasm`.

    Args:
        path: of the map.
        data: (z, y, x), whole numbers.
        names: of the configuration.

    Raises:
        InputError: nothing says what the numbers stand for, or the map holds none that is named.
    """
    held = [int(number) for number in np.flatnonzero(counts(data))]
    named = map_names(path, names, held)
    groups: dict[str, list[int]] = defaultdict(list)
    for number, name in named.items():
        groups[name].append(number)
    if not set(held) & set(named):
        raise InputError(
            f"structures.map={path} holds {one_of(held[:20])}, but structures.names names "
            f"{one_of(sorted(named))}"
        )
    size = max([*held, *named]) + 1
    inside = np.zeros(size, bool)
    masks = {}
    for name, members in groups.items():
        if name in OUTSIDE:
            continue
        inside[members] = True
        if name not in (*CYTOPLASM, *GRANULES, MEMBRANE):
            masks[name] = _table(size, members)[data]
    if set(groups) & set(CYTOPLASM):
        masks["cell"] = inside[data]
    core = None
    if MEMBRANE in groups:
        members = [number for name in (*CYTOPLASM, "nucleus") for number in groups.get(name, ())]
        core = _table(size, members)[data]
    nameless = [number for number in held if number not in named and number != 0]
    warnings = []
    if nameless:
        warnings.append(
            f"The class map holds numbers without a name, taken as outside of the cell: "
            f"{', '.join(map(str, nameless[:20]))}."
        )
    return MapMasks(masks, core, tuple(warnings))


def _table(size: int, members: list[int]) -> Mask:
    table = np.zeros(size, bool)
    table[members] = True
    return table
