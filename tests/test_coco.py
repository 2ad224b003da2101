from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import real_data, save_coco

from isgseg.data.coco import CocoInstances, make_target

Content = dict[str, Any]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return save_coco(tmp_path / "train", pictures=3, seed=0)


def edit(split: Path, change: Callable[[Content], object]) -> None:
    path = split / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_targets_are_torchvisions(split: Path) -> None:
    picture, target = CocoInstances(split)[0]
    assert (picture.shape, picture.dtype) == ((1, 64, 64), torch.uint8)
    assert {key: value.dtype for key, value in target.items()} == {
        "boxes": torch.float32,
        "labels": torch.int64,
        "masks": torch.uint8,
        "image_id": torch.int64,
    }
    assert target["masks"].shape == (5, 64, 64)
    for mask, (x0, y0, x1, y1) in zip(target["masks"], target["boxes"].int().tolist(), strict=True):
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum()  # half-open ...
        assert all(
            bool(edge.any()) for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1])
        )


def test_a_picture_without_objects_is_normal(split: Path) -> None:
    _, target = CocoInstances(split)[2]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 64, 64)
    assert target["labels"].shape == (0,)


def test_one_pixel_has_a_one_by_one_box() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[1, 3, 5] = 1
    target = make_target(masks, torch.tensor([1, 2]), 0)
    assert target["boxes"].tolist() == [[5, 3, 6, 4]]
    assert target["labels"].tolist() == [2]  # the empty mask went with its label


def test_polygons_and_uncompressed_run_lengths_are_read(split: Path) -> None:
    square = [[10, 10, 20, 10, 20, 16, 10, 16]]
    runs = {"size": [64, 64], "counts": [64 * 10 + 10, 6, 64 * 54 - 16]}

    def change(content: Content) -> None:
        content["annotations"][0] |= {"segmentation": square, "bbox": [10, 10, 10, 6]}
        content["annotations"][1] |= {"segmentation": runs, "bbox": [10, 10, 1, 6]}

    edit(split, change)
    target = CocoInstances(split)[0][1]
    assert target["boxes"][:2].tolist() == [[10, 10, 20, 16], [10, 10, 11, 16]]


def test_boxes_come_from_masks_and_mismatches_are_counted_once(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def change(content: Content) -> None:
        for annotation in content["annotations"][:3]:
            annotation["bbox"] = [0, 0, 60, 60]
        content["annotations"][3]["segmentation"] = []
        content["annotations"][4]["iscrowd"] = 1

    before = CocoInstances(split)[0][1]
    edit(split, change)
    with caplog.at_level(logging.WARNING):
        after = CocoInstances(split)[0][1]
    assert torch.equal(before["boxes"][:3], after["boxes"])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "3 of 10 boxes disagree" in messages[0]
    assert "1 of 10 objects have no pixel" in messages[1]
    assert "1 of 10 crowd regions" in messages[2]


def bad_image(content: Content) -> None:
    content["annotations"][0]["image_id"] = 99


def bad_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 3


def bad_segmentation(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"counts": "abc"}


def bad_size(content: Content) -> None:
    content["annotations"][0]["segmentation"]["size"] = [10, 10]


def leaves_folder(content: Content) -> None:
    content["images"][0]["file_name"] = "../../secret.png"


def absolute(content: Content) -> None:
    content["images"][0]["file_name"] = "/secret.png"


def no_images(content: Content) -> None:
    content["images"] = []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad_image, "annotation 1 names image 99"),
        (bad_category, "annotation 1 names category 3"),
        (bad_segmentation, "annotation 1: segmentation is neither"),
        (bad_size, r"its RLE is of \[10, 10\]"),
        (leaves_folder, r"file_name '\.\./\.\./secret\.png' leaves"),
        (absolute, "file_name '/secret.png' leaves"),
        (no_images, "lists no image"),
        (lambda content: content.pop("annotations"), "is not a COCO instance file"),
    ],
)
def test_bad_files_are_named(
    split: Path, change: Callable[[Content], object], message: str
) -> None:
    edit(split, change)
    with pytest.raises(ValueError, match=message) as caught:
        CocoInstances(split)
    assert "annotations.json" in str(caught.value)


def test_missing_files_are_named(split: Path, tmp_path: Path) -> None:
    (split / "images" / "picture_1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"picture_1\.png"):
        CocoInstances(split)
    with pytest.raises(FileNotFoundError, match=r"data\.root must hold train/ and val/"):
        CocoInstances(tmp_path / "nothing")


def test_a_picture_of_another_size_is_named(split: Path) -> None:
    edit(split, lambda content: content["images"][2].update(height=32))
    with pytest.raises(ValueError, match=r"picture_2\.png is 64 x 64 .* says 64 x 32"):
        CocoInstances(split)[2]


def test_public_nuclei_load_whole() -> None:
    val = CocoInstances(real_data("dsb2018_small") / "val")
    assert len(val) == 16
    assert sum(len(val.target(index)["masks"]) for index in range(16)) == 669
