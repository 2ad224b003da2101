"""isgseg-predict: volumes to label volumes, one number per granule."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.batch.records import collected_warnings
from isgseg.command import command
from isgseg.config import plain
from isgseg.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not wait for it
    from isgseg.inference.manifest import Manifest
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
    from isgseg.inference.manifest import read_manifest
    from isgseg.inference.outputs import plan_outputs
    from isgseg.inference.predictor import Predictor
    from isgseg.inference.replay import check_replay, tell_replay
    from isgseg.io.pairing import find_images
    from isgseg.io.paths import sha256, user_path
    from isgseg.models.locate import find_model

    if cfg.format not in ("tif", "mrc"):
        raise InputError(f"format={cfg.format} must be tif or mrc")
    volumes = find_images(cfg.volumes)
    planned = plan_outputs(volumes, Path(cfg.output_dir), cfg.format)
    told = None if cfg.manifest is None else read_manifest(user_path(cfg.manifest))
    common = describe(cfg, find_model(cfg.ckpt_path))
    todo, failed = [], dict[str, str]()
    for volume, outputs in zip(volumes, planned, strict=True):
        try:
            here = replace(common, volume=str(volume.absolute()), volume_sha256=sha256(volume))
        except InputError as error:
            failed[str(volume)] = reason(error)
            continue
        if told is not None:
            check_replay(told, here)
        if outputs.is_complete(here.deciding(), cfg.overwrite):
            log.info("%s: kept %s, which is complete", volume, outputs.labels)
        else:
            todo.append((volume, outputs, here))
    if not todo and not failed:
        if cfg.review:
            review(dict(zip(volumes, planned, strict=True)))
        return [outputs.labels for outputs in planned]
    settings: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
    keys = ("device", "tta", "threshold", "normalization", "segmentation", "precision", "fast")
    with collected_warnings() as warnings:
        predictor = Predictor.from_checkpoint(
            common.checkpoint, progress=cfg.progress, **{key: settings[key] for key in keys}
        )
    for volume, outputs, here in todo:
        try:
            made = predict_file(predictor, volume, outputs, replace(here, warnings=warnings))
        except (InputError, MemoryError) as error:
            failed[str(volume)] = reason(error)
            log.error("%s: %s", volume, failed[str(volume)])
        except Exception as error:
            failed[str(volume)] = reason(error)
            log.exception("%s could not be labelled", volume)
        else:
            if told is not None:
                tell_replay(told, made)
    if cfg.review:
        each = zip(volumes, planned, strict=True)
        review({volume: outputs for volume, outputs in each if str(volume) not in failed})
    if failed:
        reasons = "; ".join(f"{name} ({why})" for name, why in failed.items())
        raise InputError(f"{len(failed)} of {len(volumes)} volumes were not labelled: {reasons}")
    return [outputs.labels for outputs in planned]


def predict_file(
    predictor: Predictor, path: Path, outputs: Outputs, manifest: Manifest
) -> Manifest:
    """Labels one file and writes labels, table and manifest.

    Args:
        predictor: of all files.
        path: of the volume.
        outputs: where the results go.
        manifest: what the results are made with.

    Returns:
        The manifest as it was written, with what was found.

    Raises:
        InputError: the file is no volume, or the results cannot be written.
    """
    from isgseg.analysis.granules import granule_table
    from isgseg.hardware import device_name, pick_device
    from isgseg.io.folders import locked
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.volumes import Volume, read_volume

    start = time.perf_counter()
    lock = f".{outputs.labels.name}.lock"
    with collected_warnings() as warnings, locked(outputs.labels.parent, lock):
        volume = read_volume(path)
        asked = parse_voxel_size(manifest.config["voxel_size"])
        volume = Volume(volume.data, asked or volume.voxel_size)
        size = volume.voxel_size
        granules = predictor.segment(volume, path.name)
        table = granule_table(
            granules.labels,
            volume.data,
            size,
            score=granules.score,
            supporting_slices=granules.slices,
        )
        made = replace(
            manifest,
            granules=len(table),
            voxel_size_nm=None if size is None else list(map(float, size)),
            thresholds=predictor.thresholds._asdict(),
            device=device_name(pick_device(manifest.config["device"])),
            seconds=round(time.perf_counter() - start, 3),
            warnings=[*manifest.warnings, *warnings],
        )
        made = outputs.write(granules.labels, size, table, made)
    log.info(
        "%s: %d granules in %.0f s, written to %s", path, len(table), made.seconds, outputs.labels
    )
    return made


def review(done: dict[Path, Outputs]) -> None:
    """Writes which granules of each volume are doubtful; see `isgseg.inference.review`."""
    from isgseg.inference.review import write_review

    for volume, outputs in done.items():
        write_review(outputs, volume)


def describe(cfg: DictConfig, checkpoint: Path) -> Manifest:
    """What decides the results of every volume: a manifest without what is of one volume."""
    from isgseg.inference.manifest import Manifest, versions
    from isgseg.io.paths import sha256
    from isgseg.models.archive import check_file

    check_file(checkpoint)
    return Manifest(
        volume="",
        volume_sha256="",
        checkpoint=str(checkpoint.absolute()),
        checkpoint_sha256=sha256(checkpoint),
        versions=versions(),
        config=plain(cfg),
    )


def reason(error: BaseException) -> str:
    """Why a volume failed, in one line."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for the next volume
        return "not enough memory; cut the volume, or use a machine with more (device=cpu)"
    text = " ".join(str(error).split()) or "no message"
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def arguments_of(typed: list[str]) -> list[str]:
    """Arguments for Hydra: a manifest among them is read."""
    from isgseg.inference.replay import replayed

    return replayed(typed)


@command("predict", arguments_of=arguments_of)
def main(cfg: DictConfig) -> None:
    """Console script."""
    predict(cfg)


if __name__ == "__main__":
    main()
