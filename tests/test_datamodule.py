from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isgseg.data.classes import require_classes
from isgseg.data.datamodule import (
    CocoDataModule,
    dataset_metadata,
    evaluation_loader,
)
from isgseg.data.samplers import SeededSampler
from isgseg.errors import InputError


def test_batches_are_torchvisions_lists(coco_root: Path) -> None:
    module = CocoDataModule(str(coco_root), batch_size=2, num_workers=0)
    module.setup("fit")
    images, targets = next(iter(module.train_dataloader()))
    assert len(images) == len(targets) == 2
    assert images[0].dtype == torch.float32
    assert 0 <= images[0].min() <= images[0].max() <= 1
    assert len(module.train_dataloader()) == 3
    assert [len(batch[0]) for batch in module.val_dataloader()] == [2, 1]


def test_workers_do_not_change_what_is_seen(coco_root: Path) -> None:
    def first(workers: int) -> torch.Tensor:
        module = CocoDataModule(str(coco_root), num_workers=workers, augment={"noise": 0.1})
        module.setup("fit")
        image: torch.Tensor = next(iter(module.train_dataloader()))[0][0]
        return image

    assert torch.equal(first(0), first(2))


def test_an_epoch_is_a_new_order_that_the_seed_decides() -> None:
    def epoch(number: int, seed: int = 0) -> list[tuple[int, int]]:
        sampler = SeededSampler(20, seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert sorted(index for index, _ in epoch(0)) == list(range(20))
    assert epoch(3) == epoch(3)
    assert epoch(3) != epoch(4)
    assert epoch(3) != epoch(3, seed=1)


def test_other_coco_folders_carry_no_metadata(coco_root: Path) -> None:
    assert dataset_metadata(coco_root) == {
        "normalization": None,
        "voxel_size": None,
        "z_context": 0,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be a whole number from 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: must be a whole number"),
        ({"num_workers": -1}, "num_workers=-1: must be a whole number from 0"),
        ({"seed": -1}, "seed=-1: must be a whole number"),
        ({"augment": [1]}, r"augment=\[1\]: must be a mapping"),
        ({"augment": {"noise": 7}}, "augment: noise=7: must be a number from 0 to 1"),
    ],
)
def test_numbers_out_of_range_are_named(
    coco_root: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CocoDataModule(str(coco_root), **settings)


@pytest.fixture
def root(coco_root: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(coco_root, tmp_path / "dataset"))


def edit(root: Path, split: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = root / split / "annotations.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_up(root: Path, stage: str = "fit") -> CocoDataModule:
    module = CocoDataModule(str(root), batch_size=1, num_workers=0)
    module.setup(stage)
    return module


def classes(*names: str, start: int = 1) -> Callable[[dict[str, Any]], object]:
    """Gives the objects of a split categories of these names, in turn."""

    def change(content: dict[str, Any]) -> None:
        content["categories"] = [{"id": start + i, "name": name} for i, name in enumerate(names)]
        for number, annotation in enumerate(content["annotations"]):
            annotation["category_id"] = start + number % len(names)

    return change


def test_a_class_has_one_number_in_both_splits(root: Path) -> None:
    edit(root, "train", classes("granule", "droplet", "granule"))
    edit(root, "val", classes("droplet", "granule", start=0))
    module = set_up(root)
    assert module.train_set is not None
    assert module.val_set is not None
    assert module.metadata()["classes"] == ["granule", "droplet"]
    assert module.classes == module.train_set.classes == ["granule", "droplet"]
    assert [label for label, _ in module.val_set.objects[0]][:3] == [2, 1, 2]
    assert set_up(root, "validate").classes == ["granule", "droplet"]
    loader = evaluation_loader(root, "val", 1, 0)
    assert next(iter(loader))[1][0]["labels"].tolist()[:3] == [2, 1, 2]
    require_classes(module.classes, 3)
    with pytest.raises(InputError, match=r"2 categories, .*set model\.network\.num_classes=3"):
        require_classes(module.classes, 2)


def test_a_category_without_objects_is_no_class(root: Path) -> None:
    before = set_up(root)
    for split in ("train", "val"):
        edit(root, split, lambda content: content["categories"].insert(0, {"id": 0, "name": "all"}))
    edit(root, "val", lambda content: content["categories"].append({"id": 9, "name": "later"}))
    after = set_up(root)
    assert after.classes == ["granule"]
    assert before.val_set is not None
    assert after.val_set is not None
    assert after.val_set.objects == before.val_set.objects
    require_classes(after.classes, 2)


def test_a_class_that_training_does_not_know_is_refused(root: Path) -> None:
    edit(root, "val", classes("ISG"))
    with pytest.raises(InputError, match=r"val/ann.* category 'ISG'.*\['granule'\].* same name"):
        set_up(root)


def test_a_damaged_image_is_one_clear_line_from_workers_too(root: Path) -> None:
    path = root / "val" / "images" / "image_1.png"
    path.write_bytes(path.read_bytes()[:-300])  # its header is whole
    for workers in (0, 1):
        loader = evaluation_loader(root, "val", 1, workers)
        with pytest.raises(InputError, match=r"image_1\.png cannot be read.*truncated") as caught:
            list(loader)
        assert "Traceback" not in str(caught.value)


def test_a_wrong_size_ends_before_the_first_step(root: Path) -> None:
    edit(root, "val", lambda content: content["images"][2].update(width=65))
    with pytest.raises(InputError, match=r"image_2\.png is 64 x 64 pixels, but .* says 65 x 64"):
        set_up(root)


def test_splits_without_objects_or_patches_are_refused(coco_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    shutil.copytree(coco_root, root)
    with pytest.raises(ValueError, match=r"train has 6 patches, fewer than data.batch_size=8"):
        CocoDataModule(str(root), batch_size=8).setup("fit")
    path = root / "val" / "annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(ValueError, match=r"val/annotations\.json has no object"):
        CocoDataModule(str(root)).setup("fit")
    with pytest.raises(ValueError, match=r"val/annotations\.json has no object"):
        evaluation_loader(root, "val", 1, 0)
    path.write_text(json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(ValueError, match="lists no image"):
        CocoDataModule(str(root)).setup("fit")
