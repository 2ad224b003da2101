"""The LightningDataModule of a COCO patch dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from isgseg.data.coco import CocoInstances, Target
from isgseg.data.transforms import Augment

log = logging.getLogger(__name__)
Batch = tuple[list[Tensor], list[Target]]


class CocoDataModule(lightning.LightningDataModule):
    """Serves `train/` and `val/` of a dataset folder as lists of pictures and of targets.

    Args:
        root: the folder that holds `train/`, `val/` and, if isgseg-prepare made it, `dataset.yaml`.
        batch_size: pictures a step.
        num_workers: processes that load and augment; 0 loads in the main process.
        augment: keywords of `Augment`, for training only; the data says whether there is context.
        seed: decides order and augmentation of every epoch.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 4,
        num_workers: int = 2,
        augment: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.augment = Augment(**(augment or {}), context=self.facts()["context"] > 0)
        self.train_set: CocoInstances | None = None
        self.val_set: CocoInstances | None = None

    def setup(self, stage: str) -> None:
        """Opens both splits; only `val/` where nothing is trained.

        Raises:
            ValueError: there is nothing to train on, or nothing to evaluate.
        """
        if stage == "fit" and self.train_set is None:
            self.train_set = CocoInstances(self.root / "train")
            self.train_set.require_objects()
            if len(self.train_set) < self.batch_size:
                raise ValueError(
                    f"{self.root}/train has {len(self.train_set)} patches, fewer than "
                    f"data.batch_size={self.batch_size}"
                )
        if self.val_set is None:
            self.val_set = CocoInstances(self.root / "val")
            self.val_set.require_objects()

    def facts(self) -> dict[str, Any]:
        """What prediction must know of the data; see `dataset_facts`."""
        return dataset_facts(self.root)

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented batches in an order that seed and epoch decide."""
        assert self.train_set is not None
        return _loader(
            Augmented(self.train_set, self.augment),
            self.batch_size,
            self.num_workers,
            sampler=SeededSampler(len(self.train_set), self.seed),
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation patch, unchanged, empty ones too."""
        assert self.val_set is not None
        return _loader(Plain(self.val_set), self.batch_size, self.num_workers)


def dataset_facts(root: str | Path) -> dict[str, Any]:
    """What prediction must know of a dataset, from its `dataset.yaml`: plain values.

    Returns:
        `normalization` (None for other COCO folders), `voxel_size` (nm, (z, y, x), or None) and
        `context`.
    """
    path = Path(root) / "dataset.yaml"
    content: Any = OmegaConf.to_object(OmegaConf.load(path)) if path.is_file() else {}
    return {
        "normalization": content.get("normalization"),
        "voxel_size": content.get("voxel_size"),
        "context": content.get("context", 0),
    }


def evaluation_loader(
    root: str | Path, split: str, batch_size: int, num_workers: int
) -> DataLoader[Any]:
    """Every patch of a split, unchanged, in order.

    Raises:
        ValueError: the split has no object to score against.
    """
    dataset = CocoInstances(Path(root) / split)
    dataset.require_objects()
    return _loader(Plain(dataset), batch_size, num_workers)


def _loader(
    dataset: Dataset[Any], batch_size: int, num_workers: int, **options: Any
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        **options,
    )


class SeededSampler(Sampler[tuple[int, int]]):
    """A shuffled order of (index, seed) pairs that depends on seed and epoch alone.

    Lightning calls `set_epoch`, so that a resumed run continues with the very same batches.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Args: epoch, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        seeds = torch.randint(2**62, (self.length,), generator=generator).tolist()
        return iter(zip(order, seeds, strict=True))


class Augmented(Dataset[tuple[Tensor, Target]]):
    """Training items: a (C, H, W) float32 picture in [0, 1], augmented by the seed, and target."""

    def __init__(self, dataset: CocoInstances, augment: Augment) -> None:
        self.dataset, self.augment = dataset, augment

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Target]:
        index, seed = item
        return self.augment(*self.dataset[index], seed=seed)


class Plain(Dataset[tuple[Tensor, Target]]):
    """Validation items: a (C, H, W) float32 picture in [0, 1] and its target."""

    def __init__(self, dataset: CocoInstances) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        picture, target = self.dataset[index]
        return F.to_dtype(picture, torch.float32, scale=True), target


def collate(items: list[tuple[Tensor, Target]]) -> Batch:
    """Items to lists: pictures and targets differ in size."""
    pictures, targets = zip(*items, strict=True)
    return list(pictures), list(targets)
