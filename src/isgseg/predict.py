"""isgseg-predict: volumes to label volumes, one number per granule."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from isgseg.batch.launch import Batch
from isgseg.batch.records import (
    collected_warnings,
    note_failure,
    one_line,
    record_path,
    recorded,
)
from isgseg.batch.work import Item, Row, Work
from isgseg.command import command
from isgseg.config import plain
from isgseg.errors import InputError
from isgseg.inference.manifest import Manifest, read_content, read_manifest
from isgseg.inference.replay import replayed, tell_replay
from isgseg.io.paths import sha256, user_path

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not wait for it
    from isgseg.inference.outputs import Outputs
    from isgseg.inference.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelling(Item):
    """A volume to label.

    Attributes:
        outputs: where its results go.
        manifest: what they are to be made with.
    """

    outputs: Outputs
    manifest: Manifest


def predict(cfg: DictConfig) -> list[Path]:
    """Labels every volume and returns the label files; a table of the granules lies beside each.

    Volumes whose results are there, made the same way, are kept as they are. One that fails does
    not keep the others from being labelled; it is named at the end, with the reason. Of several
    volumes there is a summary, `predict_summary.csv`.

    Args:
        cfg: `conf/predict.yaml`.

    Raises:
        InputError: no checkpoint, two volumes of one name, a file in the way, or volumes that
            could not be labelled; the message names them.
    """
    from isgseg.inference.predictor import Predictor
    from isgseg.inference.review import write_review

    work = plan(cfg)
    told = told_manifest(cfg)
    failed = dict(work.failed)
    if work.todo:
        settings: dict[str, Any] = OmegaConf.to_object(cfg)  # type: ignore[assignment]
        keys = ("device", "tta", "threshold", "normalization", "segmentation", "precision", "fast")
        with collected_warnings() as warnings:
            predictor = Predictor.from_checkpoint(
                work.todo[0].manifest.checkpoint,
                progress=cfg.progress,
                **{key: settings[key] for key in keys},
            )
        for number, item in enumerate(work.todo, start=1):
            if len(work.todo) > 1:
                log.info("Volume %d of %d: %s", number, len(work.todo), item.volume)
            with work.noting(item, failed, reason):
                made = predict_file(predictor, item, warnings)
                if told is not None:
                    tell_replay(told, made)
    for item in work.items if cfg.review else ():
        if str(item.volume) not in failed:
            write_review(item.outputs, item.volume)
    work.finish(failed)
    return [item.done for item in work.items]


def plan(cfg: DictConfig) -> Work[Labelling]:
    """The volumes of a config, and which of them have no results that were made so.

    Args:
        cfg: `conf/predict.yaml`.

    Raises:
        InputError: see `predict`.
    """
    from isgseg.inference.outputs import plan_outputs
    from isgseg.inference.replay import check_replay
    from isgseg.io.pairing import find_images
    from isgseg.io.volumes import stem
    from isgseg.models.locate import find_model

    volumes = find_images(cfg.volumes)
    folder = Path(cfg.output_dir)
    told = told_manifest(cfg)
    with collected_warnings() as warnings:
        common = describe(cfg, find_model(cfg.ckpt_path))
    common = replace(common, warnings=warnings)
    items, todo, failed = [], [], dict[str, str]()
    planned = plan_outputs(volumes, folder, cfg.format, into_zarr=cfg.into_zarr)
    for volume, outputs in zip(volumes, planned, strict=True):
        record = record_path(folder, stem(volume), "predict")
        item = Labelling(volume, outputs.labels, record, outputs, common)
        items.append(item)
        try:
            here = replace(common, volume=str(volume.absolute()), volume_sha256=sha256(volume))
        except InputError as error:
            failed[str(volume)] = reason(error)
            note_failure(record, "predict", volume, reason(error))
            continue
        if told is not None:
            check_replay(told, here)
        if outputs.is_complete(here.deciding(), cfg.overwrite):
            log.info("%s: kept %s, which is complete", volume, outputs.labels)
        else:
            outputs.check_image(cfg.overwrite)
            todo.append(replace(item, manifest=here))
    work = Work("predict", folder, items, todo, labelled_rows, failed)
    work.check()
    return work


def told_manifest(cfg: DictConfig) -> Manifest | None:
    """The manifest whose labels are to be made again; None: none is."""
    return None if cfg.manifest is None else read_manifest(user_path(cfg.manifest))


def predict_file(predictor: Predictor, item: Labelling, warnings: Sequence[str] = ()) -> Manifest:
    """Labels one file and writes labels, table and manifest.

    Args:
        predictor: of all files.
        item: the volume, and where the results go.
        warnings: that were logged before, and hold for every volume.

    Returns:
        The manifest as it was written, with what was found.

    Raises:
        InputError: the file is no volume, or the results cannot be written.
    """
    from isgseg.analysis.granules import granule_table
    from isgseg.hardware import device_name, pick_device
    from isgseg.inference.candidates import segment
    from isgseg.io.folders import locked
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.volumes import Volume, open_volume

    start = time.perf_counter()
    path, outputs, manifest = item.volume, item.outputs, item.manifest
    with (
        collected_warnings() as own,
        locked(outputs.labels.parent, f".{outputs.labels.name}.lock"),
        recorded(item.record, "predict", path, reason),
    ):
        volume = open_volume(path)
        asked = parse_voxel_size(manifest.config["voxel_size"])
        volume = Volume(volume.data, asked or volume.voxel_size)
        size = volume.voxel_size
        keep = bool(manifest.config["review"])
        granules, candidates = segment(predictor, volume, path.name, keep=keep)
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
            warnings=[*manifest.warnings, *warnings, *own],
        )
        made = outputs.write(granules.labels, size, table, made)
        if candidates is not None:
            candidates.write(*outputs.candidates, size)
    log.info(
        "%s: %d granules in %.0f s, written to %s", path, len(table), made.seconds, outputs.labels
    )
    return made


def describe(cfg: DictConfig, checkpoint: Path) -> Manifest:
    """What decides the results of every volume: a manifest without what is of one volume."""
    from isgseg.inference.manifest import versions
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


def labelled_rows(folder: Path) -> Iterator[Row]:
    """The summary's rows of the volumes that have labels in a folder, by their manifests."""
    for path in folder.glob("*_labels.json"):
        content = read_content(path) or {}
        if "config" in content and (folder / str(content.get("labels"))).exists():
            made = read_manifest(path)
            said = " | ".join(made.warnings)
            yield Row(made.volume, "labelled", made.granules, made.seconds, made.device, said)


def reason(error: BaseException) -> str:
    """Why a volume failed, in one line."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for the next volume
        return "not enough memory; cut the volume, or use a machine with more (device=cpu)"
    return one_line(error)


@command("predict", files="volumes", arguments_of=replayed, batch=Batch("volumes", plan))
def main(cfg: DictConfig) -> None:
    """Console script."""
    predict(cfg)


if __name__ == "__main__":
    main()
