from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from isgseg.errors import InputError
from isgseg.io.formats import parse_voxel_size
from isgseg.io.places import WRITTEN
from isgseg.io.volumes import (
    Volume,
    VolumeError,
    find_volumes,
    label_dtype,
    read_labels,
    read_volume,
    stem,
    write_volume,
)

DATA = Path(
    os.environ.get("ISGSEG_TEST_DATA", Path(__file__).parents[2].joinpath("shared", "data"))
)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}; set ISGSEG_TEST_DATA")
VOXEL_SIZE = (30.1, 36.8, 35.25)
SHAPE = (6, 5, 7)


def ramp(dtype: str = "uint16") -> npt.NDArray[Any]:
    """Values that differ everywhere, so that a wrong axis order is seen."""
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def write_header(path: Path, **fields: Any) -> Path:
    with mrcfile.open(path, "r+", permissive=True) as mrc:
        for name, value in fields.items():
            mrc.header[name] = value
    return path


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_volume_survives_writing_and_reading(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = write_volume(tmp_path / "new" / f"cell{suffix}", ramp(dtype), VOXEL_SIZE)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, ramp(dtype))
    assert volume.data.dtype == dtype
    if suffix == ".npy":
        assert volume.voxel_size is None
    else:
        assert volume.voxel_size == pytest.approx(VOXEL_SIZE, rel=1e-5)
    assert [file.name for file in path.parent.iterdir()] == [f"cell{suffix}"]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_unknown_voxel_size_stays_unknown(tmp_path: Path, suffix: str) -> None:
    assert read_volume(write_volume(tmp_path / f"a{suffix}", ramp(), None)).voxel_size is None


@pytest.mark.parametrize("voxel_size", [VOXEL_SIZE, None])
@pytest.mark.parametrize("suffix", [".mrc", ".tif"])
def test_one_slice_is_a_volume(
    tmp_path: Path, suffix: str, voxel_size: tuple[float, float, float] | None
) -> None:
    volume = read_volume(write_volume(tmp_path / f"a{suffix}", ramp()[:1], voxel_size))
    assert volume.data.shape == (1, 5, 7)
    assert (volume.voxel_size is None) == (voxel_size is None)


@pytest.mark.parametrize(
    ("suffix", "dtype", "stored"),
    [
        (".mrc", "bool", "uint16"),
        (".mrc", "uint8", "uint16"),
        (".mrc", "int64", "uint16"),
        (".mrc", "uint32", "uint16"),
        (".mrc", "float64", "float32"),
        (".tif", "int64", "uint16"),
        (".tif", "uint8", "uint8"),
        (".tif", "int16", "int16"),
        (".tif", "float64", "float32"),
        (".npy", "int64", "int64"),
    ],
)
def test_dtypes_that_a_format_lacks(tmp_path: Path, suffix: str, dtype: str, stored: str) -> None:
    volume = read_volume(write_volume(tmp_path / f"a{suffix}", ramp(dtype), VOXEL_SIZE))
    assert volume.data.dtype == stored
    np.testing.assert_array_equal(volume.data, ramp(dtype))


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_many_labels_need_32_bits(tmp_path: Path, suffix: str) -> None:
    labels = ramp("uint32") + 65_500
    back = read_labels(write_volume(tmp_path / f"a{suffix}", labels, VOXEL_SIZE))
    assert back.data.dtype == np.uint32
    np.testing.assert_array_equal(back.data, labels)


def test_mrc_refuses_labels_beyond_16_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    with pytest.raises(VolumeError, match=r"a\.mrc.*65500 to 65709.*\.tif"):
        write_volume(path, ramp("uint32") + 65_500, None)
    assert not list(tmp_path.iterdir())


