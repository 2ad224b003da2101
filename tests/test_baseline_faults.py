"""Faults of a published implementation of this pipeline, each of which must not come back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import balls, granules_of, save_pair

from isgseg.data.coco import CocoInstances
from isgseg.data.dataset import write_dataset
from isgseg.data.normalization import Normalization
from isgseg.data.patches import PatchSettings
from isgseg.evaluation.coco import coco_metric, read_scores
from isgseg.inference.masks import number_all
from isgseg.inference.settings import SegmentationSettings
from isgseg.models.transform import Transform

GRID = np.ones((28, 28), np.float32)
SLICES = SegmentationSettings(separate=False, link=False)


def found(*boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    return {
        "masks": np.stack([GRID] * len(boxes)) if boxes else np.zeros((0, 28, 28)),
        "mask_boxes": np.array(boxes, float).reshape(-1, 4),
        "scores": np.full(len(boxes), 0.9),
    }


def label(*detections: dict[str, Any], segmentation: SegmentationSettings = SLICES) -> Any:
    volume = np.zeros((len(detections), 32, 32))
    return granules_of(detections, volume, **asdict(segmentation)).labels


@pytest.mark.parametrize("segmentation", [SLICES, SegmentationSettings()], ids=["slices", "linked"])
def test_every_mask_is_kept_not_only_the_first(segmentation: SegmentationSettings) -> None:
    one = found((2, 2, 8, 8), (12, 2, 18, 8), (2, 20, 8, 26))
    assert label(one, segmentation=segmentation).max() == 3


@pytest.mark.parametrize("segmentation", [SLICES, SegmentationSettings()], ids=["slices", "linked"])
def test_a_slice_without_detections_is_background(segmentation: SegmentationSettings) -> None:
    full = found((2, 2, 8, 8))
    labels = label(found(), full, found(), found(), full, found(), segmentation=segmentation)
    assert [bool(plane.any()) for plane in labels] == [False, True, False, False, True, False]


def test_components_get_numbers_that_are_unique_over_all_slices() -> None:
    touching = found((2, 2, 8, 8), (8, 2, 14, 8), (20, 20, 26, 26))
    labels = label(touching, touching)
    assert [np.unique(plane).tolist() for plane in labels] == [[0, 1, 2], [0, 3, 4]]
    assert (
        label(touching, segmentation=SegmentationSettings(link=False)).max() == 3
    )  # they stay apart


def test_numbers_do_not_wrap_past_65535() -> None:
    sections = np.tile(np.arange(1, 1001, dtype=np.uint16), (70, 1, 1))
    labels = np.stack(list(number_all(sections, [1000] * 70)))
    assert len(np.unique(labels)) == 70_000


def test_training_masks_are_the_objects_not_filled_boxes(tmp_path: Path) -> None:
    volume, labels = balls(4, 0)
    pairs = [save_pair(tmp_path, name, volume + i, labels) for i, name in enumerate("ab")]
    write_dataset(pairs, ["b"], tmp_path / "data", PatchSettings(), Normalization())
    target = CocoInstances(tmp_path / "data" / "train").target(0)
    boxes = target["boxes"]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert len(boxes) > 0
    assert (target["masks"].flatten(1).sum(1) < 0.85 * area).all()  # a disc fills .79


def boxed(masks: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.tensor([[4.0, 4, 12, 12]]).repeat(len(masks), 1),
        "labels": torch.ones(len(masks), dtype=torch.int64),
        "masks": masks,
    }


def test_masks_are_scored_not_only_boxes() -> None:
    ground_truth = torch.zeros(1, 16, 16, dtype=torch.bool)
    ground_truth[0, 4:12, 4:12] = True
    corner = torch.zeros_like(ground_truth)
    corner[0, 4:8, 4:8] = True
    metric = coco_metric()
    metric.update([{**boxed(corner), "scores": torch.ones(1)}], [boxed(ground_truth)])
    scores = read_scores(metric)
    assert scores["bbox_map"] == 1
    assert scores["segm_map"] == 0


def test_false_positives_on_empty_validation_patches_count() -> None:
    ground_truth = torch.zeros(1, 16, 16, dtype=torch.bool)
    ground_truth[0, 4:12, 4:12] = True
    metric = coco_metric()
    guess = {**boxed(ground_truth), "scores": torch.tensor([0.9])}
    metric.update([guess], [boxed(ground_truth)])
    worse = {**guess, "scores": torch.tensor([0.95])}
    metric.update([worse], [boxed(ground_truth[:0])])
    assert read_scores(metric)["segm_map_50"] == pytest.approx(0.5, abs=0.01)


def test_prediction_has_the_scale_of_training() -> None:
    transform = Transform(2.0)
    sizes = []
    for training, side in ((True, 256), (False, 256), (False, 473)):
        transform.train(training)
        images, _ = transform([torch.zeros(3, side, side)])
        sizes.append(images.image_sizes[0][0] / side)
    assert sizes == [2.0, 2.0, 2.0]


def test_one_bright_voxel_does_not_rescale_its_slice() -> None:
    volume = np.random.default_rng(0).normal(0.01, 0.0005, (4, 64, 64))
    bright = volume.copy()
    bright[2, 30, 30] = 50.0
    before, after = Normalization().fit(volume), Normalization().fit(bright)
    change = np.abs(before(volume[2]).astype(int) - after(bright[2]).astype(int))
    change[30, 30] = 0
    assert change.max() <= 1
