"""The one list of a network's settings: ranges, and that `conf/model/` says the same."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Compose
from omegaconf import OmegaConf

from isgseg.errors import InputError, check
from isgseg.models.settings import TORCHVISION, NetworkSettings, Thresholds


def network_of(config: Compose, model: str) -> dict[str, Any]:
    network: Any = OmegaConf.to_object(config("train", f"model={model}", "data.root=x"))["model"]  # type: ignore[index, call-overload]
    return dict(network["network"])


def test_the_defaults_are_those_of_the_configuration(config: Compose) -> None:
    defaults = NetworkSettings().model_dump()
    assert network_of(config, "resnet50") == {k: v for k, v in defaults.items() if k != "channels"}


def test_torchvisions_are_those_of_the_configuration(config: Compose) -> None:
    ours = network_of(config, "torchvision")
    assert ours.pop("norm") == "batch"  # frozen norm layers suit its published weights only
    theirs = NetworkSettings(**TORCHVISION).model_dump()
    assert ours == {key: theirs[key] for key in ours}


@pytest.mark.parametrize(
    "wrong",
    [
        {"proposals": 0},
        {"rois": 0},
        {"box_width": 0},
        {"box_width": 10**9},
        {"channels": 0},
        {"num_classes": 1},
        {"scale": 0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"anchor_sizes": [[0], [8], [16]]},
        {"anchor_sizes": [[-2], [8], [16]]},
        {"anchor_sizes": []},
        {"anchor_ratios": [0.0]},
        {"anchor_density": 1.5},
        {"rpn_iou": [0.7, 0.3]},
        {"rpn_iou": [0.3]},
        {"nms_iou": 2},
        {"score_threshold": -0.1},
        {"stages": [3, 2, 1]},
        {"stages": [1, 2, 5]},
        {"backbone": "vgg"},
        {"backbone": {"_target_": "os.system"}},
        {"_target_": "pandas.read_pickle"},
        {"proposals": "many"},
        {"detections": None},
    ],
    ids=str,
)
def test_what_no_network_can_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        check(NetworkSettings, wrong, "cell.pth")
    assert str(caught.value).startswith("cell.pth: ")
    assert next(iter(wrong)) in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"score": 2}, {"mask": -1}, {"object": float("nan")}, {"score": "half"}], ids=str
)
def test_thresholds_are_shares(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        check(Thresholds, {"score": 0.5, "mask": 0.5, "object": 0.5} | wrong, "thresholds")
