"""What all formats share: arrays, voxel sizes, and how much of a file may be believed.

A reader returns the file's array as it is and its voxel size in nm, `(z, y, x)`, or None. It
raises ValueError, or whatever its library raises, on a file that it cannot read. No header is
trusted for a size: `check_bytes` compares it with the file and the memory first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError

Array = npt.NDArray[Any]
VoxelSize = tuple[float, float, float]

log = logging.getLogger(__name__)

SIDES = (0.035, 1e7)  # nm: no microscope has smaller or larger voxels
DEFLATE_RATIO = 1100  # zlib never shrinks to less than 1/1032
_GB = 1e9


class VolumeError(InputError):
    """A file that cannot be used as a volume; the message says which, why, and what would do."""


def is_voxel_size(size: Sequence[float]) -> bool:
    """Whether `size` is three positive numbers."""
    return len(size) == 3 and all(
        isinstance(s, Real) and not isinstance(s, bool) and 0 < s < np.inf for s in size
    )


def parse_voxel_size(given: Any, key: str = "voxel_size") -> VoxelSize | None:
    """The voxel size that a user gives: nm, one number or `[z, y, x]`; None stays None.

    Args:
        given: of the configuration or a caller.
        key: what the message calls it.

    Raises:
        InputError: it is not one or three positive numbers.
    """
    if given is None:
        return None
    if hasattr(given, "tolist"):  # numpy's and torch's
        given = given.tolist()
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    size = list(given) if listed else [given] * 3
    if not is_voxel_size(size):
        raise InputError(f"{key}={given}: give nm, one positive number or [z, y, x]")
    if not SIDES[0] <= min(size) <= max(size) <= SIDES[1]:
        raise InputError(
            f"{key}={given}: give nm, from {SIDES[0]:g} to {SIDES[1]:g}; 1 um is 1000 nm, and 1 "
            "angstrom is 0.1 nm"
        )
    z, y, x = (float(side) for side in size)
    return z, y, x


def plausible(size: VoxelSize | None, where: str) -> VoxelSize | None:
    """A file's voxel size; None, with a warning, where no microscope has such voxels.

    Args:
        size: nm, (z, y, x).
        where: what the warning calls the file.
    """
    if size is None or SIDES[0] <= min(size) <= max(size) <= SIDES[1]:
        return size
    log.warning(
        "%s: voxel size %s nm is not that of a microscope; taken as unknown. Give voxel_size= in "
        "nm",
        where,
        [float(f"{side:.4g}") for side in size],
    )
    return None


def in_nm(size: Sequence[float], nm_per_unit: Sequence[float]) -> VoxelSize | None:
    """A voxel size in nm; None where it is not three positive numbers."""
    z, y, x = (round(s * nm, 9) for s, nm in zip(size, nm_per_unit, strict=True))
    return (z, y, x) if is_voxel_size((z, y, x)) else None


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


def check_bytes(declared: int, held: int | None = None, *, in_memory: bool = True) -> None:
    """Whether the array that a header declares can be there, and fits into memory.

    Args:
        declared: bytes of the array.
        held: the most bytes that the file can hold of it; None: not known.
        in_memory: whether all of it is to be in memory.

    Raises:
        ValueError: it cannot, or does not.
    """
    if held is not None and declared > held:
        raise ValueError(
            f"its header declares {declared} bytes of voxels, and the file has room for {held}: it "
            "is cut short or damaged; copy or export it again"
        )
    free = available_memory() if in_memory else None
    if free is not None and declared > free:
        raise ValueError(
            f"its voxels take {declared / _GB:.1f} GB, and {free / _GB:.1f} GB of memory are free; "
            "crop or bin the volume, or use a machine with more memory"
        )


def available_memory() -> int | None:
    """Bytes that this process can still use; None where the system does not say."""
    limits = []
    try:
        text = Path("/proc/meminfo").read_text()
        limits.append(int(text.split("MemAvailable:")[1].split()[0]) * 1024)
    except (OSError, IndexError, ValueError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:  # of a container
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        limits.append(max(int(limit) - int(used), 0))
    except (OSError, ValueError):  # none, or "max"
        pass
    return min(limits, default=None)
