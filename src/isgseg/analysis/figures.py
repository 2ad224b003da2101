"""Images of granules: a slice beside its granules, and ground truth beside prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from scipy import ndimage

from isgseg.errors import InputError
from isgseg.io.atomic import replacing
from isgseg.io.formats import Array

RGB = npt.NDArray[np.uint8]

_HIGHLIGHT = (1.0, 0.82, 0.0)  # yellow: none of the greys, and seen by the colour-blind
_PANEL_INCHES = 5.0
_DPI = 200  # two pixels of the figure for one of a 473-pixel slice
_OVERLAY_PIXELS = 768
# The steps of Roberts' three-dimensional R sequence: labels that follow each other get colours
# far apart, and each keeps its colour whatever the other labels are.
_COLOUR_STEPS = (0.8191725, 0.6710436, 0.5497005)


def granule_figure(
    volume: Array,
    labels: Array,
    voxel_size: Sequence[float] | None,
    path: str | Path,
    z: int | None = None,
    name: str = "",
) -> Path:
    """Draw a slice, the slice with its granules marked, and with each granule in its own colour.

    Args:
        volume: (z, y, x), grey values.
        labels: (z, y, x), unsigned integers, 0 is background.
        voxel_size: nm, (z, y, x); None draws no scale bar.
        path: Of the image; its suffix is the format. Its folder is created.
        z: Which slice, counted from 0; None takes the one with most granules.
        name: What the title calls the volume.

    Raises:
        InputError: there is no slice `z`.
        ValueError: `labels` and `volume` differ in shape.
    """
    if volume.shape != labels.shape:
        raise ValueError(f"labels are {labels.shape} but the volume is {volume.shape} (z, y, x)")
    if z is not None and (type(z) is not int or z not in range(len(labels))):
        raise InputError(f"there is no slice {z}; choose one of 0 to {len(labels) - 1}")
    if z is None:
        z = richest_slice(labels)
    image, granules = volume[z], labels[z]
    low, high = contrast_limits(image, granules > 0)
    height, width = image.shape
    aspect = 1.0 if voxel_size is None else voxel_size[1] / voxel_size[2]
    panel_height = _PANEL_INCHES * min(max(height * aspect / width, 0.3), 3)
    figure = Figure(figsize=(3 * _PANEL_INCHES, panel_height + 0.5), dpi=_DPI, layout="constrained")
    marked = np.zeros((height, width, 4))
    marked[granules > 0] = (*_HIGHLIGHT, 0.55)
    titles = (
        f"{name}, slice z = {z} of 0 to {len(labels) - 1}".removeprefix(", "),
        f"{_count(granules)} granules in this slice",
        f"{_count(labels)} granules in the volume, by number",
    )
    for axes, title, layer in zip(
        figure.subplots(1, 3), titles, (None, marked, label_colours(granules)), strict=True
    ):
        axes.imshow(image, "gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
        if layer is not None:
            axes.imshow(layer, aspect=aspect, interpolation="nearest")
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
        if voxel_size is not None:
            _scale_bar(axes, width, height, voxel_size[2])
    path = Path(path)
    with replacing(path) as scratch:
        figure.savefig(scratch, format=path.suffix[1:] or "png", bbox_inches="tight")
    return path


def overlay(image: Array, target: Array, prediction: Array, pixels: int = _OVERLAY_PIXELS) -> RGB:
    """Outline true masks in green and predicted ones in magenta; where both agree it is white.

    Small images are enlarged by a whole factor so that the outlines hide little.

    Args:
        image: (H, W), grey values.
        target: (N, H, W), true masks; N may be 0.
        prediction: (M, H, W), predicted masks; M may be 0.
        pixels: The least that the longer side has after enlargement.

    Returns:
        (H * factor, W * factor, 3).

    Raises:
        ValueError: The masks are not as large as the image.
    """
    for masks in (target, prediction):
        if masks.ndim != 3 or masks.shape[1:] != image.shape:
            raise ValueError(f"masks are {masks.shape}, expected (N, H, W) of image {image.shape}")
    factor = max(1, math.ceil(pixels / max(image.shape)))
    low, high = contrast_limits(image, np.any(target, axis=0))
    grey = np.clip((image.astype(np.float32) - low) / (high - low), 0, 1) * 255
    drawn = np.repeat(_enlarged(grey.astype(np.uint8), factor)[..., None], 3, axis=2)
    true, predicted = _outlines(target, factor), _outlines(prediction, factor)
    drawn[true | predicted] = 0
    drawn[true, 1] = 255
    drawn[predicted, ::2] = 255
    drawn[true & predicted] = 255
    return drawn


def richest_slice(labels: Array) -> int:
    """The slice with most granules, the middle one if there are none.

    Args:
        labels: (z, y, x).
    """
    counts = [_count(plane) for plane in labels]
    return int(np.argmax(counts)) if any(counts) else len(labels) // 2


def contrast_limits(image: Array, mask: Array) -> tuple[float, float]:
    """Grey values to show as black and white: the cytoplasm is mid-grey, granules are bright.

    Cytoplasm is what lies within 5 pixels of a granule, or the whole image where there is none, by
    its median, which a bead or a blank band does not shift. Min-max limits would be theirs.

    Args:
        image: (H, W), grey values.
        mask: (H, W), True in granules.
    """
    image = image.astype(np.float32)
    near = ndimage.binary_dilation(mask, iterations=5) & ~mask if mask.any() else ~mask
    cytoplasm = image[near] if near.any() else image.ravel()
    middle = float(np.median(cytoplasm))
    deviation = 1.4826 * float(np.median(np.abs(cytoplasm - middle)))
    contrast = abs(float(np.percentile(image[mask], 90)) - middle) if mask.any() else 0.0
    reach = max(1.3 * contrast, 4 * deviation)
    low, high = max(middle - reach, float(image.min())), min(middle + reach, float(image.max()))
    return (low, high) if low < high else (middle - 0.5, middle + 0.5)


def label_colours(labels: Array) -> npt.NDArray[np.float64]:
    """Each label's own colour, the same in every slice and run; background is transparent.

    Args:
        labels: (H, W), unsigned integers.

    Returns:
        (H, W, 4), RGBA from 0 to 1.
    """
    found, inverse = np.unique(labels, return_inverse=True)
    hue, saturation, value = (found.astype(np.float64) * step % 1 for step in _COLOUR_STEPS)
    # No dark or pale colours: they would pass for the grey image below.
    saturation, value = 0.55 + 0.45 * saturation, 0.7 + 0.3 * value
    rgb = hsv_to_rgb(np.column_stack([hue, saturation, value]))
    rgba = np.column_stack([rgb, found > 0])
    return np.asarray(rgba[inverse.reshape(labels.shape)])


def _count(labels: Array) -> int:
    return len(np.unique(labels[labels > 0]))


def _scale_bar(axes: Axes, width: int, height: int, nm_per_pixel: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten nm, about a fifth of the image, bottom left."""
    target = width * nm_per_pixel / 5
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    bar = AnchoredSizeBar(
        axes.transData,
        length / nm_per_pixel,
        f"{length / 1000:g} µm" if length >= 1000 else f"{length:g} nm",
        "lower left",
        color="white",
        label_top=True,
        fill_bar=True,
        size_vertical=0.006 * height,
    )
    bar.patch.set(facecolor="black", edgecolor="none", alpha=0.5)  # seen on white as on black
    axes.add_artist(bar)


def _enlarged(image: Array, factor: int) -> Array:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _outlines(masks: Array, factor: int) -> npt.NDArray[np.bool_]:
    """The inner outlines of all masks together, one pixel wide after enlargement."""
    height, width = masks.shape[1:]
    edges = np.zeros((height * factor, width * factor), bool)
    for mask in masks.astype(bool):
        large = _enlarged(mask, factor)
        edges |= large & ~ndimage.binary_erosion(large)
    return edges
