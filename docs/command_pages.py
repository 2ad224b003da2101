"""The pages of the commands, made of `conf/` and its comments."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from isgseg.config import CONFIG_DIR
from isgseg.help import Key, sections


def commands() -> list[str]:
    """The commands, in the order in which they are used."""
    order = ["prepare", "doctor", "train", "tune", "evaluate", "predict", "analyse", "compare"]
    there = {path.stem for path in Path(CONFIG_DIR).glob("*.yaml")}
    return [name for name in order if name in there] + sorted(there - set(order))


def write_command_pages(folder: Path) -> None:
    """Writes a page for each command and removes those of commands that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    names = commands()
    for path in folder.glob("*.md"):
        if path.stem not in names:
            path.unlink()
    for name in names:
        path, text = folder / f"{name}.md", command_page(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_page(name: str) -> str:
    """The page of a command as Markdown."""
    own, *groups = sections(name)
    parts = [f"# isgseg-{name}\n", own.text, "", "```bash", *own.examples, "```", ""]
    parts += ["## Keys\n", *key_table(own.keys)]
    for section in groups:
        parts += ["", f"## {section.group}={section.choice}\n"]
        if section.text:
            parts += [section.text, ""]
        others = [choice for choice in section.choices if choice != section.choice]
        if others:
            parts += [f"Other choices: {', '.join(f'`{choice}`' for choice in others)}.", ""]
        parts += key_table(section.keys)
    return "\n".join(parts) + "\n"


def key_table(keys: Sequence[Key]) -> list[str]:
    """Keys, defaults and comments as the lines of a table."""
    if not keys:
        return []
    rows = [f"| `{key.name}` | {default(key.value)} | {text(key.comment)} |" for key in keys]
    return ["| key | default | |", "|---|---|---|", *rows]


def default(value: str) -> str:
    """A default; what has to be given is said."""
    if not value:
        return ""
    return "**required**" if value == "???" else f"`{value.replace('|', chr(92) + '|')}`"


def text(comment: str) -> str:
    """A comment with the signs of tables and emphasis escaped."""
    return re.sub(r"([|*<\[\]_~$])", r"\\\1", comment)
