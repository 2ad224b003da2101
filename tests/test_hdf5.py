"""HDF5: a dataset is named, or the message lists what there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.errors import InputError
from isgseg.io.on_disk import OnDisk
from isgseg.io.pairing import find_pairs
from isgseg.io.paths import sha256
from isgseg.io.volumes import find_volumes, open_volume, read_labels, read_volume, stem

h5py = pytest.importorskip("h5py")


@pytest.fixture
def values() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(1, 0.1, (19, 6, 7)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path, values: npt.NDArray[np.float32]) -> Path:
    """A NeXus file: a volume, its labels, and other things."""
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as content:
        group = content.create_group("entry/data")
        group.attrs["signal"] = "data"
        stored = group.create_dataset("data", data=values, chunks=(8, 6, 7), compression="gzip")
        stored.attrs["element_size_um"] = [0.03, 0.04, 0.05]
        content["entry/labels"] = (values > 1.1).astype(np.uint16)
        content["entry/angles"] = np.arange(5.0)
        content["entry/channels"] = np.zeros((2, 3, 4, 5))
        content["entry/title"] = "a cell"
        content["entry/rows"] = np.zeros((2, 2, 2), [("a", int)])
    return path


@pytest.mark.parametrize("inside", ["/entry/data/data", "entry/data/data", "/entry/data"])
def test_a_dataset_is_read(file: Path, values: npt.NDArray[np.float32], inside: str) -> None:
    path = f"{file}:{inside}"
    volume = read_volume(path)
    assert np.array_equal(volume.data, values)
    assert volume.voxel_size == pytest.approx((30, 40, 50))
    data = open_volume(path).data
    assert isinstance(data, OnDisk)
    assert np.array_equal(data[5:12], values[5:12])
    assert stem(path) == "cell"


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("", r"name a dataset, as in cell.h5:/name.*/entry/data/data \(19, 6, 7\) float32"),
        (":/entry/nothing", r"no dataset entry/nothing.*/entry/data/data \(19, 6, 7\)"),
        (":/entry", "entry is a group"),
        (":/entry/channels", "one channel"),
        (":/entry/angles", "1D"),
        (":/entry/title", "0D|object"),
        (":/entry/rows", "dataset of numbers"),
    ],
)
def test_what_is_no_volume_is_refused(file: Path, inside: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"cell\.h5.*({words})"):
        read_volume(f"{file}{inside}")


def test_files_that_are_missing_or_damaged_are_named(file: Path) -> None:
    with pytest.raises(InputError, match=r"other\.h5:/data: no such file"):
        read_volume(f"{file.parent}/other.h5:/data")
    raw = file.read_bytes()
    for name, content in (("cut", raw[: len(raw) // 2]), ("text", b"no HDF5"), ("empty", b"")):
        damaged = file.with_name(f"{name}.h5")
        damaged.write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.h5"):
            read_volume(f"{damaged}:/entry/data/data")


def test_a_missing_value_is_refused_on_the_disk_too(tmp_path: Path) -> None:
    data = np.ones((9, 4, 5), np.float32)
    data[7, 1, 2] = np.inf
    with h5py.File(tmp_path / "cell.h5", "w") as content:
        content["a"] = data
    with pytest.raises(InputError, match=r"1 voxels are NaN or infinite.*\(7, 1, 2\)"):
        open_volume(tmp_path / "cell.h5:/a")


def test_volume_and_labels_of_one_file_are_a_pair(file: Path) -> None:
    volume, labels = Path(f"{file}:/entry/data"), Path(f"{file}:/entry/labels")
    assert find_pairs(volume, labels) == [(volume, labels)]
    assert read_labels(labels, check=False).data.dtype == np.uint16
    assert find_volumes(f"{file.parent}/*.h5:/entry/data") == [volume]
    assert sha256(volume) != sha256(labels)


def test_without_h5py_the_error_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: Any = sys.modules
    monkeypatch.setitem(modules, "h5py", None)
    with pytest.raises(InputError, match=r'pip install "isgseg\[hdf5\]"'):
        read_volume(f"{file}:/entry/data")
