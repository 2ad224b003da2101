"""Test-time augmentation: flipped and turned pictures, and the mean of what is seen in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose, balls, discs, save_pair
from test_detection import cells, labels_of
from torch import Tensor

from isgseg import create_segmenter
from isgseg.evaluate import evaluate
from isgseg.instances.matching import match_instances
from isgseg.instances.slices import draw
from isgseg.model.checkpoint import load_module
from isgseg.model.mask_rcnn import build_mask_rcnn
from isgseg.model.module import MaskRCNNModule
from isgseg.model.views import VIEWS, ManyViews, View, choose_views
from isgseg.predict import predict
from isgseg.volume import read_labels, read_volume

BOX = (3, 5, 9, 17)  # xyxy in a picture of (24, 32)


def lit() -> Tensor:
    """(1, 1, 24, 32), one in BOX."""
    picture = torch.zeros(1, 1, 24, 32)
    picture[..., BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    return picture


@pytest.fixture
def module(trained: Path) -> MaskRCNNModule:
    return load_module(trained / "isg_mask_rcnn_final.pth")


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_boxes_follow_what_they_hold_and_the_inverse_undoes_all(view: View) -> None:
    seen = view.pictures(lit())
    y, x = np.nonzero(seen[0, 0].numpy())
    box = torch.tensor([BOX], dtype=torch.float32)
    there = view.boxes(box, (24, 32))
    assert there.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
    assert torch.equal(view.inverse.boxes(there, tuple(seen.shape[-2:])), box)
    noise = torch.rand(2, 5, 24, 32)
    assert torch.equal(view.inverse.pictures(view.pictures(noise)), noise)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_corrections_of_boxes_follow_too(view: View) -> None:
    coder = build_mask_rcnn(backbone="resnet10").roi_heads.box_coder
    box, aim = torch.tensor([[4.0, 5, 10, 15]]), torch.tensor([[3.0, 5, 9, 17]])
    (codes,) = coder.encode([aim], [box])
    seen, wanted = (view.boxes(part, (24, 32)) for part in (box, aim))
    torch.testing.assert_close(coder.decode(view.codes(codes), [seen])[:, 0], wanted)
    assert torch.equal(view.inverse.codes(view.codes(codes)), codes)


def test_no_two_views_are_the_same() -> None:
    noise = torch.rand(1, 5, 8, 8)
    for slices in (True, False):
        seen = [view.pictures(noise) for view in choose_views(8, slices)]
        assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    # Colours are no slices, whose order means nothing.
    assert not any(view.reverse for view in choose_views(8, slices=False))


def found_by(model: ManyViews, picture: Tensor, views: tuple[View, ...]) -> dict[str, Any]:
    model.views = views
    with torch.inference_mode():
        (found,) = model([picture])
    return found


@pytest.mark.parametrize("view", VIEWS[1:], ids=str)
def test_a_view_by_itself_says_what_the_network_says_of_the_turned_picture(
    module: MaskRCNNModule, view: View
) -> None:
    picture = torch.from_numpy(discs((64, 96), 8, 5.0, seed=3)[0])[None] / 2.55
    model = module.network
    turned = found_by(model, view.turn(picture), VIEWS[:1])
    found = found_by(model, picture, (view, view))
    assert len(found["scores"]) >= 6
    # Of proposals on two levels of the pyramid, which the network itself keeps, one is left here.
    torch.testing.assert_close(found["scores"], turned["scores"], rtol=0, atol=0.02)
    shape = (96, 64) if view.transpose else (64, 96)
    boxes = view.inverse.boxes(turned["boxes"], shape)
    torch.testing.assert_close(found["boxes"], boxes, rtol=0, atol=0.3)
    masks = drawn(found, (64, 96))
    expected = view.inverse.turn(torch.from_numpy(drawn(turned, shape))).numpy()
    shared = (masks & expected).sum((1, 2)) / (masks | expected).sum((1, 2))
    assert np.median(shared) > 0.9  # cut out half a pixel aside


def drawn(found: dict[str, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    return draw(found["masks"][:, 0].numpy(), found["mask_boxes"].numpy(), shape)


def test_scores_are_the_mean_of_all_views(module: MaskRCNNModule) -> None:
    picture = torch.from_numpy(discs((64, 64), 8, 5.0, seed=4)[0])[None] / 2.55
    model = module.network
    model.roi_heads.score_thresh = 0.0
    each = [found_by(model, picture, (view, view)) for view in VIEWS]
    found = found_by(model, picture, VIEWS)
    strong = found["scores"] > 0.9
    assert strong.sum() >= 6
    for box, score in zip(found["boxes"][strong], found["scores"][strong], strict=True):
        near = [((part["boxes"] - box).abs().amax(1) < 3) for part in each]
        mean = np.mean(
            [float(part["scores"][there].max()) for part, there in zip(each, near, strict=True)]
        )
        assert abs(float(score - mean)) < 0.05


def test_masks_of_a_symmetric_object_are_symmetric(module: MaskRCNNModule) -> None:
    y, x = np.indices((64, 64)) - 31.5
    ball = np.where(y**2 + x**2 < 30, 1.6, 1.0).astype(np.float32)
    found = found_by(module.network, torch.from_numpy(ball)[None] / 2.55, VIEWS)
    mask = drawn(found, (64, 64))[0]
    centre = np.argwhere(mask).mean(0)
    np.testing.assert_allclose(centre, [31.5, 31.5], atol=0.1)


def test_windows_of_a_slice_say_what_the_whole_says(module: MaskRCNNModule) -> None:
    module.look(4)
    volume = cells(480, 176, 240)
    plain, fast = (labels_of(module, volume, fast=fast) for fast in (False, True))
    assert plain.max() >= 10
    np.testing.assert_array_equal(fast, plain)


def test_every_command_takes_the_key_and_training_keeps_it(
    trained: Path, tmp_path: Path, config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained / "isg_mask_rcnn_final.pth"
    volume, truth = save_pair(tmp_path, "cell", *balls(6, seed=5))
    seen: list[int] = []
    forward = ManyViews.forward

    def spy(self: ManyViews, images: list[Tensor], targets: Any = None) -> Any:
        seen.append(len(self.views))
        return forward(self, images, targets)

    monkeypatch.setattr(ManyViews, "forward", spy)
    common = [f"ckpt_path={checkpoint}", f"volumes={volume}", "device=cpu", "progress=false"]
    f1 = {}
    for views in ("null", "2", "8"):
        seen.clear()
        folder = tmp_path / views
        (labels,) = predict(
            config("predict", *common, f"output_dir={folder}", f"views={views}", "threshold=.3")
        )
        assert set(seen) == {1 if views == "null" else int(views)}
        f1[views] = match_instances(read_labels(labels).data, read_labels(truth).data).f1
    assert f1["null"] > 0.8
    assert min(f1.values()) > f1["null"] - 0.1
    seen.clear()
    evaluate(config("evaluate", *common, f"labels={truth}", "views=4", f"output_dir={tmp_path}"))
    assert set(seen) == {4}
    segmenter = create_segmenter(device="cpu")
    segmenter.load_model(checkpoint)
    for views in (2, None):
        seen.clear()
        segmenter.predict(read_volume(volume).data, views=views, progress=False)
        assert set(seen) == {views or 1}
    with pytest.raises(ValueError, match="views is 3; choose 1, 2, 4 or 8"):
        predict(config("predict", *common, f"output_dir={tmp_path / '3'}", "views=3"))
