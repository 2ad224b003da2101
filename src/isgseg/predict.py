"""isgseg-predict: volumes to label volumes, one number per granule."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.command import command
from isgseg.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not wait for it
    from isgseg.inference.outputs import Outputs
    from isgseg.inference.predictor import Predictor

log = logging.getLogger(__name__)


def predict(cfg: DictConfig) -> list[Path]:
    """Labels every volume and returns the label files; a table of the granules lies beside each.

    Volumes whose results are there, made the same way, are kept as they are. One that fails does
    not keep the others from being labelled; it is named at the end, with the reason.

    Args:
        cfg: `conf/predict.yaml`.

    Raises:
        InputError: no checkpoint, two volumes of one name, a file in the way, or volumes that
            could not be labelled; the message names them.
    """
    from isgseg.inference.outputs import plan_outputs
    from isgseg.inference.predictor import Predictor
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.pairing import find_images
    from isgseg.models.locate import find_model

    if cfg.format not in ("tif", "mrc"):
        raise InputError(f"format={cfg.format} must be tif or mrc")
    voxel_size = parse_voxel_size(cfg.voxel_size)
    volumes = find_images(cfg.volumes)
    planned = plan_outputs(volumes, Path(cfg.output_dir), cfg.format)
    checkpoint = find_model(cfg.ckpt_path)
    origin = describe(cfg, checkpoint)
    todo, failed = [], dict[str, str]()
    for volume, outputs in zip(volumes, planned, strict=True):
        try:
            here = origin | describe_volume(volume)
        except InputError as error:
            failed[str(volume)] = reason(error)
            continue
        if outputs.is_complete(here, cfg.overwrite):
            log.info("%s: kept %s, which is complete", volume, outputs.labels)
        else:
            todo.append((volume, outputs, here))
    if not todo and not failed:
        return [outputs.labels for outputs in planned]
    settings: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    keys = ("device", "tta", "threshold", "normalization", "segmentation", "precision", "fast")
    predictor = Predictor.from_checkpoint(
        checkpoint, progress=cfg.progress, **{key: settings[key] for key in keys}
    )
    for volume, outputs, here in todo:
        try:
            predict_file(predictor, checkpoint, volume, outputs, voxel_size, here)
        except (InputError, MemoryError) as error:
            failed[str(volume)] = reason(error)
            log.error("%s: %s", volume, failed[str(volume)])
        except Exception as error:
            failed[str(volume)] = reason(error)
            log.exception("%s could not be labelled", volume)
    if failed:
        reasons = "; ".join(f"{name} ({why})" for name, why in failed.items())
        raise InputError(f"{len(failed)} of {len(volumes)} volumes were not labelled: {reasons}")
    return [outputs.labels for outputs in planned]


def predict_file(
    predictor: Predictor,
    checkpoint: Path,
    path: Path,
    outputs: Outputs,
    voxel_size: tuple[float, float, float] | None,
    origin: dict[str, Any],
) -> None:
    """Labels one file and writes labels and table.

    Args:
        predictor: of all files.
        checkpoint: that it was made of.
        path: of the volume.
        outputs: where the results go.
        voxel_size: nm, (z, y, x), in place of the file's; None: the file's.
        origin: what the results are made with.

    Raises:
        InputError: the file is no volume, or the results cannot be written.
    """
    from isgseg.analysis.granules import granule_table
    from isgseg.io.folders import locked
    from isgseg.io.volumes import Volume, read_volume

    start = time.perf_counter()
    with locked(outputs.labels.parent, f".{outputs.labels.name}.lock"):
        volume = read_volume(path)
        volume = Volume(volume.data, voxel_size or volume.voxel_size)
        granules = predictor.segment(volume, path.name)
        table = granule_table(
            granules.labels,
            volume.data,
            volume.voxel_size,
            score=granules.score,
            supporting_slices=granules.slices,
        )
        used = {
            "volume": str(path),
            "checkpoint": str(checkpoint),
            "granules": len(table),
            "voxel_size_nm": volume.voxel_size,
            "thresholds": predictor.thresholds._asdict(),
        }
        outputs.write(granules.labels, volume.voxel_size, table, origin | used)
    seconds = time.perf_counter() - start
    log.info("%s: %d granules in %.0f s, written to %s", path, len(table), seconds, outputs.labels)


def describe(cfg: DictConfig, checkpoint: Path) -> dict[str, Any]:
    """What decides the results of every volume, as JSON holds it."""
    from isgseg import __version__
    from isgseg.io.paths import sha256
    from isgseg.models.archive import check_file

    check_file(checkpoint)
    keys = ("threshold", "normalization", "tta", "segmentation", "voxel_size", "precision", "fast")
    plain: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    return {
        "isgseg": __version__,
        "checkpoint_sha256": sha256(checkpoint),
        **{key: plain[key] for key in keys},
    }


def describe_volume(path: Path) -> dict[str, Any]:
    """Which volume it is, as JSON holds it."""
    from isgseg.io.paths import sha256

    return {"volume_sha256": sha256(path)}


def reason(error: BaseException) -> str:
    """Why a volume failed, in one line."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for the next volume
        return "not enough memory; cut the volume, or use a machine with more (device=cpu)"
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


@command("predict", files="volumes")
def main(cfg: DictConfig) -> None:
    """Console script."""
    predict(cfg)


if __name__ == "__main__":
    main()
