"""What every key of the configuration may be, as pydantic models; nothing here imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel


def schema_of(command: str) -> type[BaseModel]:
    """The model of a command's configuration, `conf/<command>.yaml` as it is composed."""
    module = command if command in ("analyse", "prepare", "train") else "commands"
    return getattr(import_module(f"isgseg.schema.{module}"), command.capitalize())  # type: ignore[no-any-return]