def test_mrc_header_is_angstrom_and_x_fastest(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.mrc", ramp(), VOXEL_SIZE)
    with mrcfile.open(path) as mrc:
        assert (mrc.header.nx, mrc.header.ny, mrc.header.nz) == SHAPE[::-1]
        sizes = [float(mrc.voxel_size[axis]) for axis in "zyx"]
        assert sizes == pytest.approx([301, 368, 352.5], rel=1e-5)
        assert mrc.is_volume()
    assert mrcfile.validate(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_fiji_sees_a_stack_with_its_voxel_size(tmp_path: Path, dtype: str) -> None:
    path = write_volume(tmp_path / "a.tif", ramp(dtype), VOXEL_SIZE)
    with tifffile.TiffFile(path) as tif:
        metadata, tags = tif.imagej_metadata, tif.pages.first.tags
        assert metadata is not None
        assert metadata["slices"] == SHAPE[0]
        assert metadata["unit"] == "um"
        assert metadata["spacing"] == pytest.approx(0.0301)
        for name, size in (("XResolution", 0.03525), ("YResolution", 0.0368)):
            pixels, units = tags[name].value
            assert units / pixels == pytest.approx(size, rel=1e-5)
        assert tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE
        assert tags["Compression"].value == tifffile.COMPRESSION.NONE


def test_other_dtypes_become_ome_tiff(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.tif", ramp("uint32") + 70_000, VOXEL_SIZE)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        pixels = tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"]["Pixels"]
    assert pixels["SizeZ"] == SHAPE[0]
    assert pixels["PhysicalSizeZ"] == pytest.approx(0.0301)
    assert pixels["PhysicalSizeXUnit"] == "µm"


@pytest.mark.parametrize(
    ("unit", "nm"), [("micron", 1000), ("\\u00B5m", 1000), ("nm", 1), ("mm", 1e6), ("pixel", None)]
)
def test_imagej_units(tmp_path: Path, unit: str, nm: float | None) -> None:
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 3.0}
    resolution = (1 / 2.0, 1 / 4.0)
    tifffile.imwrite(
        tmp_path / "a.tif", ramp(), imagej=True, resolution=resolution, metadata=metadata
    )
    size = read_volume(tmp_path / "a.tif").voxel_size
    assert size == (None if nm is None else pytest.approx((3 * nm, 4 * nm, 2 * nm)))


def test_imagej_leaves_out_a_spacing_of_one(tmp_path: Path) -> None:
    metadata = {"axes": "TYX", "unit": "um"}  # and slices are often saved as frames
    tifffile.imwrite(
        tmp_path / "a.tif", ramp(), imagej=True, resolution=(2.0, 2.0), metadata=metadata
    )
    assert read_volume(tmp_path / "a.tif").voxel_size == pytest.approx((1000, 500, 500))


@pytest.mark.parametrize(
    ("unit", "nm"), [(None, 1000), ("nm", 1), ("Å", 0.1), ("reference frame", None)]
)
def test_ome_units(tmp_path: Path, unit: str | None, nm: float | None) -> None:
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, length in zip("ZYX", (3.0, 4.0, 2.0), strict=True):
        metadata[f"PhysicalSize{axis}"] = length
        if unit:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    tifffile.imwrite(tmp_path / "a.tif", ramp(), ome=True, metadata=metadata)
    size = read_volume(tmp_path / "a.tif").voxel_size
    assert size == (None if nm is None else pytest.approx((3 * nm, 4 * nm, 2 * nm)))


def test_plain_resolution_tags_know_no_z(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(), resolution=(1e5, 1e5), resolutionunit="CENTIMETER")
    assert read_volume(tmp_path / "a.tif").voxel_size is None


def test_byte_order_of_other_machines(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp("float32"), byteorder=">")
    np.save(tmp_path / "a.npy", np.asfortranarray(ramp("float32")).astype(">f4"))
    for name in ("a.tif", "a.npy"):
        data = read_volume(tmp_path / name).data
        assert data.dtype.isnative
        assert data.flags.c_contiguous
        np.testing.assert_array_equal(data, ramp("float32"))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 2, 1), (2, 1, 3)])
def test_mrc_axis_orders_become_zyx(tmp_path: Path, order: tuple[int, int, int]) -> None:
    mapc, mapr, maps = order
    axes = {3: 0, 2: 1, 1: 2}  # of x, y and z in ramp()
    stored = ramp().transpose([axes[axis] for axis in (maps, mapr, mapc)])
    path = tmp_path / "a.mrc"
    with mrcfile.new(path, np.ascontiguousarray(stored)) as mrc:
        mrc.header.mapc, mrc.header.mapr, mrc.header.maps = order
        mrc.header.mx, mrc.header.my, mrc.header.mz = SHAPE[::-1]
        mrc.voxel_size = (352.5, 368, 301)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, ramp())
    assert volume.voxel_size == pytest.approx(VOXEL_SIZE, rel=1e-5)


