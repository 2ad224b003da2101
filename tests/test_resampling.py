"""Voxels of another size than those that the network learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MadeUp, granules_of
from scipy import ndimage as ndi

from isgseg.data.normalization import Normalizer
from isgseg.evaluation.matching import match_instances
from isgseg.inference.method import Granules
from isgseg.inference.resampling import ResampledSlices, bring_back, zoom_factors
from isgseg.inference.slices import MaskRCNNDetector
from isgseg.inference.streaming import simple
from isgseg.models.checkpoint import load_checkpoint

Array = np.ndarray[Any, Any]
LEARNT = (33.0, 33.0, 33.0)
# Centres (z, y, x) and diameters of balls, nm.
BALLS = [
    ((400, 500, 400), 300),
    ((600, 1100, 900), 400),
    ((1000, 500, 1200), 350),
    ((1100, 1200, 400), 280),
    ((700, 800, 1500), 400),
]


def scene(voxel_size: tuple[float, float, float]) -> Array:
    """The balls as labels in voxels of this size, (z, y, x) nm, in 1500 x 1700 x 1900 nm."""
    shape = tuple(round(side / nm) for side, nm in zip((1500, 1700, 1900), voxel_size, strict=True))
    centres = (np.indices(shape).T + 0.5) * voxel_size
    labels = np.zeros(shape, np.uint16)
    for number, (centre, diameter) in enumerate(BALLS, start=1):
        labels[(((centres - centre) ** 2).sum(-1) <= (diameter / 2) ** 2).T] = number
    return labels


def bright_parts(slices: Any) -> Any:
    """Detections of what is brighter than one half, as sharp masks."""
    for index in range(len(slices)):
        parts, _ = ndi.label(slices[index] > 0.5)
        found = [box for box in ndi.find_objects(parts) if box is not None]
        masks = np.zeros((len(found), 28, 28), np.float32)
        for mask, (number, box) in zip(masks, enumerate(found, start=1), strict=True):
            part = parts[box] == number
            rows, columns = ((np.arange(28) * side) // 28 for side in part.shape)
            mask[:] = part[np.ix_(rows, columns)]
        boxes = [[b[1].start, b[0].start, b[1].stop, b[0].stop] for b in found]
        yield {
            "masks": masks,
            "mask_boxes": np.array(boxes, float).reshape(-1, 4),
            "scores": np.full(len(found), 0.9),
        }


def f1(labels: Array, truth: Array) -> float:
    return match_instances(labels, truth).f1


@pytest.mark.parametrize(
    "voxel_size",
    [(20.0,) * 3, (33.0,) * 3, (50.0,) * 3, (60.0, 30.0, 30.0), (20.0, 40.0, 40.0)],
    ids=str,
)
@pytest.mark.parametrize("axes", ["z", "zyx"])
def test_granules_are_the_same_in_voxels_of_any_size(
    voxel_size: tuple[float, float, float], axes: str
) -> None:
    truth = scene(voxel_size)
    model = MadeUp(bright_parts)
    found = granules_of(
        model, (truth > 0).astype(np.float32), voxel_size=voxel_size, learnt=LEARNT, axes=axes
    )
    assert found.labels.shape == truth.shape
    assert f1(found.labels, truth) == 1
    assert len(found.score) == len(BALLS)
    for axis, zoom in zip(axes, model.zooms, strict=True):
        across = "zyx".index(axis)
        ratios = [size / 33 for i, size in enumerate(voxel_size) if i != across]
        assert zoom == pytest.approx([1 if abs(r - 1) < 0.1 else r for r in ratios])


def test_nothing_is_resampled_where_voxels_are_about_the_same_or_not_known() -> None:
    assert zoom_factors((33, 33, 33), LEARNT) == (1, 1, 1)
    assert zoom_factors((36, 30.1, 33), LEARNT) == (1, 1, 1)
    assert zoom_factors((40, 33, 20), LEARNT) == pytest.approx((40 / 33, 1, 20 / 33))
    assert zoom_factors(None, LEARNT) == zoom_factors((50, 50, 50), None) == (1, 1, 1)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.8, 1.25, 1.7, 3.0])
def test_resampled_slices_keep_what_is_constant_and_what_is_linear(factor: float) -> None:
    depth = 40
    ramp = np.broadcast_to(np.arange(depth, dtype=float)[:, None, None], (depth, 2, 3)).copy()
    slices = ResampledSlices.by(ramp, factor)
    assert slices.shape == (round(depth * factor), 2, 3)
    assert len(slices) == slices.shape[0]
    constant = ResampledSlices.by(np.ones((depth, 2, 3)), factor)
    at = (np.arange(len(slices)) + 0.5) * depth / len(slices) - 0.5
    inner = (at > 4) & (at < depth - 5)
    assert inner.sum() > 5
    for index in range(len(slices)):
        assert constant[index] == pytest.approx(1)
        if inner[index]:
            assert slices[index] == pytest.approx(at[index], abs=0.06)
    with pytest.raises(IndexError):
        slices[len(slices)]


def test_each_slice_takes_the_nearest_resampled_one() -> None:
    assert ResampledSlices(np.zeros((6, 1, 1)), 3).nearest().tolist() == [0, 0, 1, 1, 2, 2]
    assert ResampledSlices(np.zeros((3, 1, 1)), 6).nearest().tolist() == [1, 3, 5]
    assert ResampledSlices(np.zeros((1, 1, 1)), 1).nearest().tolist() == [0]


def test_granules_between_the_slices_of_the_volume_are_left_out_and_the_others_numbered() -> None:
    labels = np.zeros((6, 1, 3), np.uint16)
    labels[0, 0, 0], labels[1:3, 0, 1], labels[5, 0, 2] = 1, 2, 3
    values = np.array([0.1, 0.2, 0.3])
    found = bring_back(
        Granules(labels, values, values + 0.5, np.array([1, 2, 3])),
        ResampledSlices(np.zeros((3, 1, 3)), 6),
    )
    assert np.asarray(found.labels)[:, 0].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 2]]
    assert found.labels.dtype == np.uint16
    assert found.score.tolist() == [0.2, 0.3]
    assert found.best.tolist() == [0.7, 0.8]
    assert found.slices.tolist() == [2, 3]


@pytest.mark.parametrize("zoom", [(0.5, 0.5), (2.0, 2.0), (1.0, 0.6)])
def test_the_network_sees_granules_at_the_size_that_it_learnt(
    trained: Path, zoom: tuple[float, float]
) -> None:
    from conftest import discs

    image = np.clip(discs((96, 96), 8, 5.0, seed=3)[0] * 100, 0, 255)
    grey = Normalizer("window", 0.0, 255.0)
    detector = MaskRCNNDetector(
        load_checkpoint(trained / "isg_mask_rcnn_final.pth").build(), precision="32-true"
    )
    (before,) = detector.detect(image[None], grey, 0.5)
    assert len(before["scores"]) >= 6
    shape = [round(side / factor) for side, factor in zip(image.shape, zoom, strict=True)]
    with torch.no_grad():
        other = torch.nn.functional.interpolate(
            torch.from_numpy(image)[None, None], shape, mode="bilinear", antialias=True
        )[0].numpy()
    (after,) = detector.detect(other, grey, 0.5, zoom)
    assert len(after["scores"]) == pytest.approx(len(before["scores"]), abs=1)
    factors = np.array([*zoom[::-1], *zoom[::-1]])
    centres = [
        (boxes[:, :2] + boxes[:, 2:]) / 2
        for boxes in (before["mask_boxes"], after["mask_boxes"] * factors)
    ]
    nearest = np.linalg.norm(centres[0][:, None] - centres[1], axis=-1).min(1)
    assert np.sort(nearest)[:-1].max() < 1.5


def test_the_scale_of_a_zoom_is_a_simple_fraction_near_the_wanted_one() -> None:
    for scale in np.linspace(0.2, 6, 59):
        assert simple(scale) == pytest.approx(scale, rel=0.02)
    assert simple(2 * 20 / 33) == 1.2
