"""What is in a checkpoint: isgseg's own files, those of former versions, torchvision's weights.

Nothing in a file is instantiated or unpickled: what is not weights is checked against
`NetworkSettings`, `TrainingMetadata` and `Thresholds`, as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from isgseg.errors import InputError, check
from isgseg.models.archive import check_tensor, read_checkpoint
from isgseg.models.locate import named_weights
from isgseg.models.methods import METHODS, method_of, require_method
from isgseg.models.settings import (
    TORCHVISION,
    SavedThresholds,
    Thresholds,
    TrainingMetadata,
)
from isgseg.models.tta import COUNTS

__all__ = [
    "Checkpoint",
    "load_checkpoint",
    "migrate",
    "network_of",
    "read_checkpoint",
    "state_dict",
]

State = dict[str, Tensor]
_PREFIX = "network."
# What networks were built with where their checkpoint does not say it: former versions saved only
# the keys that were given.
_FORMERLY: dict[str, Any] = {
    "stages": [1, 2, 3, 4],
    "fpn_channels": 256,
    "anchor_sizes": [[3, 4.5, 6], [8, 11, 15], [20, 28, 40], [56, 80, 112]],
    "anchor_density": 1,
    "proposals": 1000,
    "roi_iou": 0.5,
    "box_width": 1024,
    "nms_iou": 0.5,
}
_KEYS = {"facts": "metadata", "views": "tta"}  # former name to name
_THRESHOLDS = {  # former name to name
    "threshold": "score",
    "mask_threshold": "mask",
    "granule_threshold": "object",
    "object_threshold": "object",
}


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, and what prediction has to know of it.

    Attributes:
        path: where it was read.
        method: one of `isgseg.models.methods.METHODS`.
        network: how it is built: the method's settings, such as `NetworkSettings`.
        weights: under torchvision's own names.
        metadata: of its training data; None for a plain state dict, which says nothing of them.
        thresholds: what validation tuned; None where nothing was.
        tta: how many flips and turns the thresholds were tuned with; see `choose_symmetries`.
        hyper_parameters: all of them, plain data; None for a plain state dict.
    """

    path: str
    method: str
    network: Any
    weights: State
    metadata: TrainingMetadata | None
    thresholds: Thresholds | None
    tta: int
    hyper_parameters: dict[str, Any] | None

    def build(self) -> Any:
        """The network in evaluation mode, on the CPU.

        Raises:
            InputError: the weights do not fit the network that the checkpoint describes.
        """
        network = METHODS[self.method].build(**self.network.model_dump())
        try:
            network.load_state_dict(self.weights)
            for name, own in network.state_dict().items():
                if own.is_floating_point() and not self.weights[name].is_floating_point():
                    raise RuntimeError(f"{name} holds {self.weights[name].dtype}, not floats")
        except RuntimeError as error:
            raise InputError(
                f"{self.path} is a checkpoint, but not of isgseg or torchvision's "
                f"maskrcnn_resnet50_fpn; give one of these ({' '.join(str(error).split())[:300]})"
            ) from error
        network.eval()
        return network


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a `.pth` file of isgseg-train, or of torchvision's `maskrcnn_resnet50_fpn`.

    A plain state dict (bare, or under `model`, `state_dict` or `model_state_dict`) carries no
    normalization and no scale.

    Raises:
        InputError: the file is no such checkpoint; the message says what is wrong with it.
    """
    content = migrate(read_checkpoint(path))
    weights = state_dict(content, path)
    for name, value in weights.items():
        check_tensor(path, name, value)
    given = content.get("hyper_parameters")
    if given is None:
        head = weights.get("roi_heads.box_predictor.cls_score.weight")
        classes = len(head) if head is not None and head.ndim else 2
        network: Any = {**TORCHVISION, "num_classes": classes}
        metadata = None
    else:
        network, metadata = _network(given, path), given.get("metadata")
    tta = (given or {}).get("tta", 1)
    if tta not in COUNTS:
        raise InputError(f"{path}: hyper_parameters.tta={tta} must be one of {COUNTS}")
    thresholds = content.get("thresholds")
    method = method_of(given, path)
    settings: Any = METHODS[method].settings
    return Checkpoint(
        path=str(path),
        method=method,
        network=check(settings, network, f"{path}: hyper_parameters.network"),
        weights=weights,
        metadata=None
        if metadata is None
        else check(TrainingMetadata, metadata, f"{path}: hyper_parameters.metadata"),
        thresholds=None
        if thresholds is None
        else check(SavedThresholds, thresholds, f"{path}: thresholds").as_tuple(),
        tta=tta,
        hyper_parameters=given,
    )


def migrate(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint of any version as one of this version; the tensors are the same.

    Until 0.1, `hyper_parameters` held `views` (now `tta`), `facts` (`metadata`, with `context`,
    now `z_context`) and the thresholds, which are an entry of their own now.

    Args:
        content: as `read_checkpoint` gives it; not changed.
    """
    content = dict(content)
    given = content.get("hyper_parameters")
    if not isinstance(given, dict):
        return content
    given = {_KEYS.get(key, key): value for key, value in given.items()}
    metadata = given.get("metadata")
    if isinstance(metadata, dict) and "context" in metadata:
        metadata = dict(metadata)
        metadata.setdefault("z_context", metadata.pop("context"))
        given["metadata"] = metadata
    if "thresholds" in given:
        thresholds = given.pop("thresholds")
        if isinstance(thresholds, dict):
            thresholds = {_THRESHOLDS.get(key, key): value for key, value in thresholds.items()}
            thresholds.setdefault("object", thresholds.get("score"))
        content.setdefault("thresholds", thresholds or None)
        if isinstance(given.get("network"), dict):
            given["network"] = {**_FORMERLY, **given["network"]}
    content["hyper_parameters"] = given
    return content


