"""Labelled volumes to slice patches with COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic.dataclasses
from PIL import Image
from pydantic import ConfigDict, Field
from scipy import ndimage as ndi

from isgseg.data.centre_maps import centre_file, centre_map, save_centre_map
from isgseg.data.normalization import Normalizer
from isgseg.data.polygons import encode
from isgseg.io.formats import VoxelSize

AXES = {"z": 0, "y": 1, "x": 2}
PLACE = ("volume", "axis", "slice", "top", "left")  # where an image was cut from
Pixels = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Axis = Literal["z", "y", "x"]


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class PatchSettings:
    """How volumes are cut; `conf/prepare.yaml` describes each.

    Attributes:
        size: side of a patch, pixels; slices smaller than that are kept whole.
        stride: distance between neighbouring patches, pixels; at most `size`, so that no pixel is
            left out. None: as `size`.
        axes: the axes along which slices are taken, of z, y and x.
        slice_step: every how many slices one is taken.
        z_context: how many slices on either side an image shows too; see `image_maker`.
        min_pixels: masks of an object smaller than this are left out, and counted.
        empty_share: share of patches without any object that is allowed in the training split.
        centre_map: whether the `centre_map` of each patch is kept too, which `model=unet` needs.

    Raises:
        ValueError: a value is out of range.
    """

    size: Pixels = 256
    stride: Pixels | None = None
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)] = ("z",)
    slice_step: Annotated[int, Field(strict=True, ge=1)] = 1
    z_context: Annotated[int, Field(strict=True, ge=0, le=49)] = 0
    min_pixels: Annotated[int, Field(strict=True, ge=1)] = 1
    empty_share: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.1
    centre_map: Annotated[bool, Field(strict=True)] = False

    def __post_init__(self) -> None:
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"patches.axes is {list(self.axes)}; name each axis once")
        if self.stride is not None and self.stride > self.size:
            raise ValueError(
                f"patches.stride is {self.stride}, patches.size {self.size}: pixels between the "
                "patches would be left out; give a stride up to the size"
            )


@dataclass
class Split:
    """One split while it grows: its COCO content and what was left out."""

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    too_small: int = 0
    empty_left_out: int = 0

    def add(
        self,
        image: npt.NDArray[np.uint8],
        labels: npt.NDArray[Any],
        place: dict[str, Any],
        centre: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Saves a patch and its objects; every object of `labels` becomes one annotation.

        Args:
            image: (H, W) or (H, W, C).
            labels: (H, W), 0 is background.
            place: where it was cut from: `volume`, `axis`, `slice`, `top` and `left`.
            centre: (H, W), its centre map, which is kept where `labels` has an object.
        """
        identifier = len(self.images) + 1
        suffix = "png" if image.ndim == 2 or image.shape[2] == 3 else "tif"
        name = "{volume}_{axis}{slice:04d}_{top:04d}_{left:04d}".format_map(place) + f".{suffix}"
        save_image(self.folder / "images" / name, image)
        if centre is not None:
            path = centre_file(self.folder, name)
            path.parent.mkdir(exist_ok=True)
            save_centre_map(path, np.where(labels > 0, centre, 0).astype(np.uint8))
        height, width = labels.shape
        entry = {"id": identifier, "file_name": name, "height": height, "width": width}
        self.images.append(entry | place)
        for number, window in enumerate(ndi.find_objects(labels), start=1):
            if window is not None:
                annotation = annotate(labels, number, window)
                annotation |= {"id": len(self.annotations) + 1, "image_id": identifier}
                self.annotations.append(annotation)

    def save(self) -> None:
        """Writes annotations.json."""
        content = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": [{"id": 1, "name": "granule"}],
        }
        (self.folder / "annotations.json").write_text(json.dumps(content))


