"""A tiny dataset and network of the tests, for benchmarks that measure how training runs."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from record import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from conftest import TINY_NETWORK, TINY_RUN, balls, save_coco, save_pair

OPTIONS = [*TINY_NETWORK, *TINY_RUN, "logger=[]"]


def dataset(folder: Path) -> Path:
    """Eight training and five validation images of discs, and two validation volumes."""
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