def state_dict(content: Mapping[str, Any], path: str | Path) -> State:
    """The network's weights under torchvision's own names.

    Raises:
        InputError: there are none.
    """
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    if any(str(name).startswith(_PREFIX) for name in content):  # isgseg's own module
        content = {
            name.removeprefix(_PREFIX): value
            for name, value in content.items()
            if name.startswith(_PREFIX)
        }
    if not content or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(
            f"{path} is a checkpoint of something else: it holds no network weights; give a .pth "
            "file of isgseg-train, or a state_dict() of torchvision's maskrcnn_resnet50_fpn"
        )
    return dict(content)


def network_of(weights: str | Path, method: str = "mask_rcnn") -> dict[str, Any]:
    """The settings of the network in a checkpoint of isgseg-train, all of them, as plain data.

    Args:
        weights: a file, or `phantom` for the network that comes with isgseg.
        method: whose network it must be.

    Raises:
        InputError: the file is not a checkpoint of isgseg-train, of another method, or its settings
            are out of range.
    """
    path = named_weights(str(weights), method)
    given = migrate(read_checkpoint(path)).get("hyper_parameters")
    if given is None:
        raise InputError(
            f"{path} does not say how its network is built, as a checkpoint of isgseg-train does; "
            "choose model=torchvision, or another of conf/model, and keep model.network"
        )
    settings: Any = METHODS[method].settings
    content = _network(given, path)
    require_method(method_of(given, path), method, path)
    network = check(settings, content, f"{path}: hyper_parameters.network")
    return network.model_dump()  # type: ignore[no-any-return]


def _network(hyper_parameters: Any, path: str | Path) -> Any:
    """The settings of the network in hyper-parameters.

    Raises:
        InputError: there are none.
    """
    if not isinstance(hyper_parameters, dict) or not isinstance(
        hyper_parameters.get("network"), dict
    ):
        raise InputError(
            f"{path} is a checkpoint of another program: hyper_parameters.network is missing; give "
            "one of isgseg-train"
        )
    return hyper_parameters["network"]
