"""What a run over many volumes leaves of each that is not finished, and what it has warned of.

`<stem>_predict_unfinished.json` is written when a volume is begun and removed when its results are
there. A volume that fails leaves its reason in it; one whose process is killed leaves that it was
begun, and where.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from isgseg.errors import InputError
from isgseg.io.atomic import replacing
from isgseg.io.json_files import read_object

log = logging.getLogger(__name__)
_MARK = "isgseg"  # what a record says of itself


def record_path(folder: Path, name: str, command: str) -> Path:
    """Where the record of a volume lies, such as `cell_predict_unfinished.json`."""
    return folder / f"{name}_{command}_unfinished.json"


@contextlib.contextmanager
def recorded(
    path: Path, command: str, volume: Path, reason: Callable[[BaseException], str]
) -> Iterator[None]:
    """Keeps a record of a volume while the block works on it, and after it if the block fails.

    Args:
        path: of the record.
        command: that works on it, such as `predict`.
        volume: its file.
        reason: says why it failed, in one line.

    Raises:
        InputError: the record cannot be written.
    """
    start = time.perf_counter()
    with collected_warnings() as warnings:
        _write(path, {"command": command, "volume": str(volume.absolute()), "status": "begun"})
        try:
            yield
        except BaseException as error:
            seconds = round(time.perf_counter() - start, 3)
            note_failure(path, command, volume, reason(error), seconds, warnings)
            raise
        forget(path)


def note_failure(
    path: Path,
    command: str,
    volume: Path,
    why: str,
    seconds: float | None = None,
    warnings: list[str] | None = None,
) -> None:
    """Writes why a volume has no results; a folder that cannot be written to is passed over.

    Args:
        path: of the record.
        command: that failed, such as `predict`.
        volume: its file.
        why: the reason, in one line.
        seconds: after which it failed; None: not known.
        warnings: that were logged meanwhile.
    """
    content = {
        "command": command,
        "volume": str(volume.absolute()),
        "status": "failed",
        "reason": why,
        "seconds": seconds,
        "warnings": warnings or [],
    }
    with contextlib.suppress(InputError):  # then the labels cannot be written either, which is said
        _write(path, content)


def read_record(path: Path) -> dict[str, Any] | None:
    """A record of isgseg; None where there is none.

    Its keys: `command`, `volume`, `status` (`begun` or `failed`), `reason`, `seconds`, `warnings`,
    `host`, `process`, `time`.
    """
    content = read_object(path)
    return content if content is not None and content.get("created_by") == _MARK else None


def reason_of(record: dict[str, Any]) -> str:
    """Why a volume is not finished, by its record."""
    if record.get("status") == "failed":
        return str(record.get("reason", ""))
    return f"begun at {record.get('time')} on {record.get('host')}, and not ended"


def renew(path: Path) -> None:
    """Makes a record that of a volume that is begun once more, if it is one of isgseg."""
    record = read_record(path)
    if record is not None:
        kept = {key: record.get(key) for key in ("command", "volume")}
        _write(path, {**kept, "status": "begun"})


def one_line(error: BaseException) -> str:
    """Why a volume failed, in one line."""
    if isinstance(error, MemoryError):
        return "not enough memory; cut the volume, or use a machine with more"
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def forget(path: Path) -> None:
    """Removes a record, if it is one of isgseg."""
    if read_record(path) is not None:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """A list of what isgseg warns of in the block, each warning once, in order."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING and record.getMessage() not in messages:
                messages.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logger = logging.getLogger("isgseg")
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)


def _write(path: Path, content: dict[str, Any]) -> None:
    if path.exists() and read_record(path) is None:
        log.warning("%s is no record of isgseg, and is left as it is", path)
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    place = {"host": platform.node(), "process": os.getpid(), "time": now}
    whole = {"created_by": _MARK, **content, **place}
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
