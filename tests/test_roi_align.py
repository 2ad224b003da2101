from __future__ import annotations

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from isgseg.models.roi_align import MarginRoIAlign, roi_align_by_embedding


def some_boxes(count: int, side: float, seed: int = 0) -> torch.Tensor:
    """(count, 4) xyxy, of which some are narrower than a pixel and some leave the image."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * (side + 20) - 15
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * 40], dim=1)


@pytest.mark.parametrize(("size", "samples"), [(7, 1), (14, 1), (7, 2), (3, 3)])
def test_regions_and_their_gradients_are_torchvisions(size: int, samples: int) -> None:
    torch.manual_seed(0)
    boxes = some_boxes(50, 4 * 24)
    rois = torch.cat([torch.randint(3, (50, 1)).float(), boxes], dim=1)
    features = torch.randn(3, 5, 24, 30, requires_grad=True)
    twin = features.detach().to(memory_format=torch.channels_last).requires_grad_()
    theirs = roi_align(features, rois, size, 0.25, samples)
    ours = roi_align_by_embedding(twin, rois, size, 0.25, samples)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    weight = torch.randn_like(theirs)
    (expected,) = torch.autograd.grad(theirs, features, weight)
    (found,) = torch.autograd.grad(ours, twin, weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_each_box_is_cut_from_torchvisions_level() -> None:
    torch.manual_seed(0)
    features = {str(i): torch.randn(2, 4, 256 // 2**i, 192 // 2**i) for i in range(3)}
    features["other"] = torch.randn(2, 4, 1, 1)
    boxes = [some_boxes(20, 700, seed) for seed in (1, 2)]
    boxes[0][::2, 2:] += 300
    shapes = [(1000, 760), (1024, 700)]
    theirs = MultiScaleRoIAlign(["0", "1", "2"], 7, 2)(features, boxes, shapes)
    ours = MarginRoIAlign(["0", "1", "2"], 7, 2)(features, boxes, shapes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_a_small_image_has_the_scale_of_its_padding() -> None:
    """Torchvision takes 16 of 40 pixels for half, where it is a quarter of the padded 64."""
    feature = torch.arange(16.0).expand(1, 1, 16, 16)
    region = MarginRoIAlign(["0"], 1, 1)(
        {"0": feature}, [torch.tensor([[8.0, 8, 16, 16]])], [(40, 40)]
    )
    assert region.item() == 12 / 4


def test_no_box_has_no_region() -> None:
    features = {"0": torch.randn(2, 4, 16, 16, requires_grad=True)}
    pool = MarginRoIAlign(["0"], 7, 1)
    assert pool(features, [torch.zeros(0, 4)] * 2, [(64, 64)] * 2).shape == (0, 4, 7, 7)
