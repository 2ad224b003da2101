"""What is counted of a cell: granules, volumes, densities, contacts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isgseg.analysis.measures import Measure
from isgseg.analysis.structures import Structures
from isgseg.io.formats import VoxelSize


def totals(
    table: pd.DataFrame,
    columns: pd.DataFrame,
    structures: Structures,
    voxel_size: VoxelSize | None,
) -> dict[str, Measure]:
    """Numbers of a cell that have no chance level; NaN where not known.

    Args:
        table: of `granule_table`, of the granules of the cell.
        columns: of `granule_columns`, of the same.
        structures: of the cell.
        voxel_size: nm, (z, y, x).
    """
    count = len(table)
    um3 = np.nan if voxel_size is None else float(np.prod(voxel_size)) / 1e9
    cytoplasm, accessible = structures.cytoplasm, structures.accessible
    volumes = {
        "cell": structures.masks.get("cell"),
        "nucleus": structures.masks.get("nucleus"),
        "cytoplasm": cytoplasm,
        "accessible": accessible,
    }
    voxels = {
        name: np.nan if mask is None else float(np.count_nonzero(mask))
        for name, mask in volumes.items()
    }
    granules = float(table["voxels"].sum())
    found = {
        "count": Measure(count, "", "Granules in the cell; without its mask, in the volume."),
        "cell_volume": Measure(voxels["cell"] * um3, "um3", "Volume of the cell in view."),
        "nucleus_volume": Measure(voxels["nucleus"] * um3, "um3", "Volume of the nucleus in view."),
        "cytoplasm_volume": Measure(
            voxels["cytoplasm"] * um3, "um3", "Volume of the cell without its nucleus."
        ),
        "accessible_volume": Measure(
            voxels["accessible"] * um3, "um3", "Cytoplasm without all structures that have a mask."
        ),
        "number_density": Measure(
            _over(count, voxels["cytoplasm"] * um3), "1/um3", "Granules over cytoplasm."
        ),
        "number_density_cell": Measure(
            _over(count, voxels["cell"] * um3), "1/um3", "Granules over the whole cell."
        ),
        "volume_density": Measure(
            _over(granules, voxels["cytoplasm"]), "", "Volume of granules over cytoplasm."
        ),
        "volume_density_cell": Measure(
            _over(granules, voxels["cell"]), "", "Volume of granules over the whole cell."
        ),
        "mean_volume": Measure(_mean(table["volume_um3"]), "um3", "Mean volume of granules."),
        "mean_diameter": Measure(
            _mean(table["equivalent_diameter_nm"]), "nm", "Mean diameter of balls of equal volume."
        ),
        "median_diameter": Measure(
            float(table["equivalent_diameter_nm"].median()), "nm", "Median of the same."
        ),
        "mean_intensity": Measure(
            _mean(table["mean_intensity"]), "", "Mean of the granules' mean values in the file."
        ),
        "touching_share": Measure(
            _mean(columns["touching"] > 0), "", "Share of granules that touch another one."
        ),
    }
    for column in columns.columns[columns.columns.str.startswith("contact_")]:
        name = column.removeprefix("contact_")
        found[f"contacts_{name}"] = Measure(
            float(columns[column].sum(min_count=1)), "", f"Granules whose voxels touch {name}."
        )
        found[f"contact_share_{name}"] = Measure(
            _mean(columns[column]), "", f"Share of granules whose voxels touch {name}."
        )
    return found


def warnings_of(
    table: pd.DataFrame,
    columns: pd.DataFrame,
    structures: Structures,
    voxel_size: VoxelSize | None,
) -> list[str]:
    """What a reader of the numbers must know, each a sentence.

    Args:
        table: of `granule_table`.
        columns: of `granule_columns`.
        structures: of the cell.
        voxel_size: nm, (z, y, x).
    """
    found = []
    if voxel_size is None:
        found.append(
            "No voxel size: lengths, densities and chance levels are not known; set voxel_size."
        )
    if structures.number is None:
        found.append(
            "No mask of the cell: its membrane, densities, positions and chance levels are not "
            "known; set structures.cell, or structures.map."
        )
    elif "nucleus" not in structures.masks:
        found.append(
            "No mask of the nucleus: positions between nucleus and membrane are not known, and the "
            "nucleus counts as cytoplasm; set structures.nucleus."
        )
    if not len(table):
        return [*found, "There is no granule."]
    if structures.number is not None:
        own = columns["cell"] == structures.number
        nowhere, elsewhere = int((columns["cell"] == 0).sum()), int((~own).sum())
        if nowhere:
            found.append(
                f"{nowhere} of {len(table)} granules have their centre outside of every cell: they "
                "are in the table, but in no number of the cell."
            )
        if elsewhere > nowhere:
            found.append(
                f"{elsewhere - nowhere} of {len(table)} granules lie in other cells: they are in "
                f"the table, but in no number of cell {structures.number}."
            )
        table = table[own.to_numpy()]
    if cut := int(table["touches_border"].sum()):
        found.append(f"{cut} granules touch the volume's edge; their volumes are too small.")
    return found


def _over(value: float, whole: float) -> float:
    return value / whole if whole > 0 else float("nan")


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")
