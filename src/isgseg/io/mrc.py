"""MRC files (.mrc, .map, .rec): the header is mrcfile's, the voxels are read within bounds.

The format is that of Cheng et al. 2015, MRC2014, and of IMOD's mrc_format.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from mrcfile import utils
from mrcfile.mrcinterpreter import MrcInterpreter

from isgseg.io.formats import DEFLATE_RATIO, Array, VoxelSize, check_bytes, in_nm, storable
from isgseg.io.on_disk import OnDisk, raw_voxels

log = logging.getLogger(__name__)

MRC_INTEGERS = ("uint16", "int16", "int8")
_HEADER_BYTES = 1024
_SYMBOLS = slice(92, 96)  # nsymbt, the size of the extended header
_IMOD = slice(152, 160)  # IMOD's stamp and flags
_IMOD_STAMP = 1146047817
_CHUNK = 2**24
_BZIP_RATIO = 50_000  # 45 bytes can stand for 900 kB


def open_mrc(path: Path) -> tuple[Array | OnDisk, VoxelSize | None]:
    """An MRC file's array, brought to (z, y, x) from whatever axis order the header names.

    It stays on the disk, unless it is compressed or its axes are in another order.
    """
    size = path.stat().st_size
    with _opened(path) as (stream, ratio):
        head = stream.read(_HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            raise ValueError(
                f"it has {len(head)} bytes, and an MRC header alone has {_HEADER_BYTES}"
            )
        header = _parsed(head, path)
        extended = int(np.frombuffer(head[_SYMBOLS], header.nsymbt.dtype)[0])
        room = size * ratio - _HEADER_BYTES
        if not 0 <= extended <= room:
            raise ValueError(
                f"its header declares an extended header of {extended} bytes, and the file has "
                f"{size}: it is cut short or damaged; copy or export it again"
            )
        stored = [int(header.maps), int(header.mapr), int(header.mapc)]
        plain = ratio == 1 and stored in ([3, 2, 1], [0, 0, 0])
        data = _voxels(stream, path if plain else None, header, extended, room - extended)
    if ratio == 1 and size > _HEADER_BYTES + extended + data.nbytes:
        log.warning("%s: more bytes than its header declares; the rest is not read", path)
    if data.dtype == np.int8 and _are_unsigned(head, header, data, path):
        as_bytes = partial(np.ndarray.view, dtype=np.uint8)
        data = data.map(as_bytes, np.uint8) if isinstance(data, OnDisk) else as_bytes(data)
    if isinstance(data, np.ndarray) and data.ndim == 3 and any(stored):
        if sorted(stored) != [1, 2, 3]:
            raise ValueError(f"maps, mapr, mapc are {stored}; they must be 1, 2 and 3 in any order")
        data = data.transpose([stored.index(axis) for axis in (3, 2, 1)])
    return data, _voxel_size(header, data.shape, path)


def map_mrc(path: Path) -> tuple[Array, VoxelSize | None] | None:
    """As `read_mrc`, but the voxels stay in the file until they are looked at, and cannot change.

    Bytes are read whole, because only their values say whether they are signed.

    Returns:
        None where that cannot be, as of compressed files.

    Raises:
        ValueError: it is no MRC file, or is cut short.
    """
    with _opened(path) as (stream, ratio):
        head = stream.read(_HEADER_BYTES)
        if ratio > 1 or len(head) < _HEADER_BYTES:
            return None
    header = _parsed(head, path)
    dtype = utils.data_dtype_from_header(header)
    extended = int(np.frombuffer(head[_SYMBOLS], header.nsymbt.dtype)[0])
    shape = utils.data_shape_from_header(header)
    stored = [int(header.maps), int(header.mapr), int(header.mapc)]
    if dtype == np.int8 or len(shape) != 3 or sorted(stored) != [1, 2, 3] or extended < 0:
        return None
    data = np.memmap(path, dtype, "r", _HEADER_BYTES + extended, shape)
    data = data.transpose([stored.index(axis) for axis in (3, 2, 1)])
    return data, _voxel_size(header, data.shape, path)


def write_mrc(path: Path, data: Array, voxel_size: Sequence[float] | None) -> None:
    """Write an MRC2014 volume, gzipped if the path ends in .gz."""
    compression = "gzip" if path.suffix.lower() == ".gz" else None
    data = storable(data, MRC_INTEGERS)
    with mrcfile.new(path, compression=compression, overwrite=True) as mrc:
        mrc.set_data(data)
        if voxel_size is not None:
            mrc.voxel_size = size_in_angstrom(voxel_size)


def size_in_angstrom(voxel_size: Sequence[float]) -> tuple[float, float, float]:
    """(x, y, z) of a voxel size in nm, (z, y, x)."""
    z, y, x = voxel_size
    return x * 10, y * 10, z * 10


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    """The bytes of a file, decompressed by what it is, and how many one of its bytes can become."""
    with path.open("rb") as file:
        magic = file.read(3)
        file.seek(0)
        if magic.startswith(b"\x1f\x8b"):
            yield gzip.GzipFile(fileobj=file), DEFLATE_RATIO
        elif magic == b"BZh":
            yield bz2.BZ2File(file), _BZIP_RATIO
        else:
            yield file, 1


class _Header(MrcInterpreter):
    """mrcfile's header of a stream; nothing is written back."""

    def flush(self) -> None:
        """Writes nothing."""


