from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from isgseg.data.datamodule import (
    CocoDataModule,
    SeededSampler,
    dataset_facts,
    evaluation_loader,
)


def test_batches_are_torchvisions_lists(coco_root: Path) -> None:
    module = CocoDataModule(str(coco_root), batch_size=2, num_workers=0)
    module.setup("fit")
    pictures, targets = next(iter(module.train_dataloader()))
    assert len(pictures) == len(targets) == 2
    assert pictures[0].dtype == torch.float32
    assert 0 <= pictures[0].min() <= pictures[0].max() <= 1
    assert len(module.train_dataloader()) == 3
    assert [len(batch[0]) for batch in module.val_dataloader()] == [2, 1]


def test_workers_do_not_change_what_is_seen(coco_root: Path) -> None:
    def first(workers: int) -> torch.Tensor:
        module = CocoDataModule(str(coco_root), num_workers=workers, augment={"noise": 0.1})
        module.setup("fit")
        picture: torch.Tensor = next(iter(module.train_dataloader()))[0][0]
        return picture

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


def test_other_coco_folders_carry_no_facts(coco_root: Path) -> None:
    assert dataset_facts(coco_root) == {"normalization": None, "voxel_size": None, "context": 0}


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