def save_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Saves (H, W) or (H, W, 3) as PNG, and of more channels each as a page of a TIFF."""
    if path.suffix == ".png":
        Image.fromarray(image).save(path, compress_level=1)
        return
    first, *others = (Image.fromarray(page) for page in np.moveaxis(image, -1, 0))
    # As noise hardly shrinks, each reading would wait for its decompression in vain.
    first.save(path, compression="raw", save_all=True, append_images=others)


def annotate(labels: npt.NDArray[Any], number: int, window: tuple[slice, slice]) -> dict[str, Any]:
    """One COCO annotation; its box is tight and half-open, as the masks are the ground truth."""
    mask = labels[window] == number
    rows, columns = window
    segmentation = encode(mask)
    if isinstance(segmentation, list):  # polygons move with their window; run lengths do not
        segmentation = [
            [value + (rows.start if i % 2 else columns.start) for i, value in enumerate(polygon)]
            for polygon in segmentation
        ]
    else:
        segmentation = encode(labels == number)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    return {
        "category_id": 1,
        "segmentation": segmentation,
        "bbox": [columns.start, rows.start, width, height],
        "area": int(mask.sum()),
        "iscrowd": 0,
    }


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where patches begin so that they cover `length` pixels; the last one is moved inside."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def drop_small(labels: npt.NDArray[Any], min_pixels: int) -> tuple[npt.NDArray[Any], int]:
    """Removes masks of fewer pixels; returns the rest, renumbered from 1, and their count."""
    numbers, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    keep = (counts >= min_pixels) & (numbers > 0)
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    return renumbered[inverse].reshape(labels.shape), int(((numbers > 0) & ~keep).sum())


def image_maker(
    slices: npt.NDArray[Any], normalizer: Normalizer, z_context: int
) -> Callable[[int], npt.NDArray[np.uint8]]:
    """What makes of one slice what the network sees; training and prediction both come through it.

    Args:
        slices: (n, H, W) voxels.
        normalizer: the volume's normalization. It is computed once for each slice, if they come in
            order.
        z_context: how many slices before and after it to show too. The end slices stand in for
            those beyond.

    Returns:
        A function from the index of a slice to (H, W) uint8, or with context
        (H, W, 2 context + 1), the slice itself in the middle.
    """
    at = lru_cache(2 * z_context + 1)(lambda number: normalizer(slices[number]))

    def image_of(index: int) -> npt.NDArray[np.uint8]:
        if z_context == 0:
            return at(index)
        shown = np.clip(np.arange(index - z_context, index + z_context + 1), 0, len(slices) - 1)
        return np.stack([at(number) for number in shown.tolist()], axis=-1)

    return image_of


def cut_volume(
    split: Split,
    name: str,
    volume: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    normalizer: Normalizer,
    settings: PatchSettings,
    all_empty: bool,
    voxel_size: VoxelSize | None = None,
) -> None:
    """Cuts one volume into a split.

    Args:
        split: grows by the patches.
        name: of the volume; begins every image's name.
        volume: (z, y, x).
        labels: (z, y, x), 0 is background.
        normalizer: the volume's normalization.
        settings: how to cut.
        all_empty: keep every patch without objects (validation: false positives must count), or
            only `empty_share` of them, evenly spread (training).
        voxel_size: nm, (z, y, x), for centre maps; None: voxels are cubes.
    """
    empty: list[tuple[Any, ...]] = []  # what `Split.add` takes
    full = 0
    stride = settings.stride or settings.size
    depth = centre_map(labels, voxel_size) if settings.centre_map else None
    for axis in settings.axes:
        slices, label_slices = (np.moveaxis(part, AXES[axis], 0) for part in (volume, labels))
        centres = None if depth is None else np.moveaxis(depth, AXES[axis], 0)
        image_of = image_maker(slices, normalizer, settings.z_context)
        for index in range(0, len(slices), settings.slice_step):
            image = image_of(index)
            for top in starts(image.shape[0], settings.size, stride):
                for left in starts(image.shape[1], settings.size, stride):
                    window = np.s_[top : top + settings.size, left : left + settings.size]
                    kept, small = drop_small(label_slices[index][window], settings.min_pixels)
                    split.too_small += small
                    place = dict(zip(PLACE, (name, axis, index, top, left), strict=True))
                    centre = None if centres is None else centres[index][window]
                    if kept.any() or all_empty:
                        split.add(image[window], kept, place, centre)
                        full += 1
                    else:
                        empty.append((image[window].copy(), kept, place, centre))
    if not all_empty:
        share = settings.empty_share
        wanted = min(len(empty), round(full * share / (1 - share)))
        split.empty_left_out += len(empty) - wanted
        for i in np.linspace(0, len(empty) - 1, wanted).round().astype(int):
            split.add(*empty[i])
