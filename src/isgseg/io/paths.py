"""Paths and globs as users give them."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from isgseg.errors import InputError

Patterns = str | Path | Sequence[str | Path]


def is_list(patterns: Patterns) -> bool:
    """Whether the files are named one by one, so that their order is the user's own."""
    return all(is_file(user_path(pattern)) for pattern in as_list(patterns))


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
    try:
        return path.is_file()
    except OSError as error:  # too long a name, or a folder that may not be entered
        raise InputError(f"{path}: {error.strerror}; give a path that can be read") from error


def matches(pattern: str | Path, folders: bool = False) -> list[Path]:
    """The file of that name, or what a glob matches, sorted by `natural`.

    Args:
        pattern: as the user gives it.
        folders: whether a folder means the files in it.

    Raises:
        InputError: it is a folder, and may not be.
    """
    path = user_path(pattern)
    if is_file(path):
        return [path]
    if path.is_dir():
        if folders:
            return files_of(path)
        raise InputError(f"{path} is a folder; name its files, e.g. {path}/*.mrc")
    return sorted(map(Path, sorted(glob.glob(str(path), recursive=True))), key=natural)


def files_of(folder: Path) -> list[Path]:
    """The files of a folder, not those of folders in it, sorted by `natural`; hidden ones are not.

    Raises:
        InputError: it cannot be read.
    """
    try:
        inside = [path for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from error
    return sorted((path for path in inside if not path.name.startswith(".")), key=natural)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
