"""YAML of strangers as plain data: bounded, without tags, aliases and interpolation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from isgseg.errors import InputError
from isgseg.words import shown

MAX_BYTES = 1_000_000  # about 2,000 volumes; a parser in Python takes seconds for it
# What PyYAML raises, its constructors too, on a scalar that its tag does not fit.
_YAML_FAULTS = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_plain_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds, as plain values.

    Raises:
        InputError: the file cannot be read, is larger than `MAX_BYTES`, or is no plain YAML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}; it must be a file that you may read"
        ) from error
    if len(raw) > MAX_BYTES:
        raise InputError(
            f"{path} is larger than {MAX_BYTES} bytes; it cannot be a file of isgseg-prepare"
        )
    try:
        content = yaml.load(raw.decode("utf-8"), _PlainLoader)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply; isgseg-prepare writes it anew") from None
    except _YAML_FAULTS as error:
        said = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path} is not plain YAML: {said}; isgseg-prepare writes it anew"
        ) from error
    if not isinstance(content, dict):
        held = "nothing" if content is None else f"{shown(content)}"
        raise InputError(
            f"{path} holds {held}, not a mapping such as voxel_size: "
            "[30, 30, 30]; isgseg-prepare writes it anew"
        )
    return content


class _PlainLoader(yaml.SafeLoader):
    """Reads plain YAML: no alias, so that nothing multiplies, and no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias (*name), which dataset.yaml may not")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        for key, count in counts.most_common(1):
            if count > 1:
                raise yaml.YAMLError(f"key {key} is there {count} times")
        return super().construct_mapping(node, deep=deep)
