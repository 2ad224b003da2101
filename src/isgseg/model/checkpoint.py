"""Reading `.pth` files: isgseg's own checkpoints, and plain torchvision state dicts.

Everything is read with `weights_only=True`: nothing is ever unpickled.
"""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

from isgseg.model.module import MaskRCNNModule

log = logging.getLogger(__name__)
State = dict[str, Tensor]

# torchvision's maskrcnn_resnet50_fpn, as `conf/model/torchvision.yaml` has it.
TORCHVISION_NETWORK: dict[str, Any] = {
    "backbone": "resnet50",
    "stages": [1, 2, 3, 4],
    "norm": "frozen",
    "scale": None,
    "anchor_sizes": [[32], [64], [128], [256], [512]],
    "anchor_ratios": [0.5, 1.0, 2.0],
    "proposals": 1000,
    "rois": 512,
    "detections": 100,
}
_PREFIX = "network."


def load_module(path: str | Path) -> MaskRCNNModule:
    """A trained module in evaluation mode, on the CPU.

    A plain torchvision `maskrcnn_resnet50_fpn` state dict (bare, or under `model`, `state_dict` or
    `model_state_dict`) loads too; it carries no normalization and no scale.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no checkpoint, one of something else, or would need unpickling.
    """
    content = read_checkpoint(path)
    hyper_parameters = content.get("hyper_parameters")
    state = state_dict(content, path)
    if hyper_parameters is None:
        head = state.get("roi_heads.box_predictor.cls_score.weight")
        classes = 2 if head is None else len(head)
        hyper_parameters = {
            "network": {**TORCHVISION_NETWORK, "num_classes": classes},
            "weights": str(path),
        }
    try:
        module = MaskRCNNModule(**hyper_parameters)
        module.network.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} is a checkpoint, but not of isgseg or torchvision's maskrcnn_resnet50_fpn: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return module.eval()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a file that torch saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not torch's, or would need unpickling.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} cannot be loaded without unpickling objects, which could run any code; save "
            f"its state_dict() alone. ({str(error).splitlines()[0]})"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def state_dict(content: dict[str, Any], path: str | Path) -> State:
    """The network's weights under torchvision's own names.

    Raises:
        ValueError: there are none.
    """
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    if any(name.startswith(_PREFIX) for name in content):  # isgseg's own module
        content = {
            name.removeprefix(_PREFIX): value
            for name, value in content.items()
            if name.startswith(_PREFIX)
        }
    if not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} is a checkpoint of something else: it holds no network weights")
    return content


def network_of(path: str | Path) -> dict[str, Any]:
    """The settings of the network in a checkpoint of isgseg-train, as `build_mask_rcnn` takes them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a checkpoint of isgseg-train.
    """
    network = (read_checkpoint(path).get("hyper_parameters") or {}).get("network")
    if not isinstance(network, dict):
        raise ValueError(
            f"{path} does not say how its network is built, as a checkpoint of isgseg-train does; "
            "choose model=torchvision, or another of conf/model, and keep model.network"
        )
    return network


def initialize(network: nn.Module, weights: str) -> None:
    """Copies initial weights into a network, layer by layer where name and shape agree.

    Args:
        network: changed in place.
        weights: `coco` for torchvision's, which are downloaded once, or a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `coco` cannot be downloaded, or no layer of the file fits.
    """
    if weights == "coco":
        try:
            source = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.get_state_dict(check_hash=True)
        except (URLError, OSError) as error:
            raise ValueError(
                f"model.weights=coco could not be downloaded ({error}); set model.weights=null to "
                "start from random weights, or model.weights=FILE for a local checkpoint"
            ) from error
    else:
        source = state_dict(read_checkpoint(weights), weights)
    own = network.state_dict()
    fits = {
        name: value
        for name, value in source.items()
        if name in own and own[name].shape == value.shape
    }
    if not fits:
        raise ValueError(f"model.weights={weights}: none of its layers fits the network")
    network.load_state_dict(fits, strict=False)
    log.info("%s: %d of the network's %d tensors loaded", weights, len(fits), len(own))
    left = sorted({name.rsplit(".", 1)[0] for name in own.keys() - fits.keys()})
    if left:
        log.info("Left at random: %s", ", ".join(left[:12]) + (" ..." if len(left) > 12 else ""))
