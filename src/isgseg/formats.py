"""How MRC, TIFF and NPY files hold a volume and its voxel size; `volume` is the door to it.

The readers return the file's array as it is and its voxel size in nm, `(z, y, x)`, or None. They
raise ValueError, or whatever their library raises, on a file that they cannot read.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mrcfile
import numpy as np
import numpy.typing as npt
import tifffile

Array = npt.NDArray[Any]
VoxelSize = tuple[float, float, float]

log = logging.getLogger(__name__)

MRC_INTEGERS = ("uint16", "int16", "int8")
TIFF_INTEGERS = ("uint16", "int16", "uint32", "int32", "uint8", "int8")
IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
IMAGEJ_MAX_BYTES = 2**32 - 2**20  # ImageJ stacks have 32-bit offsets
NM_PER_UNIT = {
    **dict.fromkeys(("nm", "nanometer"), 1.0),
    **dict.fromkeys(("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer"), 1e3),
    **dict.fromkeys(("å", "angstrom"), 0.1),
    "mm": 1e6,
}


def is_voxel_size(size: Sequence[float]) -> bool:
    """Whether `size` is three positive numbers."""
    return len(size) == 3 and all(isinstance(s, Real) and 0 < s < np.inf for s in size)


def storable(data: Array, integers: Sequence[str]) -> Array:
    """`data` as float32, or as the first dtype of `integers` that holds every value.

    Raises:
        ValueError: No dtype of `integers` does.
    """
    if data.dtype.kind == "f":
        return data.astype(np.float32, copy=False)
    if data.dtype.kind not in "biu":
        raise ValueError(f"cannot hold {data.dtype} voxels; give integers or floats")
    if data.dtype.name in integers:
        return data
    low, high = int(data.min()), int(data.max())
    for name in integers:
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return data.astype(name)
    other = ".tif or .npy" if "uint32" not in integers else ".npy"
    raise ValueError(f"cannot hold whole numbers from {low} to {high}; write {other} instead")


def read_npy(path: Path) -> tuple[Array, None]:
    """An NPY file's array; NPY files have no voxel size."""
    return np.load(path, allow_pickle=False), None


