"""isgseg-analyse: table, summary, image and report of the granules of volumes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.batch.analyses import NAME, Analysis, files_of, labels_of, plan_analyses, template
from isgseg.batch.launch import Batch
from isgseg.batch.records import one_line, recorded
from isgseg.batch.work import Work
from isgseg.command import command
from isgseg.errors import InputFileExistsError
from isgseg.io.paths import is_list
from isgseg.overrides import literal

if TYPE_CHECKING:
    import pandas as pd

    from isgseg.analysis.measures import CellNumbers
    from isgseg.analysis.structures import Structures
    from isgseg.io.volumes import Volume

log = logging.getLogger(__name__)
FILES = {
    "table": "_granules.csv",
    "figure": "_granules.png",
    "summary": "_summary.json",
}
WHEN_ASKED = {  # by keys of the config
    "report": "_report.html",
    "parquet": "_granules.parquet",
    "meshes": "_granules.ply",
}
LAST = ("summary", "report")  # are written last, in this order


def analyse_all(cfg: DictConfig) -> None:
    """Analyses one volume, or each of several, of which there is a summary.

    One volume is refused where a result is there. Of several, those whose results are there, made
    the same way, are kept; one that fails does not keep the others from being analysed.

    Args:
        cfg: `conf/analyse.yaml`; `volume` and `labels` may be globs, folders or lists.

    Raises:
        InputError: see `analyse`; volumes that could not be analysed are named.
    """
    if isinstance(cfg.volume, str) and is_list(cfg.volume) and NAME not in str(cfg.labels):
        analyse(cfg)
        return
    work = plan(cfg)
    failed = dict[str, str]()
    for number, item in enumerate(work.todo, start=1):
        log.info("Volume %d of %d: %s", number, len(work.todo), item.volume)
        item.cfg.overwrite = True  # what is there may be replaced: the plan has looked
        with (
            work.noting(item, failed, one_line),
            recorded(item.record, "analyse", item.volume, one_line),
        ):
            analyse(item.cfg)
    work.finish(failed)


def plan(cfg: DictConfig) -> Work[Analysis]:
    """The volumes of a config, and which of them have no results that were made so."""
    endings = endings_of(cfg)
    order = [kind for kind in (*FILES, *WHEN_ASKED) if kind in endings and kind not in LAST]
    order += [kind for kind in LAST if kind in endings]
    work = plan_analyses(cfg, {kind: endings[kind] for kind in order})
    work.check()
    return work


def endings_of(cfg: DictConfig) -> dict[str, str]:
    """What the names of the results end in, by what they hold."""
    return FILES | {kind: ending for kind, ending in WHEN_ASKED.items() if cfg[kind]}


def for_tasks(cfg: DictConfig) -> list[str]:
    """Arguments of the tasks of a launcher, each of which sees one volume: labels by its name."""
    return [f"labels={literal(template(labels_of(cfg.volume, cfg.labels)))}"]


def analyse(cfg: DictConfig) -> dict[str, Path]:
    """Writes what `FILES` lists, and what is asked for; returns the paths by what they hold.

    Args:
        cfg: `conf/analyse.yaml`.

    Raises:
        InputError: A file is no volume, two differ in shape, there is no such slice or cell, or a
            result is there already and `overwrite` is false.
    """
    # Here, not above: `--help` need not wait for pandas and matplotlib.
    from isgseg.analysis.figures import granule_figure
    from isgseg.analysis.granules import check_parquet, summary, write_parquet, write_table
    from isgseg.analysis.intensity import check_lac
    from isgseg.analysis.measures import write_summary
    from isgseg.analysis.meshes import write_meshes
    from isgseg.analysis.report import write_report
    from isgseg.analysis.structures import read_structures
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.pairing import load_pair
    from isgseg.io.volumes import stem

    start = time.perf_counter()
    keys = [str(key) for key in cfg if key not in ("task_name", "paths", "output_dir")]
    settings: dict[str, Any] = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, keys), resolve=True
    )  # type: ignore[assignment]
    folder, name = Path(str(cfg.output_dir)), stem(cfg.volume)
    results = result_files(folder, name, endings_of(cfg), bool(cfg.overwrite))
    if "parquet" in results:
        check_parquet()
    volume, labels = load_pair(cfg.volume, cfg.labels, parse_voxel_size(settings["voxel_size"]))
    size, shape = volume.voxel_size, volume.data.shape
    structures = read_structures(settings["structures"], shape, size, settings["cell"])
    check_lac(size, settings["lac"])
    # The figure first: it refuses a wrong slice before anything is written.
    granule_figure(
        volume.data, labels.data, size, results["figure"], z=cfg.slice, name=Path(cfg.volume).name
    )
    table, numbers = measure(volume, labels, structures, settings)
    write_table(results["table"], table)
    if "parquet" in results:
        write_parquet(results["parquet"], table)
    if "meshes" in results:
        write_meshes(results["meshes"], labels.data, size)
    told = facts(cfg, settings, size) | {"seconds": round(time.perf_counter() - start, 3)}
    content = write_summary(results["summary"], told, numbers)
    if "report" in results:
        write_report(results["report"], table, content, volume.data, labels.data, structures)
    for message in numbers.warnings:
        log.warning("%s", message)
    for measure_name, value in summary(table).items():
        log.info("%s: %.6g", measure_name, value)
    for kind, path in results.items():
        log.info("%s in %s", kind.capitalize(), path)
    return results


def measure(
    volume: Volume, labels: Volume, structures: Structures, settings: Mapping[str, Any]
) -> tuple[pd.DataFrame, CellNumbers]:
    """All columns of the table of granules, and the numbers of the cell.

    Args:
        volume: grey values.
        labels: its granules.
        structures: of the cell.
        settings: `conf/analyse.yaml`, plain values.
    """
    from isgseg.analysis.averages import average_measures
    from isgseg.analysis.cell import measure_granules
    from isgseg.analysis.granules import granule_table
    from isgseg.analysis.intensity import intensity_columns
    from isgseg.analysis.settings import ChanceSettings, RelationSettings
    from isgseg.analysis.shape import shape_columns

    size = volume.voxel_size
    table = granule_table(labels.data, volume.data, size)
    grey = intensity_columns(labels.data, volume.data, size, structures.cytoplasm, settings["lac"])
    table = table.join(shape_columns(labels.data, size), on="label").join(grey, on="label")
    relations = RelationSettings(**settings["relations"])
    chance = ChanceSettings(**settings["chance"])
    columns, numbers = measure_granules(labels.data, table, structures, size, relations, chance)
    table = table.join(columns, on="label")
    own = table if structures.number is None else table[table["cell"] == structures.number]
    numbers.measures.update(average_measures(own))
    return table, numbers


def facts(cfg: DictConfig, settings: dict[str, Any], size: Any) -> dict[str, Any]:
    """Where the numbers come from: versions, files with their SHA-256, settings."""
    from isgseg import __version__
    from isgseg.io.paths import sha256

    files = files_of(cfg)
    return {
        "isgseg": __version__,
        **{kind: files[kind].name for kind in ("volume", "labels")},
        "sha256": {kind: sha256(path) for kind, path in files.items()},
        "voxel_size_nm": None if size is None else list(size),
        "settings": settings,
    }


def result_files(
    folder: Path, name: str, endings: Mapping[str, str], overwrite: bool
) -> dict[str, Path]:
    """Where the results of a volume go: its name with each of the endings, by their keys.

    Raises:
        InputFileExistsError: one is there already, and `overwrite` is false.
    """
    folder = folder.expanduser()
    results = {kind: folder / f"{name}{ending}" for kind, ending in endings.items()}
    for path in results.values():
        if path.exists() and not overwrite:
            raise InputFileExistsError(
                f"{path} exists; set overwrite=true to replace it, or give another output_dir"
            )
    return results


@command("analyse", batch=Batch("volume", plan, for_tasks))
def main(cfg: DictConfig) -> None:
    """Console script."""
    analyse_all(cfg)


if __name__ == "__main__":
    main()
