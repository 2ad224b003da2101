"""Situations that exports of labelling tools bring about: said in a line that has a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import save_coco

from isgseg.data.splits import open_splits
from isgseg.errors import InputError

Content = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_coco(tmp_path / "train", images=3, seed=1)
    save_coco(tmp_path / "val", images=3, seed=2)
    return tmp_path


def rewrite(root: Path, change: Callable[[Content], Any]) -> None:
    path = root / "train" / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def one_file_twice(content: Content) -> None:
    content["images"].append({**content["images"][0], "id": 999})


def far_outside(content: Content) -> None:
    content["annotations"][0]["segmentation"] = [[1000, 1000, 1010, 1000, 1010, 1010]]


def short_runs(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": [10, 5]}


def other_size(content: Content) -> None:
    content["annotations"][0]["segmentation"] = {"size": [32, 128], "counts": [4096]}


def name_of_a_mask_file(content: Content) -> None:
    content["annotations"][0]["segmentation"] = "mask.png"


def unknown_category(content: Content) -> None:
    content["annotations"][0]["category_id"] = 12345


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (one_file_twice, "give each image a file of its own"),
        (far_outside, "correct it, or remove"),
        (short_runs, "export it anew"),
        (other_size, "export it anew"),
        (name_of_a_mask_file, "export it as one of these"),
        (unknown_category, "add the category"),
    ],
)
def test_an_entry_that_cannot_be_used_says_what_to_do(
    root: Path, change: Callable[[Content], Any], remedy: str
) -> None:
    rewrite(root, change)
    with pytest.raises(InputError, match=remedy):
        open_splits(root)


@pytest.mark.parametrize("name", ["_annotations.coco.json", "instances_default.json"])
def test_the_names_of_other_tools_are_told(root: Path, name: str) -> None:
    (root / "train" / "annotations.json").rename(root / "train" / name)
    with pytest.raises(InputError, match=rf"but {name} does; rename it"):
        open_splits(root)


def test_folders_for_files_are_said(root: Path) -> None:
    (root / "dataset.yaml").mkdir()
    with pytest.raises(InputError, match=r"dataset\.yaml cannot be read.*must be a file"):
        open_splits(root)
    (root / "dataset.yaml").rmdir()
    (root / "train" / "annotations.json").unlink()
    (root / "train" / "annotations.json").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        open_splits(root)


@pytest.mark.parametrize("text", ["", "null", "5", "[]"])
def test_a_metadata_file_that_is_no_mapping_is_said_in_plain_words(root: Path, text: str) -> None:
    (root / "dataset.yaml").write_text(text)
    with pytest.raises(InputError, match=r"holds (nothing|5|\[\]), not a mapping"):
        open_splits(root)


def test_an_object_that_is_there_twice_counts_once(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = sum(map(len, open_splits(root)["train"].objects))
    rewrite(root, lambda all_: all_["annotations"].append({**all_["annotations"][0], "id": 9999}))
    assert sum(map(len, open_splits(root)["train"].objects)) == before
    assert "very mask of another" in caplog.text


def test_images_in_both_splits_are_warned_of(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_splits(root)
    assert "share" not in caplog.text
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    open_splits(root)
    assert "share 3 images" in caplog.text
