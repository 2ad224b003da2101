"""Mutated COCO files, images and dataset.yaml: a clear error or a dataset, nothing else.

A mutation that hangs is ended by the time limit of the suite, with every stack printed.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import save_coco
from PIL import Image

from isgseg.data.coco import CocoInstances
from isgseg.data.images import read_header, read_image
from isgseg.data.metadata import read_metadata
from isgseg.data.splits import open_splits
from isgseg.errors import InputError

LENGTHS = pytest.mark.parametrize(
    ("seed", "count"), [(0, 250), pytest.param(1, 15_000, marks=[pytest.mark.fuzz])]
)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 63, 64, 65, 4096, 2**31, -(2**31), 2**63, 2**64, 10**30),
    *(0.5, -0.0, 1e8, -1e18, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "1", "10", "granule", "train", "val", "abc", "../x", "/etc/passwd", "a\0b", "\ud800"),
    *("o" * 50, "PPY", "${oc.env:HOME}", "{x}", "é" * 300, "images/image_0.png"),
    *([], [[]], [1], [1, 2, 3, 4], [[1, 2, 3, 4]], [[1, 2], [3, 4]], [[[1, 2, 3, 4, 5, 6]]]),
    *({}, {"_target_": "os.system"}, {"size": [64, 64], "counts": [4096]}, {"a": {"b": []}}),
    *({"size": [64, 64], "counts": "0"}, {"size": [10**9, 10**9], "counts": [10**18]}),
]


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values inside of JSON or YAML content."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [found for key, value in inner for found in [(*path, key), *places(value, (*path, key))]]


def mutate(content: Any, chance: random.Random) -> None:
    """Changes one to three values: replaced, removed, doubled or put in another's place."""
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        paths = places(content)
        if not paths:
            return
        # The first levels as often as the many numbers far below.
        depth = chance.choice(sorted({len(path) for path in paths}))
        path = chance.choice([path for path in paths if len(path) == depth])
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        kind = chance.choice(["value", "value", "value", "remove", "double", "move", "rename"])
        if kind == "remove":
            del parent[path[-1]]
        elif kind == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        elif kind == "rename" and isinstance(parent, dict):
            parent[str(path[-1]) + chance.choice(["", "s", "_"])] = parent.pop(path[-1])
        elif kind == "move":
            source = content
            for key in chance.choice(paths)[: chance.randint(1, 4)]:
                source = source[key]
            parent[path[-1]] = copy.deepcopy(source)
        else:
            parent[path[-1]] = copy.deepcopy(chance.choice(VALUES))


