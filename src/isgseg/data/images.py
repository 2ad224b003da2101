"""Image files of a COCO folder: what their headers say, and their pixels as 8-bit channels.

The files may come from strangers: only a few formats are opened, sizes are bounded, and whatever
the library raises becomes an error that names the file.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence, UnidentifiedImageError

from isgseg.errors import InputError

# Image.open would try every format that it knows, and hand an EPS to Ghostscript.
FORMATS = ("PNG", "TIFF", "JPEG", "BMP", "PPM", "WEBP")
MAX_PIXELS = 100_000_000  # of one image: 10,000 x 10,000
MAX_PAGES = 99  # slices of a z-context of 49
_ORIENTATION = 0x0112  # the EXIF and TIFF tag; 1 is upright
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
_SHALLOW = ("1", "L", "LA", "P", "RGB", "RGBA", "YCbCr")
Window = tuple[float, float]


@dataclass(frozen=True)
class Header:
    """What an image file says of itself, without its pixels.

    Attributes:
        height: pixels.
        width: pixels.
        pages: of a TIFF; 1 of other files.
        channels: of the array that `read_image` gives: 1, 3, or the number of pages. A palette of
            greys, which counts as 3 here, gives 1.
        deep: `16-bit` or `float` where values need a window to become 8 bits; else `8-bit`.
    """

    height: int
    width: int
    pages: int
    channels: int
    deep: str


def read_header(path: Path) -> Header:
    """Size, pages and depth of an image.

    Raises:
        InputError: not an image of `FORMATS`, larger than `MAX_PIXELS`, or of a kind whose grey
            values would not be read as they are meant.
    """
    with _open(path) as image:
        return _header(image, path)


def read_image(path: Path, window: Window | None = None) -> npt.NDArray[np.uint8]:
    """An image as 8-bit channels.

    8-bit grey values and colours are taken as they are; palettes are looked up, transparency is
    ignored. Deeper images are mapped linearly.

    Args:
        path: the file.
        window: values of deep images that become 0 and 255; see `common_window`.

    Returns:
        (C, H, W): one channel, three of colours, or one for each page of a TIFF.

    Raises:
        InputError: as for `read_header`; the file is truncated or damaged, its pages differ, or a
            deep image has values that are NaN, or none with a window.
    """
    with _open(path) as image:
        header = _header(image, path)
        if header.deep != "8-bit":
            if window is None:
                raise InputError(f"{path} is {header.deep}; a window must say what is 0 and 255")
            low, high = window
            unit = (_deep_pages(image, header, path) - low) / (high - low)
            scaled: npt.NDArray[np.uint8] = np.rint(255 * unit.clip(0, 1)).astype(np.uint8)
            return scaled
        if header.pages > 1:
            pages = [np.array(page.convert("L")) for page in _same_pages(image, header, path)]
            return np.stack(pages)
        array = np.array(_plain(image))
        _refuse_turned(image, path)  # a PNG may say it after its pixels
    return array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))


def common_window(paths: Sequence[Path]) -> Window:
    """The lowest and the highest value of all deep images, so that none is clipped.

    Raises:
        InputError: as for `read_image`, or there is one value only.
    """
    ranges = []
    for path in paths:
        with _open(path) as image:
            values = _deep_pages(image, _header(image, path), path)
        ranges.append((float(values.min()), float(values.max())))
    low, high = min(pair[0] for pair in ranges), max(pair[1] for pair in ranges)
    if low == high:
        raise InputError(f"all pixels of {paths[0]} and the other images are {low:g}; save images")
    return low, high


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """An open image; whatever goes wrong with it names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its size, which is checked here, and of its tags
            with Image.open(path, formats=FORMATS) as image:
                yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(_too_large(path)) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is no image that can be read; save it as PNG or TIFF, 8-bit or 16-bit grey, "
            "or RGB"
        ) from error
    except Exception as error:  # decoders raise many kinds of exception on damaged files
        said = f"{type(error).__name__}: {error}"[:200]
        raise InputError(
            f"{path} cannot be read: {said}; the file is damaged or not complete, save it again"
        ) from error


