"""Every input of the tests is made here, in code: discs on noise, as volumes and COCO folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from isgseg.config import CONFIG_DIR
from isgseg.inference.method import Granules
from isgseg.io.volumes import Volume, write_volume

ROOT = Path(__file__).parents[1]
TINY_NETWORK = [
    "model=resnet18",
    "model.network.stages=[1,2]",
    "model.network.anchor_sizes=[[6,8],[12,16]]",
    "model.network.fpn_channels=32",
    "model.network.scale=1.0",
    "model.network.proposals=40",
    "model.network.rois=32",
    "model.network.box_width=64",
    "model.network.mask_width=16",
    "model.network.mask_depth=1",
]
TINY_RUN = [
    "data.num_workers=0",
    "data.batch_size=2",
    "data.augment.crop=48",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
]

Array = npt.NDArray[Any]
Compose = Callable[..., DictConfig]


def pytest_configure() -> None:
    """Of several test processes each takes one thread: more would wait for one another."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # of torch, and of the commands that tests start
        torch.set_num_threads(1)


@pytest.fixture
def benchmark_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of `benchmarks/`, and that of the peer that needs no environment, are modules."""
    for folder in ("benchmarks", "benchmarks/peers/log"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def real_data(name: str) -> Path:
    """A folder of public data, from the place ISGSEG_TEST_DATA names; the test skips without it."""
    path = Path(os.environ.get("ISGSEG_TEST_DATA", ROOT.parent / "shared" / "data")) / name
    if not path.exists():
        pytest.skip(f"{name} is not in ISGSEG_TEST_DATA")
    return path


def discs(
    shape: tuple[int, int], count: int, radius: float, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint16]]:
    """A noisy image of bright discs that do not overlap, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    y, x = np.indices(shape)
    number = 0
    for _ in range(100 * count):
        cy, cx = (random.uniform(radius, side - radius) for side in shape)
        if ((y - cy) ** 2 + (x - cx) ** 2 <= (radius + 1.5) ** 2)[labels > 0].any():
            continue
        number += 1
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
        if number == count:
            break
    image = np.where(labels > 0, 1.6, 1.0) + random.normal(0, 0.05, shape)
    return image.astype(np.float32), labels


def balls(
    depth: int, seed: int, side: int = 64, count: int = 6
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint16]]:
    """A (depth, side, side) volume of vertical cylinders in a cell-like bright ground, labelled."""
    _, flat = discs((side, side), count, 5.0, seed)
    labels = np.repeat(flat[None], depth, axis=0)
    labels[0] = labels[-1] = 0
    noise = np.random.default_rng(seed).normal(0, 0.05, labels.shape)
    volume = np.where(labels > 0, 1.6, 1.0) + noise
    volume[:, :, :8] -= 0.6  # outside of the cell
    return volume.astype(np.float32), labels


class MadeUp:
    """A `SliceModel` whose detections a test brings.

    Args:
        found: of each slice what is found, or what makes it of the slices.
    """

    def __init__(self, found: Any) -> None:
        self.found = found
        self.zooms: list[tuple[float, float]] = []

    def detect(
        self, slices: Any, normalizer: Any, threshold: float, zoom: Any = (1.0, 1.0)
    ) -> Iterator[dict[str, Array]]:
        """As the protocol has it; the zoom is kept."""
        self.zooms.append(zoom)
        return iter(self.found(slices) if callable(self.found) else self.found)


def granules_of(
    found: Any,
    volume: Array,
    *,
    voxel_size: Any = None,
    learnt: Any = None,
    threshold: float = 0.5,
    **settings: Any,
) -> Granules:
    """The granules of made-up detections; see `MadeUp`, `SegmentationSettings`."""
    from isgseg.data.normalization import Normalizer
    from isgseg.inference.segmentation import SliceSegmenter
    from isgseg.inference.settings import SegmentationSettings
    from isgseg.models.settings import Thresholds

    model = found if isinstance(found, MadeUp) else MadeUp(found)
    mask = settings.get("mask_threshold")
    thresholds = Thresholds(threshold, 0.5 if mask is None else mask, threshold)
    method = SliceSegmenter(model, thresholds, SegmentationSettings(**settings), learnt)
    return method.segment(Volume(volume, voxel_size), Normalizer("mode", 0.0, 1.0), "made up")


