from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from conftest import Compose, discs
from test_mask_rcnn import TINY
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

from isgseg.errors import InputError
from isgseg.models import locate
from isgseg.models.checkpoint import load_checkpoint, migrate, network_of, read_checkpoint
from isgseg.models.export import export_weights
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.settings import TORCHVISION
from isgseg.models.weights import initialize
from isgseg.train import network_settings
from isgseg.training.evaluation import load_module
from isgseg.training.module import MaskRCNNModule


def test_a_checkpoint_rebuilds_the_network_by_itself(trained: Path) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    assert content["hyper_parameters"]["network"]["scale"] == 1.0
    module = load_module(trained / "isg_mask_rcnn_final.pth")
    assert not module.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])


@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict"])
def test_plain_torchvision_state_dicts_load(tmp_path: Path, key: str | None) -> None:
    torch.manual_seed(0)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2).eval()
    state = theirs.state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "theirs.pth")
    module = load_module(tmp_path / "theirs.pth")
    ours = module.network.state_dict()
    assert set(ours) == {name for name in state if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(value, state[name]) for name, value in ours.items())


class Evil:
    """Would touch a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save({"state_dict": Evil(trace)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(trace)))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(ValueError, match=rf"{name} cannot be loaded without unpickling"):
            load_module(tmp_path / name)
    assert not trace.exists()


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint at all")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth does not exist"):
        load_module(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match=r"text\.pth"):
        load_module(tmp_path / "text.pth")
    with pytest.raises(ValueError, match=r"list\.pth holds a list"):
        load_module(tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"empty\.pth is a checkpoint of something else"):
        load_module(tmp_path / "empty.pth")
    with pytest.raises(ValueError, match=r"linear\.pth is a checkpoint, but not of isgseg"):
        load_module(tmp_path / "linear.pth")


def test_truncated_checkpoints_are_named(trained: Path, tmp_path: Path) -> None:
    whole = (trained / "isg_mask_rcnn_final.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.pth is not a checkpoint"):
        read_checkpoint(tmp_path / "half.pth")


def test_initial_weights_come_from_our_own_files(trained: Path) -> None:
    torch.manual_seed(5)
    module = load_module(trained / "isg_mask_rcnn_best.pth")
    source = module.network.state_dict()
    network = build_mask_rcnn(**{**module.hparams["network"], "num_classes": 4})
    initialize(network, str(trained / "isg_mask_rcnn_best.pth"))
    own = network.state_dict()
    same = {name for name in own if own[name].shape == source[name].shape}
    assert all(torch.equal(own[name], source[name]) for name in same)
    assert 0 < len(own) - len(same) < 10  # the class predictors stay random
    with pytest.raises(ValueError, match="none of its layers fits"):
        initialize(torch.nn.Linear(2, 2), str(trained / "isg_mask_rcnn_best.pth"))


def test_coco_weights_load_or_say_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    state = theirs.state_dict()
    monkeypatch.setattr(
        MaskRCNN_ResNet50_FPN_Weights, "get_state_dict", lambda *args, **kwargs: state
    )
    network = build_mask_rcnn(**TORCHVISION)
    initialize(network, "coco")
    own = network.state_dict()
    for name in ("backbone.body.layer4.2.conv3.weight", "rpn.head.bbox_pred.weight"):
        assert torch.equal(own[name], state[name])

    def offline(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(MaskRCNN_ResNet50_FPN_Weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match=r"set model.weights=null .* or model.weights=FILE"):
        initialize(network, "coco")


def test_frozen_random_statistics_are_refused() -> None:
    with pytest.raises(ValueError, match="would freeze random statistics"):
        MaskRCNNModule({**TINY, "norm": "frozen"})
    MaskRCNNModule({**TINY, "norm": "frozen"}, weights="coco")
    with pytest.raises(ValueError, match="schedule=linear: must be step or cosine"):
        MaskRCNNModule(TINY, schedule="linear")


def former(path: Path) -> dict[str, Any]:
    """A checkpoint of this version as the last release wrote it."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    given = content["hyper_parameters"]
    score, mask, granule = content.pop("thresholds").values()
    given["thresholds"] = {
        "threshold": score,
        "mask_threshold": mask,
        "granule_threshold": granule + 0.1,
    }
    given["views"] = given.pop("tta")
    metadata = given.pop("metadata")
    given["facts"] = {
        "normalization": metadata["normalization"],
        "voxel_size": metadata["voxel_size"],
        "context": metadata["z_context"],
    }
    return content


