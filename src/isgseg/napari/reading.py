"""Files to napari layers: tomograms, labels with their table, and folders with both.

Layers are in nm where the voxel size is known, so that napari's scale bar is right. Labels have
the table as features, with a column `index` by which napari finds the row of a label.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isgseg.analysis.figures import contrast_limits
from isgseg.errors import InputError
from isgseg.instances.parts import joined
from isgseg.io.formats import Array, VoxelSize, plausible
from isgseg.io.json_files import read_object
from isgseg.io.mrc import map_mrc
from isgseg.io.names import is_label
from isgseg.io.volumes import SUFFIXES, read_labels, read_volume, stem

log = logging.getLogger(__name__)
LayerData = tuple[Any, dict[str, Any], str]
Reader = Callable[[Any], list[LayerData]]
_MRC = (".mrc", ".map", ".rec")
_LABELS = ("_labels.tif", "_labels.tiff", "_labels.mrc", "_labels.zarr")


def get_reader(path: str | Sequence[str]) -> Reader | None:
    """The reader of a file or folder; None where it is nothing of isgseg."""
    if not isinstance(path, str):
        return None
    place = Path(path)
    name = place.name.lower()
    if name.endswith(_LABELS):
        return read_label_layer
    if place.is_dir():
        return read_folder if label_files(place) else None
    if name.endswith(tuple(f"{suffix}{gz}" for suffix in _MRC for gz in ("", ".gz"))):
        return read_label_layer if is_label(place) else read_tomogram
    return None


def read_tomogram(path: str | Path) -> list[LayerData]:
    """A volume as an image layer; an MRC file stays on the disk until it is looked at."""
    data, voxel_size = open_volume(Path(path))
    middle = np.asarray(data[len(data) // 2])
    low, high = contrast_limits(middle, np.zeros(middle.shape, bool))
    about = {"contrast_limits": (low, high), "colormap": "gray"}
    return [(data, layer_settings(Path(path), voxel_size) | about, "image")]


def read_label_layer(path: str | Path) -> list[LayerData]:
    """A label volume as a labels layer with its table as features."""
    path = Path(path)
    volume = read_labels(path)
    settings = layer_settings(path, volume.voxel_size)
    manifest = read_manifest(path)
    threshold = (manifest.get("thresholds") or {}).get("object")
    settings["metadata"]["isgseg"]["threshold"] = threshold
    table = read_table(table_path(path))
    if table is not None:
        settings["features"] = features(table)
        settings["metadata"]["isgseg"] |= read_candidates(path, volume.data, table)
    return [(volume.data, settings, "labels")]


def read_candidates(path: Path, labels: Array, table: pd.DataFrame) -> dict[str, Any]:
    """What `isgseg-predict review=true` found below the threshold, for the dock for proofreading.

    Args:
        path: of the labels.
        labels: (z, y, x).
        table: of the labels.

    Returns:
        `offered`, (z, y, x) granules and candidates, and `table`, of both; nothing where there are
        no candidates beside the labels, or those are of others.
    """
    image, csv = (path.with_name(f"{cell_name(path)}_candidates{s}") for s in (".tif", ".csv"))
    rows = read_table(csv)
    if rows is None or not len(rows) or not image.is_file():
        return {}
    offered = read_labels(image).data
    if offered.shape != labels.shape or np.isin(rows["label"], table["label"]).any():
        log.warning("%s: not used, it is of other labels than %s", image, path)
        return {}
    return {
        "offered": joined(labels, offered),
        "table": pd.concat([table, rows], ignore_index=True),
    }


def read_folder(path: str | Path) -> list[LayerData]:
    """What lies in a folder of isgseg: the tomogram, its organelles and its labels.

    The tomogram is the one that the manifest names, or one of the same name. Of several volumes
    the first by name is opened, and the log names the others.

    Raises:
        InputError: there are no labels.
    """
    files = label_files(Path(path))
    if not files:
        raise InputError(f"{path} holds no labels of isgseg, such as cell_labels.tif")
    if len(files) > 1:
        others = ", ".join(file.name for file in files[1:])
        log.warning("%s: %s is opened; open the others by themselves: %s", path, files[0], others)
    layers: list[LayerData] = []
    tomogram = tomogram_of(files[0])
    if tomogram is not None:
        layers += read_tomogram(tomogram)
        cell = stem(tomogram)
        for organelles in (tomogram.with_name(f"{cell}_organelles{s}") for s in SUFFIXES):
            if organelles.is_file():
                (data, settings, kind), *_ = read_label_layer(organelles)
                layers.append((data, settings | {"opacity": 0.3, "visible": False}, kind))
    return layers + read_label_layer(files[0])


def open_volume(path: Path) -> tuple[Array, VoxelSize | None]:
    """A volume and its voxel size, nm; mapped where it can be.

    Raises:
        InputError: it cannot be read.
    """
    if path.name.lower().endswith(_MRC):
        try:
            mapped = map_mrc(path)
        except (OSError, ValueError):
            mapped = None  # `read_volume` says what is wrong
        if mapped is not None:
            return mapped[0], plausible(mapped[1], str(path))
    volume = read_volume(path)
    return volume.data, volume.voxel_size


def layer_settings(path: Path, voxel_size: VoxelSize | None) -> dict[str, Any]:
    """Name, scale and origin of a layer."""
    name = path.name.removesuffix(".zarr") if path.is_dir() else stem(path)
    about = {"file": str(path), "voxel_size": voxel_size}
    return {"name": name, "metadata": {"isgseg": about}} | in_nm(voxel_size)


def in_nm(voxel_size: VoxelSize | None) -> dict[str, Any]:
    """The scale of a layer."""
    if voxel_size is None:
        return {"scale": (1.0, 1.0, 1.0), "units": ("pixel",) * 3}
    return {"scale": voxel_size, "units": ("nm",) * 3}


def label_files(folder: Path) -> list[Path]:
    """The label files of a folder, by name."""
    try:
        return sorted(file for file in folder.iterdir() if file.name.lower().endswith(_LABELS))
    except OSError:
        return []


def cell_name(labels: Path) -> str:
    """What the files of a volume begin with: `cell` of `cell_labels.tif`."""
    name = labels.name if labels.name.endswith(".zarr") else f"{stem(labels)}.zarr"
    return name.removesuffix(".zarr").removesuffix("_labels")


def table_path(labels: Path) -> Path:
    """The table of a label file, `<stem>_granules.csv`."""
    return labels.with_name(f"{cell_name(labels)}_granules.csv")


def read_table(path: Path) -> pd.DataFrame | None:
    """A table of granules; None where there is none, or it is something else."""
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError):
        return None
    whole = "label" in table and pd.api.types.is_integer_dtype(table["label"])
    if not whole or table["label"].duplicated().any():
        log.warning("%s is no table of granules: it has no column of labels; not used", path)
        return None
    return table


def features(table: pd.DataFrame) -> pd.DataFrame:
    """The table as napari takes it: by the column `index` it knows whose row is whose."""
    return table.reset_index(drop=True).assign(index=table["label"].to_numpy())


def read_manifest(labels: Path) -> dict[str, Any]:
    """What isgseg-predict wrote beside labels of where they come from; {} where it did not."""
    cell = cell_name(labels)
    for name in (f"{cell}_labels.json", f"{cell}_granules.json"):
        content = read_object(labels.with_name(name))
        if content is not None:
            return content
    return {}


def tomogram_of(labels: Path) -> Path | None:
    """The tomogram that labels are of; None where it cannot be found."""
    named = read_manifest(labels).get("volume")
    candidates = [Path(named), labels.parent / Path(named).name] if isinstance(named, str) else []
    candidates += [labels.with_name(f"{cell_name(labels)}{suffix}") for suffix in SUFFIXES]
    return next((file for file in candidates if file.is_file()), None)
