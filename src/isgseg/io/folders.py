"""A folder's parts, replaced together: new ones are written beside and renamed into place.

The scratch folder lies inside the folder itself, so that renaming works wherever the folder is: a
mount point, the working folder. It holds `new/`, which is filled first, and `old/`, to which the
parts that are replaced move. `parts.txt` is there once renaming has begun; the last part of its
list is the mark that all are in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from isgseg.errors import InputError
from isgseg.io.atomic import (
    dead_scratch,
    disk_errors,
    remove_stale,
    remove_tree,
    scratch_beside,
    sync,
    writing,
)

try:
    import fcntl
except ImportError:  # Windows: no lock; names are unique all the same
    fcntl = None  # type: ignore[assignment]

_LOCK = ".isgseg-lock"


@contextlib.contextmanager
def replacing_parts(folder: Path, check: Callable[[], None], mark: str) -> Iterator[Path]:
    """A folder to fill: its entries become entries of `folder` if the block succeeds.

    Either all of them do or, killed in between, none: the next call puts the old ones back first.
    Entries of `folder` that have none of their names are left alone.

    Args:
        folder: is created where it is not there.
        check: raises an error where an entry of the folder must stay. It is called at first, and
            again before anything is replaced.
        mark: the part that says that the folder is complete. It is taken away first and put in
            place last.

    Raises:
        InputError: the folder cannot be written, or another process fills it.
    """
    created = not os.path.lexists(folder)
    try:
        with locked(folder):
            recover(folder)
            check()
            scratch = scratch_beside(folder / "parts")
            try:
                with writing(folder):
                    (scratch / "new").mkdir(parents=True)
                with disk_errors(folder):
                    yield scratch / "new"
                check()
                names = [path.name for path in (scratch / "new").iterdir() if path.name != mark]
                _sync_all()
                _swap(folder, scratch, [*sorted(names), mark])
            finally:
                _undo(folder, scratch)
    finally:
        if created:
            with contextlib.suppress(OSError):  # not empty: it has been filled
                folder.rmdir()


@contextlib.contextmanager
def locked(folder: Path, name: str = _LOCK) -> Iterator[None]:
    """Keeps other processes from filling the same folder; it is created where it is not there.

    The lock ends with the process, however it ends. Where a file system has no locks there is none.

    Args:
        folder: to be filled.
        name: of the lock file, which is removed at the end. Another name keeps those apart that
            write a part of the folder only.

    Raises:
        InputError: the folder cannot be written, or another process holds it.
    """
    path = folder / name
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; give a folder")
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
            if not _lock(handle, folder) or _is_open_file(handle, path):
                break
            os.close(handle)  # whoever held it has removed it meanwhile
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def recover(folder: Path) -> None:
    """Ends what a killed process has begun in a folder: parts half replaced are put back.

    The caller holds the folder's lock.
    """
    for scratch in dead_scratch(folder):
        if scratch.is_dir():
            _undo(folder, scratch)
    remove_stale(folder)


def _swap(folder: Path, scratch: Path, names: Sequence[str]) -> None:
    """Moves old parts to `old/` and new ones to their place; the last name is the mark."""
    with writing(folder):
        (scratch / "old").mkdir()
        listed = scratch / "parts.tmp"
        listed.write_text("\n".join(names))
        sync(listed)
        os.rename(listed, scratch / "parts.txt")
        sync(scratch)
        for name in reversed(names):
            if os.path.lexists(folder / name):
                os.rename(folder / name, scratch / "old" / name)
        sync(folder)
        for name in names:
            if name == names[-1]:
                sync(folder)
            os.rename(scratch / "new" / name, folder / name)
        sync(folder)


def _undo(folder: Path, scratch: Path) -> None:
    """Puts old parts back unless all new ones are in place, and removes the scratch folder."""
    listed = scratch / "parts.txt"
    names = listed.read_text().splitlines() if listed.is_file() else []
    if names and os.path.lexists(scratch / "new" / names[-1]):
        for name in names:
            new, old, place = scratch / "new" / name, scratch / "old" / name, folder / name
            if not os.path.lexists(new) and os.path.lexists(place):
                os.rename(place, new)
            if os.path.lexists(old):
                os.rename(old, place)
        sync(folder)
        listed.unlink()  # from here on the scratch folder has nothing that must be kept
    remove_tree(scratch)


def _sync_all() -> None:
    """Waits until all is on the disk, in one call: of thousands of files, each would take long."""
    if hasattr(os, "sync"):
        os.sync()


def _lock(handle: int, folder: Path) -> bool:
    """Whether the file is locked now; False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(handle)
            raise InputError(
                f"{folder}: another process is writing into it; wait for it, or give another "
                "output_dir"
            ) from None
        return False
    return True


def _is_open_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A scratch path: what the block makes there becomes the folder `path` if the block succeeds.

    The former folder moves away before and is removed after; killed in between, the next call for
    the same path puts it back.

    Raises:
        InputError: the folder cannot be written. All other errors of the block pass unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        for scratch in dead_scratch(path.parent):
            if scratch.is_dir() and scratch.name.endswith(f".{path.name[-100:]}"):
                _put_back(path, scratch)
        scratch = scratch_beside(path)
        scratch.mkdir()
    try:
        with disk_errors(path):
            yield scratch / "new"
        with writing(path):
            _sync_all()
            if os.path.lexists(path):
                os.rename(path, scratch / "old")
            os.rename(scratch / "new", path)
            sync(path.parent)
    finally:
        _put_back(path, scratch)


def _put_back(path: Path, scratch: Path) -> None:
    """Puts the former folder back unless the new one is in place, and removes the scratch one."""
    if os.path.lexists(scratch / "old") and not os.path.lexists(path):
        os.rename(scratch / "old", path)
    remove_tree(scratch)
