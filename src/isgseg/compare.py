"""isgseg-compare: what differs between conditions, with each cell as one."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from isgseg.command import command
from isgseg.config import plain
from isgseg.errors import InputError, InputFileExistsError
from isgseg.words import one_of, shown

log = logging.getLogger(__name__)


def compare(cfg: DictConfig) -> dict[str, Path]:
    """Writes the table of cells, that of tests and the figure; returns their paths.

    Args:
        cfg: `conf/compare.yaml`.

    Raises:
        InputError: summaries or conditions cannot be read or do not fit together, there is nothing
            to compare, or a result is there already and `overwrite` is false.
    """
    # Here, not above: `--help` need not wait for pandas and matplotlib.
    from isgseg.analysis import comparison, conditions, summaries
    from isgseg.analysis.comparison_figure import comparison_figure
    from isgseg.analysis.granules import write_table

    settings = plain(cfg)
    results = result_files(Path(cfg.output_dir), bool(cfg.overwrite))
    found = summaries.read_summaries(settings["summaries"])
    of_volumes = conditions.read_conditions(cfg.conditions)
    cells = conditions.cell_table(found, of_volumes, settings["measures"])
    reference = chosen_reference(list(dict.fromkeys(cells["condition"])), cfg.reference)
    if len(cells) < 2 or cells["condition"].nunique() < 2:
        raise InputError(
            f"{len(cells)} cell(s) of {cells['condition'].nunique()} condition(s): a comparison "
            "needs two conditions with at least two cells each; add summaries, or other rows to "
            "conditions="
        )
    for warning in summaries.check_alike(list(found.values())):
        log.warning("%s", warning)
    names = [name for name in cells.columns if name not in conditions.KEYS]
    units = summaries.units(list(found.values()), names)
    tests = comparison.difference_table(
        cells,
        units,
        reference,
        permutations=cfg.permutations,
        confidence=cfg.confidence,
        seed=cfg.seed,
    )
    for warning in comparison.too_few(tests):
        log.warning("%s", warning)
    write_table(results["cells"], cells)
    write_table(results["tests"], tests)
    comparison_figure(cells, tests, units, results["figure"])
    log.info("%s", comparison.said(tests))
    for name, path in results.items():
        log.info("%s in %s", name.capitalize(), path)
    return results


def chosen_reference(names: list[str], asked: str | None) -> str:
    """The condition that the others are compared with; the first one unless another is asked for.

    Raises:
        InputError: there is no such condition.
    """
    if asked is None:
        return names[0]
    if asked not in names:
        raise InputError(f"reference={shown(asked)}: no such condition; choose {one_of(names)}")
    return asked


def result_files(folder: Path, overwrite: bool) -> dict[str, Path]:
    """Where the results go.

    Raises:
        InputFileExistsError: one is there already, and `overwrite` is false.
    """
    folder = folder.expanduser()
    results = {
        "cells": folder / "comparison_cells.csv",
        "tests": folder / "comparison_tests.csv",
        "figure": folder / "comparison.png",
    }
    for path in results.values():
        if path.exists() and not overwrite:
            raise InputFileExistsError(
                f"{path} exists; set overwrite=true to replace it, or give another output_dir"
            )
    return results


@command("compare", files="summaries")
def main(cfg: DictConfig) -> None:
    """Console script."""
    compare(cfg)


if __name__ == "__main__":
    main()
