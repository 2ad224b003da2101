"""Which label file belongs to which volume: by name, and by order only where lists say so.

Names are compared without the words that tell an image from its labels, without regard to case,
and with numbers as numbers: `Cell_01_image.mrc` belongs to `cell1_labels.tif`.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from isgseg.errors import InputError
from isgseg.io.formats import VoxelSize
from isgseg.io.names import cell_of, is_label, numbers_of, spelling_of
from isgseg.io.paths import Patterns, is_list
from isgseg.io.unpaired import KEY_OF_ROLE, leftovers, listed_names
from isgseg.io.volumes import Volume, find_volumes, read_labels, read_volume

log = logging.getLogger(__name__)
Pair = tuple[Path, Path]


def find_pairs(
    volumes: Patterns, labels: Patterns, role: str = "label", *, ordered: bool = True
) -> list[Pair]:
    """Volumes, each with the file of labels of its name; every pair is logged.

    Explicit lists of equal length may have names that say nothing: they are paired by their order,
    unless names or numbers contradict it. A file that both arguments match, as globs such as
    `cells/*.mrc` beside `cells/*_labels.mrc` do, is taken once.

    Args:
        volumes: a path, a glob, or a list of these.
        labels: the same.
        role: what messages call the second files: `label` or `prediction`.
        ordered: whether the order of `volumes` is the user's own; False where it came from a glob.

    Returns:
        The pairs in the order of the volumes: that of a list, else by name, cell2 before cell10.

    Raises:
        InputError: a file has no partner or more than one; the message names the files.
    """
    images, others = _each_once(volumes, labels, role)
    if all(map(is_label, images)) and not any(map(is_label, [*others, *_folders(others)])):
        key = KEY_OF_ROLE.get(role, role)
        raise InputError(
            f"by their names, volumes= holds labels ({listed_names(images[:3])}) and {key}= the "
            f"volumes ({listed_names(others[:3])}); exchange the two, or rename the files"
        )
    if not is_list(volumes):
        images = _without_labels(images)
    pairs = _by_name(images, others)
    if len(pairs) < max(len(images), len(others)):
        listed = ordered and is_list(volumes) and is_list(labels) and len(images) == len(others)
        if not listed:
            raise InputError(leftovers(images, others, pairs, role))
        pairs = _by_order(images, others, pairs, role)
    elif is_list(labels) and [pairs[image] for image in images] != others:
        log.warning("Paired by name; the lists are in another order")
    for number, image in enumerate(images, start=1):
        log.info("Pair %d of %d: %s with %s", number, len(images), image, pairs[image])
    return [(image, pairs[image]) for image in images]


def find_images(volumes: Patterns) -> list[Path]:
    """The volumes that paths and globs name, less the labels that a glob matches beside them.

    For commands that take volumes alone. What is left out is logged; a list of files is taken as
    it is.

    Raises:
        InputError: as `find_volumes`.
    """
    files = find_volumes(volumes)
    if not is_list(volumes):
        return _without_labels(files)
    for file in filter(is_label, files):
        log.warning("%s: by its name it holds labels; is it the tomogram?", file)
    return files


def _without_labels(files: list[Path]) -> list[Path]:
    """The files, less those whose names say that they are the labels of another of them."""
    images = {cell_of(file) for file in files if not is_label(file)}
    labels = [file for file in files if is_label(file) and cell_of(file) in images]
    if labels:
        log.warning(
            "Left out of volumes=: %s. By their names they are labels of other files it matches; "
            "name a file without a glob to take it as a volume",
            listed_names(labels),
        )
    return [file for file in files if file not in labels]


def load_pair(
    image: str | Path,
    labels: str | Path,
    voxel_size: VoxelSize | None = None,
    *,
    check: bool = True,
) -> tuple[Volume, Volume]:
    """Reads a volume and its labels; both have one voxel size.

    Args:
        image: the volume's file.
        labels: the file of its labels.
        voxel_size: nm, (z, y, x); None: as the volume's file says, else as that of the labels does.
        check: warn where labels seem to be no instances.

    Raises:
        InputError: one cannot be read, or their shapes differ.
    """
    volume, truth = read_volume(image), read_labels(labels, check=check)
    if volume.data.shape != truth.data.shape:
        raise InputError(
            f"{image} is {volume.data.shape} (z, y, x), but its labels {labels} are "
            f"{truth.data.shape}; labels belong to a volume of the same shape"
        )
    told = [size for size in (volume.voxel_size, truth.voxel_size) if size is not None]
    if voxel_size is None and told:
        voxel_size = told[0]
        if any(abs(a - b) > 0.01 * a for a, b in zip(told[0], told[-1], strict=True)):
            log.warning(
                "voxel size %s nm in %s, %s nm in %s; using the first",
                told[0],
                image,
                told[1],
                labels,
            )
    return replace(volume, voxel_size=voxel_size), replace(truth, voxel_size=voxel_size)


def _each_once(volumes: Patterns, labels: Patterns, role: str) -> tuple[list[Path], list[Path]]:
    """Both sides' files; one that is on both goes to the list, the narrower glob, or its name."""
    images, others = find_volumes(volumes), find_volumes(labels)
    first, second = ({path.resolve() for path in paths} for paths in (images, others))
    shared = first & second
    if not shared:
        return images, others
    listed = is_list(volumes), is_list(labels)
    if listed == (False, True) or (listed == (False, False) and second < first):
        mine = set[Path]()
    elif listed == (True, False) or (listed == (False, False) and first < second):
        mine = shared
    else:
        mine = {path for path in shared if not is_label(path)}
    images = [path for path in images if path.resolve() not in shared - mine]
    others = [path for path in others if path.resolve() not in mine]
    key = KEY_OF_ROLE.get(role, role)
    if all(listed) or not images or not others:
        raise InputError(
            f"volumes= and {key}= name the same files, {listed_names(sorted(shared))}; give the "
            f"volumes in the one and the {role} files in the other"
        )
    log.info(
        "volumes= and %s= both match %s; as volumes are taken %s, as %s files %s",
        key,
        listed_names(sorted(shared)),
        listed_names(sorted(mine)),
        role,
        listed_names(sorted(shared - mine)),
    )
    return images, others


