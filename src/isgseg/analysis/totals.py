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
    found = {
        "count": (len(table), "", "Granules in the cell; without its mask, in the volume."),
        **_densities(table, structures, voxel_size),
        "mean_volume": (table["volume_um3"].mean(), "um3", "Mean volume of granules."),
        "mean_diameter": (
            table["equivalent_diameter_nm"].mean(),
            "nm",
            "Mean diameter of balls of equal volume.",
        ),
        "median_diameter": (
            table["equivalent_diameter_nm"].median(),
            "nm",
            "Median diameter of balls of equal volume.",
        ),
        "mean_intensity": (
            table["mean_intensity"].mean(),
            "",
            "Mean of the granules' mean values in the file.",
        ),
        "touching_share": (
            (columns["touching"] > 0).mean(),
            "",
            "Share of granules that touch another one.",
        ),
    }
    for column in columns.columns[columns.columns.str.startswith("contact_")]:
        name = column.removeprefix("contact_")
        counted = columns[column].sum(min_count=1)
        found[f"contacts_{name}"] = counted, "", f"Granules whose voxels touch {name}."
        found[f"contact_share_{name}"] = (
            columns[column].mean(),
            "",
            f"Share of granules whose voxels touch {name}.",
        )
    return {
        name: Measure(float(value), unit, about) for name, (value, unit, about) in found.items()
    }


def _densities(
    table: pd.DataFrame, structures: Structures, voxel_size: VoxelSize | None
) -> dict[str, tuple[float, str, str]]:
    """Volumes of the cell and its parts, and how dense granules are in them."""
    um3 = np.nan if voxel_size is None else float(np.prod(voxel_size)) / 1e9
    parts = {
        "cell": (structures.masks.get("cell"), "Volume of the cell in view."),
        "nucleus": (structures.masks.get("nucleus"), "Volume of the nucleus in view."),
        "cytoplasm": (structures.cytoplasm, "Volume of the cell without its nucleus."),
        "accessible": (
            structures.accessible,
            "Volume of the cytoplasm without all structures that have a mask.",
        ),
    }
    voxels = {
        name: np.nan if mask is None else float(np.count_nonzero(mask))
        for name, (mask, _) in parts.items()
    }
    found = {
        f"{name}_volume": (voxels[name] * um3, "um3", about) for name, (_, about) in parts.items()
    }
    granules = float(table["voxels"].sum())
    for name, ending in {"cytoplasm": "", "cell": "_cell"}.items():
        found[f"number_density{ending}"] = (
            _over(len(table), voxels[name] * um3),
            "1/um3",
            f"Granules per volume of the {name}.",
        )
        found[f"volume_density{ending}"] = (
            _over(granules, voxels[name]),
            "",
            f"Volume of granules over that of the {name}.",
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
        found.append(
            f"{cut} of {len(table)} granules touch the volume's edge; their volumes are too small."
        )
    return found


def _over(value: float, whole: float) -> float:
    return value / whole if whole > 0 else float("nan")
