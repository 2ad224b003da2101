"""Public images of nuclei with labels, as `benchmarks/public_data.py` gives them to each method.

`bbbc050` are nuclei of mouse embryos in 3D (Tokuoka et al. 2020, npj Syst Biol Appl 6:32), pairs of
`<name>_image.mrc` and `<name>_labels.mrc`. `dsb2018_small` are images of small nuclei of the Data
Science Bowl 2018 (Caicedo et al. 2019, Nature Methods 16:1247; BBBC038), COCO folders `train` and
`val`. Both lie in the folder that ISGSEG_TEST_DATA names (unset: ../shared/data).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from console import labels_of, listed, run
from methods_rows import Data, save_arrays
from PIL import Image
from pycocotools import mask as coco_mask
from record import public_data

from isgseg.io.formats import VoxelSize
from isgseg.io.volumes import read_labels, read_volume, write_volume

Array = npt.NDArray[Any]
EMBRYO_VOXEL = (1750.0, 800.0, 800.0)  # nm, as published; the files do not say it
EMBRYO_TUNING = "Emb2_t451"
EVERY = 6  # of the training images, one of so many tunes


def public_folder(name: str) -> Path:
    """A set in the folder of the test data.

    Raises:
        SystemExit: it is not there.
    """
    path = public_data() / name
    if not path.is_dir():
        raise SystemExit(f"no {path}; set ISGSEG_TEST_DATA to the folder that holds {name}")
    return path


def bbbc050(folder: Path) -> Data:
    """Embryos 1 and 2, of which one volume tunes, and the four volumes of embryo 3 as the test."""
    source = public_folder("bbbc050")
    names = sorted(path.name.removesuffix("_image.mrc") for path in source.glob("*_image.mrc"))
    for name in names:
        if not (folder / "volumes" / f"{name}.mrc").is_file():
            image = read_volume(source / f"{name}_image.mrc").data
            labels = read_labels(source / f"{name}_labels.mrc").data
            save(folder, name, image, labels, EMBRYO_VOXEL)
    training = [name for name in names if not name.startswith("Emb3") and name != EMBRYO_TUNING]
    test = [name for name in names if name.startswith("Emb3")]
    return prepared(folder, training, [EMBRYO_TUNING], test, z_context=2)


def dsb2018(folder: Path) -> Data:
    """Images as volumes of one slice: of `train` every sixth tunes, and `val` is the test."""
    source = public_folder("dsb2018_small")
    names = {split: saved_images(source / split, folder) for split in ("train", "val")}
    tuning = names["train"][EVERY - 1 :: EVERY]
    training = [name for name in names["train"] if name not in tuning]
    return prepared(folder, training, tuning, names["val"], timed=names["train"])


SETS: dict[str, Callable[[Path], Data]] = {"bbbc050": bbbc050, "dsb2018": dsb2018}


def saved_images(split: Path, folder: Path) -> list[str]:
    """Saves the images of a COCO folder as volumes of one slice, and returns their names."""
    content = json.loads((split / "annotations.json").read_text())
    objects: dict[int, list[Any]] = {entry["id"]: [] for entry in content["images"]}
    for annotation in content["annotations"]:
        objects[annotation["image_id"]].append(annotation["segmentation"])
    names = {
        entry["id"]: f"{split.name}_{Path(entry['file_name']).stem}" for entry in content["images"]
    }
    for entry in content["images"]:
        name = names[entry["id"]]
        if not (folder / "volumes" / f"{name}.mrc").is_file():
            image = np.asarray(Image.open(split / entry["file_name"]).convert("L"))
            labels = np.zeros(image.shape, np.uint16)
            for number, lengths in enumerate(objects[entry["id"]], start=1):
                labels[decoded(lengths) > 0] = number
            save(folder, name, image[None], labels[None], None)
    return sorted(names.values())


def decoded(lengths: dict[str, Any]) -> Array:
    """(y, x) uint8 mask of COCO's run lengths, compressed or not."""
    if isinstance(lengths["counts"], list):
        lengths = coco_mask.frPyObjects(lengths, *lengths["size"])
    mask: Array = coco_mask.decode(lengths)
    return mask


def save(
    folder: Path, name: str, image: Array, labels: Array, voxel_size: VoxelSize | None
) -> None:
    """A volume with its labels beside it; the volume last, so that it says that both are there."""
    path = folder / "volumes" / f"{name}.mrc"
    write_volume(labels_of(path), labels, voxel_size)
    write_volume(path, image, voxel_size)


def prepared(
    folder: Path,
    training: list[str],
    tuning: list[str],
    test: list[str],
    z_context: int = 0,
    timed: list[str] | None = None,
) -> Data:
    """The dataset of patches, and the same volumes for peers."""

    def volumes(names: list[str]) -> list[Path]:
        return [folder / "volumes" / f"{name}.mrc" for name in names]

    root, used = folder / "train", volumes([*training, *tuning])
    if not (root / "dataset.yaml").is_file():
        run(
            "prepare",
            f"volumes={listed(used)}",
            f"labels={listed([labels_of(volume) for volume in used])}",
            f"val=[{','.join(tuning)}]",
            "normalization.method=percentile",  # no cytoplasm whose grey value is known
            "normalization.low=1",
            "normalization.high=99.8",
            f"patches.z_context={z_context}",
            "patches.centre_map=true",
            f"output_dir={root}",
            folder=folder / "train_prepare",
        )
    data = Data(
        root,
        volumes(training),
        volumes(tuning),
        volumes(test),
        folder / "arrays",
        tuple(volumes(timed or [])),
    )
    save_arrays(data)
    return data
