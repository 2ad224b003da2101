"""The splits of a dataset folder, opened together: one numbering of classes, one grey scale."""

from __future__ import annotations

import filecmp
import logging
from collections.abc import Sequence
from pathlib import Path

from isgseg.data.annotations import NAME, Annotations, find_image, read_annotations
from isgseg.data.classes import class_names
from isgseg.data.coco import CocoInstances
from isgseg.data.images import Window, common_window, read_header
from isgseg.data.metadata import DatasetMetadata, read_metadata
from isgseg.errors import InputError

log = logging.getLogger(__name__)

SPLITS = ("train", "val")


def open_splits(
    root: str | Path, wanted: Sequence[str] = SPLITS, window: Window | None = None
) -> dict[str, CocoInstances]:
    """Opens splits, with every check that needs no pixel.

    The other split, where it is there, is read too: a class has the same number in both.

    Args:
        root: holds `train/`, `val/` and perhaps `dataset.yaml`.
        wanted: which splits to open.
        window: values of 16-bit and float images that become 0 and 255; None: the window of
            `dataset.yaml`, or else the range of the images of both splits.

    Raises:
        InputFileNotFoundError: a file is missing.
        InputError: a file, an entry or an image is wrong, or the splits do not fit each other; the
            message names it.
    """
    root = Path(root)
    metadata = read_metadata(root)
    files = {
        name: read_annotations(root / name)
        for name in dict.fromkeys((*SPLITS, *wanted))
        if name in wanted or (root / name / NAME).is_file()
    }
    _warn_of_shared_images(list(files.values()))
    classes = class_names(list(files.values()))
    if window is None:
        window = _window(list(files.values()), metadata)
    splits = {name: CocoInstances(files[name], classes, window) for name in wanted}
    for split in splits.values():
        _check_channels(split, metadata.z_context)
        first = splits[wanted[0]]
        if split.headers[0].deep != first.headers[0].deep:
            raise InputError(
                f"{split.files[0]} is {split.headers[0].deep}, but {first.files[0]} is "
                f"{first.headers[0].deep}; save all images of a dataset alike"
            )
    return splits


def _window(files: Sequence[Annotations], metadata: DatasetMetadata) -> Window | None:
    """The window of deep images; None of 8-bit ones, which are taken as they are."""
    paths = [
        find_image(file.folder, image["file_name"], file.path)
        for file in files
        for image in file.images
    ]
    deep = read_header(paths[0]).deep
    if deep == "8-bit":
        return None
    known = metadata.normalization
    if known is None:
        low, high = common_window(paths)
        source = f"the range of all {len(paths)} images"
    elif known.method == "window" and known.low is not None and known.high is not None:
        low, high = known.low, known.high
        source = "normalization in dataset.yaml; what is beyond is clipped"
    else:
        raise InputError(
            f"{paths[0]} is {deep}, but dataset.yaml says normalization.method={known.method}, of "
            "8-bit images; give method: window with low and high, or remove normalization"
        )
    log.info(
        "%s images: value %g becomes grey value 0, %g becomes 255 (%s)", deep, low, high, source
    )
    return low, high


def _warn_of_shared_images(files: Sequence[Annotations]) -> None:
    """Warns of images that are in two splits, under one name."""
    if len(files) < 2:
        return
    first, second = (
        {
            image["file_name"]: find_image(file.folder, image["file_name"], file.path)
            for image in file.images
        }
        for file in files[:2]
    )
    shared = [
        name
        for name in first.keys() & second.keys()
        if filecmp.cmp(first[name], second[name], shallow=False)
    ]
    if shared:
        log.warning(
            "%s and %s share %d images, such as %s: scores will be too good; move each image into "
            "one of them",
            files[0].folder,
            files[1].folder,
            len(shared),
            min(shared),
        )


def _check_channels(split: CocoInstances, z_context: int) -> None:
    """Raises InputError for an image with other channels than the network will have.

    Grey images fit every network: their channel is repeated.
    """
    wanted = (1, 2 * z_context + 1) if z_context else (1, 3)
    for file, header in zip(split.files, split.headers, strict=True):
        if header.channels not in wanted:
            right = f"1 or {wanted[1]}"
            raise InputError(
                f"{file} has {header.channels} channels, but z_context={z_context} of dataset.yaml "
                f"needs {right}; write z_context: N for 2 N + 1 slices into it, or save the images "
                "anew"
            )
