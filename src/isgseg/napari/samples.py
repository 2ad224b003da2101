"""Sample data: a synthetic cell with its ground truth."""

from __future__ import annotations

from isgseg.analysis.granules import granule_table
from isgseg.napari.reading import LayerData, features, in_nm
from isgseg.phantom import make_phantom

SEED, SHAPE = 12, (40, 200, 200)


def phantom_cell() -> list[LayerData]:
    """The middle of a small synthetic cell: the tomogram, its granules and its organelles."""
    cell = make_phantom(SEED, shape=list(SHAPE), blank_probability=0.0, bead_probability=0.0)
    about = in_nm(cell.voxel_size) | {"metadata": {"isgseg": {"voxel_size": cell.voxel_size}}}
    table = granule_table(cell.labels, cell.volume, cell.voxel_size)
    return [
        (cell.volume, about | {"name": "phantom", "colormap": "gray"}, "image"),
        (
            cell.organelles,
            about | {"name": "phantom_organelles", "opacity": 0.3, "visible": False},
            "labels",
        ),
        (cell.labels, about | {"name": "phantom_truth", "features": features(table)}, "labels"),
    ]
