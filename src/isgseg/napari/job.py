"""Commands that run one after the other beside the window."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path


class Job:
    """Commands one after the other, in a process of their own.

    Args:
        commands: each as arguments.
        log: what they print goes there.
    """

    def __init__(self, commands: Sequence[Sequence[str]], log: Path) -> None:
        self.left = [list(command) for command in commands]
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        self._process: subprocess.Popen[bytes] | None = None
        self.code: int | None = None
        self._next()

    def poll(self) -> int | None:
        """None while it runs; then 0, or the exit status of the command that failed."""
        if self.code is None and self._process is not None:
            code = self._process.poll()
            if code == 0 and self.left:
                self._next()
            elif code is not None:
                self.code = code
        return self.code

    def stop(self) -> None:
        """Ends the command that runs."""
        self.left = []
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.code = self.code or -1

    def last_line(self) -> str:
        """What was printed last."""
        try:
            lines = self.log.read_text(errors="replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _next(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.left.pop(0),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
