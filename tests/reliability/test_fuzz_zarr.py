"""OME-Zarr and HDF5 with bytes changed in any of their files: an InputError, or a volume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_fuzz_volumes import damaged

from isgseg.errors import InputError
from isgseg.io.ome_zarr_writing import write_zarr
from isgseg.io.volumes import open_volume, read_labels, read_volume

DATA = np.random.default_rng(0).integers(0, 300, (3, 6, 5)).astype(np.uint16)
READERS: tuple[Callable[[str | Path], object], ...] = (read_volume, open_volume, read_labels)


def is_read(path: Path | str, number: int) -> bool:
    """Whether a damaged volume is read; otherwise it is refused, and the message names it."""
    said = ""
    try:
        READERS[number % len(READERS)](path)
    except InputError as error:
        said = str(error)
    assert not said or "case." in said
    return not said


def zarr_cases(folder: Path, cases: int, seed: int) -> list[bool]:
    pytest.importorskip("zarr")
    random = np.random.default_rng(seed)
    found = []
    for number in range(cases):
        path = folder / "case.zarr"
        shutil.rmtree(path, ignore_errors=True)
        version = ("0.4", "0.5")[number % 2]
        write_zarr(path, DATA, (30.0, 30.0, 30.0), version=version)  # type: ignore[arg-type]
        files = sorted(p for p in path.rglob("*") if p.is_file())
        file = files[random.integers(len(files))]
        file.write_bytes(damaged(file.read_bytes(), random))
        found.append(is_read(path, number))
    return found


def hdf5_cases(folder: Path, cases: int, seed: int) -> list[bool]:
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(seed)
    path = folder / "case.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a/b", data=DATA, chunks=(1, 6, 5), compression="gzip")
    good = path.read_bytes()
    found = []
    for number in range(cases):
        path.write_bytes(damaged(good, random))
        found.append(is_read(f"{path}:/a/b", number))
    return found


def test_damaged_folders_are_refused_or_read(tmp_path: Path) -> None:
    assert not all(zarr_cases(tmp_path, 40, seed=0))


def test_damaged_hdf5_is_refused_or_read(tmp_path: Path) -> None:
    assert not all(hdf5_cases(tmp_path, 60, seed=0))


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(1, 5))
def test_more_damaged_files(tmp_path: Path, seed: int) -> None:
    zarr_cases(tmp_path, 500, seed)
    hdf5_cases(tmp_path, 2000, seed)
