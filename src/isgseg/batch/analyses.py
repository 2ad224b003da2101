"""The volumes of `isgseg-analyse`: which labels and structures belong to each, what is done."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from isgseg.batch.records import read_record, record_path
from isgseg.batch.work import Item, Row, Work
from isgseg.errors import InputError, InputFileExistsError
from isgseg.io.json_files import read_object
from isgseg.io.pairing import find_images, find_pairs
from isgseg.io.paths import Patterns, sha256, user_path
from isgseg.io.volumes import stem
from isgseg.words import shown

log = logging.getLogger(__name__)
NAME = "{name}"  # stands for the name of a volume without its suffix
SETTINGS = ("voxel_size", "slice", "lac", "structures", "cell", "relations", "chance")


@dataclass(frozen=True)
class Analysis(Item):
    """A volume to analyse.

    Attributes:
        labels: the file of its granules.
        cfg: `conf/analyse.yaml` of this volume alone.
    """

    labels: Path
    cfg: DictConfig


def plan_analyses(cfg: DictConfig, endings: Mapping[str, str]) -> Work[Analysis]:
    """The volumes of a config, each with its labels, and which have no results that were made so.

    Args:
        cfg: `conf/analyse.yaml`; `volume` and `labels` may be globs, folders or lists. `{name}` in
            `labels` and `structures` stands for the name of each volume.
        endings: of the results, the last written last; see `isgseg.analyse`.

    Raises:
        InputError: labels or structures cannot be told apart, or a file is in the way.
    """
    folder = Path(str(cfg.output_dir)).expanduser()
    items: list[Analysis] = []
    todo: list[Analysis] = []
    pairs = labels_of(cfg.volume, cfg.labels)
    _check_structures(cfg, len(pairs))
    for volume, labels in pairs:
        own = _of_one(cfg, volume, labels)
        name = stem(volume)
        results = [folder / f"{name}{ending}" for ending in endings.values()]
        item = Analysis(
            volume, results[-1], record_path(folder, name, "analyse"), labels=labels, cfg=own
        )
        if item.done in [other.done for other in items]:
            raise InputError(
                f"two volumes are called {name}, and would share {item.done}; analyse them in two "
                "runs, into two folders"
            )
        items.append(item)
        if _is_complete(item, folder / f"{name}_summary.json", results):
            log.info("%s: kept %s, which is complete", volume, item.done)
        else:
            todo.append(item)
    return Work("analyse", folder, items, todo, analysed_rows)


def labels_of(volumes: Patterns, labels: Patterns) -> list[tuple[Path, Path]]:
    """Volumes, each with its labels: by `{name}`, else by their names.

    Raises:
        InputError: see `isgseg.io.pairing.find_pairs`.
    """
    if isinstance(labels, str) and NAME in labels:
        return [(path, Path(labels.replace(NAME, stem(path)))) for path in find_images(volumes)]
    return find_pairs(volumes, labels)


def files_of(cfg: DictConfig) -> dict[str, Path]:
    """What an analysis of one volume reads, by its keys: the volume, labels, each structure.

    Args:
        cfg: `conf/analyse.yaml` of one volume.
    """
    files = {"volume": user_path(cfg.volume), "labels": user_path(cfg.labels)}
    given = {f"structures.{key}": path for key, path in cfg.structures.items() if key != "names"}
    return files | {key: user_path(path) for key, path in given.items() if path}


def template(pairs: Sequence[tuple[Path, Path]]) -> str:
    """The labels of all volumes as one text with `{name}` in it, for tasks that see one volume.

    Raises:
        InputError: there is none, such as where labels lie in several folders.
    """
    volume, labels = pairs[0]
    text = str(labels.with_name(labels.name.replace(stem(volume), NAME)))
    for volume, labels in pairs:
        if text.replace(NAME, stem(volume)) != str(labels):
            raise InputError(
                f"{labels} belongs to {volume}, but not all labels are called alike; with a "
                "launcher write labels= with {name}, which stands for the name of each volume, "
                "such as labels='labels/{name}_labels.tif'"
            )
    return text


def analysed_rows(folder: Path) -> Iterator[Row]:
    """The summary's rows of the volumes that were analysed into a folder, by their summaries."""
    for path in folder.glob("*_summary.json"):
        content = read_object(path) or {}
        settings, counted = content.get("settings"), content.get("measures", {}).get("count", {})
        if isinstance(settings, dict) and "volume" in settings:
            said = " | ".join(content.get("warnings", []))
            count = None if counted.get("value") is None else int(counted["value"])
            volume = str(Path(settings["volume"]).expanduser().absolute())
            yield Row(volume, "analysed", count, content.get("seconds"), warnings=said)


def _of_one(cfg: DictConfig, volume: Path, labels: Path) -> DictConfig:
    """The config of one volume."""
    own = cfg.copy()
    own.volume, own.labels = str(volume), str(labels)
    for key, path in own.structures.items():
        if isinstance(path, str):
            own.structures[key] = path.replace(NAME, stem(volume))
    return own


def _check_structures(cfg: DictConfig, volumes: int) -> None:
    """Refuses the structure of one cell for several."""
    for key, path in cfg.structures.items():
        if key != "names" and isinstance(path, str) and NAME not in path and volumes > 1:
            raise InputError(
                f"structures.{key}={shown(path)} is one file for {volumes} volumes; write {{name}} "
                f"for the name of each, such as structures.{key}='masks/{{name}}_{key}.tif'"
            )


def _is_complete(item: Analysis, summary: Path, results: Sequence[Path]) -> bool:
    """Whether the results are there, made the same way.

    Raises:
        InputFileExistsError: a file is in the way that may not be replaced.
    """
    there = [path for path in results if path.exists()]
    if not there or item.cfg.overwrite:
        return False
    former = read_object(summary) or {}
    if "sha256" in former and len(there) == len(results):
        differ = _differing(item, former)
        if not differ:
            return True
        raise InputFileExistsError(
            f"{there[0]} exists, and was made with another {', '.join(differ)} (see "
            f"{summary.name}); set overwrite=true or another output_dir"
        )
    if read_record(item.record) is not None:  # what a run that did not end has left
        return False
    raise InputFileExistsError(
        f"{there[0]} exists; set overwrite=true to replace it, or give another output_dir"
    )


def _differing(item: Analysis, former: Mapping[str, Any]) -> list[str]:
    """What an earlier analysis was made with otherwise."""
    from isgseg import __version__

    settings: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(item.cfg, list(SETTINGS)), resolve=True
    )
    before = former.get("settings", {})
    differ = [key for key in SETTINGS if before.get(key) != json.loads(json.dumps(settings[key]))]
    hashes = former.get("sha256", {})
    differ += [
        key
        for key, path in files_of(item.cfg).items()
        if key.partition(".")[0] not in differ and sha256(path) != hashes.get(key)
    ]
    return differ + ["isgseg"] * (former.get("isgseg") != __version__)
