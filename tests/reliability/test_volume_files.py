"""Files of other programs, and of nobody's good will: read right, or refused by name in time."""

from __future__ import annotations

import gzip
import io
import resource
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from isgseg.io import formats
from isgseg.io.labels import check_instances
from isgseg.io.volumes import VolumeError, read_labels, read_volume, write_volume

Array = npt.NDArray[Any]
SHAPE = (6, 5, 7)
IMOD_STAMP = 1146047817


def ramp(dtype: str = "uint16") -> Array:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def mrc(path: Path, data: Array, **fields: Any) -> Path:
    with mrcfile.new(path, data, overwrite=True) as file:
        for name, value in fields.items():
            file.header[name] = value
    return path


def patch(path: Path, offset: int, content: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(raw)
    return path


# MRC


@pytest.mark.parametrize(("flags", "unsigned"), [(0, True), (2, True), (1, False), (5, False)])
def test_bytes_of_imod_are_unsigned_unless_flagged(
    tmp_path: Path, flags: int, unsigned: bool
) -> None:
    path = mrc(tmp_path / "a.mrc", ramp("uint8").view(np.int8))
    patch(path, 152, struct.pack("<ii", IMOD_STAMP, flags))
    data = read_volume(path).data
    assert data.dtype == (np.uint8 if unsigned else np.int8)
    np.testing.assert_array_equal(data, ramp("uint8") if unsigned else ramp("uint8").view(np.int8))
    if unsigned:
        np.testing.assert_array_equal(read_labels(path).data, ramp())


def test_bytes_of_other_programs_are_signed_unless_their_header_says_otherwise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = mrc(tmp_path / "a.mrc", ramp("uint8").view(np.int8))
    assert read_volume(path).data.dtype == np.int8
    mrc(path, ramp("uint8").view(np.int8), dmin=0, dmax=209)
    np.testing.assert_array_equal(read_volume(path).data, ramp("uint8"))
    assert "taken as unsigned" in caplog.text


@pytest.mark.parametrize(
    ("cell", "nm"),
    [((350.0, 250.0, 300.0), 5.0), ((350.0, 250.0, 50.0), 5.0), ((350.0, 250.0, 80.0), 8.0)],
    ids=["whole height", "one slice", "one thicker slice"],
)
def test_a_cell_of_one_section(tmp_path: Path, cell: tuple[float, ...], nm: float) -> None:
    path = mrc(tmp_path / "a.mrc", ramp(), mz=1, cella=cell)
    assert read_volume(path).voxel_size == pytest.approx((nm, 5, 5))


@pytest.mark.parametrize("cell", [(0, 0, 0), (-7, 5, 6), (np.nan, 5, 6), (np.inf, 5, 6)])
def test_a_cell_that_is_none(tmp_path: Path, cell: tuple[float, ...]) -> None:
    assert read_volume(mrc(tmp_path / "a.mrc", ramp(), cella=cell)).voxel_size is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"nsymbt": 2**31 - 1}, "extended header of 2147483647 bytes, and the file has 1444"),
        ({"nsymbt": -8}, "extended header of -8 bytes"),
        ({"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1}, "room for 420: it is cut short"),
        ({"nz": 7}, "declares 490 bytes of voxels, and the file has room for 420"),
        ({"nx": 0}, r"size \[6, 5, 0\].*sizes are positive"),
        ({"nz": -6}, "sizes are positive"),
        ({"ispg": 401, "mz": 0}, "sizes are positive"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_header_is_not_believed(
    tmp_path: Path, fields: dict[str, int], reason: str, packed: bool
) -> None:
    path = mrc(tmp_path / "a.mrc", ramp(), **fields)
    if packed:
        gz = tmp_path / "a.mrc.gz"
        gz.write_bytes(gzip.compress(path.read_bytes()))
        path, reason = gz, "declare"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VolumeError, match=rf"a\.mrc.*{reason}"):
        read_volume(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 50_000  # kB


@pytest.mark.parametrize("suffix", [".mrc.gz", ".map.gz", ".rec.gz", ".mrc"])
def test_of_a_bomb_only_what_its_header_declares_is_read(tmp_path: Path, suffix: str) -> None:
    good = mrc(tmp_path / "good.mrc", ramp()).read_bytes()
    bomb = tmp_path / f"bomb{suffix}"
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        file.write(good)
        for _ in range(64):
            file.write(bytes(2**22))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(read_volume(bomb).data, ramp())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + 50_000


def test_a_damaged_byte_of_a_compressed_file_is_seen(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.mrc.gz", ramp(), None)
    patch(path, path.stat().st_size - 8, b"\0\0\0\0")  # the checksum
    with pytest.raises(VolumeError, match="CRC"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".mrc", ".mrc.gz", ".tif", ".npy"])
def test_more_than_the_memory_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_volume(tmp_path / f"a{suffix}", ramp(), None)
    monkeypatch.setattr(formats, "available_memory", lambda: 419)
    with pytest.raises(VolumeError, match=r"a\..*memory are free; crop or bin the volume"):
        read_volume(path)
    monkeypatch.setattr(formats, "available_memory", lambda: 420)
    assert read_volume(path).data.shape == SHAPE
    monkeypatch.setattr(formats, "available_memory", lambda: None)
    assert read_volume(path).data.shape == SHAPE


def test_available_memory_is_told() -> None:
    assert (formats.available_memory() or 0) > 10**7


# TIFF


def test_signed_values_of_imagej(tmp_path: Path) -> None:
    """ImageJ shows 0 where a signed stack has a raw 32768; so must labels' background be."""
    signed = ramp("int16") - 100
    raw = (signed.astype(np.int32) + 32768).astype(np.uint16)
    metadata = {"axes": "ZYX", "cf": 0, "c0": -32768, "c1": 1, "vunit": "gray value"}
    tifffile.imwrite(tmp_path / "a.tif", raw, imagej=True, metadata=metadata)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, signed)
    tifffile.imwrite(tmp_path / "b.tif", raw + np.uint16(100), imagej=True, metadata=metadata)
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif").data, ramp())


def test_other_calibrations_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metadata = {"axes": "ZYX", "cf": 0, "c0": 3.5, "c1": 0.01}
    tifffile.imwrite(tmp_path / "a.tif", ramp(), imagej=True, metadata=metadata)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, ramp())
    assert "calibration" in caplog.text


@pytest.mark.parametrize(
    ("axes", "imagej", "reason"),
    [
        ("CYX", True, r"axes CYX \(6, 5, 7\): channels, not slices.*Slices 6"),
        ("CYX", False, "channels, not slices"),
        ("ZYX", True, None),
        ("TYX", True, None),
        ("QYX", False, None),
    ],
)
def test_channels_are_no_slices(
    tmp_path: Path, axes: str, imagej: bool, reason: str | None
) -> None:
    path = tmp_path / "a.tif"
    kind: dict[str, Any] = {"imagej": True} if imagej else {"ome": axes == "CYX"}
    tifffile.imwrite(path, ramp(), metadata={"axes": axes}, photometric="minisblack", **kind)
    if reason is None:
        np.testing.assert_array_equal(read_volume(path).data, ramp())
    else:
        with pytest.raises(VolumeError, match=reason):
            read_volume(path)


@pytest.mark.parametrize("compression", [8, 32946])
def test_a_part_that_expands_beyond_what_it_declares(
    tmp_path: Path, compression: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((1, 64, 64), np.uint8), compression="zlib")
    bomb = zlib.compress(bytes(2**26), 9)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        counts, offsets, kind = (page.tags[c].valueoffset for c in (279, 273, 259))
    raw = path.read_bytes()
    patch(path, 0, raw + bomb)
    patch(path, counts, struct.pack("<I", len(bomb)))
    patch(path, offsets, struct.pack("<I", len(raw)))
    patch(path, kind, struct.pack("<H", compression))
    monkeypatch.setattr("isgseg.io.tiff.available_memory", lambda: 2**26)
    with pytest.raises(VolumeError, match="expands to more than the 4096 bytes"):
        read_volume(path)


def test_large_compressed_files_are_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isgseg.io.tiff.available_memory", lambda: 8000)
    noise = np.random.default_rng(0).integers(0, 255, (3, 64, 64), np.uint8)
    for data in (noise, np.zeros_like(noise)):
        for compression in ("zlib", "lzma"):
            tifffile.imwrite(
                tmp_path / "a.tif", data, compression=compression, photometric="minisblack"
            )
            np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, data)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("back_to", [0, 1])