def _parsed(head: bytes, path: Path) -> Any:
    """The header in its byte order.

    Some programs write the machine stamp wrong, and the mode is then read in the wrong byte order;
    mrcfile recovers from both. All else must fail: permissive reading believes any number in a
    damaged header.
    """
    # Without the extended header, which is not wanted, and whose size mrcfile would believe.
    alone = head[: _SYMBOLS.start] + bytes(4) + head[_SYMBOLS.stop :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            header = _Header(io.BytesIO(alone), header_only=True).header
            utils.data_dtype_from_header(header)
        except ValueError as error:
            if "machine stamp" not in str(error) and "mode" not in str(error):
                raise
            header = _Header(io.BytesIO(alone), header_only=True, permissive=True).header
    for warning in caught:
        if not issubclass(warning.category, DeprecationWarning):  # those are not of the file
            log.warning("%s: %s", path, warning.message)
    return header


def _voxels(stream: Any, path: Path | None, header: Any, skipped: int, room: int) -> Array | OnDisk:
    """What the header declares and no more, however much a stream would expand to.

    It stays on the disk where a path is given and it is of three axes.
    """
    dtype = utils.data_dtype_from_header(header)
    sides = [int(header.nz), int(header.ny), int(header.nx)]
    if min(sides) < 1 or (utils.spacegroup_is_volume_stack(header.ispg) and int(header.mz) < 1):
        raise ValueError(f"its header declares the size {sides} (z, y, x); sizes are positive")
    shape = utils.data_shape_from_header(header)
    stays = path is not None and len(shape) == 3
    check_bytes(math.prod(sides) * dtype.itemsize, room, in_memory=not stays)
    if path is not None and stays:
        return raw_voxels(path, _HEADER_BYTES + skipped, shape, dtype)
    data = np.empty(shape, dtype)
    buffer, done = memoryview(data.reshape(-1).view(np.uint8).data), 0
    stream.seek(_HEADER_BYTES + skipped)
    while done < len(buffer):
        read = stream.read(min(_CHUNK, len(buffer) - done))
        if not read:
            raise ValueError(
                f"its header declares {len(buffer)} bytes of voxels, and it holds {done}: it is "
                "cut short; copy or export it again"
            )
        buffer[done : done + len(read)] = read
        done += len(read)
    stream.read(1)  # at its end a compressed stream compares its checksum
    return data


def _are_unsigned(head: bytes, header: Any, data: Array | OnDisk, path: Path) -> bool:
    """Whether mode 0 holds 0 to 255: IMOD says so by a flag, other programs by the largest value.

    MRC2014 has signed bytes. IMOD's stamp with bit 0 of the flags unset means unsigned ones.
    """
    stamp, flags = np.frombuffer(head[_IMOD], header.nx.dtype)
    if stamp == _IMOD_STAMP:
        return not flags & 1
    told = 0 <= float(header.dmin) <= float(header.dmax) <= 255 and float(header.dmax) > 127
    if told and data.min() < 0:
        log.warning(
            "%s: bytes are taken as unsigned: its header says that values go from %g to %g",
            path,
            header.dmin,
            header.dmax,
        )
        return True
    return False


def _voxel_size(header: Any, shape: tuple[int, ...], path: Path) -> VoxelSize | None:
    """The voxel size in nm, from the cell's sides in angstrom."""
    cell = [float(header.cella[axis]) for axis in "zyx"]
    counts = [int(header.mz), int(header.my), int(header.mx)]
    if min(counts) < 1 or not np.isfinite(cell).all() or min(cell) <= 0:
        return None
    angstrom = [side / count for side, count in zip(cell, counts, strict=True)]
    if counts[0] == 1 and len(shape) == 3 and shape[0] > 1:
        # A stack of images has one section in its cell, but some programs give the whole height.
        whole = angstrom[0] / shape[0]
        if abs(math.log(whole / angstrom[2])) < abs(math.log(angstrom[0] / angstrom[2])):
            log.warning(
                "%s: mz is 1, but the cell's z side is that of all %d slices; voxel size in z "
                "taken as %.4g, not %.4g, nm",
                path,
                shape[0],
                whole / 10,
                angstrom[0] / 10,
            )
            angstrom[0] = whole
    if np.allclose(angstrom, 1, atol=1e-3):
        log.warning(
            "%s: voxel size 1 angstrom, which programs write if they do not know it; taken as "
            "unknown. Give voxel_size= in nm",
            path,
        )
        return None
    return in_nm(angstrom, [0.1] * 3)
