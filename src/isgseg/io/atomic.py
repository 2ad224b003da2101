"""Files that appear whole or not at all: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from isgseg.errors import InputError

# What a full or failing disk says, whichever file of the block it says it of.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_LITTLE = 2**20  # bytes; a disk with less is full
_SCRATCH = re.compile(r"\.isgseg-(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9]+)-[0-9a-f]{8}\..+")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A scratch path beside `path`: it becomes `path` if the block succeeds, else it is removed.

    The scratch file has a name of its own, so that two processes that write one file do not mix:
    the later rename wins. What processes that were killed have left in the folder is removed.

    Raises:
        InputError: The folder or the file cannot be written. All other errors of the block pass
            unchanged.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        scratch = scratch_beside(path)
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        with disk_errors(path):
            yield scratch
        with writing(path):
            sync(scratch)
            os.replace(scratch, path)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Every OSError of the block means that `path` cannot be written.

    Raises:
        InputError: in its place.
    """
    try:
        yield
    except OSError as error:
        raise InputError(_cannot(path, error)) from error


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Of the OSErrors of the block, those of a disk that is full or fails mean `path`.

    Raises:
        InputError: in their place. Errors of other files pass unchanged.
    """
    try:
        yield
    except OSError as error:
        hidden = error.filename is not None and _SCRATCH.fullmatch(Path(str(error.filename)).name)
        # Pillow and numpy tell a short write without its number.
        full = error.errno is None and shutil.disk_usage(_there(path)).free < _LITTLE
        if error.errno in _DISK or hidden or full:
            raise InputError(_cannot(path, error)) from error
        raise


def scratch_beside(path: Path) -> Path:
    """A hidden name in the same folder that no other process takes; it ends as `path` does."""
    name = f".isgseg-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.{path.name[-100:]}"
    return path.with_name(name)


def remove_stale(folder: Path) -> None:
    """Removes the scratch files that processes of this machine left in a folder when they died.

    Folders are not touched: see `isgseg.io.folders`.
    """
    for file in dead_scratch(folder):
        if not file.is_dir():
            with contextlib.suppress(OSError):
                file.unlink()


def dead_scratch(folder: Path) -> list[Path]:
    """The scratch files and folders whose process is no more; those of other machines are not told.

    Only names that `scratch_beside` gives are looked at.
    """
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _SCRATCH.fullmatch(entry.name)
            if match and match["machine"] == _machine() and not _alive(int(match["pid"])):
                found.append(folder / entry.name)
    return found


def sync(path: Path) -> None:
    """Waits until a file, or a folder's list of names, is on the disk.

    Raises:
        OSError: The disk is full or failing. That a file system cannot sync folders is ignored.
    """
    if path.is_dir():
        with contextlib.suppress(OSError):
            _fsync(path)
    else:
        _fsync(path)


def remove_tree(folder: Path) -> None:
    """Removes a scratch folder; what cannot be removed stays, for the next run to remove."""
    shutil.rmtree(folder, ignore_errors=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _there(path: Path) -> Path:
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path())


def _cannot(path: Path, error: OSError) -> str:
    remedy = (
        "free some space, or write to another disk"
        if error.errno in (None, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        else "give a place that you may write to"
    )
    return f"{path}: cannot be written: {error.strerror or error}; {remedy}"


def _machine() -> str:
    """Tells machines, and containers on one machine, apart: a process number means one process."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's, or the system does not say
        return True
    return True
