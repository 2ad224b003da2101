"""One line of progress for a batch whose tasks run elsewhere: it watches their results appear."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isgseg.batch.records import read_record
from isgseg.batch.work import Work

_PAUSE = 2.0  # seconds between two looks


@contextlib.contextmanager
def progress_of(work: Work[Any], shown: bool = True) -> Iterator[None]:
    """Shows how many volumes of the work are finished and how many have failed, on one line.

    Args:
        work: that tasks do meanwhile.
        shown: False shows nothing.
    """
    if not shown:
        yield
        return
    from tqdm import tqdm

    told = [(-1, -1)]
    before = {item.done: changed(item.done) for item in work.todo}
    ended = threading.Event()
    name, whole = f"isgseg-{work.command}", len(work.items)
    bar = tqdm(total=whole, desc=name, unit="volume", disable=None)  # no bar in a file

    def look() -> None:
        done = [item for item in work.todo if changed(item.done) not in (None, before[item.done])]
        records = [read_record(item.record) for item in work.todo]
        failed = [record for record in records if record and record.get("status") == "failed"]
        finished, gone = whole - len(work.todo) + len(done), len(failed) + len(work.failed)
        if bar.disable and (finished, gone) != told[-1]:
            print(f"{name}: {finished} of {whole} finished, {gone} failed", flush=True)
        told.append((finished, gone))
        bar.n = finished + len(failed)
        bar.set_postfix_str(f"{gone} failed")

    def watch() -> None:
        while not ended.wait(_PAUSE):
            look()

    look()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        look()
        bar.close()


def changed(path: Path) -> int | None:
    """When a file was changed last, in ns; None where it is not there."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
