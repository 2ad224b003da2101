from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import box_iou

from isgseg.models.anchors import Candidate, best_iou, candidates, choose, spread
from isgseg.models.mask_rcnn import build_mask_rcnn

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "fpn_channels": 8,
    "box_width": 8,
    "mask_width": 8,
    "mask_depth": 1,
}
NETWORKS: list[dict[str, Any]] = [
    {"stages": [1, 2], "scale": 2.0, "anchor_sizes": [[3, 4.5, 6], [8, 11, 15]]},
    {"stages": [2, 3], "scale": 1.5, "anchor_sizes": [[4, 5], [12, 20], [40, 60]]},
    {"stages": [1, 2], "scale": 3.0, "anchor_sizes": [[1, 2], [5, 7]], "anchor_density": 2},
    {"stages": [1, 2, 3], "scale": None, "anchor_sizes": [[32], [64], [128], [256]]},
]

PLAIN: dict[str, Any] = {**NETWORKS[0], "anchor_ratios": [1.0], "anchor_density": 1}


def random_boxes(count: int, height: int, width: int) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(0)
    low = random.integers(0, (width - 1, height - 1), (count, 2))
    high = np.minimum(low + random.integers(1, 20, (count, 2)), (width, height))
    return np.hstack([low, high]).astype(float)


@torch.no_grad()
def iou_with_every_anchor(
    boxes: npt.NDArray[np.float64], height: int, width: int, network: dict[str, Any]
) -> npt.NDArray[np.float64]:
    """By torchvision itself: its resizing, padding, pyramid, anchors and IoU."""
    model = build_mask_rcnn(**TINY, **network)
    model.eval()
    target = {
        "boxes": torch.tensor(boxes, dtype=torch.float32),
        "masks": torch.zeros(0, height, width),
    }
    images, targets = model.transform([torch.zeros(3, height, width)], [target])
    features = list(model.backbone(images.tensors).values())
    (anchors,) = model.rpn.anchor_generator(images, features)
    best = box_iou(targets[0]["boxes"], anchors).max(1).values
    return np.asarray(best.double())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: f"scale_{network['scale']}")
@pytest.mark.parametrize("ratios", [[1.0], [0.5, 1.0, 2.0]])
def test_the_best_anchor_is_that_of_all_anchors(
    network: dict[str, Any], ratios: list[float]
) -> None:
    height, width = 75, 90  # neither is a multiple of the padding at any scale
    boxes = random_boxes(200, height, width)
    network = {"anchor_density": 1, **network, "anchor_ratios": ratios}
    fast = best_iou(boxes, [[height, width]] * len(boxes), network)
    slow = iou_with_every_anchor(boxes, height, width, network)
    assert fast == pytest.approx(slow, abs=1e-5)
    assert 0 < (fast >= 0.5).mean() < 1


def test_no_object_needs_no_anchor() -> None:
    assert best_iou([], [], PLAIN).shape == (0,)


def test_levels_that_do_not_fit_are_named() -> None:
    network = {**PLAIN, "stages": [1], "anchor_sizes": [[8]] * 3}
    with pytest.raises(ValueError, match="3 levels for 1 stages"):
        best_iou([[0, 0, 1, 1]], [[9, 9]], network)


@pytest.mark.parametrize("iou", [0.5, 0.7])
@pytest.mark.parametrize("scale", [1, 1.5, 2, 3])
def test_an_anchor_of_a_coarser_level_fits_its_size_wherever_it_lies(
    scale: float, iou: float
) -> None:
    stages = [1, 2, 3]
    sizes = spread(2, 60, scale, stages, 3, iou)
    flat = [size for level in sizes for size in level]
    assert flat == sorted(set(flat))
    for level in sizes:  # torchvision rounds none
        sides = [size * scale for size in level]
        (cells,) = AnchorGenerator((tuple(sides),), ((1.0,),)).cell_anchors
        assert (cells[:, 2] - cells[:, 0]).tolist() == pytest.approx(sides, abs=0.01)
    random = np.random.default_rng(0)
    side = sizes[1][0] + 1  # the first size of a level may be rounded down by a network pixel
    low = random.uniform(70, 100, (500, 2))
    alone = {**PLAIN, "stages": [2], "scale": scale, "anchor_sizes": [[side]]}
    boxes = np.hstack([low, low + side])
    assert (best_iou(boxes, [[256, 256]] * 500, alone) >= iou).all()


def test_the_cheapest_that_is_good_enough_is_chosen() -> None:
    options = [Candidate(1, 1, [[8]], 4, 0.5), Candidate(2, 1, [[8]], 2, 0.95)]
    options.append(Candidate(4, 1, [[8]], 1, 0.99))
    assert choose(options, 0.9) is options[1]
    assert choose(options, 0.4) is options[0]
    assert choose(options, 1.0) is options[2]


def test_small_objects_want_a_finer_grid() -> None:
    network = {**PLAIN, "scale": 1, "anchor_sizes": [[8, 10]] * 2}
    boxes = random_boxes(300, 100, 100)
    boxes[:, 2:] = boxes[:, :2] + 2
    options = candidates(boxes, [[100, 100]] * 300, network, [1, 2], 0.5)
    assert [(option.scale, option.anchor_density, option.pitch) for option in options] == [
        (1, 1, 4),
        (1, 2, 2),
        (2, 1, 2),
        (2, 2, 1),
    ]
    assert options[0].coverage < options[1].coverage < options[3].coverage == 1
    assert {len(level) for option in options for level in option.anchor_sizes} == {2}
