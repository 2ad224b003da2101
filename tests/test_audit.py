from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import Compose, save_pair
from pycocotools import mask as coco_mask

from isgseg.data.audit import drawn_twice, inspect, intensities, touching
from isgseg.data.metadata import DatasetMetadata, Source
from isgseg.data.patches import PLACE
from isgseg.data.provenance import pixel_sizes
from isgseg.errors import InputError
from isgseg.prepare import prepare


def squares(*corners: tuple[int, int], side: int = 3) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Masks (N, 20, 20) of squares, and their boxes."""
    masks = np.zeros((len(corners), 20, 20), np.uint8)
    for mask, (y, x) in zip(masks, corners, strict=True):
        mask[y : y + side, x : x + side] = 1
    return masks, np.array([(x, y, x + side, y + side) for y, x in corners], np.float32)


def test_neighbours_across_a_corner_touch_and_those_a_pixel_apart_do_not() -> None:
    assert touching(*squares((0, 0), (3, 3), (3, 7))).tolist() == [True, True, False]
    assert touching(*squares((5, 5), (6, 6))).tolist() == [True, True]
    assert touching(*squares((17, 17))).tolist() == [False]


def test_surroundings_leave_other_objects_out() -> None:
    masks, boxes = squares((5, 5), (5, 8))
    image = np.full((20, 20), 10, np.uint8)
    image[masks[0] > 0], image[masks[1] > 0] = 50, 200
    image[0:2] = 99  # three pixels above, so out of reach of two
    inside, around = intensities(image, masks, boxes, 2)
    assert inside.tolist() == [50, 200]
    assert around.tolist() == [10, 10]
    assert intensities(image, masks, boxes, 4)[1][0] > 10


def test_an_object_that_fills_the_image_has_no_surroundings() -> None:
    masks, boxes = squares((0, 0), side=20)
    _, around = intensities(np.ones((20, 20)), masks, boxes, 3)
    assert np.isnan(around).all()


def test_the_second_of_two_same_objects_is_drawn_twice() -> None:
    masks, _ = squares((5, 5), (5, 5), (5, 6), side=6)
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    assert drawn_twice(rles).tolist() == [False, True, False]  # IoU 1, and 30 / 42
    assert drawn_twice([]).tolist() == []


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two volumes: in slices 0 and 2 two granules side by side, in slice 1 one over both."""
    for seed, name in enumerate(["a", "b"]):
        labels = np.zeros((4, 64, 64), np.uint16)
        labels[[0, 2], 20:26, 20:26] = 1
        labels[[0, 2], 20:26, 28:34] = 2
        labels[1, 20:26, 20:34] = 3
        labels[:3, 50:55, 50:55] = 4
        noise = np.random.default_rng(seed).normal(0, 0.05, labels.shape)
        volume = (np.where(labels > 0, 1.6, 1.0) + noise).astype(np.float32)
        save_pair(tmp_path / "cells", name, volume, labels)
    return tmp_path / "cells"


def dataset(cells: Path, config: Compose, *more: str) -> Path:
    files = [f"volumes={cells}/*.mrc", f"labels={cells}/*_labels.mrc", "val=[b]"]
    return prepare(config("prepare", *files, f"output_dir={cells.parent / 'dataset'}", *more))


def test_one_object_over_two_of_the_next_slice_is_merged(cells: Path, config: Compose) -> None:
    found = inspect(dataset(cells, config), ring=3, progress=False)
    assert found.unlinked is None
    for _, part in found.objects.groupby("split"):
        merged = part[part["merged"] == 1]
        assert merged[["image", "x0", "x1"]].to_numpy().tolist() == [[1, 20, 34]]
        assert part["merged"].notna().all()
    assert found.objects["nm"].tolist() == [30.0] * len(found.objects)


def test_what_cannot_be_known_is_said(cells: Path, config: Compose, coco_root: Path) -> None:
    apart = inspect(dataset(cells, config, "patches.slice_step=2"), ring=3, progress=False)
    assert apart.unlinked is not None
    assert "slices are 2 apart" in apart.unlinked
    plain = inspect(coco_root, ring=3, progress=False)
    assert plain.unlinked is not None
    assert "no dataset.yaml" in plain.unlinked
    assert apart.objects["merged"].isna().all()
    assert plain.objects["merged"].isna().all()
    assert plain.objects["nm"].isna().all()


def rewrite_images(root: Path, change: Callable[[Path, dict[str, Any]], object]) -> None:
    """Changes the entries of all images, each with the folder of its file at hand."""
    for split in ("train", "val"):
        path = root / split / "annotations.json"
        content = json.loads(path.read_text())
        for image in content["images"]:
            change(path.parent / "images", image)
        path.write_text(json.dumps(content))


def forget_place(_: Path, image: dict[str, Any]) -> None:
    for key in PLACE:
        del image[key]


def rename(folder: Path, image: dict[str, Any]) -> None:
    name = f"{image['id']}.png"
    (folder / image["file_name"]).rename(folder / name)
    image["file_name"] = name


def test_the_place_of_a_patch_does_not_depend_on_its_name(cells: Path, config: Compose) -> None:
    root = dataset(cells, config)
    before = inspect(root, ring=3, progress=False)
    rewrite_images(root, rename)
    after = inspect(root, ring=3, progress=False)
    assert after.unlinked is None
    assert after.images.equals(before.images)
    placed = after.images[["volume", "axis", "slice", "top", "left"]]
    assert placed.to_numpy().tolist()[1] == ["a", "z", 1, 0, 0]


def test_of_earlier_releases_the_name_says_the_place(cells: Path, config: Compose) -> None:
    root = dataset(cells, config)
    before = inspect(root, ring=3, progress=False)
    rewrite_images(root, forget_place)
    assert inspect(root, ring=3, progress=False).images.equals(before.images)


def test_files_that_are_not_from_the_volumes_are_no_neighbours(
    cells: Path, config: Compose
) -> None:
    root = dataset(cells, config)
    rewrite_images(root, forget_place)
    rewrite_images(root, rename)
    assert inspect(root, ring=3, progress=False).unlinked == "no two neighbouring slices are there"


def test_the_size_of_a_pixel_depends_on_the_axis() -> None:
    metadata = DatasetMetadata(
        voxel_size=(50.0, 20.0, 10.0),
        volumes=(Source(name="a", split="val", file="/a.mrc", labels="/b.mrc"),),
    )
    place = {"volume": "a", "slice": 0, "top": 0, "left": 0, "file_name": "1.png"}
    images = [place | {"axis": axis} for axis in "zyx"] + [
        {"file_name": "a_y0000_0000_0000.png"},
        {"file_name": "b_y0000_0000_0000.png"},  # of no volume that is known
    ]
    assert pixel_sizes(images, metadata).tolist() == [
        *([20, 10], [50, 10], [50, 20], [50, 10], [20, 10]),
    ]
    assert np.isnan(pixel_sizes(images, DatasetMetadata())).all()


def test_a_voxel_size_that_is_none_is_named(cells: Path, config: Compose) -> None:
    root = dataset(cells, config)
    metadata = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(metadata.replace("30.0", "-1"))
    with pytest.raises(InputError, match=r"dataset\.yaml: voxel_size\[0\]=-1: must be a number"):
        inspect(root, ring=3, progress=False)