def damage(data: bytes, chance: random.Random) -> bytes:
    """Bytes cut off, flipped or repeated."""
    at = chance.randrange(len(data) + 1)
    kind = chance.choice(["cut", "flip", "repeat", "insert"])
    if kind == "cut":
        return data[:at]
    if kind == "repeat":
        return data[:at] + data[max(0, at - 200) :]
    if kind == "insert":
        return data[:at] + chance.randbytes(chance.randint(1, 20)) + data[at:]
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(changed)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset with polygons, run lengths as numbers and as text."""
    root = tmp_path_factory.mktemp("fuzz")
    for seed, split in enumerate(("train", "val")):
        path = save_coco(root / split, images=2, seed=seed) / "annotations.json"
        content = json.loads(path.read_text())
        first, second, *_ = content["annotations"]
        first["segmentation"] = [[10, 10, 20, 10, 20, 16, 10, 16], [30, 30, 35.5, 30, 35, 36]]
        second["segmentation"] = {"size": [64, 64], "counts": [650, 6, 4096 - 656]}
        path.write_text(json.dumps(content))
    return root


def use(root: Path) -> bool:
    """Whether a dataset is refused; reads everything that training would."""
    try:
        for split in open_splits(root).values():
            split.require_objects()
            for index in range(len(split)):
                image, target = split[index]
                assert image.shape[1:] == target["masks"].shape[1:] == split.size(index)
                assert target["masks"].max() <= 1 if len(target["masks"]) else True
    except InputError as error:
        check_message(error)
        return True
    return False


def check_message(error: InputError) -> None:
    """It says something, not everything, and can be written to a log."""
    assert 10 < len(str(error).encode()) < 5000


@LENGTHS
def test_mutated_annotations(coco: Path, tmp_path: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    root = Path(shutil.copytree(coco, tmp_path / "root"))
    path = root / "val" / "annotations.json"
    good = path.read_bytes()
    refused = 0
    for _ in range(count):
        content = json.loads(good)
        mutate(content, chance)
        path.write_text(json.dumps(content))
        if chance.random() < 0.1:
            path.write_bytes(damage(good, chance))
        refused += use(root)
    assert count / 4 < refused < count


@LENGTHS
def test_mutated_images(coco: Path, tmp_path: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    root = Path(shutil.copytree(coco, tmp_path / "root"))
    path = root / "val" / "images" / "image_0.png"
    good = path.read_bytes()
    refused = 0
    for _ in range(count):
        path.write_bytes(damage(good, chance))
        refused += use(root)
    assert count / 4 < refused <= count


@LENGTHS
@pytest.mark.parametrize("kind", ["tif", "pages.tif", "zip.tif", "jpg", "bmp", "pgm", "webp"])
def test_mutated_formats(tmp_path: Path, kind: str, seed: int, count: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / f"image.{kind}"
    image = np.random.default_rng(seed).integers(0, 256, (24, 32)).astype(np.uint8)
    deep = Image.fromarray(image.astype(np.uint16) * 200)
    if kind == "pages.tif":
        deep.save(path, save_all=True, append_images=[deep, deep])
    elif kind == "zip.tif":
        deep.save(path, compression="tiff_adobe_deflate")
    else:
        Image.fromarray(image).save(path)
    good = path.read_bytes()
    for _ in range(count // 5):
        path.write_bytes(damage(good, chance))
        try:
            header = read_header(path)
            pixels = read_image(path, (0, 60_000))
        except InputError as error:
            check_message(error)
        else:
            assert pixels.shape[1:] == (header.height, header.width)


@LENGTHS
def test_mutated_metadata(coco: Path, tmp_path: Path, seed: int, count: int) -> None:
    chance = random.Random(seed)
    normalizer = {"method": "mode", "low": 0.0, "high": 1.5, "power": 3.0}
    source = {
        **{"name": "a", "split": "val", "file": "a.mrc", "labels": "a_labels.mrc"},
        **{"sha256": "0" * 64, "shape": [4, 64, 64], "normalizer": normalizer},
    }
    numbers = {"patches": 2, "empty_patches": 0, "objects": 3}
    patches = {"size": 64, "stride": 64, "axes": ["z"], "slice_step": 1, "z_context": 0}
    good = {
        **{"isgseg": "0.1.0", "voxel_size": [30.0, 30.0, 30.0], "z_context": 0},
        "normalization": {"method": "mode", "low": None, "high": None, "power": 3.0},
        **{"patches": patches, "volumes": [source], "objects": {"val": numbers}},
    }
    path = tmp_path / "dataset.yaml"
    refused = 0
    for _ in range(count):
        content = copy.deepcopy(good)
        mutate(content, chance)
        path.write_text(yaml.safe_dump(content), errors="replace")
        if chance.random() < 0.2:
            path.write_bytes(damage(yaml.safe_dump(good).encode(), chance))
        try:
            read_metadata(tmp_path).for_checkpoint()
        except InputError as error:
            check_message(error)
            refused += 1
    assert count / 4 < refused < count


def test_a_dataset_that_is_whole_is_not_refused(coco: Path) -> None:
    assert not use(coco)
    assert isinstance(open_splits(coco)["val"], CocoInstances)
    assert "pandas.read_pickle" not in sys.modules
