from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Compose, discs
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.ops import FrozenBatchNorm2d

from isgseg.data.normalization import Normalizer
from isgseg.data.patches import image_maker
from isgseg.evaluation.matching import match_instances
from isgseg.inference import slices as detection
from isgseg.inference import streaming
from isgseg.inference.predictor import Predictor
from isgseg.inference.slices import MaskRCNNDetector
from isgseg.inference.tiling import WHOLE, inside, occupied, plan
from isgseg.io.volumes import Volume, read_labels, write_volume
from isgseg.models.fusion import StemPool, fuse_mask_rcnn, grid_unit, receptive_field
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.stem import StemTransform, fuse_stem
from isgseg.predict import predict
from isgseg.training.base import GranuleModule
from isgseg.training.evaluation import load_module

GREY = Normalizer("mode", 0.0, 1.0)  # the cytoplasm of `cells` is 1


def cells(width: int, *lefts: int) -> np.ndarray[Any, Any]:
    """(3, 64, width) float32: a dark field with 64-pixel squares of cytoplasm that hold discs."""
    volume = np.random.default_rng(0).normal(0.1, 0.01, (3, 64, width))
    for z, slice_ in enumerate(volume):
        for left in lefts:
            image, labels = discs((64, 64), 5, 5.0, seed=10 * z + left)
            slice_[:, left : left + 64] = np.where(labels > 0, image + 0.5, 0.75 * image + 0.25)
    return volume.astype(np.float32)


def network(**settings: Any) -> MaskRCNN:
    """A random network with norm layers that do something."""
    torch.manual_seed(0)
    sizes = settings.pop("anchor_sizes", [[6, 8], [12, 16]])
    settings = {"backbone": "resnet18", "stages": [1, 2], "fpn_channels": 32, **settings}
    model = build_mask_rcnn(anchor_sizes=sizes, mask_depth=1, box_width=32, **settings).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d | FrozenBatchNorm2d):
            for name, value in layer.state_dict().items():
                if value.is_floating_point():
                    value.uniform_(
                        *((0.5, 2) if name in ("running_var", "weight") else (-0.5, 0.5))
                    )
    return model


@pytest.fixture
def module(trained: Path) -> GranuleModule:
    return load_module(trained / "isg_mask_rcnn_final.pth")


def labels_of(module: GranuleModule, volume: np.ndarray[Any, Any], fast: bool) -> Any:
    predictor = Predictor.from_network(
        module.network,
        None,
        tta=len(module.network.symmetries),
        threshold=0.3,
        precision="32-true",
        fast=fast,
        progress=False,
    )
    return predictor.method.segment(Volume(volume, None), GREY).labels


def lift_caps(model: MaskRCNN) -> None:
    """No number of objects in an image is too large."""
    model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = 100_000
    model.roi_heads.detections_per_img = 10_000


