"""isgseg-analyse: a table and a picture of the granules of one volume."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from isgseg.config import CONFIG_DIR, friendly_errors

if TYPE_CHECKING:
    from isgseg.volume import Volume

log = logging.getLogger(__name__)


def analyse(cfg: DictConfig) -> dict[str, Path]:
    """Writes `granules.csv` and `granules.png` and returns their paths, as `table` and `figure`.

    Args:
        cfg: `conf/analyse.yaml`.

    Raises:
        ValueError: A file is no volume, the two differ in shape, or there is no such slice.
    """
    # Here, not above: `--help` need not wait for pandas and matplotlib.
    from isgseg.analysis.figures import granule_figure
    from isgseg.analysis.granules import granule_table, summary, write_table
    from isgseg.volume import read_labels, read_volume

    volume, labels = read_volume(cfg.volume), read_labels(cfg.labels)
    if volume.data.shape != labels.data.shape:
        raise ValueError(
            f"{cfg.volume} is {volume.data.shape} but {cfg.labels} is {labels.data.shape} "
            "(z, y, x); labels belong to a volume of the same shape"
        )
    voxel_size = choose_voxel_size(cfg.voxel_size, volume, labels)
    folder = Path(cfg.output_dir)
    # The figure first: it refuses a wrong slice before anything is written.
    figure = granule_figure(
        volume.data,
        labels.data,
        voxel_size,
        folder / "granules.png",
        z=cfg.slice,
        name=Path(cfg.volume).name,
    )
    table = granule_table(labels.data, volume.data, voxel_size)
    path = write_table(folder / "granules.csv", table)
    for name, value in summary(table).items():
        log.info("%s: %.6g", name, value)
    log.info("Table in %s", path)
    log.info("Figure in %s", figure)
    return {"table": path, "figure": figure}


def choose_voxel_size(
    given: float | Sequence[float] | None, volume: Volume, labels: Volume
) -> tuple[float, float, float] | None:
    """The voxel size in nm, (z, y, x): as given, else the volume's, else the labels'.

    Raises:
        ValueError: What was given is not one or three positive numbers.
    """
    from isgseg.formats import is_voxel_size

    if given is None:
        sizes = [size for size in (volume.voxel_size, labels.voxel_size) if size is not None]
        if len(sizes) == 2 and any(abs(a - b) > 0.01 * a for a, b in zip(*sizes, strict=True)):
            log.warning(
                "voxel size %s nm in the volume, %s nm in the labels; using the first", *sizes
            )
        return sizes[0] if sizes else None
    size = [given] * 3 if isinstance(given, (int, float)) else list(given)
    if not is_voxel_size(size):
        raise ValueError(f"voxel_size={given}: give nm, one positive number or [z, y, x]")
    z, y, x = size
    return z, y, x


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="analyse")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    analyse(cfg)


if __name__ == "__main__":
    main()