def test_pages_in_a_circle(tmp_path: Path, big: bool, back_to: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(), metadata=None, photometric="minisblack", bigtiff=big)
    with tifffile.TiffFile(path) as tif:
        pages: Any = tif.pages
        last, first = pages[-1].offset, pages[back_to].offset
        tags = len(pages[-1].tags)
    size, count = ("<Q", "<Q") if big else ("<I", "<H")
    patch(
        path, last + struct.calcsize(count) + tags * (20 if big else 12), struct.pack(size, first)
    )
    with pytest.raises(VolumeError, match="pages goes in a circle"):
        read_volume(path)


# NPY


@pytest.mark.parametrize("shape", [(7, 5, 7), (10**6, 10**6, 10**6)])
def test_a_shape_is_not_believed(tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<u2", "fortran_order": False, "shape": shape}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue() + ramp().tobytes())
    with pytest.raises(VolumeError, match=r"a\.npy: cannot be read as \.npy"):
        read_volume(tmp_path / "a.npy")


def test_an_archive_called_npy(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ramp())
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(VolumeError, match=r"\.npz archive of arrays; save the one array by itself"):
        read_volume(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "b.npy", "w") as file:
        file.writestr("notes.txt", "no array")
    with pytest.raises(VolumeError, match=r"\.npz archive"):
        read_volume(tmp_path / "b.npy")


# Values


@pytest.mark.parametrize("value", [9.969209968386869e36, -3.4028235e38, 1e30])
@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".npy"])
def test_fill_values_are_named(tmp_path: Path, value: float, suffix: str) -> None:
    data = ramp("float32") + 5
    data[1, 2, 3] = data[4, 0, 0] = value
    path = write_volume(tmp_path / f"a{suffix}", data, None)
    with pytest.raises(
        VolumeError, match=r"2 voxels are .*e\+3\d, with which.*\(1, 2, 3\).*such as 5, the small"
    ):
        read_volume(path)
    data[:] = value
    with pytest.raises(VolumeError, match=r"210 voxels are .*outside of the cell$"):
        read_volume(write_volume(path, data, None))


