"""OME-Zarr 0.4 and 0.5, read by `zarr`: multiscale images and labels, and plain Zarr arrays.

https://ngff.openmicroscopy.org/0.5 and /0.4 fix the metadata. Of several resolutions the first,
which is the finest, is read. The folder's own JSON is looked at before `zarr` opens anything, so
that no codec of a stranger's file runs that could do more than unpack numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.errors import InputError
from isgseg.io.formats import Array, VoxelSize, check_bytes, in_nm
from isgseg.io.ome_zarr_metadata import (
    axes_of,
    is_array,
    label_names,
    multiscale_of,
    of_level,
    ome_attributes,
    read_json,
    scale_of,
)
from isgseg.io.on_disk import OnDisk
from isgseg.io.places import is_zarr

# nm of the units of lengths that the specification lists (those of UDUNITS-2).
NM_PER_UNIT = {
    "angstrom": 0.1,
    "picometer": 1e-3,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
}
# All that unpack numbers; `pickle` and its like run what a file says.
_CODECS = {
    *("blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta", "packbits"),
    *("fixedscaleoffset", "quantize", "bitround", "astype", "crc32", "crc32c", "adler32"),
    *("fletcher32", "bytes", "endian", "transpose", "sharding_indexed"),
}


def open_zarr(path: Path) -> tuple[Array | OnDisk, VoxelSize | None]:
    """The finest resolution of an OME-Zarr image or of labels, or a Zarr array.

    It stays on the disk, and is read by whole chunks; if its axes are in another order than z, y,
    x, all of it is read.

    Args:
        path: the folder of a group or of an array.

    Raises:
        ValueError: the folder is no such thing, or not of three axes; the message says so.
        InputError: `zarr` is not installed.
    """
    if not is_zarr(path):
        raise ValueError("the folder holds no zarr.json, .zgroup or .zarray; name one that does")
    if is_array(path):
        axes, scale = of_level(path)
        return _opened(path, path, axes, scale)
    image = multiscale_of(path)
    if image is None:
        raise ValueError(f"it is a group without multiscales; {_advice(path)}")
    level = image["datasets"][0]
    name = level["path"]
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"its multiscales name {name!r}, which lies outside; export it again")
    if not is_zarr(path / name):
        raise ValueError(f"its multiscales name {name!r}, which is not there; copy it again")
    return _opened(path, path / name, axes_of(image), scale_of(image, level))


def zarr_library() -> Any:
    """The package `zarr`.

    Raises:
        InputError: it is not installed, or too old.
    """
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise InputError(
            'OME-Zarr needs zarr, which is not installed: pip install "isgseg[zarr]"'
        ) from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise InputError(
            f'zarr {zarr.__version__} is too old for OME-Zarr 0.5: pip install "isgseg[zarr]"'
        )
    return zarr


def _advice(path: Path) -> str:
    """Which part of a group to name instead."""
    names = label_names(path.parent) if path.name == "labels" else []
    if path.name == "labels" and not names:
        names = [str(name) for name in ome_attributes(path).get("labels", [])]
    names = names or sorted(p.name for p in path.iterdir() if p.is_dir() and is_zarr(p))
    if not names:
        return "export it as OME-Zarr"
    return f"name a part of it: {', '.join(str(path / name) for name in names[:8])}"


def _opened(
    path: Path, place: Path, axes: Sequence[Any] | None, scale: Sequence[float] | None
) -> tuple[Array | OnDisk, VoxelSize | None]:
    """An array, brought to (z, y, x), and its voxel size."""
    _check_codecs(place)
    array = zarr_library().open_array(store=str(place), mode="r")
    names = [str(axis["name"]).lower() for axis in axes] if axes else list("zyx")
    if len(names) != array.ndim:
        raise ValueError(
            f"shape {array.shape}, and its metadata name the axes {', '.join(names)}; export one "
            "volume of z, y and x"
        )
    spare = {i: array.shape[i] for i, name in enumerate(names) if name not in "zyx"}
    if set("zyx") - set(names) or max(spare.values(), default=1) > 1:
        raise ValueError(
            f"axes {', '.join(names)} of shape {array.shape}; a volume is z, y, x: save one "
            "channel and one time point, or stack the slices"
        )
    order = [names.index(axis) for axis in "zyx"]
    size = None
    if axes and scale:
        units = [NM_PER_UNIT.get(str(axes[i].get("unit", "")).lower(), 0.0) for i in order]
        size = in_nm([scale[i] for i in order], units)
    chunk = (array.shards or array.chunks)[order[0]]
    check_bytes(prod(array.shape) // max(array.shape[order[0]], 1) * chunk * array.dtype.itemsize)
    whole = tuple(0 if i in spare else slice(None) for i in range(array.ndim))
    if order != sorted(order):
        check_bytes(prod(array.shape) * array.dtype.itemsize)
        kept = [i for i in range(array.ndim) if i not in spare]
        return np.asarray(array[whole]).transpose([kept.index(i) for i in order]), size

    def read(start: int, stop: int) -> Array:
        index = list(whole)
        index[order[0]] = slice(start, stop)
        return np.asarray(array[tuple(index)])

    shape = [array.shape[i] for i in order]
    if not prod(shape):
        return np.zeros(shape, array.dtype), size
    return OnDisk(path, shape, array.dtype, read, chunk), size


def _check_codecs(folder: Path) -> None:
    """Refuses codecs that do more than unpack numbers.

    Raises:
        ValueError: the message names the codec.
    """
    node = folder / "zarr.json"
    meta = read_json(node) if node.is_file() else read_json(folder / ".zarray")
    listed = [*(meta.get("codecs") or ()), *(meta.get("filters") or ()), meta.get("compressor")]
    while listed:
        codec = listed.pop()
        if not isinstance(codec, dict):
            continue
        name = str(codec.get("name", codec.get("id", ""))).removeprefix("numcodecs.")
        if name not in _CODECS:
            raise ValueError(
                f"its codec {name!r} is not one that isgseg reads; write it with blosc, zstd, gzip "
                "or without compression"
            )
        inner = codec.get("configuration") or {}
        listed += [*(inner.get("codecs") or ()), *(inner.get("index_codecs") or ())]
