"""The granules in their cell in 3D, for a report: numbers for plotly.js, and its script."""

from __future__ import annotations

import base64
import gzip
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from skimage.measure import block_reduce, marching_cubes

from isgseg.analysis.report_words import title, unit_text
from isgseg.analysis.shape import second_moments
from isgseg.analysis.voxels import granule_voxels
from isgseg.io.formats import Array

_ACROSS = {"cell": 48, "nucleus": 48}  # voxels of a smoothed surface; others are finer
_FINE = 96
_MOST_CORNERS = 2**15  # of a surface; with more it is made coarser
_COLUMNS = (  # that granules can be coloured by, with their units
    ("equivalent_diameter_nm", "Diameter", "nm"),
    ("equivalent_diameter_px", "Diameter", "voxels"),
    ("lac_mean", "LAC", "1/um"),
    ("mean_intensity", "Mean grey value", ""),
    ("contrast", "Contrast to the cytoplasm", ""),
    ("position", "Position from nucleus (0) to membrane (1)", ""),
    ("aspect_ratio", "Aspect ratio", ""),
    ("nn_gap", "Gap to the nearest granule", "nm"),
)


def library() -> str | None:
    """The script of plotly.js, compressed by gzip and as base64; None where plotly is missing."""
    if importlib.util.find_spec("plotly") is None:
        return None
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), 9, mtime=0)
    return base64.b64encode(packed).decode()


def scene(
    labels: Array,
    table: pd.DataFrame,
    structures: Mapping[str, Array],
    voxel_size: Sequence[float] | None,
) -> dict[str, Any]:
    """What the page draws in 3D.

    A granule is the ellipsoid of its volume and of its second moments, which takes 12 numbers; a
    surface of its voxels would take a thousand.

    Args:
        labels: (z, y, x), 0 is background.
        table: of `granule_table`, with any further columns.
        structures: masks (z, y, x) by name.
        voxel_size: nm, (z, y, x); None draws in voxels.

    Returns:
        Plain values for JSON. Arrays are base64 of their little-endian bytes: float32, and uint16
        of faces. x, y and z are in um, or in voxels.
    """
    side = np.ones(3) if voxel_size is None else np.array(voxel_size, dtype=float) / 1000
    voxels = granule_voxels(labels)
    if len(voxels.labels):
        centre = np.array([voxels.means(axis) for axis in voxels.places.T]).T * side
        spread, axes = np.linalg.eigh(second_moments(voxels, side))
        volume = voxels.counts * side.prod()
        length = np.sqrt(spread)
        scale = np.cbrt(volume / (4 / 3 * np.pi * length.prod(axis=1)))
        # Columns are half axes: the unit sphere times this matrix is the granule.
        axes *= np.sign(np.linalg.det(axes))[:, None, None]  # none mirrored: inside stays inside
        half = axes * (length * scale[:, None])[:, None, :]
    else:
        centre, half = np.empty((0, 3)), np.empty((0, 3, 3))
    return {
        "unit": "voxels" if voxel_size is None else "µm",
        "labels": voxels.labels.tolist(),
        "centres": _packed(centre[:, ::-1]),
        "axes": _packed(half[:, ::-1, ::-1]),
        "colours": _colours(table.set_index("label").loc[voxels.labels]),
        "structures": [
            {"name": name.replace("_", " "), **surface}
            for name, mask in structures.items()
            if (surface := _surface(mask, side, _ACROSS.get(name, _FINE)))
        ],
    }


def _colours(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns that granules can be coloured by, as names, units and values."""
    gaps = [(name, title(name), "nm") for name in table.columns if str(name).startswith("gap_")]
    found: list[dict[str, Any]] = []
    for column, name, unit in (*_COLUMNS, *gaps):
        values = table[column].to_numpy(float) if column in table else np.array([])
        if np.isfinite(values).any() and name not in [other["name"] for other in found]:
            digits = [None if not np.isfinite(v) else float(f"{v:.4g}") for v in values]
            found.append({"name": name, "unit": unit_text(unit), "values": digits})
    return found


def _surface(mask: Array, side: npt.NDArray[np.float64], across: int) -> dict[str, Any] | None:
    """A smoothed, coarse surface of a mask; None where there is nothing of it.

    Args:
        mask: (z, y, x).
        side: of a voxel, (z, y, x).
        across: voxels of the longest side that is left.
    """
    if not mask.any():
        return None
    physical = np.array(mask.shape) * side
    step = np.maximum(1, np.floor(physical.max() / across / side)).astype(int)
    coarse = block_reduce(mask.astype(np.float32), tuple(step.tolist()), np.mean)
    smooth = ndimage.gaussian_filter(np.pad(coarse, 1), 0.7)
    if not smooth.min() < 0.5 < smooth.max():
        return None
    corners, faces, _, _ = marching_cubes(smooth, 0.5)
    if len(corners) > _MOST_CORNERS:
        return _surface(mask, side, across * 3 // 4)
    # Centres of blocks, one further for the padding; the first voxel's centre is the origin.
    points = ((corners - 1) * step + (step - 1) / 2) * side
    return {"points": _packed(points[:, ::-1]), "faces": _packed(faces, "<u2")}


def _packed(values: npt.NDArray[Any], kind: str = "<f4") -> str:
    return base64.b64encode(np.ascontiguousarray(values, kind).tobytes()).decode()
