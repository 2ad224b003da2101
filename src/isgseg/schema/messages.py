"""What is wrong with values that a pydantic model refuses, in words: key, value, what is right.

The ranges and choices are read from the model's JSON schema, so that they are written down once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from isgseg.words import nearest, one_of, shown

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

Schema = Mapping[str, Any]  # a JSON schema, or a part of one
Path = tuple[str | int, ...]  # keys and indices that lead to a value
CHOSEN = "="  # begins the name of a union's branch that the values choose: no alternative to others


@cache
def adapter_of(model: Any) -> TypeAdapter[Any]:
    """What validates values as a pydantic model or dataclass."""
    from pydantic import TypeAdapter

    return TypeAdapter(model)


@cache
def json_schema(model: Any) -> Schema:
    """What a model allows; empty where it has a type that JSON schemas do not know."""
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        return adapter_of(model).json_schema(mode="validation")
    except PydanticInvalidForJsonSchema:
        return {}


def faults(error: ValidationError, values: Any, schema: Schema) -> Iterable[str]:
    """One phrase for each value that is wrong.

    Pydantic reports each branch of a union by itself; they are one fault of one key.

    Args:
        error: what validation raised.
        values: what was validated.
        schema: the JSON schema of the model.
    """
    groups: dict[Path, list[tuple[Path, ErrorDetails]]] = {}
    for fault in error.errors(include_url=False):
        start, whole = _paths(fault, values)
        groups.setdefault(start, []).append((whole, fault))
    for start, members in groups.items():
        own = [member for member in members if member[1]["type"] == "value_error"]
        if len(members) > 1 and len(own) != 1:
            yield _phrase(start, None, values, schema)
        else:
            yield _phrase(*(own or members)[0], values, schema)


def _paths(fault: ErrorDetails, values: Any) -> tuple[Path, Path]:
    """Where a fault is: up to the first name of a union's branch, and without such names."""
    path: list[str | int] = []
    start: Path | None = None
    location = fault["loc"]
    for number, part in enumerate(location):
        if str(part).startswith(CHOSEN):
            continue
        last_is_missing = fault["type"] == "missing" and number == len(location) - 1
        try:
            values = None if last_is_missing else values[part]
            path.append(part)
        except (KeyError, IndexError, TypeError):
            start = start or tuple(path)
    return tuple(path) if start is None else start, tuple(path)


def _phrase(path: Path, fault: ErrorDetails | None, values: Any, schema: Schema) -> str:
    """`key=value: must be ...`."""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    key = key.removeprefix(".")
    kind = fault["type"] if fault else ""
    if kind == "missing":
        return f"{key} is missing: {_describe(_at(schema, path, schema), schema)}"
    value = _value(values, path)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _properties(_at(schema, path[:-1], schema), schema)
        return f"{key}={shown(value)}: unknown key; {nearest(str(path[-1]), known)}"
    if fault and kind in ("value_error", "assertion_error"):
        right = str(fault.get("ctx", {}).get("error") or fault["msg"])
    else:
        words = _describe(_at(schema, path, schema), schema)
        right = f"must be {words}" if words else (fault["msg"] if fault else "is of a wrong type")
        if kind == "finite_number":
            right = right.replace("a number", "a finite number")
    if kind in ("value_error", "assertion_error") and isinstance(value, Mapping):
        inner = re.match(r"\w+", right)
        if key and inner and inner[0] in _properties(_at(schema, path, schema), schema):
            return f"{key}.{right}"
        return f"{key}: {right}" if key and not right.startswith(key) else right
    return f"{key}={shown(value)}: {right}" if key else right


def dotted_keys(schema: Schema) -> list[str]:
    """All keys of a configuration, such as `model.network.scale`."""

    def walk(part: Schema, prefix: str) -> Iterable[str]:
        for name, inner in _properties(part, schema).items():
            yield prefix + name
            yield from walk(inner, f"{prefix}{name}.")

    return list(walk(schema, ""))


def _value(values: Any, path: Path) -> Any:
    for part in path:
        values = values[part]
    return values


def _resolved(part: Schema, root: Schema) -> Schema:
    """The schema that a reference names."""
    while "$ref" in part:
        part = root["$defs"][part["$ref"].rsplit("/", 1)[-1]]
    return part


def _branches(part: Schema, root: Schema) -> list[Schema]:
    """What a value may be: one schema, or those of a union."""
    part = _resolved(part, root)
    options = part.get("anyOf") or part.get("oneOf") or part.get("allOf")
    if not options:
        return [part]
    return [branch for option in options for branch in _branches(option, root)]


def _properties(part: Schema, root: Schema) -> dict[str, Schema]:
    """The keys that a mapping may have; of a key in several branches of a union, all it may be."""
    found: dict[str, list[Schema]] = {}
    for branch in _branches(part, root):
        for name, inner in branch.get("properties", {}).items():
            found.setdefault(name, []).append(inner)
    return {name: {"anyOf": inner} if len(inner) > 1 else inner[0] for name, inner in found.items()}


def _at(part: Schema, path: Path, root: Schema) -> Schema:
    """The schema of the value that a path leads to; empty where it says nothing."""
    for step in path:
        inner: Any = _properties(part, root).get(str(step))
        for branch in _branches(part, root):
            if inner is None and isinstance(step, int):
                first: Sequence[Schema] = branch.get("prefixItems", ())
                inner = first[step] if step < len(first) else branch.get("items")
            extra = branch.get("additionalProperties")
            if inner is None and isinstance(extra, Mapping):
                inner = extra
        part = inner if isinstance(inner, Mapping) else {}
    return part


def _describe(part: Schema, root: Schema) -> str:
    """What a value of that schema is, in words."""
    words = [_words(branch, root) for branch in _branches(part, root)]
    return " or ".join(dict.fromkeys(word for word in words if word))


def _words(part: Schema, root: Schema) -> str:
    if "enum" in part or "const" in part:
        return one_of(part.get("enum", [part.get("const")]))
    kind = part.get("type")
    if kind in ("number", "integer"):
        return ("a whole number" if kind == "integer" else "a number") + _range(part)
    if kind == "array":
        return _list_words(part, root)
    if kind == "object":
        keys = part.get("properties")
        return f"a mapping of {', '.join(keys)}" if keys else "a mapping"
    if kind == "string" and part.get("minLength"):
        return "text that is not empty"
    plain = {"string": "text", "boolean": "true or false", "null": "null"}
    return plain.get(str(kind), "")


def _list_words(part: Schema, root: Schema) -> str:
    if "prefixItems" in part:
        parts = [_describe(item, root) for item in part["prefixItems"]]
        return f"a list of {len(parts)}: [{', '.join(parts)}]"
    low, high = part.get("minItems"), part.get("maxItems")
    count = "" if low is None else f" of at least {low}"
    if high is not None:
        count = f" of {low}" if low == high else f" of {low or 0} to {high}"
    items = part.get("items")
    return f"a list{count}" + (f", each {_describe(items, root)}" if items else "")


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _range(part: Schema) -> str:
    """` from 0 to 1`, ` above 0`, and the like."""
    low, high = part.get("minimum"), part.get("maximum")
    above, below = part.get("exclusiveMinimum"), part.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {_plain(low)} to {_plain(high)}"
    limits = [
        f"{word} {_plain(limit)}"
        for word, limit in (
            ("above", above),
            ("at least", low),
            ("below", below),
            ("at most", high),
        )
        if limit is not None
    ]
    return " " + " and ".join(limits) if limits else ""
