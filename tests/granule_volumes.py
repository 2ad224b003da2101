"""Volumes of touching balls with their labels, for the tests of the U-Net: made here, in code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from conftest import Compose, save_pair
from scipy import ndimage as ndi

Array = npt.NDArray[Any]


def touching_balls(shape: tuple[int, int, int], seed: int, pairs: int = 8) -> tuple[Array, Array]:
    """Pairs of balls of 7 to 11 voxels that touch, in a cell-like ground, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    grid = np.indices(shape)
    for _ in range(50 * pairs):
        radius = random.uniform(3.5, 5.5)
        middle = np.array([random.uniform(2, side - 2) for side in shape])
        step = random.normal(size=3)
        other = middle + 2 * radius * step / np.linalg.norm(step)
        spheres = [
            sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True)) <= radius**2
            for centre in (middle, other)
        ]
        if (labels[spheres[0] | spheres[1]] > 0).any() or not spheres[1].any():
            continue
        for sphere in spheres:
            labels[sphere & (labels == 0)] = labels.max() + 1
        if labels.max() >= 2 * pairs:
            break
    blurred = ndi.gaussian_filter(np.where(labels > 0, 1.6, 1.0), 0.7)
    volume = blurred + random.normal(0, 0.05, shape)
    volume[:, :, :8] -= 0.6  # outside of the cell
    return volume.astype(np.float32), labels


def balls_dataset(config: Compose, folder: Path, *overrides: str) -> Path:
    """A dataset of such volumes, made by `isgseg-prepare` with centre maps."""
    from isgseg.prepare import prepare

    for seed, name in enumerate(("a", "b")):
        save_pair(folder, name, *touching_balls((16, 48, 48), seed))
    return prepare(
        config(
            "prepare",
            f"volumes=[{folder}/a.mrc,{folder}/b.mrc]",
            f"labels=[{folder}/a_labels.mrc,{folder}/b_labels.mrc]",
            "val=[b]",
            f"output_dir={folder / 'dataset'}",
            "patches.size=48",
            "patches.stride=48",
            "patches.z_context=2",
            "patches.centre_map=true",
            *overrides,
        )
    )