def save_pair(folder: Path, name: str, volume: Array, labels: Array) -> tuple[Path, Path]:
    """Writes a volume and its labels as .mrc, with voxels of 30 nm."""
    size = (30.0, 30.0, 30.0)
    return (
        write_volume(folder / f"{name}.mrc", volume, size),
        write_volume(folder / f"{name}_labels.mrc", labels, size),
    )


def discs_with_volumes(folder: Path) -> Path:
    """A dataset: eight training and five validation images of discs, two validation volumes."""
    save_coco(folder / "train", images=8, seed=1)
    save_coco(folder / "val", images=5, seed=2)
    sources = []
    for seed, name in enumerate(("a", "b")):
        volume, labels = balls(5, 30 + seed)
        volume[:, :, :8] += 0.6
        image, ground_truth = save_pair(folder, name, volume * 100, labels)
        sources.append({"file": str(image), "labels": str(ground_truth), "split": "val"})
    normalization = {"method": "window", "low": 0, "high": 255}
    content = yaml.safe_dump({"normalization": normalization, "volumes": sources})
    (folder / "dataset.yaml").write_text(content)
    return folder


def save_coco(folder: Path, images: int, seed: int, side: int = 64, empty: int = 1) -> Path:
    """Writes a split of RLE-annotated discs; the last `empty` images hold no object."""
    from pycocotools import mask as coco_mask

    (folder / "images").mkdir(parents=True)
    content: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "granule"}],
    }
    for index in range(images):
        count = 5 if index < images - empty else 0
        image, labels = discs((side, side), count, 5.0, 100 * seed + index)
        if count == 0:
            labels[:] = 0
        name = f"image_{index}.png"
        normalizer = np.clip(image * 100, 0, 255).astype(np.uint8)
        Image.fromarray(normalizer).save(folder / "images" / name)
        content["images"].append(
            {"id": 10 + index, "file_name": name, "height": side, "width": side}
        )
        for number in range(1, int(labels.max()) + 1):
            rle = coco_mask.encode(np.asfortranarray(labels == number, dtype=np.uint8))
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 10 + index,
                    "category_id": 7,
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "area": int(coco_mask.area(rle)),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def coco_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder of 6 training and 3 validation images; tests must not change it."""
    root = tmp_path_factory.mktemp("coco")
    save_coco(root / "train", images=6, seed=1)
    save_coco(root / "val", images=3, seed=2)
    return root


def composing(folder: Path) -> Compose:
    """`composing(folder)("train", "model.lr=1")`: a command's config, its results in a folder."""

    def build(name: str, *overrides: str) -> DictConfig:
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose(name, [f"paths.output_dir={folder / name}", *overrides])

    return build


@pytest.fixture
def config(tmp_path: Path) -> Compose:
    """`config("train", "model.lr=1")`: a command's config as the command line makes it."""
    return composing(tmp_path)


@pytest.fixture(scope="session")
def trained(coco_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint folder of a tiny network that has learnt the discs of `coco_root`."""
    from isgseg.train import train

    folder = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose(
            "train",
            [
                *TINY_NETWORK,
                *TINY_RUN,
                f"data.root={coco_root}",
                f"paths.output_dir={folder}",
                "trainer.max_epochs=50",
                "trainer.check_val_every_n_epoch=10",
                "callbacks.early_stopping.patience=100",
                "model.lr=0.02",
                "model.schedule=cosine",
                "model.warmup_steps=5",
                "trainer.gradient_clip_val=5",
            ],
        )
    train(cfg)
    return folder / "checkpoints"
