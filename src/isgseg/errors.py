"""Errors that a user can mend, and one check of plain values against a pydantic model.

Nothing here imports torch, and pydantic only when something is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

Model = TypeVar("Model")


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a key, a value.

    The message names the file, entry or key, says what is wrong with it, and what would be right.
    Commands show the message alone. Every other exception is a fault of isgseg, and keeps its
    traceback.

    It can be pickled. A DataLoader's worker sends only text, with a traceback in it; the message
    is taken out of that text, so that it reads the same with and without workers.
    """

    def __init__(self, message: str = "") -> None:
        # Half a character, as JSON may hold, could not be written to a log.
        text = str(message).encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(_without_worker(text))


class InputFileNotFoundError(InputError, FileNotFoundError):
    """A file that the user named is not there."""


class InputFileExistsError(InputError, FileExistsError):
    """A file is in the way, and isgseg may not replace it."""


class InputPermissionError(InputError, PermissionError):
    """A file or folder cannot be read or written."""


def check(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """The values as a model, or one error that names everything that is wrong with them.

    Args:
        model: a pydantic model or dataclass.
        values: plain values, as read from YAML, JSON or a checkpoint.
        where: the file or command that they come from; may be empty.

    Raises:
        InputError: for each fault its key, the value and what would be right; for unknown keys
            the nearest known one.
    """
    from pydantic import ValidationError

    from isgseg.schema.messages import adapter_of, faults, json_schema

    adapter = adapter_of(model)  # type: ignore[arg-type]
    try:
        return adapter.validate_python(values)  # type: ignore[no-any-return]
    except ValidationError as error:
        said = "; ".join(faults(error, values, json_schema(model)))  # type: ignore[arg-type]
    raise InputError(f"{where}: {said}" if where else said)


def input_error(error: BaseException | None) -> InputError | None:
    """The `InputError` that an exception is, or that Hydra has wrapped into it."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _without_worker(message: str) -> str:
    """The message of an error that torch's DataLoader re-raises from a worker as text."""
    if not message.startswith("Caught ") or "Original Traceback" not in message:
        return message
    found = re.split(r"^(?:isgseg\.errors\.)?Input\w*Error: ", message, flags=re.MULTILINE)
    return found[-1].strip() if len(found) > 1 else message
