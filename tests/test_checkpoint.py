from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from test_mask_rcnn import TINY
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn

from isgseg.model.checkpoint import initialize, load_module, read_checkpoint
from isgseg.model.mask_rcnn import build_mask_rcnn
from isgseg.model.module import MaskRCNNModule


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
    network = build_mask_rcnn()  # the default's anchors: three per place, as torchvision's
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
    with pytest.raises(ValueError, match="choose step or cosine"):
        MaskRCNNModule(TINY, schedule="linear")
