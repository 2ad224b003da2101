from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
import platformdirs
import pytest
import tifffile
import torch
from conftest import ROOT, TINY_NETWORK, TINY_RUN, Compose, balls, granules_of
from omegaconf import OmegaConf
from torchvision.models.detection import maskrcnn_resnet50_fpn

import isgseg
from isgseg.errors import InputError, check
from isgseg.inference.settings import SegmentationSettings
from isgseg.io.volumes import write_volume
from isgseg.models import locate
from isgseg.models.locate import MODEL, find_model, installed_model
from isgseg.segmenter import _SEGMENTERS, register_segmenter
from isgseg.train import train
from isgseg.training.evaluation import load_module

Array = np.ndarray[Any, Any]
Segmenter = isgseg.SXTISGMaskRCNNSegmenter
PLAIN: dict[str, Any] = {"progress": False, "precision": "32-true"}


@pytest.fixture(scope="module")
def volume() -> Array:
    data = balls(7, 30)[0]
    data[:, :, :8] += 0.6
    return data * 100


@pytest.fixture(scope="module")
def model(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, as if trained on volumes whose values are the grey values."""
    content = torch.load(trained / MODEL, weights_only=True)
    window = {"method": "window", "low": 0.0, "high": 255.0}
    content["hyper_parameters"]["metadata"]["normalization"] = window
    path = tmp_path_factory.mktemp("model") / MODEL
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def segmenter(model: Path) -> Any:
    segmenter = Segmenter(device="cpu")
    segmenter.load_model(model)
    return segmenter


def test_the_documented_lines_work(
    model: Path, volume: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISGSEG_MODEL", str(model))
    segmenter = isgseg.create_segmenter(modality="sxt", task="isg_maskrcnn")
    segmenter.load_model()
    instance_mask = segmenter.predict(volume, threshold=0.5)
    assert instance_mask.shape == volume.shape
    assert instance_mask.dtype == np.uint16
    assert 5 <= instance_mask.max() <= 8  # six cylinders


def test_granules_keep_one_number_by_default(segmenter: Any, volume: Array) -> None:
    labels = segmenter.predict(volume, **PLAIN)
    slices = segmenter.predict(volume, **PLAIN, separate=False, link=False)
    assert slices.max() >= 3 * labels.max()


def test_other_names_say_what_exists() -> None:
    with pytest.raises(ValueError, match="modality='sxt' task='isg_maskrcnn'"):
        isgseg.create_segmenter(modality="em", task="isg_maskrcnn")


def test_a_second_method_is_registered_without_touching_the_first() -> None:
    @register_segmenter("em", "threshold")
    class Threshold(isgseg.BaseSegmenter):
        name = "threshold"

        def load_model(self, path: str | Path | None = None) -> Self:
            return self

        def predict(self, data: Any, threshold: float = 0.5, **kwargs: Any) -> Any:
            return (np.asarray(data) > threshold).astype(np.uint16)

    try:
        second = isgseg.create_segmenter("em", "threshold")
        assert second.predict([[[1.0, 0.0]]]).tolist() == [[[1, 0]]]
        assert isinstance(isgseg.create_segmenter(), Segmenter)
    finally:
        del _SEGMENTERS["em", "threshold"]


def test_the_contract_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        isgseg.BaseSegmenter()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((4, 4)), r"shape \(D, H, W\), not \(4, 4\)"),
        (np.zeros((1, 4, 4, 4)), r"not \(1, 4, 4, 4\)"),
        (np.zeros((0, 4, 4)), r"not \(0, 4, 4\)"),
        (np.full((2, 4, 4), "a"), "holds real numbers"),
        (np.zeros((2, 4, 4), complex), "holds real numbers, not complex128"),
        (np.full((2, 4, 4), np.nan), "32 voxels that are NaN, infinite"),
    ],
)
def test_bad_data_are_refused(segmenter: Any, data: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter.predict(data)


def test_predict_before_load_model_says_so(volume: Array) -> None:
    with pytest.raises(RuntimeError, match="call load_model"):
        Segmenter().predict(volume)


def test_keywords_are_the_keys_of_the_config(
    segmenter: Any, volume: Array, config: Compose
) -> None:
    keys: Any = OmegaConf.to_object(config("predict", "ckpt_path=x", "volumes=x").segmentation)
    assert set(keys) == set(SegmentationSettings.__dataclass_fields__)
    assert SegmentationSettings(**keys) == SegmentationSettings()
    with pytest.raises(ValueError, match=r"does not know colour.* mask_threshold"):
        segmenter.predict(volume, colour="red")


@pytest.mark.parametrize(
    "override",
    [
        {"separate": False},
        {"link": False},
        {"mask_threshold": 0.9},
        {"max_overlap": 0.01},
        {"min_pixels": 60},
        {"min_overlap": 0.99},
        {"max_distance": 0.01},
        {"max_gap": 0},
        {"constriction": 0.99},
        {"max_length_nm": 2.0},
        {"min_diameter_nm": 8.5},
        {"min_slices": 4},
        {"min_score": 0.87},
        {"hysteresis_ratio": 1.0},
    ],
)
def test_each_segmentation_key_changes_the_labels(override: dict[str, Any]) -> None:
    """On detections that are made up.

    Touching discs, a missing section, a constriction, a drift.
    """
    y, x = (np.indices((28, 28)) + 0.5) / 28 - 0.5
    soft = np.clip(1.5 - 2 * np.hypot(y, x), 0, 1).astype(np.float32)

    def found(*boxes: tuple[float, float, float], low: float = 0.8) -> dict[str, Array]:
        return {
            "masks": np.stack([soft] * len(boxes)) if boxes else np.zeros((0, 28, 28)),
            "mask_boxes": np.array(
                [[cx - r, cy - r, cx + r, cy + r] for cx, cy, r in boxes]
            ).reshape(-1, 4),
            "scores": np.linspace(0.9, low, len(boxes)),
        }

    detections = [
        found((20, 20, 5), (29, 20, 5), (50, 50, 4), (48, 20, 3)),
        found((20, 20, 5), (29, 20, 5), (52, 51, 4), (48, 20, 5)),
        found((20, 20, 5), (28, 20, 5), (48, 20, 4.8)),
        found((20, 20, 5), (28, 20, 5), (53, 51, 4), (48, 20, 5), low=0.3),
    ]

    def label(**settings: Any) -> Array:
        return granules_of(detections, np.zeros((4, 64, 64)), **settings).labels

    assert not np.array_equal(label(), label(**override))


@pytest.mark.parametrize("hysteresis_ratio", [0, 1.5])
def test_hysteresis_ratio_is_a_share(hysteresis_ratio: float) -> None:
    with pytest.raises(
        ValueError,
        match=f"hysteresis_ratio={hysteresis_ratio}: must be a number above 0 and at most 1",
    ):
        check(SegmentationSettings, {"hysteresis_ratio": hysteresis_ratio}, "")


def test_the_model_is_looked_for_in_the_documented_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ISGSEG_MODEL", raising=False)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user" / name)
    monkeypatch.setattr(locate, "shipped_model", lambda *_: tmp_path / "package" / MODEL)
    with pytest.raises(FileNotFoundError, match="isgseg-train install=true"):
        find_model()
    locate.shipped_model().parent.mkdir()
    locate.shipped_model().touch()
    assert find_model() == tmp_path / "package" / MODEL
    assert "never seen a real cell" in caplog.text
    for age, run in ((100, "new"), (200, "old")):
        path = tmp_path / "outputs" / "train" / run / MODEL
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert find_model() == Path("outputs/train/new") / MODEL
    installed_model().parent.mkdir(parents=True)
    installed_model().touch()
    assert find_model() == installed_model()
    monkeypatch.setenv("ISGSEG_MODEL", "mine.pth")
    assert find_model() == Path("mine.pth")
    assert find_model("given.pth") == Path("given.pth")
    for place in ("package", "outputs/train/new", "user/isgseg", "mine.pth", "given.pth"):
        assert place in caplog.text  # the log says which network is used


def test_thresholds_are_those_asked_for_and_said_once(
    model: Path, volume: Array, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content = torch.load(model, weights_only=True)
    content["thresholds"] = {"score": 0.2, "mask": 0.5, "object": 1.0}
    torch.save(content, tmp_path / MODEL)
    segmenter = Segmenter(device="cpu")
    segmenter.load_model(tmp_path / MODEL)
    assert segmenter.predict(volume, **PLAIN).max() >= 5
    assert segmenter.predict(volume, **PLAIN).max() >= 5
    said = [record.message for record in caplog.records if "Thresholds:" in record.message]
    assert said == ["Thresholds: detections 0.5, masks 0.5, granules 0.5"]
    assert "threshold=None) uses them" in caplog.text
    assert segmenter.predict(volume, threshold=None, **PLAIN).max() == 0
    assert "Thresholds: detections 0.2, masks 0.5, granules 1" in caplog.text


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"threshold": 2}, "threshold=2"),
        ({"threshold": -1}, "threshold=-1"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"mask_threshold": 2}, "mask_threshold=2"),
        ({"min_slices": float("nan")}, "min_slices=nan"),
        ({"voxel_size": float("nan")}, "voxel_size=nan"),
        ({"voxel_size": [30, 30]}, r"voxel_size=\[30, 30\]"),
        ({"voxel_size": 0}, "voxel_size=0"),
        ({"tta": 3}, "tta is 3"),
        ({"precision": "double"}, "precision"),
        ({"separate": "maybe"}, "separate=maybe"),
    ],
    ids=str,
)
def test_keywords_out_of_range_are_refused(
    segmenter: Any, volume: Array, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        segmenter.predict(volume, **keywords)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="device=foo"):
        Segmenter(device="foo")


def test_install_puts_the_final_model_where_it_is_found(
    coco_root: Path, config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user" / name)
    monkeypatch.delenv("ISGSEG_MODEL", raising=False)
    train(
        config(
            "train",
            *TINY_NETWORK,
            *TINY_RUN,
            f"data.root={coco_root}",
            "trainer.max_epochs=1",
            "install=true",
        )
    )
    final = tmp_path / "train" / "checkpoints" / MODEL
    assert installed_model().read_bytes() == final.read_bytes()
    Segmenter(device="cpu").load_model()


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    path = tmp_path_factory.mktemp("foreign") / "theirs.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_a_file_of_plain_torchvision_computes_as_torchvision_does(
    torchvision_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2).eval()
    theirs.load_state_dict(torch.load(torchvision_file, weights_only=True))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    ours = load_module(torchvision_file).network
    rois = [torch.tensor([[10.0, 20, 300, 400], [50, 60, 90, 110]])]

    def answers(network: Any) -> list[torch.Tensor]:
        """What every part says; which detections survive hangs on the last digit of a score."""
        images, _ = network.transform([image])
        features = network.backbone(images.tensors)
        heads = network.roi_heads
        box = heads.box_head(heads.box_roi_pool(features, rois, images.image_sizes))
        mask = heads.mask_head(heads.mask_roi_pool(features, rois, images.image_sizes))
        objectness, deltas = network.rpn.head(list(features.values()))
        parts = [*objectness, *deltas, *heads.box_predictor(box), heads.mask_predictor(mask)]
        return [images.tensors, *parts]

    with torch.inference_mode():
        for found, expected in zip(answers(ours), answers(theirs), strict=True):
            assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.std()))
    segmenter = Segmenter(device="cpu")
    segmenter.load_model(torchvision_file)
    labels = segmenter.predict(np.random.default_rng(0).random((1, 64, 64)), **PLAIN)
    assert labels.shape == (1, 64, 64)
    assert "plain state dict" in caplog.text
    assert "normalization.method" in caplog.text


def test_our_files_load_into_plain_torchvision(
    coco_root: Path, config: Compose, tmp_path: Path
) -> None:
    train(
        config(
            "train",
            "experiment=baseline",
            *TINY_RUN,
            f"data.root={coco_root}",
            "trainer.max_epochs=1",
            "trainer.limit_train_batches=1",
            "model.network.scale=1",  # 800 pixels take a minute here; the weights do not know
        )
    )
    path = tmp_path / "train" / "checkpoints" / MODEL
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    theirs.load_state_dict(torch.load(path, weights_only=True)["model"])
    ours = load_module(path).network.state_dict()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.state_dict().items())


def test_the_documented_recipe_is_documented(config: Compose) -> None:
    cfg = config("train", "experiment=baseline", "data.root=x")
    assert cfg.model.network.scale is None
    assert OmegaConf.to_object(cfg.model.network.anchor_sizes) == [[32], [64], [128], [256], [512]]
    assert (cfg.data.batch_size, cfg.trainer.max_epochs) == (4, 20)
    assert (cfg.model.lr, cfg.model.momentum, cfg.model.weight_decay) == (0.005, 0.9, 0.0005)
    assert (cfg.model.schedule, cfg.trainer.gradient_clip_val) == ("step", 0.5)
    assert (cfg.trainer.check_val_every_n_epoch, cfg.trainer.precision) == (2, "auto")
    assert "early_stopping" in cfg.callbacks


@pytest.mark.slow
def test_the_demo_runs(model: Path, volume: Array, tmp_path: Path) -> None:
    cell = write_volume(tmp_path / "cell.mrc", volume.astype(np.float32), (30.0,) * 3)
    script = ROOT / "examples" / "demo_sxt_isg_maskrcnn.py"
    options = ["--model", str(model), "--output", str(tmp_path / "out")]
    run = subprocess.run(
        [sys.executable, str(script), "--volume", str(cell), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for step in ("[1/4]", "(7, 64, 64)", "[2/4]", "[3/4]", "[4/4]", "instances:"):
        assert step in run.stdout
    assert (tmp_path / "out" / "sxt_isg_maskrcnn_result_cell.png").stat().st_size > 10_000
    labels = tifffile.imread(tmp_path / "out" / "sxt_isg_maskrcnn_cell.tiff")
    assert labels.shape == (7, 64, 64)
    wrong = subprocess.run(
        [sys.executable, str(script), "--volume", str(tmp_path / "no.mrc"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 1
    assert "no.mrc" in wrong.stderr
    assert "Traceback" not in wrong.stderr