def test_impossible_mrc_axis_order(tmp_path: Path) -> None:
    path = write_header(write_volume(tmp_path / "a.mrc", ramp(), None), mapc=1, mapr=1, maps=3)
    with pytest.raises(VolumeError, match=r"\[3, 1, 1\]"):
        read_volume(path)


def test_what_numpy_says_to_mrcfile_is_not_said_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_volume(tmp_path / "a.mrc", ramp(), VOXEL_SIZE)
    ask = mrcfile.utils.data_dtype_from_header

    def warned(header: object) -> Any:
        warnings.warn("setting a dtype is deprecated", DeprecationWarning, stacklevel=1)
        return ask(header)

    monkeypatch.setattr("mrcfile.utils.data_dtype_from_header", warned)
    read_volume(path)
    assert not caplog.records


def test_a_wrong_machine_stamp_is_forgiven(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_header(write_volume(tmp_path / "a.mrc", ramp(), None), machst=[0, 0, 0, 0])
    np.testing.assert_array_equal(read_volume(path).data, ramp())
    assert "machine stamp" in caplog.text


def test_a_voxel_of_one_angstrom_is_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = read_volume(write_volume(tmp_path / "a.mrc", ramp(), (0.1, 0.1, 0.1)))
    assert volume.voxel_size is None
    assert "1 angstrom" in caplog.text
    assert "voxel_size=" in caplog.text
    volume = read_volume(write_volume(tmp_path / "a.mrc", ramp(), (0.1, 0.1, 0.12)))
    assert volume.voxel_size == pytest.approx((0.1, 0.1, 0.12))


def test_leading_axis_of_one_is_dropped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp()[None])
    assert read_volume(tmp_path / "a.npy").data.shape == SHAPE