def test_negative_labels_have_a_remedy_of_their_kind(tmp_path: Path) -> None:
    def message(data: Array) -> str:
        np.save(tmp_path / "a.npy", data)
        with pytest.raises(VolumeError) as caught:
            read_labels(tmp_path / "a.npy")
        return str(caught.value)

    assert "above 127, which int8 cannot hold" in message((ramp() - 1).astype(np.int8))
    for dtype in ("int32", "float32"):
        assert "1 voxels are negative; labels count up from 0" in message(ramp(dtype) - 1)
        assert "cannot hold" not in message(ramp(dtype) - 1)


# Labels that are no instances


def grains(count: int = 6, side: int = 40) -> Array:
    """Boxes of 3 voxels a side, well apart."""
    labels = np.zeros((side,) * 3, np.uint16)
    for number in range(count):
        z, y, x = (8 * (number // 25), 8 * (number // 5 % 5), 8 * (number % 5))
        labels[z : z + 3, y : y + 3, x : x + 3] = number + 1
    return labels


@pytest.mark.parametrize("value", [1, 255])
def test_a_mask_is_told(value: int, caplog: pytest.LogCaptureFixture) -> None:
    labels = np.where(grains() > 0, value, 0).astype(np.uint8)
    (reason,) = check_instances(labels, "a.tif")
    assert f"only one label, {value}, and it has 6 separate parts" in reason
    assert "skimage.measure.label" in reason
    assert f"a.tif: {reason}" in caplog.text


def test_a_background_that_is_not_0_is_told() -> None:
    labels = grains() + 1
    (reason,) = check_instances(labels.astype(np.uint16), "a.tif")
    assert "the most frequent value is 1, not 0" in reason


def test_a_map_of_classes_is_told() -> None:
    labels = np.where(grains(100) > 0, 2, 1).astype(np.uint16)
    labels[36:, :, 20:] = 3
    reasons = check_instances(labels, "a.tif")
    assert "most frequent value is 1" in reasons[0]
    assert "a map of classes" in reasons[1]
    labels = np.where(grains(100) > 0, 2, 0).astype(np.uint16)
    labels[36:] = 1
    labels[:, 36:] = 3
    (reason,) = check_instances(labels, "a.tif")
    assert "labels, such as 2, have parts far from each other" in reason


def test_numbers_that_began_again_after_255_are_told() -> None:
    labels = np.zeros((40, 200, 40), np.uint16)
    for number in range(600):
        z, y, x = (8 * (number // 125), 8 * (number // 5 % 25), 8 * (number % 5))
        labels[z : z + 3, y : y + 3, x : x + 3] = number + 1
    (reason,) = check_instances(labels % 256, "a.tif")
    assert "255 of 255 numbers are in use" in reason
    assert "16-bit" in reason
    assert check_instances(labels, "a.tif") == []


@pytest.mark.parametrize(
    "labels",
    [
        grains(),
        grains(100),
        grains(1),
        np.zeros(SHAPE, np.uint16),
        grains().astype(np.uint32) * 70_000,
        np.where(grains() == 3, 0, grains()).astype(np.uint16),
    ],
)
def test_instances_pass(labels: Array, caplog: pytest.LogCaptureFixture) -> None:
    assert check_instances(labels, "a.tif") == []
    assert not caplog.text


def test_reading_labels_checks_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.where(grains() > 0, 255, 0).astype(np.uint8)
    path = write_volume(tmp_path / "a.tif", mask, None)
    np.testing.assert_array_equal(read_labels(path).data, mask)
    assert "a.tif: there is only one label, 255" in caplog.text
