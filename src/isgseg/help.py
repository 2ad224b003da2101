"""What `--help` of a command says: a paragraph, examples, and every key with its comment.

All of it is read from `conf/`, where each command has a file, and each key a comment.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from isgseg.config import CONFIG_DIR

_LEFT_OUT = {"paths", "hydra"}  # groups that `isgseg-<command> --cfg job` shows
_END = """\
Give any KEY=VALUE, in any order. GROUP=CHOICE takes another file of conf/GROUP/.
A list is written 'KEY=[a,b]'. File names may hold any character: quote the argument for the shell.
--cfg job shows the whole configuration of a run; --hydra-help shows what else Hydra takes."""


@dataclass(frozen=True)
class Key:
    """A key of the configuration.

    Attributes:
        name: with its groups, such as `segmentation.min_slices`.
        value: the default, as `conf/` writes it; `???` has to be given; empty for a choice.
        comment: what it does, its unit and what it may be.
    """

    name: str
    value: str
    comment: str


@dataclass(frozen=True)
class Section:
    """The keys of one file of `conf/`.

    Attributes:
        group: of the file; empty for the command's own.
        choice: the file's name.
        choices: names of all files of the group.
        text: what the file says of itself, one paragraph.
        examples: command lines.
        keys: in the order of the file.
    """

    group: str
    choice: str
    choices: Sequence[str] = ()
    text: str = ""
    examples: Sequence[str] = ()
    keys: Sequence[Key] = field(default_factory=list)


def sections(command: str, arguments: Sequence[str] = ()) -> list[Section]:
    """What `conf/` says of a command: its own file, and one section for each group.

    Args:
        command: such as `predict`.
        arguments: of the command line; those that choose a file of a group count.
    """
    chosen = dict(a.split("=", 1) for a in arguments if "=" in a)
    own = _file(Path(CONFIG_DIR) / f"{command}.yaml")
    found = [replace(own, choice=command)]
    for group, choice, package in _defaults(Path(CONFIG_DIR) / f"{command}.yaml"):
        if group not in _LEFT_OUT:
            asked = chosen.get(group)
            there = asked and (Path(CONFIG_DIR) / group / f"{asked}.yaml").is_file()
            found += _group(group, asked if there else choice, package or group)
    return found


def help_text(command: str, arguments: Sequence[str] = (), width: int | None = None) -> str:
    """The text of `isgseg-<command> --help`.

    Args:
        command: such as `predict`.
        arguments: of the command line; those that choose a file of a group count.
        width: of a line, characters; None: the terminal's, at most 110.
    """
    width = width or min(110, shutil.get_terminal_size().columns)
    own, *groups = sections(command, arguments)
    blocks = [f"isgseg-{command}", *textwrap.wrap(own.text, width)]
    blocks += ["", "Examples", *(f"  {line}" for line in own.examples), "", "Keys"]
    blocks += _table(own.keys, width)
    for section in groups:
        blocks += ["", *_heading(section, width), *_table(section.keys, width)]
    return "\n".join([*blocks, "", _END, ""])


def _heading(section: Section, width: int) -> list[str]:
    others = [name for name in section.choices if name != section.choice]
    title = f"{section.group}={section.choice}" + (f" (or {', '.join(others)})" if others else "")
    text = " ".join([section.text, *(f"For example: {line}" for line in section.examples)]).strip()
    return [title, *textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")]


def _table(keys: Iterable[Key], width: int, left: int = 34) -> list[str]:
    """Keys and defaults on the left, comments on the right of it."""
    lines = []
    for key in keys:
        default = f"={key.value}".replace("???", "...") if key.value else ""
        comment = f"required: {key.comment}" if key.value == "???" else key.comment
        wrapped = textwrap.wrap(comment, max(30, width - left))
        start = f"  {key.name}{default}"
        if len(start) < left - 1 and wrapped:
            start = f"{start:{left}}{wrapped.pop(0)}"
        lines += [start, *(f"{'':{left}}{line}" for line in wrapped)]
    return lines


def _group(group: str, choice: str | None, prefix: str) -> Iterator[Section]:
    """The section of a group, and those of the groups that its file brings along."""
    folder = Path(CONFIG_DIR) / group
    choices = sorted(path.stem for path in folder.glob("*.yaml"))
    if choice is None:
        keys = [Key(f"{group}={name}", "", _file(folder / f"{name}.yaml").text) for name in choices]
        yield Section(group, "null", choices, keys=keys)
        return
    path = folder / f"{choice}.yaml"
    here = "" if "# @package _global_" in path.read_text() else f"{prefix}."
    keys = [replace(key, name=here + key.name) for key in _merged(folder, choice)]
    yield replace(_file(path), group=group, choice=choice, choices=choices, keys=keys)
    for other, name, package in _defaults(path):
        if package:
            text = f"The keys of {other}={name}, behind {here}{package}."
            yield Section(f"{other}@{here}{package}", str(name), text=text)
        elif other != group:
            yield from _group(other, name, other)


def _merged(folder: Path, choice: str) -> list[Key]:
    """The keys of a file and of those of its group that it builds on; its own values count."""
    path = folder / f"{choice}.yaml"
    keys: dict[str, Key] = {}
    for group, name, _ in _defaults(path):
        if group == folder.name and name is not None:
            keys |= {key.name: key for key in _merged(folder, name)}
    for key in _file(path).keys:
        former = keys.get(key.name)
        keys[key.name] = replace(key, comment=key.comment or (former.comment if former else ""))
    return list(keys.values())


def _defaults(path: Path) -> Iterator[tuple[str, str | None, str]]:
    """Group, choice and package of each entry of a defaults list, except `_self_` and overrides."""
    content = yaml.safe_load(path.read_text()) or {}
    relative = path.parent != Path(CONFIG_DIR)
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            if entry != "_self_":
                yield path.parent.name, entry, ""
            continue
        ((name, choice),) = entry.items()
        if name.startswith("override "):
            continue
        group, _, package = name.partition("@")
        if relative and not group.startswith("/"):
            group = f"{path.parent.name}/{group}"
        yield group.lstrip("/"), choice, package


def _file(path: Path) -> Section:
    """The head and the keys of one file."""
    text = path.read_text()
    head = re.match(r"(?:#.*\n)*", text)
    lines = [line[1:].strip() for line in (head[0] if head else "").splitlines()]
    lines = [line for line in lines if not line.startswith("@package")]
    keys = list(_keys(yaml.compose(text), text))
    said: dict[str, str] = {}
    for key in keys:  # of several of one name, such as those of checkpoints, the first is commented
        said.setdefault(key.name.rsplit(".", 1)[-1], key.comment)
    return Section(
        group=path.parent.name,
        choice=path.stem,
        text=" ".join(line for line in lines if not line.startswith("isgseg-")),
        examples=[line for line in lines if line.startswith("isgseg-")],
        keys=[replace(k, comment=k.comment or said[k.name.rsplit(".", 1)[-1]]) for k in keys],
    )


def _keys(node: yaml.Node | None, text: str, prefix: str = "") -> Iterator[Key]:
    """The keys of a mapping and of those in it; Hydra's own, such as `_target_`, are left out."""
    if not isinstance(node, yaml.MappingNode):
        return
    for name, value in node.value:
        inner = f"{prefix}{name.value}"
        if name.value.startswith(("_", "<<")) or inner in ("defaults", "task_name"):
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _keys(value, text, f"{inner}.")
            continue
        written = text[value.start_mark.index : value.end_mark.index].strip()
        yield Key(inner, written, _comment(text, value.end_mark.index))


def _comment(text: str, end: int) -> str:
    """The comment behind a value, and the lines below that go on with it."""
    first, *below = text[end:].split("\n")
    words = [first.strip().lstrip("#").strip()]
    for line in below:
        if not line.lstrip().startswith("#") or not words[0]:
            break
        words.append(line.strip().lstrip("#").strip())
    return " ".join(words)
