"""OME-Zarr: what is written is valid, and what others write is read or refused with a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from isgseg.errors import InputError
from isgseg.io.ome_zarr_writing import Version, write_zarr
from isgseg.io.on_disk import OnDisk
from isgseg.io.pairing import find_pairs
from isgseg.io.paths import sha256
from isgseg.io.volumes import (
    find_volumes,
    open_volume,
    read_labels,
    read_volume,
    stem,
    write_volume,
)

zarr = pytest.importorskip("zarr")
SIZE = (30.0, 36.8, 31.5)
VERSIONS: tuple[Version, ...] = ("0.4", "0.5")


@pytest.fixture
def values() -> npt.NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 900, (35, 40, 300)).astype(np.uint16)


def made(
    folder: Path,
    data: npt.NDArray[Any],
    axes: str = "zyx",
    *,
    scale: Any = None,
    unit: str | None = "micrometer",
    version: Version = "0.5",
    **array: Any,
) -> Path:
    """An OME-Zarr as other programs write it."""
    space = {"type": "space"} | ({"unit": unit} if unit else {})
    image: dict[str, Any] = {
        "axes": [{"name": axis, **(space if axis in "zyx" else {})} for axis in axes],
        "datasets": [
            {
                "path": "full",
                "coordinateTransformations": [
                    {"type": "scale", "scale": scale or [1.0] * len(axes)}
                ],
            }
        ],
    }
    group = zarr.create_group(
        str(folder),
        zarr_format=3 if version == "0.5" else 2,
        attributes={"ome": {"version": "0.5", "multiscales": [image]}}
        if version == "0.5"
        else {"multiscales": [image | {"version": "0.4"}]},
    )
    group.create_array("full", data=data, chunks=(8,) * data.ndim, **array)
    return folder


def model_of(path: Path, *, labels: bool, version: Version) -> Any:
    """The group as `ome-zarr-models` checks it."""
    pytest.importorskip("ome_zarr_models")
    import ome_zarr_models.v04 as v04
    import ome_zarr_models.v05 as v05
    import pydantic_zarr.v2 as specs

    # Its models of 0.4 leave names to be filled in, which newer releases of pydantic do not find.
    for model in (v04.Image, v04.ImageLabel):
        model.model_rebuild(_types_namespace=vars(specs) | vars(v04.image) | vars(v04))
    module = v04 if version == "0.4" else v05
    kind = module.ImageLabel if labels else module.Image
    return kind.from_zarr(zarr.open_group(str(path), mode="r"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [None, SIZE])
def test_what_is_written_is_valid_and_survives(
    tmp_path: Path, values: npt.NDArray[np.uint16], version: Version, labels: bool, size: Any
) -> None:
    path = tmp_path / "cell.zarr"
    write_zarr(path, values, size, labels=labels, version=version)
    model_of(path, labels=labels, version=version)
    again = read_volume(path)
    assert np.array_equal(again.data, values)
    assert again.data.dtype == np.uint16
    assert again.voxel_size == (None if size is None else pytest.approx(size))
    half = np.asarray(zarr.open_group(str(path), mode="r")["1"])
    assert half.shape == (18, 20, 150)
    if labels:
        assert np.array_equal(half, values[::2, ::2, ::2])
    else:
        assert half[3, 4, 5] == round(values[6:8, 8:10, 10:12].mean())
        assert half[17, 0, 0] == round(values[34, :2, :2].mean())  # alone at the end
    coarse = read_volume(path / "1")
    expected = None if size is None else pytest.approx([2 * side for side in SIZE])
    assert coarse.voxel_size == expected


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("nanometer", 1), ("micrometer", 1000), ("angstrom", 0.1), ("millimeter", 1e6)],
)
def test_units_become_nm(tmp_path: Path, unit: str, nm: float) -> None:
    scale = [side / nm for side in SIZE]
    path = made(tmp_path / "cell.zarr", np.zeros((9, 4, 5), np.uint8), scale=scale, unit=unit)
    assert read_volume(path).voxel_size == pytest.approx(SIZE)


@pytest.mark.parametrize("unit", [None, "furlong"])
def test_a_scale_without_a_known_unit_is_no_voxel_size(tmp_path: Path, unit: str | None) -> None:
    path = made(tmp_path / "a.zarr", np.zeros((9, 4, 5), np.uint8), scale=[3.0] * 3, unit=unit)
    assert read_volume(path).voxel_size is None


@pytest.mark.parametrize("version", VERSIONS)
def test_axes_are_taken_by_their_names(tmp_path: Path, version: Version) -> None:
    data = np.random.default_rng(1).integers(0, 99, (9, 4, 5)).astype(np.int16)
    five = made(
        tmp_path / "five.zarr",
        data[None, None],
        "tczyx",
        scale=[1, 1, 0.03, 0.04, 0.05],
        version=version,
    )
    turned = made(
        tmp_path / "turned.zarr",
        data.transpose(2, 1, 0),
        "xyz",
        scale=[0.05, 0.04, 0.03],
        version=version,
    )
    for path in (five, turned):
        found = read_volume(path)
        assert np.array_equal(found.data, data)
        assert found.voxel_size == pytest.approx((30, 40, 50))
    assert isinstance(open_volume(five).data, OnDisk)


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((2, 9, 4, 5), "czyx", "one channel and one time point"),
        ((4, 5), "yx", "stack the slices"),
        ((3, 4, 5), "cyx", "stack the slices"),
    ],
)
def test_other_than_three_axes_are_refused(
    tmp_path: Path, shape: tuple[int, ...], axes: str, words: str
) -> None:
    path = made(tmp_path / "cell.zarr", np.zeros(shape, np.uint8), axes)
    with pytest.raises(InputError, match=rf"cell\.zarr.*{words}"):
        read_volume(path)


def test_values_that_stand_for_none_are_refused_wherever_they_are_read(tmp_path: Path) -> None:
    data = np.ones((20, 4, 5), np.float32)
    data[13, 2, 1] = np.nan
    path = made(tmp_path / "cell.zarr", data)
    for read in (read_volume, open_volume):
        with pytest.raises(InputError, match=r"cell.zarr: 1 voxels are NaN.*\(13, 2, 1\)"):
            read(path)


def test_slices_come_from_the_disk(tmp_path: Path, values: npt.NDArray[np.uint16]) -> None:
    path = write_volume(tmp_path / "cell.zarr", values, SIZE)
    data = open_volume(path).data
    assert isinstance(data, OnDisk)
    assert data.shape == values.shape
    assert (data.min(), data.max()) == (values.min(), values.max())
    assert np.array_equal(data[-1], values[-1])
    assert np.array_equal(data[3:33:4, ::3, 7], values[3:33:4, ::3, 7])
    assert all(np.array_equal(a, b) for a, b in zip(data, values, strict=True))


def test_a_codec_that_could_run_code_is_refused(tmp_path: Path) -> None:
    data = np.zeros((9, 4, 5), np.uint8)
    old = made(tmp_path / "old.zarr", data, version="0.4")
    meta = json.loads((old / "full" / ".zarray").read_text())
    meta["filters"] = [{"id": "pickle"}]
    (old / "full" / ".zarray").write_text(json.dumps(meta))
    new = made(tmp_path / "new.zarr", data)
    meta = json.loads((new / "full" / "zarr.json").read_text())
    meta["codecs"].append({"name": "numcodecs.pickle"})
    (new / "full" / "zarr.json").write_text(json.dumps(meta))
    for path in (old, new):
        with pytest.raises(InputError, match=rf"{path.name}.*'pickle'"):
            read_volume(path)


def test_damaged_folders_are_named(tmp_path: Path, values: npt.NDArray[np.uint16]) -> None:
    good = write_volume(tmp_path / "good.zarr", values, SIZE)

    def damaged(name: str, file: str, content: bytes | None) -> Path:
        path = shutil.copytree(good, tmp_path / name)
        if content is None:
            (path / file).unlink()
        else:
            (path / file).write_bytes(content)
        return path

    for path, words in (
        (damaged("a.zarr", "zarr.json", None), "holds no zarr.json"),
        (damaged("b.zarr", "zarr.json", b"{"), "zarr.json is damaged"),
        (damaged("c.zarr", "zarr.json", b"[]"), "holds no metadata"),
        (damaged("d.zarr", "0/zarr.json", None), "names? '0', which is not there"),
        (damaged("e.zarr", "0/c/0/0/0", b"\x00" * 40), "cannot be read"),
        (damaged("f.zarr", "0/zarr.json", b"{}"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=rf"{path.name}.*{words}"):
            read_volume(path)
    outside = damaged("g.zarr", "zarr.json", b"")
    text = (good / "zarr.json").read_text().replace('"path": "0"', '"path": "../good.zarr/0"')
    (outside / "zarr.json").write_text(text)
    with pytest.raises(InputError, match=r"g\.zarr.*lies outside"):
        read_volume(outside)


def test_labels_in_an_image_are_named(tmp_path: Path, values: npt.NDArray[np.uint16]) -> None:
    image = write_volume(tmp_path / "cell.zarr", values, SIZE)
    numbers = (values > 800).astype(np.uint16)
    zarr.create_group(str(image / "labels"), attributes={"ome": {"labels": ["granules"]}})
    write_zarr(image / "labels" / "granules", numbers, SIZE, labels=True, source="../../")
    labels = read_labels(image / "labels" / "granules", check=False)
    assert np.array_equal(labels.data, numbers)
    with pytest.raises(InputError, match=r"image with labels in it; name these: .*granules"):
        read_labels(image)
    with pytest.raises(InputError, match=r"name a part of it: .*labels/granules"):
        read_volume(image / "labels")
    assert find_pairs(image, image / "labels" / "granules") == [
        (image, image / "labels" / "granules")
    ]


def test_folders_are_found_and_paired_by_name(tmp_path: Path) -> None:
    data = np.zeros((2, 3, 4), np.uint8)
    for name in ("cell2", "cell10", "cell2_labels", "cell10_labels"):
        write_volume(tmp_path / f"{name}.ome.zarr", data, SIZE)
    names = [path.name for path in find_volumes(f"{tmp_path}/**/cell*")]
    assert names == [f"{n}.ome.zarr" for n in ("cell2", "cell2_labels", "cell10", "cell10_labels")]
    pairs = find_pairs(f"{tmp_path}/cell*[0-9].ome.zarr", f"{tmp_path}/*_labels.ome.zarr")
    assert [stem(image) for image, _ in pairs] == ["cell2", "cell10"]
    assert len(find_volumes(tmp_path)) == 4  # a Zarr counts as a file
    with pytest.raises(InputError, match="no volume matches"):
        find_volumes(tmp_path / "cell2.ome.zarr" / "c*")


def test_writing_replaces_the_former_folder_or_leaves_it(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "cell.zarr", np.ones((2, 3, 300), np.uint8), SIZE)
    with pytest.raises(InputError, match="voxel size"):
        write_volume(path, np.ones((2, 3, 4), np.uint8), (0, 1, 1))
    assert read_volume(path).data.shape == (2, 3, 300)
    write_volume(path, np.ones((2, 3, 4), np.uint8), SIZE)
    assert read_volume(path).data.shape == (2, 3, 4)
    assert not (path / "1").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["cell.zarr"]


def test_the_hash_of_an_image_is_not_that_of_its_labels(tmp_path: Path) -> None:
    data = np.ones((2, 3, 4), np.uint8)
    path = write_volume(tmp_path / "cell.zarr", data, SIZE)
    before = sha256(path)
    write_zarr(path / "labels" / "granules", data, SIZE, labels=True)
    assert sha256(path) == before
    assert sha256(write_volume(tmp_path / "b.zarr", data + 1, SIZE)) != before


def test_without_zarr_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_volume(tmp_path / "cell.zarr", np.ones((2, 3, 4), np.uint8), SIZE)
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(InputError, match=r'pip install "isgseg\[zarr\]"'):
        read_volume(path)