def test_a_checkpoint_of_the_last_release_is_the_same(trained: Path, tmp_path: Path) -> None:
    now = load_checkpoint(trained / "isg_mask_rcnn_final.pth")
    old = former(trained / "isg_mask_rcnn_final.pth")
    untouched = {**old, "hyper_parameters": dict(old["hyper_parameters"])}
    torch.save(old, tmp_path / "old.pth")
    then = load_checkpoint(tmp_path / "old.pth")
    assert now.metadata is not None
    metadata = now.metadata.model_copy(update={"classes": None})  # which it did not hold
    assert (then.network, then.metadata, then.tta) == (now.network, metadata, now.tta)
    assert now.thresholds is not None
    assert then.thresholds == now.thresholds._replace(object=now.thresholds.object + 0.1)
    assert now.hyper_parameters is not None
    expected = {**now.hyper_parameters, "metadata": dict(now.hyper_parameters["metadata"])}
    del expected["metadata"]["classes"]
    assert then.hyper_parameters == expected
    assert all(torch.equal(value, then.weights[name]) for name, value in now.weights.items())
    assert migrate(migrate(old)) == migrate(old)
    assert old["hyper_parameters"] == untouched["hyper_parameters"]
    assert load_module(tmp_path / "old.pth").thresholds == then.thresholds


def test_a_network_of_which_an_old_file_says_little_is_built_as_it_was(
    trained: Path, tmp_path: Path
) -> None:
    old = former(trained / "isg_mask_rcnn_final.pth")
    for key in ("nms_iou", "roi_iou", "channels", "rpn_iou"):
        del old["hyper_parameters"]["network"][key]
    torch.save(old, tmp_path / "old.pth")
    network = load_checkpoint(tmp_path / "old.pth").network
    assert (network.nms_iou, network.roi_iou, network.channels) == (0.5, 0.5, 3)
    assert network.rpn_iou == [0.3, 0.7]


