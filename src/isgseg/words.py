"""Values, choices and near misses as the words of a message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

LONGEST_VALUE = 60  # characters of a value that a message shows


def shown(value: Any) -> str:
    """A value as YAML and the command line write it, cut where it is long."""
    words = {"None": "null", "True": "true", "False": "false"}
    text = value if isinstance(value, str) and value.strip() else repr(value)
    text = re.sub(r"\b(None|True|False)\b", lambda found: words[found[0]], " ".join(text.split()))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 4] + " ..."


def one_of(choices: Iterable[object]) -> str:
    """`a, b or c`."""
    *first, last = map(shown, choices)
    return f"{', '.join(first)} or {last}" if first else last


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word nearest to an unknown one, or all where none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(words)}" if words else "nothing is known here"
