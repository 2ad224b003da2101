"""NPY files: one array of numpy, without a voxel size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isgseg.io.formats import Array, check_bytes
from isgseg.io.on_disk import OnDisk, raw_voxels


def open_npy(path: Path) -> tuple[Array | OnDisk, None]:
    """An NPY file's array, which stays on the disk; NPY files have no voxel size."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(b"PK"):
        raise ValueError(
            "it is an .npz archive of arrays; save the one array by itself with numpy.save"
        )
    if magic != b"\x93NUM":
        raise ValueError("it is no NPY file; save one array of numbers with numpy.save")
    try:  # mapped first: numpy compares the header with the file before anything is read
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" in str(error):
            raise ValueError(
                "it holds Python objects, not numbers; save an array of numbers"
            ) from None
        raise
    if mapped.ndim == 3 and mapped.flags.c_contiguous and mapped.size:
        return raw_voxels(path, mapped.offset, mapped.shape, mapped.dtype), None
    check_bytes(mapped.nbytes)
    return np.array(mapped), None