def test_a_resumed_module_takes_the_thresholds_of_a_file_of_any_release(trained: Path) -> None:
    module = load_module(trained / "isg_mask_rcnn_final.pth")
    expected = module.thresholds
    for content in (
        torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True),
        former(trained / "isg_mask_rcnn_final.pth"),
    ):
        module.thresholds = None
        module.on_load_checkpoint(content)
        assert module.thresholds is not None
        assert expected is not None
        assert module.thresholds[:2] == expected[:2]
    saved: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(saved)
    assert module.thresholds is not None
    assert saved["thresholds"] == module.thresholds._asdict()
    assert "thresholds" not in module.hparams


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"_target_": "pandas.read_pickle"}}, "_target_"),
        ({"network": {"proposals": 0}}, "proposals=0"),
        ({"network": {"box_width": 10**9}}, "box_width"),
        ({"network": {"backbone": {"_target_": "os.system", "command": "true"}}}, "backbone"),
        ({"metadata": {"normalization": {"method": "mode", "power": {"_target_": "x"}}}}, "power"),
        ({"metadata": {"normalization": {"method": "${oc.env:HOME}"}}}, "method"),
        ({"metadata": {"voxel_size": [0, 1, 1]}}, "voxel_size"),
        ({"metadata": {"z_context": -3}}, "z_context=-3"),
        ({"tta": 3}, "tta=3"),
    ],
    ids=str,
)
def test_content_of_a_file_is_data_in_its_range_or_refused(
    trained: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    given = content["hyper_parameters"]
    for key, value in change.items():
        given[key] = {**given[key], **value} if isinstance(value, dict) else value
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(tmp_path / "changed.pth")
    assert "changed.pth" in str(caught.value)


@pytest.mark.parametrize("value", [2, -1, float("nan"), "half"])
def test_thresholds_of_a_file_are_shares(trained: Path, tmp_path: Path, value: Any) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    content["thresholds"]["score"] = value
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(InputError, match=r"changed\.pth: thresholds: score="):
        load_checkpoint(tmp_path / "changed.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(trained: Path, tmp_path: Path, value: float) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    name = "network.roi_heads.box_head.fc6.weight"
    content["state_dict"][name].view(-1)[:3] = value
    torch.save(content, tmp_path / "diverged.pth")
    with pytest.raises(InputError, match=r"diverged\.pth: 3 of \d+ weights .*fc6.*NaN, infinite"):
        load_checkpoint(tmp_path / "diverged.pth")


def test_files_that_would_take_more_memory_than_they_hold_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.pth holds compressed entries"):
        read_checkpoint(tmp_path / "bomb.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "honest.pth")
    content = bytearray((tmp_path / "honest.pth").read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # of the central directory: sizes are 20 bytes behind
    content[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    (tmp_path / "liar.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"liar\.pth"):
        read_checkpoint(tmp_path / "liar.pth")


def test_a_tensor_larger_than_its_numbers_is_refused(trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    name = "network.roi_heads.box_head.fc6.weight"
    content["state_dict"][name] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(content, tmp_path / "wide.pth")
    with pytest.raises(InputError, match=r"wide\.pth: .*fc6.* is no plain tensor"):
        load_checkpoint(tmp_path / "wide.pth")


def test_what_is_no_file_to_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder.pth").mkdir()
    for name, message in (
        ("empty.pth", "is empty: .*; take another"),
        ("folder.pth", "is a folder; name the .pth file"),
        ("none.pth", "does not exist; check the path"),
    ):
        with pytest.raises(InputError, match=rf"{name}\S* {message}"):
            load_checkpoint(tmp_path / name)


def test_an_exported_network_predicts_as_the_checkpoint_and_is_small(
    trained: Path, tmp_path: Path
) -> None:
    source = trained / "isg_mask_rcnn_final.pth"
    small = export_weights(source, tmp_path / "small.pth")
    content = torch.load(small, weights_only=True)
    assert set(content) == {"model", "hyper_parameters", "thresholds"}
    assert {value.dtype for value in content["model"].values() if value.ndim > 1} == {torch.float16}
    assert small.stat().st_size < 0.3 * source.stat().st_size
    one, other = load_checkpoint(source), load_checkpoint(small)
    assert (one.network, one.metadata, one.thresholds) == (
        other.network,
        other.metadata,
        other.thresholds,
    )
    image = torch.from_numpy(discs((64, 64), 5, 5.0, seed=100)[0])[None].repeat(3, 1, 1) / 2.55
    with torch.inference_mode():
        found, again = (part.build()([image])[0] for part in (one, other))
    strong = found["scores"] > 0.5
    assert strong.sum() == (again["scores"] > 0.5).sum() > 3
    assert torch.allclose(found["boxes"][strong], again["boxes"][again["scores"] > 0.5], atol=0.2)
    with pytest.raises(FileExistsError, match=r"small\.pth exists"):
        export_weights(source, small)
    module = load_module(small)
    assert module.thresholds == one.thresholds


def test_the_shipped_network_starts_a_training(
    trained: Path,
    config: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    shipped = tmp_path / "weights" / "isg_mask_rcnn_final.pth"
    monkeypatch.setattr(locate, "shipped_model", lambda *_: shipped)
    with pytest.raises(InputError, match="this isgseg has no such network"):
        network_of("phantom")
    export_weights(trained / "isg_mask_rcnn_final.pth", shipped)
    settings = network_of("phantom")
    cfg = config("train", "data.root=x", "model.weights=phantom", "model.network.num_classes=4")
    assert network_settings(cfg, 0) == {**settings, "num_classes": 4}
    cfg = config("train", "data.root=x", "experiment=finetune", "model.weights=phantom")
    assert network_settings(cfg, 0) == settings
    network = build_mask_rcnn(**{**settings, "num_classes": 4})
    initialize(network, "phantom")
    assert "has never seen a real cell" in caplog.text
    own = network.state_dict()
    source = load_checkpoint(shipped).weights
    same = {name for name in own if own[name].shape == source[name].shape}
    assert 0 < len(own) - len(same) < 10  # the class predictors stay random
    assert all(torch.equal(own[name], source[name].to(own[name].dtype)) for name in same)
