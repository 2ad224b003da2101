from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from conftest import save_coco
from PIL import Image

from isgseg.data.coco import CocoInstances
from isgseg.data.datamodule import CocoDataModule, evaluation_loader
from isgseg.data.images import common_window, read_header, read_image
from isgseg.data.splits import open_splits
from isgseg.errors import InputError

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def deepen(root: Path, dtype: str, factor: float = 10.0, suffix: str = "png") -> None:
    """Makes all images of a dataset 16-bit or float, with values up to 255 times the factor."""
    for split in ("train", "val"):
        annotations = root / split / "annotations.json"
        for path in sorted((root / split / "images").iterdir()):
            deep = (np.asarray(Image.open(path)) * factor).astype(dtype)
            path.unlink()
            if suffix == "tif":
                tifffile.imwrite(path.with_suffix(".tif"), deep)
            else:
                Image.fromarray(deep).save(path)
        annotations.write_text(annotations.read_text().replace(".png", f".{suffix}"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_coco(tmp_path / "train", images=3, seed=0)
    save_coco(tmp_path / "val", images=2, seed=1)
    return tmp_path


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("uint16", "png"), ("uint16", "tif"), ("<f4", "tif")]
)
def test_deep_images_share_one_scale_that_is_said_and_kept(
    root: Path, caplog: pytest.LogCaptureFixture, dtype: str, suffix: str
) -> None:
    before = {name: split.image(0) for name, split in open_splits(root).items()}
    pixels = [np.asarray(Image.open(path)) for path in root.glob("*/images/*")]
    low, high = min(int(p.min()) for p in pixels) * 10, max(int(p.max()) for p in pixels) * 10
    deepen(root, dtype, suffix=suffix)
    with caplog.at_level(logging.INFO):
        splits = open_splits(root)
    assert f"value {low:g} becomes grey value 0, {high:g} becomes 255" in caplog.text
    for name, split in splits.items():  # the same scale in both
        expected = (before[name].double() * 10 - low) / (high - low) * 255
        assert (split.image(0) - expected).abs().max() <= 0.5
    module = CocoDataModule(str(root), batch_size=1)
    module.setup("fit")
    assert module.metadata()["normalization"] == {
        "method": "window",
        "low": low,
        "high": high,
        "power": 1.0,
    }


def test_a_window_of_the_user_is_used(root: Path) -> None:
    deepen(root, "uint16")
    (root / "dataset.yaml").write_text("normalization: {method: window, low: 0, high: 2550}\n")
    assert open_splits(root)["val"].window == (0, 2550)
    learnt = evaluation_loader(root, "val", 1, 0, window=(0, 5100)).dataset
    halved = learnt[0][0] * 255
    assert abs(halved * 2 - open_splits(root)["val"].image(0)).max() < 1.01
    (root / "dataset.yaml").write_text("normalization: {method: mode}\n")
    with pytest.raises(InputError, match=r"image_0\.png is 16-bit, but dataset\.yaml says"):
        open_splits(root)


def test_mixed_depths_are_refused(root: Path) -> None:
    path = root / "val" / "images" / "image_1.png"
    Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 10).save(path)
    with pytest.raises(InputError, match=r"image_1\.png is 16-bit, but .*image_0\.png is 8-bit"):
        open_splits(root)
    deepen(root, "uint16")
    for path in (root / "train" / "images").iterdir():
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)
    with pytest.raises(InputError, match="save all images of a dataset alike"):
        open_splits(root)