def _by_name(images: list[Path], others: list[Path]) -> dict[Path, Path]:
    """Pairs whose names leave no doubt: as they are spelt, then with numbers as numbers."""
    pairs: dict[Path, Path] = {}
    for key in (spelling_of, cell_of):
        taken = {cell_of(path) for path in pairs}
        left = [path for path in images if cell_of(path) not in taken]
        right = [path for path in others if cell_of(path) not in taken]
        pairs |= _unique(left, right, key, 0)
    return pairs


def _unique(
    images: Iterable[Path], others: Iterable[Path], key: Callable[[Path], object], depth: int
) -> dict[Path, Path]:
    """Pairs files of one key; files that share it are told apart by their folders, inside out."""
    groups: dict[object, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, files in enumerate((images, others)):
        for file in files:
            place = Path(os.path.abspath(file))
            parts = [place, *place.parents]
            groups[key(parts[depth]) if depth < len(parts) else None][side].append(file)
    pairs: dict[Path, Path] = {}
    for left, right in groups.values():
        if len(left) == len(right) == 1:
            pairs[left[0]] = right[0]
        elif left and right and depth < _depth([*left, *right]):
            pairs |= _unique(left, right, key, depth + 1)
    return pairs


def _depth(files: Iterable[Path]) -> int:
    return max(len(Path(os.path.abspath(file)).parts) for file in files)


def _by_order(
    images: list[Path], others: list[Path], named: dict[Path, Path], role: str
) -> dict[Path, Path]:
    """Pairs lists by their order.

    Raises:
        InputError: a name or a number says otherwise.
    """
    pairs = dict(zip(images, others, strict=True))
    partner = {**named, **{other: image for image, other in named.items()}}
    numbers = [numbers_of(other) for other in others]
    for image, other in pairs.items():
        swapped = numbers_of(image) and numbers_of(image) != numbers_of(other)
        if (
            partner.get(image, other) != other
            or partner.get(other, image) != image
            or (swapped and numbers_of(image) in numbers)
        ):
            raise InputError(
                f"by their order, {image} would belong to {other}, but their names say otherwise; "
                f"give both lists in one order, or names that are alike, such as cell1.mrc and "
                f"cell1_{KEY_OF_ROLE.get(role, role)}.mrc"
            )
    log.warning("Names do not tell which %s file belongs to which volume: paired by order", role)
    return pairs


def _folders(files: Iterable[Path]) -> list[Path]:
    """The folders that hold the files, whose names may tell what they hold."""
    return [Path(os.path.abspath(file)).parent for file in files]
