from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from isgseg.data.coco import CocoInstances, make_target
from isgseg.data.transforms import Augment
from isgseg.errors import InputError


@pytest.fixture
def sample(coco_root: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return CocoInstances(coco_root / "train")[0]


def test_flips_and_turns_are_exact(sample: Any) -> None:
    image, target = sample
    seen = set()
    for seed in range(24):
        turned, after = Augment()(image, target, seed)
        assert turned.shape == image.shape
        assert torch.equal(turned.sum(), (image / 255).sum()) or turned.sum().isclose(
            (image / 255).sum()
        )
        assert after["masks"].sum() == target["masks"].sum()
        inside = turned[0][after["masks"].bool().any(0)]
        assert torch.equal(
            inside.sort().values, (image / 255)[0][target["masks"].bool().any(0)].sort().values
        )
        seen.add(tuple(after["boxes"].flatten().tolist()))
    assert len(seen) == 8  # the eight symmetries of a square


def test_randomness_depends_on_the_seed_alone(sample: Any) -> None:
    augment = Augment(crop=40, scale=(0.8, 1.2), intensity=(0.8, 1.2), noise=0.1, blur=1.0)
    torch.manual_seed(1)
    first, target = augment(sample[0], sample[1], 7)
    state = torch.get_rng_state()
    again, again_target = augment(sample[0], sample[1], 7)
    assert torch.equal(first, again)
    assert torch.equal(target["masks"], again_target["masks"])
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's numbers are used up
    assert not torch.equal(first, augment(sample[0], sample[1], 8)[0])


def test_crops_hold_an_object_as_often_as_asked(sample: Any) -> None:
    image, target = sample
    one = {key: value[:1] if value.ndim else value for key, value in target.items()}
    always = [Augment(crop=24, crop_on_object=1.0)(image, one, seed) for seed in range(20)]
    assert all(len(after["boxes"]) == 1 for _, after in always)
    assert {image.shape for image, _ in always} == {(1, 24, 24)}
    never = [Augment(crop=24, crop_on_object=0.0)(image, one, seed) for seed in range(20)]
    assert sum(len(after["boxes"]) for _, after in never) < 20


def test_a_image_smaller_than_the_crop_is_kept_whole(sample: Any) -> None:
    assert Augment(crop=100)(sample[0], sample[1], 0)[0].shape == (1, 64, 64)


def test_scale_enlarges_image_masks_and_boxes(sample: Any) -> None:
    image, target = sample
    scaled, after = Augment(flip=False, scale=(2.0, 2.0))(image, target, seed=0)
    assert scaled.shape == (1, 128, 128)
    assert torch.equal(after["boxes"], 2 * target["boxes"])
    assert after["masks"].sum() == 4 * target["masks"].sum()


@pytest.mark.parametrize(
    "options", [{"intensity": (0.5, 0.6)}, {"noise": 0.2}, {"blur": 2.0}, {"flip": True}]
)
def test_each_option_changes_the_image_only_where_it_should(
    sample: Any, options: dict[str, Any]
) -> None:
    plain = Augment(flip=False)(sample[0], sample[1], 3)
    others = [
        Augment(**{"flip": False, **options})(sample[0], sample[1], seed) for seed in range(4)
    ]
    assert any(not torch.equal(plain[0], other[0]) for other in others)
    if "flip" not in options:
        assert all(torch.equal(plain[1]["masks"], other[1]["masks"]) for other in others)
    assert all(other[0].min() >= 0 and other[0].max() <= 1 for other in others)


def test_images_with_context_are_shown_without_it_as_often_as_asked(sample: Any) -> None:
    _, target = sample
    image = torch.arange(10, 60, 10, dtype=torch.uint8)[:, None, None].expand(-1, 64, 64)
    augment = Augment(flip=False, drop_z_context=0.5, z_context=True)
    seen = [(255 * augment(image, target, seed)[0][:, 0, 0]).tolist() for seed in range(40)]
    alone = sum(channels == pytest.approx([30] * 5) for channels in seen)
    assert 10 < alone < 30
    assert sum(channels == pytest.approx([10, 20, 30, 40, 50]) for channels in seen) == 40 - alone


def test_slices_come_in_either_order_and_colours_in_theirs(sample: Any) -> None:
    _, target = sample
    image = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(-1, 64, 64)

    def orders(z_context: bool) -> list[float]:
        augment = Augment(drop_z_context=0.5 * (not z_context), z_context=z_context)
        return [float(255 * augment(image, target, seed)[0][0, 0, 0]) for seed in range(40)]

    assert 10 < sum(first == pytest.approx(30) for first in orders(z_context=True)) < 30
    assert orders(z_context=False) == pytest.approx([10] * 40)


def test_empty_targets_go_through_every_step(coco_root: Path) -> None:
    image, target = CocoInstances(coco_root / "train")[5]
    augment = Augment(crop=40, crop_on_object=1.0, scale=(0.9, 1.1), noise=0.1, blur=1.0)
    after = augment(image, target, seed=0)[1]
    assert after["boxes"].shape == (0, 4)
    assert after["masks"].shape == (0, 40, 40)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": [2, 1]}, r"scale=\[2, 1\]: must be \[low, high\], the smaller number first"),
        ({"scale": [0, 1]}, r"scale\[0\]=0: must be a number above 0 and at most 10"),
        ({"scale": [1, 1e9]}, r"scale\[1\]="),
        ({"scale": 2}, "scale=2: must be a list of 2"),
        ({"intensity": [math.nan, 1]}, r"intensity\[0\]=nan"),
        ({"crop": 0}, "crop=0: must be a whole number from 1"),
        ({"crop": "big"}, "crop=big: must be a whole number"),
        ({"crop_on_object": 1.5}, "crop_on_object=1.5: must be a number from 0 to 1"),
        ({"drop_z_context": -1}, "drop_z_context=-1: must be a number from 0 to 1"),
        ({"flip": "perhaps"}, "flip=perhaps: must be true or false"),
        ({"noise": math.inf}, "noise=inf"),
        ({"blur": -1}, "blur=-1: must be a number from 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"data.augment: {message}"):
        Augment(**settings)


def test_a_slight_blur_is_possible() -> None:
    image = torch.zeros(1, 16, 16, dtype=torch.uint8)
    target = make_target(torch.zeros(0, 16, 16, dtype=torch.uint8), torch.zeros(0), 0)
    for seed in range(4):
        assert Augment(blur=0.05)(image, target, seed)[0].shape == (1, 16, 16)