def test_eight_bits_are_taken_as_they_are(tmp_path: Path) -> None:
    colours = np.stack([GREY, GREY[::-1], GREY.T], -1)
    for suffix in ("png", "tif", "bmp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(GREY).save(path)
        assert np.array_equal(read_image(path), GREY[None])
        Image.fromarray(colours).save(path)
        assert np.array_equal(read_image(path), np.moveaxis(colours, -1, 0))
        assert read_header(path).channels == 3


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    greys = Image.fromarray(GREY // 4).convert("P")
    greys.putpalette([v for i in range(256) for v in [255 - i] * 3])
    greys.save(tmp_path / "greys.png")
    assert np.array_equal(read_image(tmp_path / "greys.png"), 255 - (GREY // 4)[None])
    colours = Image.fromarray(GREY // 4).convert("P")
    colours.putpalette([v for i in range(256) for v in (i, 0, 255 - i)])
    colours.save(tmp_path / "colours.png")
    assert read_image(tmp_path / "colours.png")[:, 0, 1].tolist() == [1, 0, 254]
    bits = Image.fromarray(GREY > 100)
    bits.save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "bits.png"), 255 * (GREY > 100)[None])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, width: int, height: int, bits: int, colour: int) -> None:
    """A PNG of zeros; only as many rows as fit a small file."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = zlib.compress(bytes(min(10_000, height * (1 + 8 * width))))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY).save(path, exif=exif)


def postscript(path: Path) -> None:
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def tiff(data: npt.NDArray[Any], **options: Any) -> Any:
    return lambda path: tifffile.imwrite(path, data, **options)


BOMB = "more than 100000000 pixels; cut it into patches"
DEEP = GREY.astype(np.uint16) * 100
NAN = np.where(GREY > 100, np.nan, GREY).astype(np.float32)
BAD: dict[str, tuple[str, Any, str]] = {
    "an EPS": ("png", postscript, "is no image that can be read; save it as PNG or TIFF"),
    "empty": ("png", Path.touch, "is no image that can be read"),
    "text": ("png", lambda path: path.write_text("hello"), "is no image that can be read"),
    "truncated": ("png", truncated, "cannot be read: OSError: .*truncated.*save it again"),
    "turned": ("png", rotated, r"is stored turned or mirrored \(EXIF orientation 6\)"),
    "turned JPEG": ("jpg", rotated, r"is stored turned or mirrored \(EXIF orientation 6\)"),
    "turned TIFF": ("tif", rotated, r"is stored turned or mirrored \(EXIF orientation 6\)"),
    "a bomb": (
        "png",
        lambda path: write_png(path, 60_000, 60_000, 8, 0),
        BOMB,
    ),
    "a small bomb": (
        "png",
        lambda path: write_png(path, 11_000, 10_000, 8, 0),
        BOMB,
    ),
    "16-bit colour": ("png", lambda path: write_png(path, 8, 8, 16, 2), "more than 8 bits in"),
    "16-bit colour TIFF": (
        "tif",
        tiff(np.stack([DEEP] * 3, -1), photometric="rgb"),
        "more than 8 bits in|no image that can be read",
    ),
    "16-bit with alpha": ("png", lambda path: write_png(path, 8, 8, 16, 4), "more than 8 bits in"),
    "CMYK": (
        "tif",
        lambda path: Image.new("CMYK", (8, 8)).save(path),
        "has colours of the kind CMYK; save it as grey or RGB",
    ),
    "inverted": ("tif", tiff(DEEP, photometric="miniswhite"), "is stored inverted"),
    "unsigned 32-bit": ("tif", tiff(DEEP.astype(np.uint32)), "is unsigned 32-bit|no image"),
    "double": ("tif", tiff(GREY.astype(np.float64)), "is no image that can be read"),
    "NaN": ("tif", tiff(NAN), "has values that are NaN or infinite"),
    "many pages": ("tif", tiff(np.zeros((102, 8, 8), np.uint8)), "more than 99 pages"),
    "colour pages": (
        "tif",
        lambda path: Image.new("RGB", (8, 8)).save(
            path, save_all=True, append_images=[Image.new("RGB", (8, 8))]
        ),
        "has several pages, but not of grey values",
    ),
    "other pages": (
        "tif",
        lambda path: Image.new("L", (8, 8)).save(
            path, save_all=True, append_images=[Image.new("L", (9, 8))]
        ),
        "page 1 differs from the first",
    ),
    "deep pages": (
        "tif",
        lambda path: Image.new("L", (8, 8)).save(
            path, save_all=True, append_images=[Image.fromarray(DEEP)]
        ),
        "page 1 differs from the first",
    ),
    "an animation": (
        "png",
        lambda path: Image.new("L", (8, 8)).save(
            path, save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        ),
        "is an animation",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_images_that_would_be_misread_are_named(tmp_path: Path, kind: str) -> None:
    suffix, write, message = BAD[kind]
    path = tmp_path / f"bad.{suffix}"
    write(path)
    with pytest.raises(InputError, match=rf"bad\.{suffix}.*({message})"):
        read_image(path, (0, 1000))


def test_pages_are_channels(tmp_path: Path) -> None:
    pages = np.stack([GREY, GREY.T, GREY[::-1], GREY, GREY])
    tifffile.imwrite(tmp_path / "a.tif", pages)
    assert read_header(tmp_path / "a.tif").channels == 5
    assert np.array_equal(read_image(tmp_path / "a.tif"), pages)
    tifffile.imwrite(tmp_path / "a.tif", pages.astype(np.uint16) * 10)
    assert common_window([tmp_path / "a.tif"]) == (0, 2520)
    assert np.abs(read_image(tmp_path / "a.tif", (0, 2550)) - pages.astype(float)).max() <= 1


def test_images_without_any_contrast_are_named(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png.* are 300"):
        common_window([tmp_path / "a.png"])


@pytest.mark.parametrize("z_context", [0, 1, 3])
def test_channels_that_do_not_fit_the_z_context_are_named(root: Path, z_context: int) -> None:
    path = root / "val" / "images" / "image_1.png"
    grey = Image.open(path)
    grey.save(path, "TIFF", save_all=True, append_images=[grey] * 4)
    (root / "dataset.yaml").write_text(f"z_context: {z_context}\n")
    with pytest.raises(InputError, match=rf"1\.png has 5 channels, but z_context={z_context}"):
        open_splits(root)
    (root / "dataset.yaml").write_text("z_context: 2\n")
    assert open_splits(root)["val"].image(1).shape == (5, 64, 64)


def test_a_plain_split_scales_by_its_own_range(root: Path) -> None:
    deepen(root, "uint16")
    assert CocoInstances(root / "val").image(0).max() > 200
