"""What is typed on the command line, made ready for Hydra: names of the last release, and texts.

Names that changed keep working for one release, with a warning. Values of keys that are texts stay
texts: Hydra would read the name 783_5 as the number 7835, and cannot read `cell (1).mrc` at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from isgseg.errors import InputError

_LINKING = {
    "support": "hysteresis_ratio",
    "waist": "constriction",
    "gap": "max_gap",
    "min_diameter": "min_diameter_nm",
    "max_length": "max_length_nm",
}
# Old key or group, as a whole key or the beginning of one, to the new one; in this order.
RENAMED: tuple[tuple[str, str], ...] = (
    ("data.phantom", "source.phantom"),
    ("labelling", "segmentation"),
    ("callbacks.volume_score.labelling", "callbacks.volume_score.segmentation"),
    *((f"segmentation.{old}", f"segmentation.{new}") for old, new in _LINKING.items()),
    *(
        (f"callbacks.volume_score.segmentation.{old}", f"callbacks.volume_score.segmentation.{new}")
        for old, new in _LINKING.items()
    ),
    ("views", "tta"),
    ("model.views", "model.tta"),
    ("patches.context", "patches.z_context"),
    ("data.augment.drop_context", "data.augment.drop_z_context"),
    ("callbacks.pictures", "callbacks.images"),
)
# Old group=choice to the new one.
CHOICES = {("experiment", "documented"): ("experiment", "baseline")}
PREPARE_CHOICES = {
    ("data", "phantom"): ("source", "phantom"),
    ("data", "volumes"): ("source", "volumes"),
}
# Keys by which other commands know the same, and which are taken without a word.
ALIASES = {("analyse", "volumes"): "volume"}
# Groups of the configuration; the optional ones are null unless they are asked for.
OPTIONAL = {"experiment", "hparams_search"}
GROUPS = OPTIONAL | {
    "callbacks",
    "data",
    "logger",
    "model",
    "prediction",
    "segmentation",
    "trainer",
}
# The last names of keys whose values are files, folders or names.
TEXTS = {
    "volumes",
    "labels",
    "predicted",
    "volume",
    "val",
    "output_dir",
    "root",
    "ckpt_path",
    "weights",
    "dir",
    "summaries",
    "conditions",
    "reference",
    "manifest",
}
_PARTS = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=]+)(?:=(?P<value>.*))?", re.DOTALL)
_NUMBER = re.compile(r"(?<=[\[,=])\s*([+-]?\.?\d[\d_.eE+-]*)\s*(?=[\],]|$)")


def renamed_key(key: str) -> str:
    """The name of today of a config key; the same where it has not changed."""
    for old, new in RENAMED:
        if key == old or key.startswith((f"{old}.", f"{old}@")):
            key = new + key[len(old) :]
        key = key.replace(f"@{old}", f"@{new}") if key.endswith(f"@{old}") else key
    return key


def modernize(command: str, arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Arguments of a command with the names of today, and a warning for each that was changed.

    Args:
        command: such as `predict`.
        arguments: as typed, without the program's name; flags are left alone.

    Raises:
        InputError: synthetic cells are asked of a command that does not make them.
    """
    changed, warnings = [], []
    for argument in arguments:
        found = None if argument.startswith("-") else _PARTS.fullmatch(argument)
        if found is None:
            changed.append(argument)
            continue
        sign, key, value = found["sign"] or "", found["key"], found["value"]
        _refuse_phantom(command, key, value)
        now, choice = renamed_key(ALIASES.get((command, key), key)), value
        table = CHOICES | (PREPARE_CHOICES if command == "prepare" else {})
        if (key, value) in table:
            now, choice = table[(key, str(value))]
        if choice == "null" and not sign and now in GROUPS:
            changed += [] if now in OPTIONAL else [f"~{now}"]  # Hydra's own way to say so
            continue
        new = f"{sign}{now}" if choice is None else f"{sign}{now}={choice}"
        if new != argument and (command, key) not in ALIASES:
            warnings.append(f"{argument} is the name of an earlier release; write {new}")
        text = now.rsplit(".", 1)[-1] in TEXTS or _is_structure(now)
        changed.append(as_text(new) if text else new)
    return changed, warnings


