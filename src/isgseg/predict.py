"""isgseg-predict: volumes to label volumes, one number per granule."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig, OmegaConf

from isgseg.config import CONFIG_DIR, friendly_errors

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not wait for it
    from isgseg.labelling import Labelling
    from isgseg.model.module import MaskRCNNModule

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> list[Path]:
    """Labels every volume and returns the label files; a table of the granules lies beside each.

    A volume that cannot be read does not keep the others from being labelled; it is counted and
    named at the end.

    Args:
        cfg: `conf/predict.yaml`.

    Raises:
        ValueError: no checkpoint, an unknown format, two volumes of one name, or volumes that
            could not be labelled; the message names them.
        FileExistsError: a label file or table is there already and `overwrite` is false.
    """
    from isgseg.labelling import Labelling
    from isgseg.model.operating_point import choose_thresholds
    from isgseg.volume import find_volumes

    if cfg.format not in ("tif", "mrc"):
        raise ValueError(f"format is '{cfg.format}'; choose tif or mrc")
    volumes = find_volumes(cfg.volumes)
    targets = label_files(volumes, Path(cfg.output_dir), cfg.format, cfg.overwrite)
    module = load_predictor(cfg)
    labelling = Labelling(**cfg.labelling)
    log.info(
        "Thresholds: score %.3g, mask %.3g, granule %.3g; the checkpoint's: %s",
        *choose_thresholds(module.hparams, cfg.threshold, labelling.mask_threshold),
        module.hparams.get("thresholds") or "none, so that the default is .5",
    )
    failed = {}
    for path, target in zip(volumes, targets, strict=True):
        try:
            predict_file(module, path, target, labelling, cfg)
        except (ValueError, OSError) as error:
            log.error("%s", error)
            failed[path.name] = error
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(volumes)} volumes were not labelled: {', '.join(failed)}"
        )
    return targets


def load_predictor(cfg: DictConfig) -> MaskRCNNModule:
    """The checkpoint's network on its device, with what is asked for instead of its own settings.

    Raises:
        ValueError: the file is no checkpoint, or a number of views that there is not.
    """
    from isgseg.hardware import pick_device
    from isgseg.model.checkpoint import load_module

    module = load_module(cfg.ckpt_path)
    if cfg.normalization is not None:
        module.hparams["facts"] = {
            **(module.hparams.get("facts") or {}),
            "normalization": OmegaConf.to_object(cfg.normalization),
        }
    module.look(cfg.views)
    return module.to(pick_device(cfg.device))


def predict_file(
    module: MaskRCNNModule, path: Path, target: Path, labelling: Labelling, cfg: DictConfig
) -> None:
    """Labels one file and writes labels and table."""
    from isgseg.analysis.granules import granule_table, write_table
    from isgseg.labelling import granules_of
    from isgseg.volume import read_volume, write_volume

    volume = read_volume(path)
    warn_of_voxel_size(module, volume.voxel_size, path)
    start = time.perf_counter()
    granules = granules_of(
        module,
        volume,
        cfg.threshold,
        labelling,
        cfg.precision,
        cfg.progress,
        path.name,
        cfg.fast,
    )
    table = granule_table(
        granules.labels,
        volume.data,
        volume.voxel_size,
        score=granules.score,
        supporting_slices=granules.slices,
    )
    write_volume(target, granules.labels, volume.voxel_size)
    write_table(table_file(target), table)
    seconds = time.perf_counter() - start
    log.info("%s: %d granules in %.0f s, written to %s", path.name, len(table), seconds, target)


def table_file(target: Path) -> Path:
    """Where the table of a label file goes: `<stem>_granules.csv` beside `<stem>_labels.tif`."""
    return target.with_name(f"{target.stem.removesuffix('_labels')}_granules.csv")


def label_files(volumes: list[Path], folder: Path, suffix: str, overwrite: bool) -> list[Path]:
    """Where each volume's labels go.

    Raises:
        ValueError: two volumes would share a file.
        FileExistsError: a file is there already, perhaps labels made by hand, or its table is.
    """
    from isgseg.volume import stem

    targets = [folder / f"{stem(path)}_labels.{suffix}" for path in volumes]
    for i, target in enumerate(targets):
        if target in targets[:i]:
            raise ValueError(
                f"{volumes[targets.index(target)]} and {volumes[i]} would both be written to "
                f"{target}; label them in two runs"
            )
        for file in (target, table_file(target)):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file} exists; set overwrite=true or another output_dir")
    return targets


def warn_of_voxel_size(
    module: MaskRCNNModule, voxel_size: tuple[float, float, float] | None, path: Path
) -> None:
    """Warns where granules are of another size, in voxels, than those the network learnt."""
    learnt = (module.hparams.get("facts") or {}).get("voxel_size")
    if learnt is None or voxel_size is None:
        return
    ratio = max(max(a / b, b / a) for a, b in zip(learnt, voxel_size, strict=True))
    if ratio > 1.25:
        log.warning(
            "%s has voxels of %s nm, the network learnt from %s nm (z, y, x): granules will look "
            "%.2g times as large or small to it; resample the volume first",
            path,
            [round(side, 2) for side in voxel_size],
            [round(side, 2) for side in learnt],
            ratio,
        )


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="predict")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    predict(cfg)


if __name__ == "__main__":
    main()
