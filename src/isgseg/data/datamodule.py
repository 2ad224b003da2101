"""The LightningDataModule of a COCO patch dataset."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F

from isgseg.data.coco import CocoInstances, Target
from isgseg.data.images import Window
from isgseg.data.metadata import read_metadata
from isgseg.data.normalization import Normalization
from isgseg.data.samplers import SeededSampler, ShareSampler
from isgseg.data.settings import LoaderSettings
from isgseg.data.splits import open_splits
from isgseg.data.transforms import Augment
from isgseg.errors import InputError, check

log = logging.getLogger(__name__)
Batch = tuple[list[Tensor], list[Target]]


class CocoDataModule(lightning.LightningDataModule):
    """Serves `train/` and `val/` of a dataset folder as lists of images and of targets.

    Args:
        root: the folder that holds `train/`, `val/` and, if isgseg-prepare made it, `dataset.yaml`.
        batch_size: images a step.
        num_workers: processes that load and augment; 0 loads in the main process.
        augment: keywords of `Augment`, for training only; the data says whether there is context.
        seed: decides order and augmentation of every epoch.

    Attributes:
        dataset: what `dataset.yaml` says.

    Raises:
        InputError: a number is out of range, or `dataset.yaml` is wrong.
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
        numbers = {"batch_size": batch_size, "num_workers": num_workers, "seed": seed}
        check(LoaderSettings, numbers, "data")
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        if not isinstance(augment or {}, dict):
            raise InputError(f"data.augment={augment}: must be a mapping, such as noise: 0.02")
        self.dataset = read_metadata(self.root)
        self.augment = Augment(**(augment or {}), z_context=self.dataset.z_context > 0)
        self.train_set: CocoInstances | None = None
        self.val_set: CocoInstances | None = None

    def setup(self, stage: str) -> None:
        """Opens both splits; only `val/` where nothing is trained.

        Every entry and the header of every image is checked here, before the first step.

        Raises:
            InputError: a bad file, nothing to train on, or nothing to evaluate.
        """
        if self.val_set is not None and (stage != "fit" or self.train_set is not None):
            return
        splits = open_splits(self.root, ("train", "val") if stage == "fit" else ("val",))
        for split in splits.values():
            split.require_objects()
        self.train_set, self.val_set = splits.get("train"), splits["val"]
        if self.train_set is not None and len(self.train_set) < self.batch_size:
            raise InputError(
                f"{self.root}/train has {len(self.train_set)} patches, fewer than "
                f"data.batch_size={self.batch_size}; give a smaller data.batch_size"
            )

    def require_centres(self) -> None:
        """Training targets hold centre maps from now on, (H, W) uint8; after `setup`.

        Raises:
            InputError: the dataset was made without them, or one does not fit.
        """
        assert self.train_set is not None
        if self.dataset.patches is None or not self.dataset.patches.centre_map:
            raise InputError(
                f"{self.root} has no centre maps, which model=unet learns from; make it anew by "
                f"isgseg-prepare patches.centre_map=true output_dir={self.root} overwrite=true, "
                "with the volumes and labels that it was made of, or train another model="
            )
        self.train_set.require_centres()

    @property
    def classes(self) -> list[str]:
        """Names of the categories, numbered from 1; after `setup`.

        All of them become granules in prediction.
        """
        assert self.val_set is not None
        return self.val_set.classes

    def metadata(self) -> dict[str, Any]:
        """What prediction must know of the data; see `dataset_metadata`.

        After `setup`, also `classes`, and of 16-bit and float images their window as
        `normalization`.
        """
        known = self.dataset.for_checkpoint()
        if self.val_set is not None:
            known["classes"] = self.classes
            if known["normalization"] is None and self.val_set.window is not None:
                low, high = self.val_set.window
                known["normalization"] = asdict(Normalization("window", low, high))
        return known

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented batches in an order that seed and epoch decide, the share of this process.

        Raises:
            InputError: there is no batch for each process.
        """
        assert self.train_set is not None
        rank, processes = self._place()
        sampler = SeededSampler(len(self.train_set), self.seed, self.batch_size, rank, processes)
        if not len(sampler):
            raise InputError(
                f"{self.root}/train has {len(self.train_set)} patches, fewer than "
                f"{processes} devices take at once with data.batch_size={self.batch_size}; give "
                "a smaller data.batch_size or fewer trainer.devices"
            )
        return _loader(
            Augmented(self.train_set, self.augment),
            self.batch_size,
            self.num_workers,
            sampler=sampler,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Every validation patch, unchanged, empty ones too, the share of this process."""
        assert self.val_set is not None
        return _loader(
            Plain(self.val_set),
            self.batch_size,
            self.num_workers,
            sampler=ShareSampler(len(self.val_set), self.batch_size, *self._place()),
        )

    def _place(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size


def dataset_metadata(root: str | Path) -> dict[str, Any]:
    """What prediction must know of a dataset, from its `dataset.yaml`: plain values.

    Returns:
        `normalization` (None for other COCO folders), `voxel_size` (nm, (z, y, x), or None) and
        `z_context`.
    """
    return read_metadata(root).for_checkpoint()


def evaluation_loader(
    root: str | Path,
    split: str,
    batch_size: int,
    num_workers: int,
    window: Window | None = None,
) -> DataLoader[Any]:
    """Every patch of a split, unchanged, in order.

    Args:
        root: of the dataset.
        split: train or val.
        batch_size: images a step.
        num_workers: processes that load; 0 loads in the main process.
        window: values of 16-bit and float images that become 0 and 255, as the network has learnt
            them; None: those of the dataset, see `open_splits`.

    Raises:
        InputError: a bad file, or the split has no object to score against.
    """
    check(LoaderSettings, {"batch_size": batch_size, "num_workers": num_workers}, "data")
    dataset = open_splits(root, (split,), window)[split]
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


class Augmented(Dataset[tuple[Tensor, Target]]):
    """Training items: a (C, H, W) float32 image in [0, 1], augmented by the seed, and target."""

    def __init__(self, dataset: CocoInstances, augment: Augment) -> None:
        self.dataset, self.augment = dataset, augment

    def __getitem__(self, item: tuple[int, int]) -> tuple[Tensor, Target]:
        index, seed = item
        return self.augment(*self.dataset[index], seed=seed)


class Plain(Dataset[tuple[Tensor, Target] | None]):
    """Validation items: a (C, H, W) float32 image in [0, 1] and its target; None for None."""

    def __init__(self, dataset: CocoInstances) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | None) -> tuple[Tensor, Target] | None:
        if index is None:
            return None
        image, target = self.dataset[index]
        return F.to_dtype(image, torch.float32, scale=True), target


def collate(items: list[tuple[Tensor, Target] | None]) -> Batch:
    """Items to lists: images and targets differ in size. None is left out, if need be every one."""
    there = [item for item in items if item is not None]
    return [image for image, _ in there], [target for _, target in there]
