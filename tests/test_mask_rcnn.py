from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import Compose
from omegaconf import OmegaConf
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork

from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.masks import draw
from isgseg.models.roi_align import MarginRoIAlign
from isgseg.models.settings import TORCHVISION
from isgseg.models.transform import Transform
from isgseg.training.module import MaskRCNNModule

TINY: dict[str, Any] = {
    "backbone": "resnet18",
    "stages": [1, 2],
    "fpn_channels": 16,
    "anchor_sizes": [[6, 8], [12, 16]],
    "scale": 1.0,
    "proposals": 30,
    "rois": 16,
    "box_width": 16,
    "mask_width": 16,
    "mask_depth": 1,
}
OTHER: dict[str, Any] = {
    "backbone": "resnet34",
    "stages": [2, 3],
    "fpn_channels": 32,
    "norm": "group",
    "num_classes": 3,
    "scale": 2.0,
    "anchor_sizes": [[5, 8], [12, 16]],
    "anchor_ratios": [0.5, 1.0],
    "anchor_density": 3,
    "rpn_iou": [0.2, 0.6],
    "proposals": 31,
    "rois": 17,
    "roi_iou": 0.3,
    "box_width": 17,
    "mask_width": 17,
    "mask_depth": 2,
    "mask_margin": 1.5,
    "detections": 99,
    "nms_iou": 0.45,
    "score_threshold": 0.2,
}


def describe(network: Any) -> dict[str, Any]:
    """What a network is made of: shapes of its weights, and the numbers it works with."""
    rpn, roi = network.rpn, network.roi_heads
    return {
        "weights": {name: tuple(value.shape) for name, value in network.state_dict().items()},
        "numbers": [
            rpn.anchor_generator.sizes,
            rpn.anchor_generator.aspect_ratios,
            (rpn.proposal_matcher.low_threshold, rpn.proposal_matcher.high_threshold),
            (rpn._pre_nms_top_n, rpn._post_nms_top_n),
            roi.fg_bg_sampler.batch_size_per_image,
            (roi.proposal_matcher.low_threshold, roi.proposal_matcher.high_threshold),
            (roi.score_thresh, roi.nms_thresh, roi.detections_per_img),
            network.transform.scale,
            getattr(rpn.anchor_generator, "density", 1),
            (getattr(network.transform, "margin", 0), getattr(roi.mask_roi_pool, "margin", 0)),
        ],
    }


@pytest.mark.parametrize("key", sorted(OTHER))
def test_each_key_changes_the_network(key: str) -> None:
    assert describe(build_mask_rcnn(**TINY)) != describe(
        build_mask_rcnn(**{**TINY, key: OTHER[key]})
    )


@pytest.mark.parametrize("model", ["resnet50", "resnet18", "resnet10", "torchvision"])
def test_every_key_of_the_configs_is_one_of_those(config: Compose, model: str) -> None:
    network = OmegaConf.to_object(config("train", f"model={model}", "data.root=x").model.network)
    assert isinstance(network, dict)
    assert set(network) == set(OTHER)


def test_torchvision_preset_is_torchvisions_network(config: Compose) -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    ours = build_mask_rcnn(**{**TORCHVISION, "norm": "batch"})
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert describe(ours)["weights"] == shapes
    ours = describe(build_mask_rcnn(**TORCHVISION))["numbers"]
    theirs.transform.scale = None
    theirs_numbers = describe(theirs)["numbers"]
    assert [tuple(map(tuple, ours[0])), *ours[1:3]] == [
        tuple(map(tuple, theirs_numbers[0])),
        *theirs_numbers[1:3],
    ]
    assert ours[4:] == theirs_numbers[4:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg"}, r"backbone=vgg: must be resnet10"),
        ({"norm": "layer"}, "norm=layer: must be batch, group or frozen"),
        ({"anchor_sizes": [[8]]}, "1 levels for 2 stages"),
        ({"anchor_sizes": [[8], [16, 20]]}, r"\[1, 2\] sizes on its levels"),
        ({"anchor_density": 0.5}, r"anchor_density=0\.5"),
    ],
)
def test_bad_numbers_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_mask_rcnn(**{**TINY, **change})