def _too_large(path: Path) -> str:
    return f"{path} has more than {MAX_PIXELS} pixels; cut it into patches"


def _header(image: Image.Image, path: Path) -> Header:
    width, height = image.size
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(_too_large(path))
    _refuse_turned(image, path)
    _refuse_misread(image, path)
    pages = _count_pages(image, path)
    deep = "8-bit"
    if image.mode in _DEEP:
        deep = "float" if image.mode == "F" else "16-bit"
    grey = image.mode in (*_DEEP, "1", "L", "LA")
    return Header(height, width, pages, pages if pages > 1 else 1 if grey else 3, deep)


def _refuse_turned(image: Image.Image, path: Path) -> None:
    """A PNG is asked only for what is known: asking for more would decode it."""
    known = image.format != "PNG" or {"exif", "xmp", "Raw profile type exif"} & set(image.info)
    turned = image.getexif().get(_ORIENTATION, 1) if known else 1
    if turned != 1:
        raise InputError(
            f"{path} is stored turned or mirrored (EXIF orientation {turned}), and its masks may "
            "be for either view; save it upright, without that tag"
        )


def _refuse_misread(image: Image.Image, path: Path) -> None:
    """Kinds of images of which the library would silently change the values."""
    tags: Any = getattr(image, "tag_v2", {})
    tiles: Any = getattr(image, "tile", ())  # how the pixels are stored, such as RGB;16B
    raw = str(tiles[0][3]) if tiles else ""
    bits = tags.get(_BITS, (8,))
    if image.mode not in (*_SHALLOW, *_DEEP):
        raise InputError(f"{path} has colours of the kind {image.mode}; save it as grey or RGB")
    if image.mode not in _DEEP and (
        "16" in raw or "32" in raw or max(bits if isinstance(bits, tuple) else (bits,)) > 8
    ):
        raise InputError(
            f"{path} has more than 8 bits in several channels; save it as 16-bit grey or 8-bit RGB"
        )
    if image.mode in _DEEP and tags.get(_PHOTOMETRIC) == 0:
        raise InputError(f"{path} is stored inverted (white is zero); save it with black as zero")
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1 and bits == (32,):
        raise InputError(f"{path} is unsigned 32-bit; save it as 16-bit grey or float")


def _count_pages(image: Image.Image, path: Path) -> int:
    """Pages of a TIFF; the image is at the first again."""
    if image.format != "TIFF":
        if getattr(image, "n_frames", 1) > 1:
            raise InputError(f"{path} is an animation or holds several images; save one of them")
        return 1
    count = 1
    with contextlib.suppress(EOFError):
        while count <= MAX_PAGES:
            image.seek(count)
            count += 1
    if count > MAX_PAGES:
        raise InputError(f"{path} has more than {MAX_PAGES} pages; a page is a slice of z-context")
    image.seek(0)
    return count


def _same_pages(image: Image.Image, header: Header, path: Path) -> Iterator[Image.Image]:
    """The pages of a TIFF, all alike."""
    mode = image.mode
    if mode not in ("1", "L", *_DEEP):
        raise InputError(f"{path} has several pages, but not of grey values; save grey pages")
    for number, page in enumerate(ImageSequence.Iterator(image)):
        if page.size != (header.width, header.height) or page.mode != mode:
            raise InputError(f"{path}: page {number} differs from the first in size or depth")
        _refuse_misread(page, path)
        yield page


def _deep_pages(image: Image.Image, header: Header, path: Path) -> npt.NDArray[np.float64]:
    """(pages, H, W), the values as they are stored."""
    pages = [np.asarray(page, np.float64) for page in _same_pages(image, header, path)]
    values = np.stack(pages)
    if not np.isfinite(values).all():
        raise InputError(f"{path} has values that are NaN or infinite; replace them")
    return values


def _plain(image: Image.Image) -> Image.Image:
    """8-bit grey, or RGB; a palette of greys is grey."""
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    colours = image.convert("RGB")
    if image.mode == "P":
        red, green, blue = (np.asarray(channel) for channel in colours.split())
        if np.array_equal(red, green) and np.array_equal(green, blue):
            return colours.getchannel(0)
    return colours