def read_mrc(path: Path) -> tuple[Array, VoxelSize | None]:
    """An MRC file's array, brought to (z, y, x) from whatever axis order the header names."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with _open_mrc(path) as mrc:
            data, header, size = mrc.data, mrc.header, mrc.voxel_size
    problems = "; ".join(str(warning.message) for warning in caught)
    if data is None:
        raise ValueError(problems)
    if problems:
        log.warning("%s: %s", path, problems)
    data.flags.writeable = True  # a fresh array that no file is behind
    stored = [int(header.maps), int(header.mapr), int(header.mapc)]
    if data.ndim == 3 and any(stored):
        if sorted(stored) != [1, 2, 3]:
            raise ValueError(f"maps, mapr, mapc are {stored}; they must be 1, 2 and 3 in any order")
        data = data.transpose([stored.index(axis) for axis in (3, 2, 1)])
    angstrom = [float(size[axis]) for axis in "zyx"]
    if angstrom == [1, 1, 1]:
        log.warning("%s: voxel size 1 angstrom, which programs write if they do not know it", path)
    return data, _nm(angstrom, [0.1] * 3)


def write_mrc(path: Path, data: Array, voxel_size: Sequence[float] | None) -> None:
    """Write an MRC2014 volume, gzipped if the path ends in .gz."""
    compression = "gzip" if path.suffix.lower() == ".gz" else None
    data = storable(data, MRC_INTEGERS)
    with mrcfile.new(path, compression=compression, overwrite=True) as mrc:
        mrc.set_data(data)
        if voxel_size is not None:
            z, y, x = voxel_size
            mrc.voxel_size = (x * 10, y * 10, z * 10)


def read_tiff(path: Path) -> tuple[Array, VoxelSize | None]:
    """A TIFF's only image, with the voxel size of ImageJ or OME metadata.

    Plain resolution tags say nothing about z: no voxel size.
    """
    with _tifffile_errors() as errors, tifffile.TiffFile(path) as tif:
        if len(tif.series) != 1:
            shapes = [series.shape for series in tif.series]
            raise ValueError(f"{len(shapes)} images of shapes {shapes}; save one volume a file")
        series = tif.series[0]
        if "S" in series.axes:
            raise ValueError(f"colour, axes {series.axes} {series.shape}; save it as grey values")
        if not series.axes.endswith("YX"):
            raise ValueError(f"axes {series.axes} {series.shape}; they must end in YX")
        size = _ome_size(tif) if tif.is_ome else _imagej_size(tif) if tif.is_imagej else None
        data = series.asarray()
    if errors:
        raise ValueError("; ".join(errors))
    # tifffile drops an axis of one slice; a picture has no z size.
    return (data[None] if data.ndim == 2 and size else data), size


def write_tiff(path: Path, data: Array, voxel_size: Sequence[float] | None) -> None:
    """Write an ImageJ hyperstack; OME-TIFF if named .ome.tif or if ImageJ cannot hold it."""
    # um: the one unit that Fiji, Bio-Formats and napari all know.
    um = None if voxel_size is None else [size / 1000 for size in voxel_size]
    data = storable(data, TIFF_INTEGERS)
    metadata: dict[str, Any] = {"axes": "ZYX"}
    imagej = data.dtype.name in IMAGEJ_DTYPES and data.nbytes < IMAGEJ_MAX_BYTES
    if imagej and ".ome" not in path.suffixes:
        # Uncompressed: ImageJ reads a stack as one block.
        resolution = None if um is None else (1 / um[2], 1 / um[1])
        metadata |= {} if um is None else {"unit": "um", "spacing": um[0]}
        tifffile.imwrite(path, data, imagej=True, metadata=metadata, resolution=resolution)
        return
    for axis, size in zip("ZYX", um or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, data, ome=True, metadata=metadata, compression="zlib")


def _open_mrc(path: Path) -> Any:
    try:
        return mrcfile.open(path)
    except ValueError as error:
        # Some programs write the machine stamp wrong, and the mode is then read in the wrong byte
        # order; mrcfile recovers from both. All else must fail: permissive reading believes any
        # number in a damaged header, and takes that much memory.
        if "machine stamp" not in str(error) and "mode" not in str(error):
            raise
        return mrcfile.open(path, permissive=True)


def _nm(size: Sequence[float], nm_per_unit: Sequence[float]) -> VoxelSize | None:
    z, y, x = (round(s * nm, 9) for s, nm in zip(size, nm_per_unit, strict=True))
    return (z, y, x) if is_voxel_size((z, y, x)) else None


@contextlib.contextmanager
def _tifffile_errors() -> Iterator[list[str]]:
    """Collects what tifffile only logs: that pages are missing, when it goes on with the rest."""
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR and "TiffTag" not in record.getMessage():
            messages.append(record.getMessage())
        return record.levelno < logging.ERROR

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)


def _ome_size(tif: tifffile.TiffFile) -> VoxelSize | None:
    pixels = ElementTree.fromstring(tif.ome_metadata or "").find(".//{*}Pixels")
    if pixels is None:
        return None
    units = [pixels.get(f"PhysicalSize{axis}Unit", "µm").lower() for axis in "ZYX"]
    sizes = [float(pixels.get(f"PhysicalSize{axis}", 0)) for axis in "ZYX"]
    return _nm(sizes, [NM_PER_UNIT.get(unit, 0) for unit in units])


def _imagej_size(tif: tifffile.TiffFile) -> VoxelSize | None:
    metadata, tags = tif.imagej_metadata or {}, tif.pages.first.tags
    nm = NM_PER_UNIT.get(str(metadata.get("unit", "")).lower(), 0)
    # ImageJ leaves out a spacing of 1; a negative one means that z runs downwards.
    z = abs(metadata.get("spacing", 1 if metadata.get("images", 1) > 1 else 0))
    y, x = (_length(tags.valueof(f"{axis}Resolution")) for axis in "YX")
    return _nm([z, y, x], [nm] * 3)


def _length(resolution: tuple[int, int] | None) -> float:
    """Units per pixel from a TIFF rational of pixels per unit; 0 where it is missing."""
    return resolution[1] / resolution[0] if resolution and resolution[0] else 0.0
