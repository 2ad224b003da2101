"""The networks that the docks offer: those that are found, and those that were taught here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isgseg.models.locate import installed_model, shipped_model
from isgseg.models.settings import METHODS

# As in `isgseg.models.methods`, which takes seconds to import.
TITLES = {"mask_rcnn": "Mask R-CNN", "unet": "U-Net"}
_taught: list[Path] = []
_listeners: list[Callable[[], None]] = []


def known_networks() -> list[tuple[str, Path]]:
    """Names and files, the one to begin with first: taught, installed, under outputs/, shipped."""
    found = [(f"taught: {path.parent.parent.name}", path) for path in reversed(_taught)]
    found += [("installed", installed_model(method)) for method in METHODS]
    for method in METHODS:
        runs = sorted(
            Path("outputs").rglob(f"isg_{method}_final.pth"),
            key=lambda path: path.stat().st_mtime,
            reverse=True,
        )
        found += [(f"outputs: {path.parent.parent.name}", path) for path in runs[:5]]
    found += [(f"comes with isgseg, {TITLES[m]}", shipped_model(m)) for m in METHODS]
    return list({path.absolute(): (name, path) for name, path in found if path.is_file()}.values())


def offer(network: Path) -> None:
    """Adds a network that was taught to the lists of all docks, in front."""
    _taught.append(network)
    for listener in list(_listeners):
        listener()


def listen(listener: Callable[[], None]) -> Callable[[], None]:
    """Calls back when a network is offered; returns what ends that."""
    _listeners.append(listener)

    def stop() -> None:
        if listener in _listeners:
            _listeners.remove(listener)

    return stop