def _is_structure(key: str) -> bool:
    """Whether a key is the file of a structure of isgseg-analyse, whatever its name."""
    return key.startswith("structures.") and key != "structures.names"


def with_key(key: str, arguments: Sequence[str]) -> list[str]:
    """Arguments whose first ones are files without a key, as `key=` of one or of a list.

    >>> with_key("summaries", ["a.json", "b.json", "seed=1"])
    ["summaries=['a.json','b.json']", 'seed=1']

    Args:
        key: empty where a command takes no files without one.
        arguments: as typed, without the program's name.
    """
    files = list(takewhile(_is_file, arguments))
    if not key or not files:
        return list(arguments)
    value = files[0] if len(files) == 1 else f"[{','.join(map(_quoted, files))}]"
    return [f"{key}={value}", *arguments[len(files) :]]


def _is_file(argument: str) -> bool:
    """Whether an argument is a file without a key. One that is there may have any name."""
    if Path(argument).exists():
        return True
    return bool(argument) and "=" not in argument and argument[0] not in "-+~"


def _refuse_phantom(command: str, key: str, value: str | None) -> None:
    """Says where synthetic cells come from."""
    asked = (key, value) == ("data", "phantom") or key.split(".")[0] == "source"
    if asked and command != "prepare":
        raise InputError(
            f"{key}={value}: isgseg-{command} makes no cells; run "
            "`isgseg-prepare source=phantom output_dir=data/phantom` first, and then use "
            "data.root=data/phantom, or the volumes in data/phantom/volumes"
        )


def as_text(override: str) -> str:
    """An override whose value Hydra reads as text, or as a list of texts.

    >>> as_text("val=783_5"), as_text("val=[a,783_5]"), as_text("volumes=cell (1).mrc")
    ("val='783_5'", "val=[a,'783_5']", "volumes='cell (1).mrc'")
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    quoted = _NUMBER.sub(lambda found: f"'{found[1]}'", override)
    key, _, value = override.partition("=")
    attempts = [quoted, f"{key}={_quoted(value)}"]
    if value.startswith("[") and value.endswith("]"):
        items = [item.strip() for item in value[1:-1].split(",")]
        attempts.insert(1, f"{key}=[{','.join(map(_quoted, items))}]")
    for attempt in attempts:
        try:
            parser.parse_override(attempt)
        except HydraException:
            continue
        return attempt
    return override  # Hydra says what is wrong with it


def _quoted(text: str) -> str:
    """A text as Hydra reads it, whatever is in it; one in quotes stays as it is."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text
    literal = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{literal}'"


def literal(text: str) -> str:
    r"""Any text in quotes, so that Hydra reads the same text again.

    >>> literal("it's.mrc")
    "'it\\'s.mrc'"
    """
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", text)
    return "'" + doubled.replace("'", "\\'").replace("${", "\\${") + "'"


def value_of(override: str) -> Any:
    """The value of an override, such as a text or a list; None for one that is a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(as_text(override))
    return None if parsed.is_sweep_override() else parsed.value()


def modernize_config(content: dict[str, Any]) -> list[str]:
    """Renames keys of a composed config in place: people's own files may hold old ones.

    Returns:
        A warning for each.
    """
    warnings = []
    for path in _paths(content):
        now = renamed_key(path)
        if now != path:
            warnings.append(f"{path} is the name of an earlier release; write {now}")
            *folders, last = path.split(".")
            value = _entry(content, folders).pop(last)
            *folders, last = now.split(".")
            target = _entry(content, folders)
            old = target.get(last)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            target[last] = {**old, **value} if both else value  # type: ignore[dict-item]
    return warnings


def _paths(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of all keys, inner ones first."""
    found = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            found += _paths(value, f"{prefix}{key}.")
        found.append(f"{prefix}{key}")
    return found


def _entry(content: dict[str, Any], folders: Iterable[str]) -> dict[str, Any]:
    for folder in folders:
        content = content.setdefault(folder, {})
    return content
