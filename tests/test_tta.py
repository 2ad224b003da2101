"""Test-time augmentation: flipped and turned images, and the mean of what is seen in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_NETWORK, Compose, balls, discs, save_pair
from hydra.utils import instantiate
from test_inference_slices import cells, labels_of
from torch import Tensor

from isgseg import create_segmenter
from isgseg.evaluate import evaluate
from isgseg.evaluation.matching import match_instances
from isgseg.io.volumes import read_labels, read_volume
from isgseg.models import tta
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.masks import draw
from isgseg.models.tta import SYMMETRIES, AugmentedMaskRCNN, Symmetry, choose_symmetries
from isgseg.predict import predict
from isgseg.training.base import GranuleModule
from isgseg.training.evaluation import load_module

BOX = (3, 5, 9, 17)  # xyxy in an image of (24, 32)


def lit() -> Tensor:
    """(1, 1, 24, 32), one in BOX."""
    image = torch.zeros(1, 1, 24, 32)
    image[..., BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1
    return image


@pytest.fixture
def module(trained: Path) -> GranuleModule:
    return load_module(trained / "isg_mask_rcnn_final.pth")


@pytest.mark.parametrize("view", SYMMETRIES, ids=str)
def test_boxes_follow_what_they_hold_and_the_inverse_undoes_all(view: Symmetry) -> None:
    seen = view.turn(lit())
    y, x = np.nonzero(seen[0, 0].numpy())
    box = torch.tensor([BOX], dtype=torch.float32)
    there = view.boxes(box, (24, 32))
    assert there.tolist() == [[x.min(), y.min(), x.max() + 1, y.max() + 1]]
    assert torch.equal(view.inverse.boxes(there, (seen.shape[-2], seen.shape[-1])), box)
    noise = torch.rand(2, 5, 24, 32)
    assert torch.equal(view.inverse.turn(view.turn(noise)), noise)


@pytest.mark.parametrize("view", SYMMETRIES, ids=str)
def test_corrections_of_boxes_follow_too(view: Symmetry) -> None:
    coder = build_mask_rcnn(backbone="resnet10").roi_heads.box_coder
    box, aim = torch.tensor([[4.0, 5, 10, 15]]), torch.tensor([[3.0, 5, 9, 17]])
    (deltas,) = coder.encode([aim], [box])
    seen, wanted = (view.boxes(part, (24, 32)) for part in (box, aim))
    torch.testing.assert_close(coder.decode(view.deltas(deltas), [seen])[:, 0], wanted)
    assert torch.equal(view.inverse.deltas(view.deltas(deltas)), deltas)


def test_no_two_views_are_the_same() -> None:
    noise = torch.rand(8, 8)
    seen = [view.turn(noise) for view in SYMMETRIES]
    assert not any(torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert sum(view.reverse for view in choose_symmetries(8, slices=True)) == 4
    # Colours are no slices, whose order means nothing.
    assert not any(view.reverse for view in choose_symmetries(8, slices=False))


def found_by(model: AugmentedMaskRCNN, image: Tensor, ways: tuple[Symmetry, ...]) -> dict[str, Any]:
    model.symmetries = ways
    with torch.inference_mode():
        return dict(model([image])[0])


@pytest.mark.parametrize("view", SYMMETRIES[1:], ids=str)
def test_a_view_by_itself_says_what_the_network_says_of_the_turned_image(
    module: GranuleModule, view: Symmetry
) -> None:
    image = torch.from_numpy(discs((64, 96), 8, 5.0, seed=3)[0]) / 2.55
    image = torch.stack([0.9 * image, image, 1.1 * image])
    model = module.network
    other = view.turn(image.flip(0) if view.reverse else image)
    turned = found_by(model, other, (Symmetry(), Symmetry()))
    found = found_by(model, image, (view, view))
    shape = (96, 64) if view.transpose else (64, 96)
    boxes = view.inverse.boxes(turned["boxes"], shape)
    masks = drawn(found, (64, 96))
    expected = view.inverse.turn(torch.from_numpy(drawn(turned, shape))).numpy()
    assert len(found["scores"]) >= 6
    shared = []
    for i, box in enumerate(found["boxes"]):
        j = int((boxes - box).abs().sum(1).argmin())
        torch.testing.assert_close(box, boxes[j], rtol=0, atol=0.01)
        torch.testing.assert_close(found["scores"][i], turned["scores"][j], rtol=0, atol=1e-3)
        shared.append((masks[i] & expected[j]).sum() / (masks[i] | expected[j]).sum())
    assert np.median(shared) > 0.7  # cut out half a pixel aside


def drawn(found: dict[str, Any], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    return draw(found["masks"][:, 0].numpy(), found["mask_boxes"].numpy(), shape)


def test_scores_are_the_mean_of_all_views(
    module: GranuleModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[Tensor] = []
    judge = tta._AugmentedPass.judge

    def spy(self: tta._AugmentedPass, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        answer = judge(self, boxes)
        shares.append(answer[0])
        return answer

    monkeypatch.setattr(tta._AugmentedPass, "judge", spy)
    image = torch.from_numpy(discs((64, 64), 8, 5.0, seed=4)[0])[None] / 2.55
    found = found_by(module.network, image, SYMMETRIES)
    assert len(shares) == 8
    assert len(found["scores"]) >= 6
    mean = torch.stack(shares).mean(0)[:, 1]
    nearest = (found["scores"][:, None] - mean).abs().min(1).values
    assert float(nearest.max()) < 1e-5
    spread = torch.stack(shares).std(0)[:, 1]
    assert float(spread.max()) > 0.01  # they do not all say the same


def test_masks_of_a_symmetric_object_are_symmetric(module: GranuleModule) -> None:
    y, x = np.indices((64, 64)) - 31.5
    ball = np.where(y**2 + x**2 < 30, 1.6, 1.0).astype(np.float32)
    # Room around boxes, whose edges would cut masks on one side.
    module.network.roi_heads.mask_roi_pool.margin = module.network.transform.margin = 3
    found = found_by(module.network, torch.from_numpy(ball)[None] / 2.55, SYMMETRIES)
    mask = drawn(found, (64, 64))[0]
    centre = np.argwhere(mask).mean(0)
    np.testing.assert_allclose(centre, [31.5, 31.5], atol=0.1)


def test_windows_of_a_slice_say_what_the_whole_says(module: GranuleModule) -> None:
    module.set_tta(4)
    volume = cells(480, 176, 240)
    plain, fast = (labels_of(module, volume, fast=fast) for fast in (False, True))
    assert plain.max() >= 10
    np.testing.assert_array_equal(fast, plain)


def test_every_command_takes_the_key(
    trained: Path, tmp_path: Path, config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = trained / "isg_mask_rcnn_final.pth"
    volume, ground_truth = save_pair(tmp_path, "cell", *balls(6, seed=5))
    seen: list[int] = []
    forward = AugmentedMaskRCNN.forward

    def spy(self: AugmentedMaskRCNN, images: list[Tensor], targets: Any = None) -> Any:
        seen.append(len(self.symmetries))
        return forward(self, images, targets)

    monkeypatch.setattr(AugmentedMaskRCNN, "forward", spy)
    common = [f"ckpt_path={checkpoint}", f"volumes={volume}", "device=cpu", "progress=false"]
    f1 = {}
    for count in ("null", "2", "8"):
        seen.clear()
        folder = tmp_path / count
        (labels,) = predict(
            config("predict", *common, f"output_dir={folder}", f"tta={count}", "threshold=.5")
        )
        assert set(seen) == {1 if count == "null" else int(count)}
        f1[count] = match_instances(read_labels(labels).data, read_labels(ground_truth).data).f1
    assert f1["null"] > 0.8
    assert f1["8"] >= f1["null"]
    seen.clear()
    evaluate(
        config("evaluate", *common, f"labels={ground_truth}", "tta=4", f"output_dir={tmp_path}")
    )
    assert set(seen) == {4}
    segmenter = create_segmenter(device="cpu")
    segmenter.load_model(checkpoint)
    for number in (2, None):
        seen.clear()
        segmenter.predict(read_volume(volume).data, tta=number, progress=False)
        assert set(seen) == {number or 1}
    with pytest.raises(ValueError, match="tta is 3; choose 1, 2, 4 or 8"):
        predict(config("predict", *common, f"output_dir={tmp_path / '3'}", "tta=3"))


def test_training_keeps_how_it_was_validated(tmp_path: Path, config: Compose) -> None:
    model = config("train", *TINY_NETWORK, "data.root=x", "model.tta=4").model
    module = instantiate(model, metadata={"z_context": 2})
    assert module.network.symmetries == SYMMETRIES[:4]
    path = tmp_path / "model.pth"
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, path)
    assert load_module(path).network.symmetries == SYMMETRIES[:4]
