"""isgseg-prepare: labelled volumes, or synthetic ones, to a COCO patch dataset."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from isgseg.config import CONFIG_DIR, friendly_errors

log = logging.getLogger(__name__)


def prepare(cfg: DictConfig) -> Path:
    """Writes the dataset folder and returns it.

    The folder appears whole or not at all: everything is written beside it and renamed at the end.

    Args:
        cfg: `conf/prepare.yaml`. With `data=phantom` the volumes are made first, into
            `volumes/` of the dataset folder.

    Raises:
        ValueError: unequal pairs or shapes, a volume in both splits, labels that are not integers,
            NaN or infinite voxels; the message names the file.
        FileExistsError: the folder holds a dataset and `overwrite` is false.
    """
    from isgseg.data.dataset import write_dataset
    from isgseg.data.patches import PatchSettings
    from isgseg.normalization import Normalization

    output = Path(cfg.output_dir)
    if (output / "dataset.yaml").exists() and not cfg.overwrite:
        raise FileExistsError(
            f"{output} already holds a dataset; set overwrite=true to replace it, or output_dir="
        )
    settings = PatchSettings(**OmegaConf.to_object(cfg.patches))  # type: ignore[arg-type]
    normalization = Normalization(**cfg.normalization)
    beside = output.with_name(output.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        if "phantom" in cfg.data:
            volumes, val = write_phantoms(OmegaConf.to_object(cfg.data.phantom), beside)  # type: ignore[arg-type]
            pairs = [(path, path.with_name(path.stem + "_labels.mrc")) for path in volumes]
        else:
            pairs = find_pairs(cfg)
            val = [cfg.val] if isinstance(cfg.val, str) else [str(name) for name in cfg.val]
        content = write_dataset(pairs, val, beside, settings, normalization)
        for source in content["volumes"]:  # phantoms move with the dataset
            for key in ("file", "labels"):
                source[key] = source[key].replace(str(beside), str(output))
        OmegaConf.save(OmegaConf.create(content), beside / "dataset.yaml")
        install(beside, output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for split, numbers in content["objects"].items():
        log.info("%s: %d patches, %d objects", split, numbers["patches"], numbers["objects"])
    log.info("Dataset in %s", output)
    return output


def install(beside: Path, output: Path) -> None:
    """Moves the parts of a finished dataset to their place; others' files there are left alone."""
    output.mkdir(parents=True, exist_ok=True)
    for part in sorted(beside.iterdir(), key=lambda path: path.name == "dataset.yaml"):
        target = output / part.name
        if target.is_dir():
            shutil.rmtree(target)
        part.replace(target)


def find_pairs(cfg: DictConfig) -> list[tuple[Path, Path]]:
    """Volumes and labels, in the order given (globs: sorted by name).

    Raises:
        ValueError: their numbers differ.
    """
    from isgseg.volume import find_volumes

    if not cfg.volumes or not cfg.labels:
        raise ValueError("give volumes=, labels= and val=, or data=phantom for synthetic cells")
    volumes, labels = find_volumes(cfg.volumes), find_volumes(cfg.labels)
    # A glob such as cells/*.mrc takes the labels beside the volumes along.
    volumes = [path for path in volumes if path not in labels]
    if len(volumes) != len(labels):
        raise ValueError(
            f"{len(volumes)} volumes but {len(labels)} label files: "
            f"{[path.name for path in volumes]} and {[path.name for path in labels]}"
        )
    return list(zip(volumes, labels, strict=True))


def write_phantoms(settings: dict[str, Any], folder: Path) -> tuple[list[Path], list[str]]:
    """Makes the synthetic cells; returns their files and the stems of the validation ones."""
    from tqdm import tqdm

    from isgseg.phantom import make_phantom
    from isgseg.volume import write_volume

    train, val = settings.pop("train_seeds"), settings.pop("val_seeds")
    otherwise = settings.pop("train") or {}
    names = {seed: f"phantom_{seed:04d}" for seed in (*train, *val)}
    if len(names) < len(train) + len(val):
        raise ValueError(f"train_seeds {train} and val_seeds {val} share a seed: name each once")
    volumes = []
    for seed, name in tqdm(names.items(), desc="Phantom cells"):
        cell = make_phantom(seed, **(settings | otherwise if seed in train else settings))
        target = folder / "volumes" / f"{name}.mrc"
        volumes.append(write_volume(target, cell.volume, cell.voxel_size))
        for kind, labels in (("labels", cell.labels), ("organelles", cell.organelles)):
            write_volume(target.with_name(f"{name}_{kind}.mrc"), labels, cell.voxel_size)
    return volumes, [names[seed] for seed in val]


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="prepare")
@friendly_errors
def main(cfg: DictConfig) -> None:
    """Console script."""
    prepare(cfg)


if __name__ == "__main__":
    main()
