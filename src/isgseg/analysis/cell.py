"""Everything that is measured of granules in their cell."""

from __future__ import annotations

import pandas as pd

from isgseg.analysis.measures import CellNumbers, Measure
from isgseg.analysis.settings import ChanceSettings, RelationSettings
from isgseg.analysis.structures import Structures
from isgseg.io.formats import Array, VoxelSize


def measure_granules(
    labels: Array,
    table: pd.DataFrame,
    structures: Structures,
    voxel_size: VoxelSize | None,
    settings: RelationSettings,
    chance: ChanceSettings,
) -> tuple[pd.DataFrame, CellNumbers]:
    """Further columns for the table of granules, and the numbers of the cell.

    Args:
        labels: (z, y, x), 0 is background.
        table: of `granule_table`.
        structures: of the cell.
        voxel_size: nm, (z, y, x).
        settings: limits and steps.
        chance: placements at random.

    Returns:
        A table indexed by label, and the numbers.
    """
    columns = pd.DataFrame(index=pd.Index(table["label"], name="label"))
    count = Measure(float(len(table)), "", "Granules in the volume.")
    return columns, CellNumbers({"count": count}, {}, structures.warnings)