def bad_files(folder: Path) -> dict[str, str]:
    """Writes files that are no volumes; returns their names and what the error must say."""
    good = write_volume(folder / "good.mrc", ramp(), None).read_bytes()
    (folder / "truncated.mrc").write_bytes(good[:-10])
    (folder / "header_only.mrc").write_bytes(good[:500])
    (folder / "magic.mrc").write_bytes(good[:208] + b"JUNK" + good[212:])
    (folder / "empty.mrc").touch()
    (folder / "not.mrc.gz").write_bytes(b"these are not the bytes you want" * 100)
    squeezed = gzip.compress(good)
    (folder / "truncated.mrc.gz").write_bytes(squeezed[: len(squeezed) // 2])
    mrcfile.write(folder / "flat.mrc", ramp()[0])
    mrcfile.write(folder / "complex.mrc", ramp("complex64"))
    write_header(write_volume(folder / "mode.mrc", ramp(), None), mode=16)

    imagej = write_volume(folder / "good.tif", ramp(), VOXEL_SIZE).read_bytes()
    (folder / "truncated.tif").write_bytes(imagej[: len(imagej) // 2])
    # tifffile logs this, and goes on with the first slice alone.
    pages = np.zeros((6, 50, 70), np.uint16)
    imagej = write_volume(folder / "good.tif", pages, VOXEL_SIZE).read_bytes()
    (folder / "one_page_left.tif").write_bytes(imagej[: -len(imagej) // 10])
    (folder / "corrupt.tif").write_bytes(b"II*\0 and so on")
    tifffile.imwrite(folder / "flat.tif", ramp()[0])
    tifffile.imwrite(folder / "colour.tif", np.zeros((5, 7, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "channels.tif", np.zeros((3, 2, 5, 7), np.uint8), imagej=True)
    with tifffile.TiffWriter(folder / "several.tif") as tif:
        tif.write(ramp())
        tif.write(ramp()[:2])

    np.save(folder / "flat.npy", ramp()[0])
    np.save(folder / "pickled.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    np.save(folder / "void.npy", np.zeros((0, 5, 7)))
    (folder / "corrupt.npy").write_bytes(b"\x93NUMPY and so on")
    floats = ramp("float32")
    floats[1, 2, 3:5] = np.nan, np.inf
    np.save(folder / "nan.npy", floats)
    return {
        "missing.mrc": "no such file",
        "truncated.mrc": "declares 420 bytes of voxels, and the file has room for 410",
        "header_only.mrc": "an MRC header alone has 1024",
        "magic.mrc": "Map ID string not found",
        "empty.mrc": "an MRC header alone has 1024",
        "not.mrc.gz": "cannot be read",
        "truncated.mrc.gz": "cannot be read",
        "flat.mrc": r"2D, shape \(5, 7\)",
        "complex.mrc": "complex64",
        "mode.mrc": "mode '16'",
        "truncated.tif": "cannot be read",
        "one_page_left.tif": "corrupted file",
        "corrupt.tif": "cannot be read",
        "flat.tif": r"2D, shape \(5, 7\)",
        "colour.tif": "colour",
        "channels.tif": r"4D, shape \(3, 2, 5, 7\)",
        "several.tif": "2 images",
        "flat.npy": r"2D, shape \(5, 7\)",
        "pickled.npy": "holds Python objects",
        "void.npy": r"shape \(0, 5, 7\)",
        "corrupt.npy": "cannot be read",
        "nan.npy": r"2 voxels are NaN or infinite.*\(1, 2, 3\)",
        "photo.jpg": r"accepted are \.mrc, \.mrc\.gz.*\.npy",
    }


@pytest.mark.filterwarnings("ignore:.*not writing:UserWarning")
def test_bad_files_are_refused_by_name(tmp_path: Path) -> None:
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(VolumeError, match=f"(?s){name}: .*{reason}"):
            read_volume(tmp_path / name)


def test_bad_place_or_shape_or_size_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.a\.mrc: cannot be written"):
        write_volume(tmp_path / "file" / "a.mrc", ramp(), None)
    with pytest.raises(VolumeError, match=r"shape \(5, 7\)"):
        write_volume(tmp_path / "a.mrc", ramp()[0], None)
    with pytest.raises(VolumeError, match="three positive numbers"):
        write_volume(tmp_path / "a.mrc", ramp(), (30, 0, 30))
    with pytest.raises(VolumeError, match="complex64"):
        write_volume(tmp_path / "a.tif", ramp("complex64"), None)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (ramp("uint8"), "uint16"),
        (ramp("int16"), "uint16"),
        (ramp("float32"), "uint16"),
        (ramp("float32") * 1000, "uint32"),
        (ramp("int64") + 70_000, "uint32"),
        (ramp("bool"), "uint16"),
    ],
)
def test_labels_are_unsigned(tmp_path: Path, data: npt.NDArray[Any], dtype: str) -> None:
    np.save(tmp_path / "a.npy", data)
    labels = read_labels(tmp_path / "a.npy")
    assert labels.data.dtype == dtype
    np.testing.assert_array_equal(labels.data, data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ramp("float32") + 0.5, r"210 voxels are not whole.*0\.5.*\(0, 0, 0\)"),
        (ramp("int16") - 7, "smallest label is -7"),
        (ramp("int64") * 10**8, "20900000000 does not fit 32 bits"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, data: npt.NDArray[Any], reason: str) -> None:
    np.save(tmp_path / "a.npy", data)
    with pytest.raises(VolumeError, match=rf"a\.npy: .*{reason}"):
        read_labels(tmp_path / "a.npy")


def test_label_dtype() -> None:
    assert label_dtype(0) is np.uint16
    assert label_dtype(65_535) is np.uint16
    assert label_dtype(65_536) is np.uint32


def test_stem() -> None:
    assert stem("cells/cell.1.mrc.gz") == "cell.1"
    assert stem(Path("CELL.TIF")) == "CELL"
    assert stem("cell.ome.tif") == "cell"


def test_find_volumes(tmp_path: Path) -> None:
    for name in ("b.mrc", "a.mrc", "a10.mrc", "a9.mrc", "c[1].tif", "notes.txt", "deep/d.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*patterns: str) -> list[str]:
        return [path.name for path in find_volumes([f"{tmp_path}/{p}" for p in patterns])]

    assert names("*.mrc") == ["a.mrc", "a9.mrc", "a10.mrc", "b.mrc"]
    assert names("b.mrc", "a?.mrc", "a*.mrc") == ["b.mrc", "a9.mrc", "a.mrc", "a10.mrc"]
    assert names("c[1].tif", "a9.mrc", "a.mrc") == ["c[1].tif", "a9.mrc", "a.mrc"]
    assert names("**/*.npy") == ["d.npy"]
    assert find_volumes(tmp_path / "a.mrc") == [tmp_path / "a.mrc"]
    with pytest.raises(InputError, match=r"matches .*/\*\.rec; accepted are \.mrc"):
        names("*.mrc", "*.rec")
    with pytest.raises(InputError, match="accepted"):
        names("notes.txt")
    with pytest.raises(InputError, match="no volume was named"):
        names()
    (tmp_path / ".hidden.mrc").write_bytes(b"")
    assert find_volumes(f"{tmp_path}/") == find_volumes(f"{tmp_path}/*")
    (tmp_path / "folder.mrc").mkdir()
    for name in (".", "folder.mrc"):
        with pytest.raises(VolumeError, match="is a folder; name a file in it"):
            read_volume(tmp_path / name)


def test_what_is_there_and_is_no_volume_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "slice.png").touch()
    for name, reason in {
        "empty": "is a folder that holds no volume; accepted are .mrc",
        "slice.png": "no volume by the end of its name.*one TIFF stack",
        "cell.mrc": "no volume matches .*check the name",
    }.items():
        with pytest.raises(InputError, match=reason):
            find_volumes(tmp_path / name)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a\0b.mrc", "null character"),
        ("x" * 300 + ".mrc", "name too long"),
        ("~nobody_of_this_name/a.mrc", "give the whole path"),
        ([None], "names no files"),
        ({"a": 1}, "names no files"),
    ],
)
def test_paths_that_are_none(pattern: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"(?i){reason}"):
        find_volumes(pattern)
    if isinstance(pattern, str):
        with pytest.raises(InputError, match=f"(?i){reason}"):
            read_volume(pattern)


@pytest.mark.parametrize(
    ("given", "size"),
    [(None, None), (30, (30, 30, 30)), ([40, 30, 20.5], (40, 30, 20.5)), ((1, 2, 3), (1, 2, 3))],
)
def test_voxel_size_of_the_user(given: Any, size: Any) -> None:
    assert parse_voxel_size(given) == size


@pytest.mark.parametrize(
    "given", [0, -1, "30", "nm", True, [30, 30], [30, 30, "nm"], float("nan"), [1, 1, np.inf], {}]
)
def test_voxel_size_that_is_none(given: Any) -> None:
    with pytest.raises(InputError, match=r"evaluate\.voxel_size=.*give nm"):
        parse_voxel_size(given, "evaluate.voxel_size")


@needs_data
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "nm"),
    [
        ("mrc_files/EMD-3001.map", (73, 25, 43), "float32", (0.0459, 0.0393, 0.0448)),
        ("mrc_files/emd_3001.map.gz", (73, 25, 43), "float32", (0.0459, 0.0393, 0.0448)),
        ("mrc_files/EMD-3197.map", (20, 20, 20), "float32", (1.14, 1.14, 1.14)),
        ("mrc_files/test_blob_detect.rec", (27, 32, 22), "int8", (1.93, 1.93, 1.93)),
        ("bbbc050/Emb1_t251_image.mrc", (51, 114, 112), "uint16", None),
        ("sxt_lac_cell.mrc", (58, 61, 58), "float32", None),
    ],
)
def test_files_of_other_programs(
    name: str, shape: tuple[int, ...], dtype: str, nm: tuple[float, ...] | None
) -> None:
    volume = read_volume(DATA / name)
    assert isinstance(volume, Volume)
    assert volume.data.shape == shape
    assert volume.data.dtype == dtype
    assert volume.voxel_size == (None if nm is None else pytest.approx(nm, rel=0.01))


@needs_data
def test_labels_of_other_programs() -> None:
    assert len(np.unique(read_labels(DATA / "bbbc050/Emb1_t251_labels.mrc").data)) > 4
    with pytest.raises(VolumeError, match="whole numbers"):
        read_labels(DATA / "sxt_lac_cell.mrc")
