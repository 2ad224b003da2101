"""Where a log goes: warnings and errors to standard error, all else to standard output."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator


class BelowWarning(logging.Filter):
    """Lets through what belongs on standard output: warnings and errors have a stream of theirs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is less than a warning."""
        return record.levelno < logging.WARNING


@contextlib.contextmanager
def plain_logging() -> Iterator[None]:
    """Logs as a single run does, without Hydra, which sets logging up for its own part."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    out, err = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(BelowWarning())
    err.setLevel(logging.WARNING)
    for handler in (out, err):
        handler.setFormatter(formatter)
    root.handlers[:] = [out, err]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = before
        root.setLevel(level)
