"""TIFF files: stacks of ImageJ, OME-TIFF, and plain pages."""

from __future__ import annotations

import contextlib
import logging
import lzma
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from isgseg.io.formats import (
    DEFLATE_RATIO,
    Array,
    VoxelSize,
    available_memory,
    check_bytes,
    storable,
)
from isgseg.io.on_disk import OnDisk, raw_voxels
from isgseg.io.tiff_metadata import calibrated, told_size

log = logging.getLogger(__name__)

TIFF_INTEGERS = ("uint16", "int16", "uint32", "int32", "uint8", "int8")
IMAGEJ_DTYPES = ("uint8", "uint16", "float32")
IMAGEJ_MAX_BYTES = 2**32 - 2**20  # ImageJ stacks have 32-bit offsets
# Slices; pages of unknown meaning; frames, as which slices are often saved.
_SLICES = frozenset("ZQIT")
_INFLATERS: dict[int, Any] = {
    8: zlib.decompressobj,
    32946: zlib.decompressobj,
    34925: lzma.LZMADecompressor,
}
_MOST_PAGES = 100_000
_MOST_TAGS = 4096  # as tifffile has it
_LZMA_RATIO = 10_000
_CHUNK = 2**20


def open_tiff(path: Path) -> tuple[Array | OnDisk, VoxelSize | None]:
    """A TIFF's only image, with the voxel size of ImageJ or OME metadata.

    It stays on the disk where its slices lie there one after the other, uncompressed. Plain
    resolution tags say nothing about z: no voxel size.
    """
    _check_pages(path)
    with _tifffile_errors() as errors, tifffile.TiffFile(path) as tif:
        held = path.stat().st_size
        size = told_size(tif, path)
        if len(tif.series) > 1:
            data: Array | OnDisk = _single_pages(tif, held)
        else:
            series = tif.series[0]
            _check_axes(series)
            plain = _is_plain(series)
            _check_size(series, held, in_memory=not plain)
            data = _plain_voxels(path, tif, series) if plain else series.asarray()
        imagej = tif.imagej_metadata or {} if tif.is_imagej else {}
        if imagej:
            data = calibrated(data, imagej, path)
    if errors:
        raise ValueError(f"{'; '.join(errors)}; copy or export it again")
    # tifffile drops an axis of one slice; an image has no z size and no distance of slices.
    one_slice = data.ndim == 2 and (size is not None or "spacing" in imagej)
    return (data[None] if one_slice else data), size


def _is_plain(series: tifffile.TiffPageSeries) -> bool:
    """Whether the slices lie in the file one after the other, as they are in memory."""
    return (
        len(series.shape) == 3
        and math.prod(series.shape) > 0
        and series.keyframe.compression == 1
        and series.dataoffset is not None
    )


