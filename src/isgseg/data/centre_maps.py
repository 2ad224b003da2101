"""Centre maps: how deep inside of its granule a voxel lies, in 3D, which tells granules that touch.

A map of single slices cannot tell granules on top of one another, so that it is made of whole
volumes when they are cut, and kept beside each patch. StarDist's object probability (Schmidt et al.
2018) is the same distance, in 2D and normalized alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage as ndi

from isgseg.data.images import read_header, read_image
from isgseg.errors import InputError
from isgseg.io.formats import VoxelSize

FOLDER = "centre"  # of a split, beside images/
_MANY = 2**24  # numbers beyond it would take a list of as many boxes


def centre_map(
    labels: npt.NDArray[Any], voxel_size: VoxelSize | None = None
) -> npt.NDArray[np.uint8]:
    """The distance of each voxel to the outside of its instance, over the largest of the instance.

    Args:
        labels: (z, y, x), 0 is background.
        voxel_size: nm, (z, y, x); None: voxels are cubes.

    Returns:
        (z, y, x): 255 in the middle of each instance, 0 outside of all. What lies beyond the volume
        is not known, and not counted as outside.
    """
    if labels.max(initial=0) > _MANY:
        numbers, inverse = np.unique(labels, return_inverse=True)
        labels = (inverse + int(numbers[0] > 0)).reshape(labels.shape)
    depth = np.zeros(labels.shape, np.uint8)
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        if box is None:
            continue
        part = labels[box] == number
        margins = [
            (int(side.start > 0), int(side.stop < length))
            for side, length in zip(box, labels.shape, strict=True)
        ]
        padded = np.pad(part, margins)
        if padded.all():
            depth[box] = 255
            continue
        distance = ndi.distance_transform_edt(padded, voxel_size)
        inner = tuple(
            slice(before, before + size)
            for (before, _), size in zip(margins, part.shape, strict=True)
        )
        scaled = np.rint(255 * distance[inner] / distance.max())
        depth[box][part] = scaled[part].astype(np.uint8)
    return depth


def centre_file(folder: Path, image_name: str) -> Path:
    """Where the centre map of an image lies.

    Args:
        folder: of the split.
        image_name: the image's `file_name`.
    """
    return folder / FOLDER / f"{Path(image_name).stem}.png"


def save_centre_map(path: Path, depth: npt.NDArray[np.uint8]) -> None:
    """Saves the (H, W) map of a patch."""
    Image.fromarray(depth).save(path, compress_level=1)


def read_centre_map(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The (H, W) map of a patch.

    Args:
        path: the file.
        shape: (H, W) of the image.

    Raises:
        InputError: it is missing, no grey image, or of another size.
    """
    check_centre_map(path, shape)
    return np.asarray(read_image(path)[0], np.uint8)


def check_centre_map(path: Path, shape: tuple[int, int]) -> None:
    """Whether a map is there and fits its image; its pixels are not read.

    Raises:
        InputError: it is missing, no grey image, or of another size.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is missing: a centre map belongs to each image; make the dataset anew by "
            "isgseg-prepare patches.centre_map=true overwrite=true"
        )
    header = read_header(path)
    if (header.height, header.width) != shape or header.channels != 1 or header.deep != "8-bit":
        raise InputError(
            f"{path} is no centre map of its image: it has {header.width} x {header.height} pixels "
            f"and {header.channels} channels ({header.deep}), not {shape[1]} x {shape[0]} of one "
            "8-bit channel; make the dataset anew by isgseg-prepare"
        )
