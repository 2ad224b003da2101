"""Paths and globs as users give them."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from isgseg.errors import InputError
from isgseg.io.places import HDF5, is_there, is_zarr, place_of

Patterns = str | Path | Sequence[str | Path]


def is_list(patterns: Patterns) -> bool:
    """Whether the files are named one by one, so that their order is the user's own."""
    return all(is_volume(user_path(pattern)) for pattern in as_list(patterns))


def natural(path: Path) -> list[list[tuple[int, int, str]]]:
    """A sorting key in which numbers count as numbers and case does not matter."""
    return [
        [
            (1, int(part), "") if part[0] in "0123456789" else (2 * (part != "."), 0, part)
            for part in re.findall(r"[0-9]+|[^0-9.]+|\.", name.lower(), re.ASCII)
        ]
        for name in path.parts
    ]


def as_list(patterns: Patterns) -> list[str | Path]:
    """The paths and globs of a list, or of one alone.

    Raises:
        InputError: something else was given.
    """
    if isinstance(patterns, (str, Path)):
        return [patterns]
    if isinstance(patterns, Sequence) and all(isinstance(part, (str, Path)) for part in patterns):
        return list(patterns)
    raise InputError(f"{patterns} names no files; give a path, a pattern, or a list of these")


def user_path(pattern: str | Path) -> Path:
    """The path, with the home folder for ~.

    Raises:
        InputError: no path can be that.
    """
    if "\0" in str(pattern):
        raise InputError(f"{str(pattern)!r}: a path has no null character")
    try:
        return Path(pattern).expanduser()  # a shell leaves the ~ of volume=~/cell.mrc alone
    except RuntimeError as error:  # ~name, and nobody of that name
        raise InputError(f"{pattern}: {error}; give the whole path") from error


def is_file(path: Path) -> bool:
    """Whether there is a file.

    Raises:
        InputError: that cannot be told.
    """
    return _told(Path.is_file, path)


def is_volume(path: Path) -> bool:
    """Whether there is a file, or what else holds a volume; see `isgseg.io.places`.

    Raises:
        InputError: that cannot be told.
    """
    return _told(is_there, path)


def _told(ask: Callable[[Path], bool], path: Path) -> bool:
    try:
        return ask(path)
    except OSError as error:  # too long a name, or a folder that may not be entered
        raise InputError(f"{path}: {error.strerror}; give a path that can be read") from error


def matches(pattern: str | Path, folders: bool = False) -> list[Path]:
    """The file of that name, or what a glob matches, sorted by `natural`.

    Of an HDF5 file `cells/*.h5:/entry/data` matches the file; of a Zarr that matches, what lies
    within it does not count.

    Args:
        pattern: as the user gives it.
        folders: whether a folder means the files in it.

    Raises:
        InputError: it is a folder, and may not be.
    """
    path = user_path(pattern)
    if is_volume(path):
        return [path]
    if path.is_dir():
        if folders:
            return files_of(path)
        raise InputError(f"{path} is a folder; name its files, e.g. {path}/*.mrc")
    place = place_of(path)
    inside = place.inside if place is not None and place.suffix in HDF5 else ""
    glob_of_files = str(place.disk) if place is not None and inside else str(path)
    found = set(map(Path, glob.glob(glob_of_files, recursive=True)))
    tops = [file for file in found if not any(is_zarr(p) for p in file.parents if p in found)]
    files = sorted(sorted(tops), key=natural)
    return [Path(f"{file}:/{inside}") for file in files] if inside else files


def files_of(folder: Path) -> list[Path]:
    """The files of a folder, not those of folders in it, sorted by `natural`; hidden ones are not.

    A Zarr counts as a file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        inside = [path for path in folder.iterdir() if path.is_file() or is_zarr(path)]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted((path for path in inside if not path.name.startswith(".")), key=natural)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Of a Zarr it is that of the names and contents of its files, without the labels that an image
    may have; of a dataset that of its HDF5 file and of its name.

    Raises:
        InputError: it cannot be read.
    """
    place = place_of(path)
    disk = path if place is None or place.suffix not in HDF5 else place.disk
    try:
        if disk.is_dir():
            return _sha256_of_zarr(disk)
        with disk.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        if place is not None and place.suffix in HDF5:
            digest.update(place.inside.encode())
        return digest.hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _sha256_of_zarr(folder: Path) -> str:
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        if Path(place) == folder and "labels" in folders:
            folders.remove("labels")
        folders.sort()
        for name in sorted(files):
            if name != ".zmetadata":  # what lies there already, and the labels too
                inner = Path(place, name)
                digest.update(inner.relative_to(folder).as_posix().encode())
                with inner.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