def test_empty_and_full_images_train_and_predict() -> None:
    torch.manual_seed(0)
    network = build_mask_rcnn(**TINY)
    masks = torch.zeros(1, 48, 64, dtype=torch.uint8)
    masks[0, 10:18, 20:28] = 1
    full = {
        "boxes": torch.tensor([[20.0, 10, 28, 18]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": masks,
    }
    empty = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "masks": masks[:0],
    }
    for targets in ([full, empty], [empty, empty]):
        losses = network([torch.rand(3, 48, 64)] * 2, targets)
        assert len(losses) == 5
        assert all(torch.isfinite(value) for value in losses.values())
    found = network.eval()([torch.rand(3, 48, 64)])[0]
    assert found["masks"].shape[1:] == (1, 28, 28)
    assert len({len(value) for value in found.values()}) == 1


def test_a_grey_image_stands_for_all_channels_and_others_are_refused() -> None:
    torch.manual_seed(0)
    network = build_mask_rcnn(**TINY, channels=5).eval()
    normalizer = torch.rand(1, 48, 64)
    alone, repeated = (network([image])[0] for image in (normalizer, normalizer.repeat(5, 1, 1)))
    assert torch.equal(alone["boxes"], repeated["boxes"])
    assert torch.equal(alone["scores"], repeated["scores"])
    with pytest.raises(ValueError, match=r"images of 3 channels, but the network takes 5"):
        network([torch.rand(3, 48, 64)])


def test_half_precision_leaves_boxes_and_losses_in_fp32() -> None:
    torch.manual_seed(0)
    network = build_mask_rcnn(**TINY).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network([torch.rand(3, 48, 64)])[0]
    assert {value.dtype for name, value in found.items() if name != "labels"} == {torch.float32}


@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_the_scale_is_the_same_in_training_and_prediction(scale: float) -> None:
    transform = Transform(scale)
    for training in (True, False):
        transform.train(training)
        for side in (64, 256):
            images, _ = transform([torch.rand(3, side, side)])
            assert images.image_sizes == [(round(side * scale), round(side * scale))]


@pytest.mark.parametrize("off", [0.0, 1.0])
@pytest.mark.parametrize("radius", [1.5, 2.5, 4.0])
def test_what_the_mask_head_learns_is_drawn_where_it_was(radius: float, off: float) -> None:
    """The training target of a small disc, given back as a prediction, is that disc.

    With a margin it is so too where the box is off by a pixel, which cuts into the disc.
    """
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(32) + 0.5, indexing="ij")
    ground_truth = ((y - 14) ** 2 + (x - 17) ** 2 <= radius**2).to(torch.uint8)
    ys, xs = ground_truth.nonzero().T
    box = torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float()
    transform = Transform(2.0, margin := 4 * off)
    box += off
    _, targets = transform([torch.rand(3, 32, 32)], [{"boxes": box, "masks": ground_truth[None]}])
    target = targets[0]
    wide = [target["boxes"]]
    pool = MarginRoIAlign(["0"], output_size=14, sampling_ratio=1, margin=margin)
    pool({"0": torch.rand(1, 8, 16, 16)}, wide, [(64, 64)])
    grid = project_masks_on_boxes(target["masks"], wide[0], torch.zeros(1).long(), 28)
    transform.eval()
    found = transform.postprocess(
        [{"boxes": target["boxes"], "masks": grid[:, None]}], [(64, 64)], [(32, 32)]
    )[0]
    drawn = draw(found["masks"][:, 0].numpy(), found["mask_boxes"].numpy(), (32, 32))[0]
    assert torch.equal(found["boxes"], box)
    assert (drawn == ground_truth.bool().numpy()).all()


def test_anchors_stand_where_they_should_in_half_precision() -> None:
    network = build_mask_rcnn(**TINY).eval()
    stood: list[torch.Tensor] = []
    network.rpn.anchor_generator.register_forward_hook(lambda *call: stood.extend(call[2]))
    for half in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            network([torch.rand(3, 64, 700)])
    assert stood[1].dtype == torch.float32
    assert torch.equal(*stood)


def test_proposals_are_in_proportion_to_the_area() -> None:
    network = build_mask_rcnn(**TINY).eval()
    counts = []
    network.roi_heads.box_head.register_forward_hook(lambda *call: counts.append(len(call[2])))
    for shape in ((64, 64), (256, 256), (512, 512)):
        network([torch.rand(3, *shape)])
    assert counts[0] <= TINY["proposals"]
    assert counts[1:] == [TINY["proposals"], 4 * TINY["proposals"]]


def test_targets_of_anchors_are_torchvisions() -> None:
    torch.manual_seed(0)
    network = build_mask_rcnn(**TINY)
    corner = torch.rand(9, 2) * 40
    targets = [{"boxes": torch.cat([corner, corner + 1 + 12 * torch.rand(9, 2)], 1)}]
    targets.append({"boxes": torch.zeros(0, 4)})
    stood: list[torch.Tensor] = []
    network.rpn.anchor_generator.register_forward_hook(lambda *call: stood.extend(call[2]))
    network.eval()([torch.rand(3, 64, 64)] * 2)
    ours = network.rpn.assign_targets_to_anchors(stood, targets)
    theirs = RegionProposalNetwork.assign_targets_to_anchors(network.rpn, stood, targets)
    for (label, match), (their_label, their_match) in zip(
        zip(*ours, strict=True), zip(*theirs, strict=True), strict=True
    ):
        assert torch.equal(label, their_label)
        assert torch.equal(match[label > 0], their_match[label > 0])
    assert (ours[0][0] > 0).sum() >= 9
    assert not ours[0][1].any()


def test_an_overflow_does_not_spoil_prediction(caplog: pytest.LogCaptureFixture) -> None:
    """In fp16 one inf in a step would else stay in the norm layers' running statistics for good."""
    torch.manual_seed(0)
    module = MaskRCNNModule(TINY)
    target = {
        "boxes": torch.tensor([[20.0, 10, 28, 18]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": torch.zeros(1, 48, 64, dtype=torch.uint8),
    }
    batch = [torch.rand(3, 48, 64)] * 2, [target] * 2
    first = module.network.backbone.body.conv1
    overflow = first.register_forward_hook(lambda layer, inputs, output: output * torch.inf)
    assert module.training_step(batch, 0) is None
    assert "Step 0 is left out" in caplog.text
    overflow.remove()
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    loss = module.training_step(batch, 1)
    assert loss is not None
    assert torch.isfinite(loss)
