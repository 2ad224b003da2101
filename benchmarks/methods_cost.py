"""What a command costs, and stages of a benchmark that are not run twice."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Of a command that has ended.

    Attributes:
        wall: s.
        processor: s, all its threads and children together.
        memory: MB, the peak of its resident memory.
    """

    wall: float
    processor: float
    memory: float


def spent(
    arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Cost:
    """Runs a command and returns its cost.

    Args:
        arguments: the command.
        log: what it prints goes there.
        environment: further variables.

    Raises:
        RuntimeError: it failed; the message is the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    print(" ".join(map(str, arguments)), flush=True)
    start = time.perf_counter()
    with log.open("w") as file:
        child = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{arguments[:4]} failed, see {log}:\n{log.read_text()[-3000:]}")
    return cost(time.perf_counter() - start, usage)


def cost(wall: float, usage: resource.struct_rusage) -> Cost:
    """The cost by the kernel's count."""
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What the file of a stage holds; without one it is made first, and written whole."""
    if path.is_file():
        return json.loads(path.read_text())
    content = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(content, indent=1) + "\n")
    beside.replace(path)
    return json.loads(path.read_text())
