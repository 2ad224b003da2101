"""The manifest beside labels: what they were made of, with what, and how they are made again.

`<stem>_labels.json` takes the place of `<stem>_granules.json`, which the last release wrote. That
one holds a few settings beside the hashes; the manifest holds the whole configuration.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isgseg.errors import InputError, check
from isgseg.io.formats import Array
from isgseg.io.json_files import read_object

if TYPE_CHECKING:  # scikit-image takes a while to import, and --help should not wait for it
    from isgseg.instances.runs import RunLabels

MARK = "isgseg-predict"  # what a manifest says of itself
# Keys of the configuration that decide the labels, beside the volume and the checkpoint.
DECIDING = ("threshold", "normalization", "tta", "segmentation", "voxel_size", "precision", "fast")


@dataclass(frozen=True)
class Manifest:
    """What is known of the labels of one volume; values are plain, as JSON holds them.

    Attributes:
        volume: path of the volume, absolute.
        volume_sha256: of its file.
        checkpoint: path of the checkpoint, absolute.
        checkpoint_sha256: of its file.
        versions: of isgseg, python, torch, torchvision and numpy.
        config: the whole configuration of isgseg-predict, without interpolations.
        labels: name of the file of labels.
        labels_sha256: of the labels themselves; see `LabelHash`.
        granules: how many there are.
        voxel_size_nm: (z, y, x), or None where it is not known.
        thresholds: that were used: `score`, `mask` and `object`.
        device: that they were made on, such as `cpu` or `cuda: NVIDIA H200`.
        seconds: from reading the volume to the end of its table.
        warnings: that were logged meanwhile.
        created_by: `isgseg-predict`.
    """

    volume: str
    volume_sha256: str
    checkpoint: str
    checkpoint_sha256: str
    versions: dict[str, str]
    config: dict[str, Any]
    labels: str = ""
    labels_sha256: str = ""
    granules: int = 0
    voxel_size_nm: list[float] | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    device: str = ""
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    created_by: str = MARK

    def plain(self) -> dict[str, Any]:
        """The content of the file, as JSON holds it."""
        first = {"created_by": self.created_by, "labels": self.labels}
        return first | asdict(self)

    def text(self) -> str:
        """The text of the file."""
        return json.dumps(self.plain(), indent=2, ensure_ascii=False) + "\n"

    def deciding(self) -> dict[str, Any]:
        """What decides the labels; see `deciding`."""
        return deciding(json.loads(self.text()))


class LabelHash:
    """SHA-256 of labels, whatever type and format hold them; slab by slab along z.

    >>> digest = LabelHash()
    >>> for slab in slabs:  # (z, y, x) each
    ...     digest.update(slab)
    >>> digest.hexdigest()
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, slab: Array | RunLabels) -> None:
        """Adds the next slices, (z, y, x), whole numbers that fit 32 bits."""
        for plane in slab:
            self._digest.update(np.ascontiguousarray(plane, "<u4").data)

    def hexdigest(self) -> str:
        """That of all slices so far."""
        return self._digest.hexdigest()


def hash_labels(labels: Array | RunLabels) -> str:
    """SHA-256 of labels (z, y, x), in memory or as runs; see `LabelHash`."""
    digest = LabelHash()
    digest.update(labels)
    return digest.hexdigest()


def hash_of_file(path: Path) -> str | None:
    """That of a label file; None where it cannot be read, or holds no labels."""
    from isgseg.io.volumes import open_volume

    digest = LabelHash()
    try:
        for plane in open_volume(path).data:
            if plane.min() < 0 or (plane.dtype.kind == "f" and (plane % 1).any()):
                return None
            digest.update(plane[None])
    except InputError:
        return None
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the labels."""
    from isgseg import __version__

    packages = {name: import_module(name).__version__ for name in ("torch", "torchvision", "numpy")}
    return {"isgseg": __version__, "python": platform.python_version(), **packages}


def deciding(content: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the labels, out of a manifest or of what the last release wrote instead.

    Args:
        content: of the file; plain values.

    Returns:
        `isgseg` (its version), `checkpoint_sha256`, `volume_sha256`, and the keys of `DECIDING`.
    """
    config, packages = content.get("config"), content.get("versions")
    inner = config if isinstance(config, Mapping) else content
    isgseg = packages.get("isgseg") if isinstance(packages, Mapping) else content.get("isgseg")
    hashes = {key: content.get(key) for key in ("checkpoint_sha256", "volume_sha256")}
    return {"isgseg": isgseg, **hashes, **{key: inner.get(key) for key in DECIDING}}


def read_content(path: Path) -> dict[str, Any] | None:
    """The content of a manifest, or of what the last release wrote; None where it is neither."""
    content = read_object(path)
    return content if content is not None and content.get("created_by") == MARK else None


def read_manifest(path: Path) -> Manifest:
    """A manifest that isgseg-predict wrote.

    Raises:
        InputError: there is none at that place, or it is one of the last release, which does not
            hold the whole configuration.
    """
    content = read_content(path)
    if content is None:
        what = "is no manifest of isgseg-predict" if path.exists() else "is not there"
        raise InputError(f"manifest={path} {what}; give the <stem>_labels.json beside the labels")
    if "config" not in content:
        raise InputError(
            f"manifest={path} was written by an earlier release, which did not keep the whole "
            "configuration; label the volume once more"
        )
    known = Manifest.__dataclass_fields__.keys()
    return check(Manifest, {key: content[key] for key in content if key in known}, str(path))