def _plain_voxels(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> OnDisk:
    kind = series.dtype.newbyteorder(tif.byteorder)
    return raw_voxels(path, series.dataoffset or 0, series.shape, kind)


def write_tiff(path: Path, data: Array, voxel_size: Sequence[float] | None) -> None:
    """Write an ImageJ hyperstack; OME-TIFF if named .ome.tif or if ImageJ cannot hold it."""
    data = storable(data, TIFF_INTEGERS)
    tifffile.imwrite(path, data, **tiff_options(path, data.shape, data.dtype, voxel_size))


def tiff_options(
    path: Path,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    voxel_size: Sequence[float] | None,
) -> dict[str, Any]:
    """What `tifffile.imwrite` is to be told of a volume.

    Args:
        path: of the file; .ome in its name makes an OME-TIFF.
        shape: (z, y, x).
        dtype: of the voxels.
        voxel_size: nm, (z, y, x), or None.
    """
    # um: the one unit that Fiji, Bio-Formats and napari all know.
    um = None if voxel_size is None else [size / 1000 for size in voxel_size]
    metadata: dict[str, Any] = {"axes": "ZYX"}
    held = math.prod(shape) * dtype.itemsize < IMAGEJ_MAX_BYTES
    held &= min(shape[1:]) > 1  # of slices a pixel wide the series cannot be read back
    if dtype.name in IMAGEJ_DTYPES and held and ".ome" not in path.suffixes:
        # Uncompressed: ImageJ reads a stack as one block.
        resolution = None if um is None else (1 / um[2], 1 / um[1])
        metadata |= {} if um is None else {"unit": "um", "spacing": um[0]}
        if shape[0] == 1:  # else it would be an image, where it has no voxel size
            metadata.setdefault("spacing", 1)
        return {"imagej": True, "metadata": metadata, "resolution": resolution}
    for axis, size in zip("ZYX", um or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    grey = "minisblack"  # else tifffile takes rows of three or four voxels for colours
    return {"ome": True, "metadata": metadata, "compression": "zlib", "photometric": grey}


def _check_pages(path: Path) -> None:
    """Refuses a list of pages that goes in a circle, which tifffile would follow for ever."""
    with path.open("rb") as file:
        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        version = file.read(2)
        if not order or version not in (struct.pack(f"{order}H", 42), struct.pack(f"{order}H", 43)):
            return  # tifffile says what is wrong
        large = version == struct.pack(f"{order}H", 43)
        count, tag, offset = (
            (f"{order}Q", 20, f"{order}Q") if large else (f"{order}H", 12, f"{order}I")
        )
        seen = set[int]()
        file.seek(8 if large else 4)
        while True:
            word = file.read(struct.calcsize(offset))
            if (
                len(word) < struct.calcsize(offset)
                or (place := struct.unpack(offset, word)[0]) == 0
            ):
                return
            if place in seen or len(seen) == _MOST_PAGES:
                raise ValueError(
                    f"its list of pages goes in a circle or has more than {_MOST_PAGES}: it is "
                    "damaged; export it again"
                )
            seen.add(place)
            file.seek(place)
            word = file.read(struct.calcsize(count))
            if len(word) < struct.calcsize(count):
                return
            file.seek(min(struct.unpack(count, word)[0], _MOST_TAGS) * tag, 1)


def _single_pages(tif: tifffile.TiffFile, held: int) -> Array:
    """Slices that were written one by one, each as an image of its own."""
    first, shapes = tif.series[0], [series.shape for series in tif.series]
    alike = all(
        (series.shape, series.dtype, series.axes) == (first.shape, first.dtype, "YX")
        for series in tif.series
    )
    if not alike or len(shapes) > _MOST_PAGES:
        some = f"{shapes[:4]}{' ...' if len(shapes) > 4 else ''}"
        raise ValueError(f"{len(shapes)} images of shapes {some}; save one volume a file")
    check_bytes(len(shapes) * math.prod(first.shape) * first.dtype.itemsize)
    for series in tif.series:
        _check_size(series, held)
    return np.stack([series.asarray() for series in tif.series])


def _check_axes(series: tifffile.TiffPageSeries) -> None:
    axes, shape = series.axes, series.shape
    if "S" in axes:
        raise ValueError(
            f"colour, axes {axes} {shape}; save it as grey values (if they are slices and were "
            "written by tifffile, with photometric='minisblack')"
        )
    if not axes.endswith("YX"):
        raise ValueError(f"axes {axes} {shape}; they must end in YX")
    if len(axes) == 3 and axes[0] not in _SLICES:
        kind = "channels" if axes[0] == "C" else f"axis {axes[0]}"
        raise ValueError(
            f"axes {axes} {shape}: {kind}, not slices. Save one channel as a stack; if they are "
            "slices, say so (in Fiji: Image > Properties, Channels 1, Slices "
            f"{shape[0]}) and save it again"
        )


def _check_size(series: tifffile.TiffPageSeries, held: int, *, in_memory: bool = True) -> None:
    """Bounds what reading takes: the array, and what its compressed parts expand to."""
    page = series.keyframe
    declared = math.prod(series.shape) * series.dtype.itemsize
    check_bytes(declared, held if page.compression == 1 else None, in_memory=in_memory)
    inflater = _INFLATERS.get(int(page.compression))
    if inflater is None:
        return
    ratio = _LZMA_RATIO if inflater is lzma.LZMADecompressor else DEFLATE_RATIO
    # Expanding everything twice would be slow: only parts that could become too much are looked at.
    limit = (available_memory() or 2**33) // 8
    part = math.prod(page.chunks) * series.dtype.itemsize
    for frame in series.pages:
        if frame is None:
            continue
        for offset, count in zip(frame.dataoffsets, frame.databytecounts, strict=False):
            if count * ratio > limit:
                _check_part(page.parent.filehandle, offset, count, inflater(), part)


def _check_part(file: Any, offset: int, count: int, inflater: Any, declared: int) -> None:
    file.seek(offset)
    data, found = file.read(count), 0
    while data or not getattr(inflater, "needs_input", True):
        found += len(inflater.decompress(data, _CHUNK))
        if found > declared + _CHUNK:
            raise ValueError(
                f"a compressed part of it expands to more than the {declared} bytes that it "
                "declares: it is damaged or malicious; export it again"
            )
        if inflater.eof:
            return
        data = getattr(inflater, "unconsumed_tail", b"")


@contextlib.contextmanager
def _tifffile_errors() -> Iterator[list[str]]:
    """Collects what tifffile only logs: that pages are missing, when it goes on with the rest."""
    messages: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        missing = "missing" in record.getMessage()  # only a warning: it goes on with zeros
        if (missing or record.levelno >= logging.ERROR) and "TiffTag" not in record.getMessage():
            messages.append(record.getMessage())
        return record.levelno < logging.ERROR and not missing

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield messages
    finally:
        logger.removeFilter(collect)
