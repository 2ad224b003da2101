"""isgseg-prepare: labelled volumes, or synthetic ones, to a COCO patch dataset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from isgseg import __version__
from isgseg.command import command
from isgseg.errors import InputError, check

log = logging.getLogger(__name__)


def prepare(cfg: DictConfig) -> Path:
    """Writes the dataset folder and returns it.

    The dataset appears whole or not at all, and replaces nothing but what isgseg-prepare wrote.
    Other files in the folder are left alone.

    Args:
        cfg: `conf/prepare.yaml`. With `source=phantom` the volumes are made first, into
            `volumes/` of the dataset folder.

    Raises:
        InputError: volumes and labels that cannot be paired or are none, a volume in both splits,
            a folder with another's files under the names of the dataset, or with a dataset and
            `overwrite` is false; the message names the file.
    """
    from isgseg.data.dataset import write_dataset
    from isgseg.data.folder import check_replaceable
    from isgseg.data.metadata import NAME, DatasetMetadata, write_metadata
    from isgseg.data.normalization import Normalization
    from isgseg.data.patches import PatchSettings
    from isgseg.instances.settings import InstanceSettings
    from isgseg.io.folders import replacing_parts
    from isgseg.io.formats import parse_voxel_size
    from isgseg.io.volumes import stem

    settings = check(PatchSettings, OmegaConf.to_object(cfg.patches), "patches")  # type: ignore[arg-type]
    normalization = check(Normalization, OmegaConf.to_object(cfg.normalization), "normalization")  # type: ignore[arg-type]
    voxel_size = parse_voxel_size(cfg.voxel_size)
    split = OmegaConf.to_object(cfg.split)
    instances = check(InstanceSettings, {"method": cfg.instances, "split": split}, "")
    source = "phantom" if "phantom" in cfg.source else "volumes"
    output = Path(str(cfg.output_dir)).expanduser()
    parts = ["train", "val", *(["volumes"] if source == "phantom" else []), NAME]
    may_replace = partial(check_replaceable, output, parts, bool(cfg.overwrite))
    with replacing_parts(output, may_replace, mark=NAME) as folder:
        if source == "phantom":
            pairs, val = write_phantoms(OmegaConf.to_object(cfg.source.phantom), folder)  # type: ignore[arg-type]
        else:
            pairs = labelled_volumes(cfg)
            val = named_stems(cfg.val, [stem(image) for image, _ in pairs])
        content = write_dataset(pairs, val, folder, settings, normalization, voxel_size, instances)
        content |= {"isgseg": __version__, "source": source}
        write_metadata(check(DatasetMetadata, content, NAME), folder, output)
    for split, numbers in content["objects"].items():
        log.info("%s: %d patches, %d objects", split, numbers["patches"], numbers["objects"])
    log.info("Dataset in %s", output)
    return output


def labelled_volumes(cfg: DictConfig) -> list[tuple[Path, Path]]:
    """The volumes and label files that the configuration names.

    Raises:
        InputError: none are named, or they cannot be paired.
    """
    from isgseg.io.pairing import find_pairs

    if not cfg.volumes or not cfg.labels:
        raise InputError("give volumes=, labels= and val=, or source=phantom for synthetic cells")
    return find_pairs(cfg.volumes, cfg.labels)


def named_stems(given: Any, stems: Sequence[str]) -> list[str]:
    """The names of volumes that `val=` gives, as text.

    The command line reads `val=783_5` as the number 7835. A value that is no text becomes the one
    name that the command line would read as that value.

    Args:
        given: a name, or a list of names.
        stems: the volumes' names.

    Raises:
        InputError: more than one name is read as the same value.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    names = []
    for value in list(given) if listed else [] if given is None else [given]:
        alike = [name for name in stems if _as_read(name) == value]
        if not isinstance(value, str) and len(alike) > 1:
            raise InputError(
                f"val={value} may be any of {alike}; quote the name: val=\"['{alike[0]}']\""
            )
        names.append(alike[0] if alike and not isinstance(value, str) else str(value))
    return names


def _as_read(name: str) -> Any:
    """What the command line makes of a name."""
    try:
        return OverridesParser.create().parse_override(f"val={name}").value()
    except HydraException:
        return name


def write_phantoms(
    settings: dict[str, Any], folder: Path
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Makes the synthetic cells.

    Returns:
        Their files and those of their labels, and the names of the validation ones.

    Raises:
        InputError: a seed is named twice.
    """
    from tqdm import tqdm

    from isgseg.io.volumes import write_volume
    from isgseg.phantom import make_phantom

    train, val = settings.pop("train_seeds"), settings.pop("val_seeds")
    names = {seed: f"phantom_{seed:04d}" for seed in (*train, *val)}
    if len(names) < len(train) + len(val):
        raise InputError(f"train_seeds {train} and val_seeds {val} share a seed: name each once")
    pairs = []
    for seed, name in tqdm(names.items(), desc="Phantom cells"):
        cell = make_phantom(seed, **settings)
        image, labels = (folder / "volumes" / f"{name}{kind}.mrc" for kind in ("", "_labels"))
        write_volume(image, cell.volume, cell.voxel_size)
        write_volume(labels, cell.labels, cell.voxel_size)
        write_volume(image.with_stem(f"{name}_organelles"), cell.organelles, cell.voxel_size)
        pairs.append((image, labels))
    return pairs, [names[seed] for seed in val]


@command("prepare")
def main(cfg: DictConfig) -> None:
    """Console script."""
    prepare(cfg)


if __name__ == "__main__":
    main()
