from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from isgseg.data.polygons import encode, outline


def decode(segmentation: Any, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))
    return np.asarray(coco_mask.decode(segmentation), dtype=bool)


def test_pycocotools_decodes_any_mask_exactly() -> None:
    random = np.random.default_rng(0)
    polygons = 0
    for _ in range(500):
        height, width = (int(side) for side in random.integers(1, 14, 2))
        mask = random.random((height, width)) < random.uniform(0.1, 0.95)
        if not mask.any():
            continue
        segmentation = encode(mask)
        polygons += isinstance(segmentation, list)
        assert np.array_equal(decode(segmentation, (height, width)), mask)
    assert polygons > 200


@pytest.mark.parametrize("radius", [0.5, 1, 2, 3, 4])
def test_small_discs_lose_no_pixel(radius: float) -> None:
    y, x = np.indices((15, 15))
    disc = (y - 7) ** 2 + (x - 7) ** 2 <= radius**2
    assert isinstance(encode(disc), list)
    assert np.array_equal(decode(encode(disc), disc.shape), disc)


def test_an_outline_has_corners_only() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert outline(mask) == [2, 1, 5, 1, 5, 3, 2, 3]


def test_a_ring_becomes_run_lengths() -> None:
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    segmentation = encode(ring)
    assert isinstance(segmentation, dict)
    assert np.array_equal(decode(segmentation, ring.shape), ring)
