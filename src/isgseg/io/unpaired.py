"""What to say of volumes and label files that cannot be paired."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from isgseg.io.names import cell_of, is_label

KEY_OF_ROLE = {"label": "labels", "prediction": "predicted"}


def leftovers(images: list[Path], others: list[Path], pairs: dict[Path, Path], role: str) -> str:
    """What cannot be paired, and how to name it so that it can."""
    key = KEY_OF_ROLE.get(role, role)
    alone = [path for path in images if path not in pairs]
    right = [path for path in others if path not in pairs.values()]
    shared = {cell_of(path) for path in alone} & {cell_of(path) for path in right}
    reason = "more than one may belong together" if shared else "none of the names agree"
    text = (
        f"{len(images)} volumes and {len(others)} {role} files cannot be paired: "
        f"volumes without {role} file: {listed_names(alone)}; {role} files without volume: "
        f"{listed_names(right)}"
    )
    if alone and right:
        text += f" ({reason})"
    suspects = [path for path in alone if is_label(path)]
    if suspects:
        text += f". By its name, {suspects[0].name} is no volume: narrow volumes="
    return (
        f"{text}. Name files alike, such as cell1.mrc and cell1_{key}.mrc, or give volumes=[...] "
        f"and {key}=[...] as lists of files in one order"
    )


def listed_names(paths: Iterable[Path]) -> str:
    """The files, or "none"."""
    return ", ".join(map(str, paths)) or "none"
