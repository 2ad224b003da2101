"""The voxel size that a TIFF's metadata of ImageJ or OME give."""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from isgseg.io.formats import VoxelSize, in_nm

log = logging.getLogger(__name__)

NM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer"), 1e3),
    **dict.fromkeys(("å", "angstrom"), 0.1),
    "mm": 1e6,
}


def told_size(tif: tifffile.TiffFile, path: Path) -> VoxelSize | None:
    """The voxel size that the metadata give; None where they give none, or nonsense."""
    try:
        return _ome_size(tif) if tif.is_ome else _imagej_size(tif) if tif.is_imagej else None
    except (ValueError, TypeError, OverflowError, ElementTree.ParseError) as error:
        log.warning("%s: its metadata have no voxel size that can be read (%s)", path, error)
        return None


def _ome_size(tif: tifffile.TiffFile) -> VoxelSize | None:
    pixels = ElementTree.fromstring(tif.ome_metadata or "").find(".//{*}Pixels")
    if pixels is None:
        return None
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm").lower() for axis in "ZYX"]
    sizes = [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"]
    return in_nm(sizes, [NM_PER_UNIT.get(unit, 0) for unit in units])


def _imagej_size(tif: tifffile.TiffFile) -> VoxelSize | None:
    metadata, tags = tif.imagej_metadata or {}, tif.pages.first.tags
    nm = NM_PER_UNIT.get(str(metadata.get("unit", "")).lower(), 0)
    # ImageJ leaves out a spacing of 1; a negative one means that z runs downwards.
    z = abs(metadata.get("spacing", 1 if metadata.get("images", 1) > 1 else 0))
    y, x = (_length(tags.valueof(f"{axis}Resolution")) for axis in "YX")
    return in_nm([z, y, x], [nm] * 3)


def _length(resolution: tuple[int, int] | None) -> float:
    """Units per pixel from a TIFF rational of pixels per unit; 0 where it is missing."""
    return resolution[1] / resolution[0] if resolution and resolution[0] else 0.0
