"""isgseg-analyse: a table and an image of the granules of one volume."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from isgseg.command import command
from isgseg.errors import InputFileExistsError

log = logging.getLogger(__name__)


def analyse(cfg: DictConfig) -> dict[str, Path]:
    """Writes `<volume>_granules.csv` and `.png`; returns their paths, as `table` and `figure`.

    Args:
        cfg: `conf/analyse.yaml`.

    Raises:
        InputError: A file is no volume, the two differ in shape, there is no such slice, or a
            result is there already and `overwrite` is false.
    """
    # Here, not above: `--help` need not wait for pandas and matplotlib.
    from isgseg.analysis.figures import granule_figure
    from isgseg.analysis.granules import granule_table, summary, write_table
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.pairing import load_pair
    from isgseg.io.volumes import stem

    results = result_files(Path(str(cfg.output_dir)), stem(cfg.volume), bool(cfg.overwrite))
    volume, labels = load_pair(cfg.volume, cfg.labels, parse_voxel_size(cfg.voxel_size))
    size = volume.voxel_size
    # The figure first: it refuses a wrong slice before anything is written.
    granule_figure(
        volume.data, labels.data, size, results["figure"], z=cfg.slice, name=Path(cfg.volume).name
    )
    table = granule_table(labels.data, volume.data, size)
    write_table(results["table"], table)
    for name, value in summary(table).items():
        log.info("%s: %.6g", name, value)
    log.info("Table in %s", results["table"])
    log.info("Figure in %s", results["figure"])
    return results


def result_files(folder: Path, name: str, overwrite: bool) -> dict[str, Path]:
    """Where the table and the figure of a volume go.

    Raises:
        InputFileExistsError: one is there already, and `overwrite` is false.
    """
    folder = folder.expanduser()
    results = {
        "table": folder / f"{name}_granules.csv",
        "figure": folder / f"{name}_granules.png",
    }
    for path in results.values():
        if path.exists() and not overwrite:
            raise InputFileExistsError(
                f"{path} exists; set overwrite=true to replace it, or give another output_dir"
            )
    return results


@command("analyse")
def main(cfg: DictConfig) -> None:
    """Console script."""
    analyse(cfg)


if __name__ == "__main__":
    main()
