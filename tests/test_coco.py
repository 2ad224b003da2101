from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import real_data, save_coco
from pycocotools import mask as coco_mask

from isgseg.data.coco import CocoInstances, make_target
from isgseg.data.polygons import run_lengths
from isgseg.errors import InputError

Content = dict[str, Any]
Change = Callable[[Content], object]
TWO_PIECES = [[2, 2, 9, 2, 9, 9, 2, 9], [40, 40, 49, 40, 49, 49, 40, 49]]


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return save_coco(tmp_path / "train", images=3, seed=0)


def edit(split: Path, change: Change) -> None:
    path = split / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_targets_are_torchvisions(split: Path) -> None:
    image, target = CocoInstances(split)[0]
    assert (image.shape, image.dtype) == ((1, 64, 64), torch.uint8)
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


def test_a_image_without_objects_is_normal(split: Path) -> None:
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
        content["annotations"][4] |= {"iscrowd": 1, "segmentation": TWO_PIECES, "bbox": []}

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


def test_brush_masks_that_are_marked_as_crowds_are_objects(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = CocoInstances(split)
    edit(split, lambda content: [a.update(iscrowd=1) for a in content["annotations"]])
    after = CocoInstances(split)
    assert after.objects == before.objects
    assert "10 of 10 masks are marked iscrowd=1 but in one piece" in caplog.text


def first(**fields: Any) -> Change:
    """Changes fields of the first annotation."""
    return lambda content: content["annotations"][0].update(fields)


def polygon(*numbers: Any) -> Change:
    """Adds a polygon beside a good one."""
    return first(segmentation=[[10, 10, 20, 10, 20, 16], list(numbers)])


def runs(counts: Any, size: Any = (64, 64)) -> Change:
    size = list(size) if isinstance(size, tuple) else size
    return first(segmentation={"size": size, "counts": counts})


def image(**fields: Any) -> Change:
    """Changes fields of the first image."""
    return lambda content: content["images"][0].update(fields)


def without(what: str, *names: str) -> Change:
    return lambda content: [content[what][0].pop(name) for name in names]


SPLITS_OF_RUNS = "the runs of its RLE cover"
NO_RUNS = "counts of its RLE is no text"
NO_NUMBERS = "counts of its RLE must be whole numbers"
FAR = "polygon 1 has the coordinate"
BAD: dict[str, tuple[Change, str]] = {
    "image unknown": (first(image_id=99), "annotation 1 names image 99"),
    "category unknown": (first(category_id=3), "annotation 1 names category 3"),
    "segmentation text": (first(segmentation="abc"), "annotation 1: segmentation is neither"),
    "segmentation number": (first(segmentation=7), "annotation 1: segmentation is neither"),
    "no size": (first(segmentation={"counts": "abc"}), "annotation 1: segmentation is neither"),
    "no segmentation": (without("annotations", "segmentation"), "has no mask .* a box only"),
    "null segmentation": (first(segmentation=None), "has no mask"),
    "size of another image": (runs([100], (10, 10)), r"its RLE is of \[10, 10\]"),
    "size text": (runs([4096], "64"), "its RLE is of 64"),
    "size huge": (runs([4096], (2**40, 2**40)), r"its RLE is of \["),
    "runs stop short": (runs([10, 5]), f"{SPLITS_OF_RUNS} 15 pixels, its image has 64 x 64"),
    "runs go too far": (runs([10, 5, 2**40]), SPLITS_OF_RUNS),
    "runs negative": (runs([10, -5, 4091]), NO_NUMBERS),
    "runs fractions": (runs([10.5, 4085.5]), NO_NUMBERS),
    "runs null": (runs([None]), NO_NUMBERS),
    "runs true": (runs([True, 4095]), NO_NUMBERS),
    "runs with spaces": (runs("10 5 4081"), NO_RUNS),
    "runs cut": (runs("PPY"), NO_RUNS),  # the last character says that another follows
    "runs short text": (runs("52"), SPLITS_OF_RUNS),
    "runs no text": (runs("\u00e4\ud800"), NO_RUNS),
    "runs endless number": (runs("o" * 1000), NO_RUNS),
    "runs empty": (runs(""), SPLITS_OF_RUNS),
    "two coordinates": (polygon(1, 2), "polygon 1 has 2 numbers"),
    "a box": (polygon(1, 2, 3, 4), "polygon 1 has four numbers: a box or a line"),
    "odd": (polygon(1, 2, 3, 4, 5, 6, 7), "polygon 1 has 7 numbers"),
    "no coordinate": (polygon(), "polygon 1 has 0 numbers"),
    "flat": (first(segmentation=[1, 2, 3, 4, 5, 6]), "polygon 0 is not a list of numbers"),
    "nan": (polygon(1, 2, math.nan, 4, 5, 6), f"{FAR} nan"),
    "infinite": (polygon(1, 2, math.inf, 4, 5, 6), f"{FAR} inf"),
    "far": (polygon(1, 2, 1e8, 4, 5, 6), f"{FAR} 1e.08, but its image is 64 x 64"),
    "far negative": (polygon(1, 2, -1e18, 4, 5, 6), f"{FAR} -1e.18"),
    "beyond floats": (polygon(1, 2, 10**400, 4, 5, 6), f"{FAR} 10000000000"),
    "null": (polygon(1, 2, None, 4, 5, 6), "polygon 1 is not a list of numbers"),
    "text": (polygon(1, 2, "3", 4, 5, 6), "polygon 1 is not a list of numbers"),
    "to and fro": (polygon(*[0, 0, 100, 100] * 5000), "goes to and fro"),
    "box of text": (first(bbox=["a", 1, 2, 3]), "annotation 1: bbox is no list of four numbers"),
    "parent folder": (image(file_name="../../secret.png"), r"'\.\./\.\./secret\.png' leaves"),
    "absolute": (image(file_name="/secret.png"), "file_name '/secret.png' leaves"),
    "null byte": (image(file_name="a\0.png"), r"file_name 'a\\x00\.png' leaves"),
    "long name": (image(file_name="a" * 3000), "is not in .*images; copy it there"),
    "surrogate": (image(file_name="\ud800.png"), r"file_name=\\ud800\.png: must be text"),
    "no file name": (without("images", "file_name"), r"images\[0\]\.file_name is missing"),
    "name a number": (image(file_name=3), r"images\[0\]\.file_name=3: must be text"),
    "no image id": (without("images", "id"), r"images\[0\]\.id is missing"),
    "no annotation id": (without("annotations", "id"), r"annotations\[0\]\.id is missing"),
    "no image of it": (without("annotations", "image_id"), "image_id is missing"),
    "no category id": (without("categories", "id"), r"categories\[0\]\.id is missing"),
    "id a list": (first(id=[1]), r"annotations\[0\]\.id=\[1\]: must be a whole number or text"),
    "height 0": (image(height=0), r"images\[0\]\.height=0: must be a whole number from 1 to"),
    "width negative": (image(width=-64), r"images\[0\]\.width=-64"),
    "width text": (image(width="64"), r"images\[0\]\.width=64: must be a whole number"),
    "height nan": (image(height=math.nan), r"images\[0\]\.height=nan"),
    "height huge": (image(height=10**12), r"images\[0\]\.height=1000000000000"),
    "another size": (image(height=99_999), r"image_0\.png is 64 x 64 .* says 64 x 99999"),
    "image twice": (image(id=11), r"images\[0\] and images\[1\] have the same id 11"),
    "image twice as text": (image(id="11"), r"images\[0\] and images\[1\] have the same id"),
    "annotation twice": (first(id=2), r"annotations\[0\] and annotations\[1\] have the same id 2"),
    "images no list": (lambda content: content.update(images={"1": 2}), "images=.*must be a list"),
    "entry no mapping": (lambda content: content["images"].append([1]), r"images\[3\]=\[1\]: must"),
    "no images": (lambda content: content.update(images=[]), "lists no image"),
    "no annotations": (lambda content: content.pop("annotations"), "it has no annotations; export"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_named(split: Path, kind: str) -> None:
    change, message = BAD[kind]
    edit(split, change)
    with pytest.raises(InputError, match=message) as caught:
        CocoInstances(split)
    assert "annotations.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "it has no images, annotations, categories"),
        ("{", "JSONDecodeError"),
        ("", "JSONDecodeError"),
        ("[" * 100_000, "RecursionError"),
        ('{"a": ' + "1" * 5000 + "}", "Exceeds the limit"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_a_file_that_is_not_coco_is_named(split: Path, text: str | bytes, message: str) -> None:
    (split / "annotations.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=rf"annotations\.json is not a COCO .*{message}"):
        CocoInstances(split)


def test_run_lengths_as_text_are_those_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in random.integers(1, 40, 2))
        mask = (random.random((height, width)) < random.random()).astype(np.uint8)
        rle = coco_mask.encode(np.asfortranarray(mask))
        text = {"size": [height, width], "counts": rle["counts"].decode()}
        assert run_lengths(text, height, width, "here") == rle


def test_identifiers_as_text_are_the_same_as_numbers(split: Path) -> None:
    def change(content: Content) -> None:
        for annotation in content["annotations"]:
            annotation |= {"image_id": str(annotation["image_id"]), "category_id": "7"}

    before = CocoInstances(split)
    edit(split, change)
    assert CocoInstances(split).objects == before.objects


def test_a_link_inside_the_folder_is_followed(split: Path, tmp_path: Path) -> None:
    path = split / "images" / "image_0.png"
    path.rename(tmp_path / "elsewhere.png")
    path.symlink_to(tmp_path / "elsewhere.png")
    assert CocoInstances(split).image(0).shape == (1, 64, 64)


def test_names_with_backslashes_and_marked_files_are_read(split: Path) -> None:
    edit(split, image(file_name="images\\image_0.png"))
    path = split / "annotations.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert CocoInstances(split).files[0] == split / "images" / "image_0.png"


def test_a_polygon_a_little_outside_is_cut_at_the_edge(split: Path) -> None:
    edit(split, first(segmentation=[[-3, -3, 8, -3, 8, 8, -3, 8]], bbox=[0, 0, 8, 8]))
    assert CocoInstances(split)[0][1]["boxes"][0].tolist() == [0, 0, 8, 8]


def test_masks_that_would_fill_the_memory_are_refused(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isgseg.data.coco.MAX_MASK_BYTES", 4 * 64 * 64)
    with pytest.raises(InputError, match=r"image_0\.png has so many objects .* cut it into"):
        CocoInstances(split)


def test_missing_files_are_named(split: Path, tmp_path: Path) -> None:
    (split / "images" / "image_1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image_1\.png"):
        CocoInstances(split)
    with pytest.raises(FileNotFoundError, match=r"data\.root must hold train/ and val/"):
        CocoInstances(tmp_path / "nothing")


def test_an_image_of_another_size_is_named(split: Path) -> None:
    edit(split, lambda content: content["images"][2].update(height=32))
    with pytest.raises(InputError, match=r"image_2\.png is 64 x 64 .* says 64 x 32"):
        CocoInstances(split)  # at once, not when the image is first needed


def test_public_nuclei_load_whole() -> None:
    val = CocoInstances(real_data("dsb2018_small") / "val")
    assert len(val) == 16
    assert sum(len(val.target(index)["masks"]) for index in range(16)) == 669
