"""Kinds of values that several commands share: numbers with ranges, texts, files, lengths."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from isgseg.instances.settings import SplitSettings


class Section(BaseModel):
    """A part of the configuration: no unknown keys, no text for a number, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Part(Section):
    """What Hydra builds: a class and its arguments, which the class checks itself."""

    model_config = ConfigDict(extra="allow")

    target: str = Field(alias="_target_", min_length=1)


def _plain_text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a null byte")
    return value


def _no_switch(value: Any) -> Any:
    if isinstance(value, bool):  # Python takes true for 1
        raise ValueError("must be 1, 2, 4 or 8")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", value):
        raise ValueError("must be cuda, cuda:N for the Nth GPU from 0, mps or cpu; null chooses")
    return value


def _rising(values: list[float]) -> list[float]:
    if any(low >= high for low, high in pairwise([0.0, *values])):
        raise ValueError("must be positive numbers that rise, such as [100, 200, 400]")
    return values


Text = Annotated[str, Field(min_length=1), AfterValidator(_plain_text)]
Files = Text | Annotated[list[Text], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountFrom0 = Annotated[int, Field(ge=0)]
Workers = Annotated[int, Field(ge=0, le=256)]  # each is a process
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Device = Annotated[str, AfterValidator(_device)]
Precision = Literal["auto", "32-true", "16-mixed", "bf16-mixed"]
Tta = Annotated[Literal[1, 2, 4, 8], BeforeValidator(_no_switch)]
Criterion = Literal["f1", "count"]
Rising = Annotated[list[Positive], Field(min_length=1), AfterValidator(_rising)]
VoxelSize = Positive | Annotated[list[Positive], Field(min_length=3, max_length=3)]


class Paths(Section):
    """`conf/paths/`."""

    root: Text
    output_dir: Text


class Command(Section):
    """What every command has."""

    task_name: Text
    paths: Paths


def only_for(*targets: str) -> WrapValidator:
    """Checks what isgseg's own classes are built from; other classes check theirs themselves."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        named = value.get("_target_") if isinstance(value, Mapping) else None
        if isinstance(named, str) and named not in targets:
            return value
        return inner(value)

    return WrapValidator(validate)


@cache
def section_of(settings: type, name: str, **other: tuple[Any, Any]) -> type[Section]:
    """A section with the fields and ranges of a settings class, which stay written down there.

    Unlike the class itself, it takes no text for a number. What the class refuses as a whole, the
    section refuses too.

    Args:
        settings: a pydantic model or dataclass, or a plain dataclass.
        name: of the section, for messages.
        **other: types and defaults of fields that differ or that there are in addition.
    """
    fields = {**_fields(settings), **other}
    known = _fields(settings).keys()

    class Whole(Section):
        @model_validator(mode="after")
        def _agrees(self) -> Self:
            values = {key: value for key, value in self.model_dump().items() if key in known}
            try:
                settings(**values)
            except ValidationError as error:
                raise ValueError(
                    "; ".join(
                        str(fault.get("ctx", {}).get("error") or fault["msg"])
                        for fault in error.errors(include_url=False)
                    )
                ) from error
            return self

    return create_model(name, __base__=Whole, **fields)  # type: ignore[call-overload,no-any-return]


def _fields(settings: type) -> dict[str, tuple[Any, Any]]:
    """Types and defaults of a settings class."""
    if not dataclasses.is_dataclass(settings) or hasattr(settings, "__pydantic_fields__"):
        found: Mapping[str, FieldInfo] = settings.__pydantic_fields__  # type: ignore[attr-defined]
        return {key: (_listed(field.annotation), field) for key, field in found.items()}
    hints = get_type_hints(settings, include_extras=True)
    return {
        field.name: (_listed(hints[field.name]), _default(field))
        for field in dataclasses.fields(settings)
    }


def _listed(annotation: Any) -> Any:
    """A tuple's type that takes a list, which is what YAML has."""
    return Annotated[annotation, Strict(False)] if get_origin(annotation) is tuple else annotation


def _default(field: dataclasses.Field[Any]) -> Any:
    """A plain dataclass's default as pydantic writes it."""
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory)
    return ... if field.default is dataclasses.MISSING else field.default


Instances = Literal["auto", "numbers", "components", "split"]
Split = section_of(SplitSettings, "Split")
