"""What a run over many volumes leaves: failure records, and one table of all volumes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """A list of what isgseg warns of in the block, each warning once, in order."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() not in messages:
                messages.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logger = logging.getLogger("isgseg")
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)