def shapes_seen(module: GranuleModule, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Grows by the shape of every image that a network is given."""
    seen: list[tuple[int, ...]] = []
    forward = MaskRCNN.forward

    def spy(self: MaskRCNN, images: list[torch.Tensor], *targets: Any) -> Any:
        seen.extend(tuple(image.shape[1:]) for image in images)
        return forward(self, images, *targets)

    monkeypatch.setattr(MaskRCNN, "forward", spy)
    return seen


def test_what_lies_outside_is_not_computed_and_the_labels_are_the_same(
    module: GranuleModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = cells(480, 176, 240)
    seen = shapes_seen(module, monkeypatch)
    plain = labels_of(module, volume, fast=False)
    assert seen == [(64, 480)] * 3
    seen.clear()
    fast = labels_of(module, volume, fast=True)
    assert len(seen) == 3
    assert max(width for _, width in seen) <= 352
    assert plain.max() >= 10
    np.testing.assert_array_equal(fast, plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")
def test_a_gpu_gives_the_labels_of_the_cpu(module: GranuleModule) -> None:
    volume = cells(480, 176, 240)
    on_cpu = labels_of(module, volume, fast=True)
    module.network.cuda()
    on_gpu = labels_of(module, volume, fast=True)
    assert match_instances(on_gpu, on_cpu).f1 >= 0.99


def test_tiles_leave_no_seams(module: GranuleModule, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = cells(448, *range(0, 448, 64))
    lift_caps(module.network)  # they count per image, so that tiles find more where they bind
    plain = labels_of(module, volume, fast=False)
    monkeypatch.setattr(streaming, "SIDE", 320)
    seen = shapes_seen(module, monkeypatch)
    fast = labels_of(module, volume, fast=True)
    assert len(seen) > 3 * 3
    assert max(width for _, width in seen) <= 320
    assert plain.max() >= 20
    np.testing.assert_array_equal(fast, plain)


def test_slices_taken_together_get_the_detections_of_each(module: GranuleModule) -> None:
    images = torch.from_numpy(GREY(cells(64, 0)))[:, None]
    module.network.roi_heads.score_thresh = 0.3
    with torch.inference_mode():
        together = detection._detect(module.network, images, [WHOLE])
        for image, found in zip(images, together, strict=True):
            (alone,) = detection._detect(module.network, image[None], [WHOLE])
            assert len(found["scores"]) > 0
            for name, value in alone.items():
                np.testing.assert_allclose(found[name], value, atol=1e-3)


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize("side", [streaming.SIDE, 320], ids=["whole", "tiles"])
def test_batches_in_threads_find_what_one_slice_after_the_other_does(
    context: int, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(backbone="resnet10", channels=max(3, 2 * context + 1), proposals=20)
    monkeypatch.setattr(streaming, "SIDE", side)
    volume = cells(192, 64, 128)
    detector = MaskRCNNDetector(model, z_context=context, precision="32-true")
    alone = list(detector.detect(volume, GREY, 0.0))
    detector.batched = True
    monkeypatch.setattr(detector, "_slices_at_once", lambda *_: 2)
    together = list(detector.detect(volume, GREY, 0.0))
    assert len(alone) == len(together) == len(volume)
    for one, other in zip(alone, together, strict=True):
        assert len(one["scores"]) > 0
        for name, value in one.items():
            np.testing.assert_allclose(other[name], value, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("context", [0, 1, 3])
def test_slabs_show_what_training_images_show(context: int, count: int) -> None:
    volume = np.random.default_rng(0).random((5, 4, 6))
    normalized: list[int] = []

    def normalizer(voxels: Any) -> Any:
        normalized.append(len(normalized))
        return np.rint(255 * voxels).astype(np.uint8)

    image_of = image_maker(volume, normalizer, context)  # type: ignore[arg-type]
    expected = [np.atleast_3d(image_of(z)) for z in range(5)]
    normalized.clear()
    slabs = streaming.slabs(volume, normalizer, context, count)  # type: ignore[arg-type]
    images = [streaming.in_context(torch.from_numpy(slab), context) for slab in slabs]
    assert len(normalized) == 5
    for image, wanted in zip(torch.cat(images), expected, strict=True):
        assert torch.equal(image, torch.from_numpy(wanted).permute(2, 0, 1))


def test_answers_come_in_one_copy_and_are_told_apart() -> None:
    answers = [
        {
            "boxes": torch.full((n, 4), n),
            "mask_boxes": torch.full((n, 4), n + 0.5),
            "scores": torch.linspace(1, 0.5, n).bfloat16(),
            "labels": torch.ones(n, dtype=torch.int64),
            "masks": torch.rand(n, 1, 14, 14),
        }
        for n in (3, 0, 2)
    ]
    for found, answer in zip(detection.to_arrays(answers), answers, strict=True):
        assert found.keys() == {"boxes", "mask_boxes", "scores", "masks"}
        for name, values in found.items():
            wanted = answer[name].float()
            np.testing.assert_array_equal(values, wanted[:, 0] if name == "masks" else wanted)
    assert detection.to_arrays([]) == []


def test_a_half_empty_image_has_half_of_the_proposals() -> None:
    model = network(proposals=20)
    counts: list[int] = []
    model.roi_heads.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[1][0])))
    image = torch.randint(0, 255, (1, 1, 512, 512), dtype=torch.uint8)
    with torch.inference_mode():
        for share in (1.0, 0.5, 0.1):
            detection._detect(model, image, [replace(WHOLE, share=share)])
    assert counts == [80, 40, 20]


def test_a_blank_slice_costs_nothing(
    module: GranuleModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = cells(64, 0)
    volume[1] = 0
    seen = shapes_seen(module, monkeypatch)
    found = list(MaskRCNNDetector(module.network, precision="32-true").detect(volume, GREY, 0.3))
    assert len(seen) == 2
    assert [len(slice_["scores"]) > 0 for slice_ in found] == [True, False, True]
    assert found[1]["masks"].shape[1:] == found[0]["masks"].shape[1:]
    assert found[1]["mask_boxes"].shape == (0, 4)


def test_the_key_of_the_command_chooses_the_plain_path(
    trained: Path, tmp_path: Path, config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = write_volume(tmp_path / "cell.mrc", cells(480, 176, 240), (30.0,) * 3)
    seen = shapes_seen(load_module(trained / "isg_mask_rcnn_final.pth"), monkeypatch)
    labels, widest = {}, {}
    for fast in ("true", "false"):
        seen.clear()
        (path,) = predict(
            config(
                "predict",
                f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
                f"volumes={volume}",
                f"output_dir={tmp_path / fast}",
                "normalization={method:mode}",
                "threshold=0.3",
                "precision=32-true",
                "progress=false",
                "device=cpu",
                f"fast={fast}",
            )
        )
        labels[fast], widest[fast] = read_labels(path).data, max(seen)[1]
    assert widest["false"] == 480 > widest["true"]
    assert labels["true"].any()
    np.testing.assert_array_equal(labels["true"], labels["false"])


def test_batches_come_in_order_and_errors_come_through() -> None:
    def batches() -> Iterator[Any]:
        yield [1]
        yield []
        yield [2]
        raise OSError("gone")

    ahead: Iterator[Any] = streaming.ahead(batches())
    assert [next(ahead) for _ in range(3)] == [[1], [], [2]]
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_stages_one_behind_the_other_pass_errors_on_and_may_be_left() -> None:
    def images() -> Iterator[int]:
        yield from range(3)
        raise OSError("gone")

    def stages() -> Iterator[int]:
        return streaming.ahead(number + 10 for number in streaming.ahead(images()))

    answers = stages()
    assert [next(answers) for _ in range(3)] == [10, 11, 12]
    with pytest.raises(OSError, match="gone"):
        next(answers)
    with contextlib.closing(stages()) as left:  # type: ignore[type-var]
        assert next(left) == 10


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA")
def test_the_host_waits_for_a_gpu_once_a_batch() -> None:
    device = torch.device("cuda")
    shapes = {"boxes": (4,), "mask_boxes": (4,), "scores": (), "masks": (1, 28, 28)}
    answers = [
        {name: torch.rand(n, *shape, device=device) for name, shape in shapes.items()}
        for n in (3, 0, 2)
    ]
    slab = np.zeros((9, 64, 64), np.uint8)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            streaming.send(slab, device)
        with pytest.warns(UserWarning, match="synchroniz") as waits:
            detection.to_arrays(answers)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_stem_pools_as_torch_does(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 5, 8, 12).contiguous(memory_format=layout)
    expected = torch.nn.functional.max_pool2d(values.relu(), 3, stride=2, padding=1)
    assert torch.equal(StemPool(3, stride=2, padding=1)(values), expected)


@pytest.mark.parametrize("shape", [(48, 64), (37, 50), (17, 5), (3, 4), (1, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_enlarging_in_the_first_convolution_changes_last_digits_only(
    shape: tuple[int, int], channels: int
) -> None:
    plain = fuse_mask_rcnn(network(channels=5 if channels == 1 else channels))
    fused = fuse_mask_rcnn(plain)
    fuse_stem(fused)
    assert isinstance(fused.transform, StemTransform)
    images = [torch.rand(channels, *shape) for _ in range(2)]
    with torch.inference_mode():
        expected, _ = plain.transform(images)
        found, _ = fused.transform(images)
        features = plain.backbone.body.conv1(expected.tensors)
        assert found.image_sizes == expected.image_sizes
        assert found.tensors.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.tensors, features, rtol=0, atol=1e-5)
        whole = fused.backbone(found.tensors)
        for name, value in plain.backbone(expected.tensors).items():
            assert (whole[name] - value).abs().max() < 1e-5 * value.abs().max()
        for one, other in zip(plain(images), fused(images), strict=True):
            assert other.keys() == one.keys()
            np.testing.assert_allclose(other["scores"][:5], one["scores"][:5], atol=1e-3)


@pytest.mark.parametrize("settings", [{"scale": 1.0}, {"scale": 3.0}, {"scale": None}], ids=str)
def test_only_an_image_that_is_enlarged_twice_is_not_enlarged(settings: dict[str, Any]) -> None:
    other = network(**settings)
    fuse_stem(other)
    assert not isinstance(other.transform, StemTransform)
    zoomed = network()
    zoomed.transform.zoom = (1.0, 1.2)
    fuse_stem(zoomed)
    assert not isinstance(zoomed.transform, StemTransform)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("backbone", ["resnet10", "resnet18", "resnet50"])
def test_folding_changes_last_digits_only(backbone: str, norm: str) -> None:
    plain = network(backbone=backbone, norm=norm)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    folded = fuse_mask_rcnn(plain)
    assert not any(isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d) for m in folded.modules())
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for one, other in zip(
            plain.backbone(image).values(), folded.backbone(image).values(), strict=True
        ):
            assert (one - other).abs().max() < 1e-5 * one.abs().max()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("backbone", ["resnet10", "resnet18", "resnet50"])
def test_nothing_bears_on_what_is_out_of_reach(backbone: str) -> None:
    model = network(backbone=backbone)
    far = receptive_field(model)
    image = torch.rand(1, 3, 32, 2 * far // 32 * 32 + 96)
    changed = image.clone()
    changed[..., :32] = 0
    with torch.inference_mode():
        before, after = (
            model.rpn.head(list(model.backbone(data).values()))[0] for data in (image, changed)
        )
    for one, other in zip(before, after, strict=True):
        step = image.shape[-1] / one.shape[-1]
        differ = (one != other).any(dim=(0, 1, 2)).nonzero()
        assert len(differ) > 0
        assert differ.max() * step < 32 + far


def test_the_grid_decides_where_windows_begin() -> None:
    assert grid_unit(network(scale=1.0)) == (32, 32)
    assert grid_unit(network(scale=2.0)) == (16, 16)
    assert grid_unit(network(scale=1.5)) == (64, 64)
    assert grid_unit(network(scale=None)) is None
    assert grid_unit(network(norm="group")) is None
    assert grid_unit(network(anchor_sizes=[[6], [12], [24]])) is None  # torchvision's pooled level


def test_a_cell_is_what_is_not_well_below_the_cytoplasm() -> None:
    image = GREY(cells(128, 64)[0])
    filled = occupied(image[None], GREY)
    assert not filled[:, :60].any()
    assert filled[:, 68:].all()
    assert occupied(np.stack([image // 2, image, image // 2]), GREY).tolist() == filled.tolist()
    assert occupied(image[None], Normalizer("percentile", 0.0, 1.0)).all()


def test_windows_hold_the_cell_and_its_margin() -> None:
    filled = np.zeros((200, 500), dtype=bool)
    assert plan(filled, margin=20, unit=16, limit=1000) == []
    filled[90:110, 250:300] = True
    (window,) = plan(filled, margin=20, unit=16, limit=1000)
    assert window.share == pytest.approx(20 * 50 / (80 * 96))
    assert (window.rows, window.columns) == (slice(64, 144), slice(224, 320))
    assert inside(np.array([[0, 0, 2, 2], [498, 198, 500, 200]]), window.core).all()


def test_tiles_share_out_the_slice() -> None:
    filled = np.ones((300, 700), dtype=bool)
    filled[:, :200] = False
    windows = plan(filled, margin=20, unit=16, limit=160)
    y, x = np.mgrid[:300, :700].reshape(2, -1)
    owners = np.zeros(y.shape, int)
    for window in windows:
        own = inside(np.stack([x, y, x, y], axis=1), window.core)
        owners += own
        assert window.rows.stop - window.rows.start <= 160
        assert window.columns.stop - window.columns.start <= 160
        real = own & filled[y, x]
        for axis, span, side in ((y, window.rows, 300), (x, window.columns, 700)):
            assert span.start <= max(axis[real].min() - 20, 0)
            assert span.stop >= min(axis[real].max() + 21, side)
            assert span.start % 16 == 0
    assert (owners == 1).all()
    filled[:, 210:] = False
    assert len(plan(filled, margin=20, unit=16, limit=160)) < len(windows)
