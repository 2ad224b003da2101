"""What a TIFF's metadata of ImageJ or OME say: the voxel size, and what values stand for."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from isgseg.io.formats import Array, VoxelSize, in_nm
from isgseg.io.on_disk import OnDisk

log = logging.getLogger(__name__)

_SIGNED = 32768  # ImageJ keeps signed 16-bit values as unsigned ones and this offset
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


def calibrated(data: Array | OnDisk, metadata: dict[str, Any], path: Path) -> Array | OnDisk:
    """ImageJ's values: it keeps signed 16-bit ones as unsigned, with c0 = -32768 to be added."""
    offset, factor = metadata.get("c0"), metadata.get("c1", 1)
    if offset is None:
        return data
    if data.dtype == np.uint16 and offset == -_SIGNED and factor == 1:
        return data.map(_signed, np.int16) if isinstance(data, OnDisk) else _signed(data)
    log.warning(
        "%s: ImageJ's calibration, value = %s + %s * grey value, is not applied",
        path,
        offset,
        factor,
    )
    return data


def _signed(data: Array) -> Array:
    signed: Array = (data ^ np.uint16(_SIGNED)).view(np.int16)
    return signed
