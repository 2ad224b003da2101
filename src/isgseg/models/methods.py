"""The methods by the names that checkpoints give them: their networks, and how people call them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from torch import nn

from isgseg.errors import InputError
from isgseg.models.mask_rcnn import build_mask_rcnn
from isgseg.models.settings import NetworkSettings, UNetSettings
from isgseg.models.unet import build_unet
from isgseg.words import one_of


@dataclass(frozen=True)
class Method:
    """A kind of network.

    Attributes:
        title: how people call it.
        choice: of the group `model` of the configuration, that trains it.
        task: of `create_segmenter`, that predicts with it.
        settings: of its network.
        build: the network of such settings, with random weights.
    """

    title: str
    choice: str
    task: str
    settings: type[BaseModel]
    build: Callable[..., nn.Module]


METHODS: dict[str, Method] = {
    "mask_rcnn": Method("Mask R-CNN", "resnet50", "isg_maskrcnn", NetworkSettings, build_mask_rcnn),
    "unet": Method("U-Net", "unet", "isg_instance", UNetSettings, build_unet),
}


def method_of(hyper_parameters: Mapping[str, Any] | None, path: str | Path) -> str:
    """The method of a checkpoint; of one that does not say it, Mask R-CNN.

    Args:
        hyper_parameters: of the checkpoint; None for a plain state dict.
        path: for messages.

    Raises:
        InputError: it is none of `METHODS`.
    """
    method = (hyper_parameters or {}).get("method", "mask_rcnn")
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(
            f"{path}: hyper_parameters.method={method!r} must be {one_of(METHODS)}; a newer isgseg "
            "may know it"
        )
    return method


def require_method(found: str, wanted: str, path: str | Path) -> None:
    """Raises InputError where a checkpoint of one method is given to another."""
    if found != wanted:
        own, other = METHODS[found], METHODS[wanted]
        raise InputError(
            f"{path} is a {own.title}, not a {other.title}; give a checkpoint of a {other.title}, "
            f"or use what is for a {own.title}: model={own.choice} in isgseg-train, "
            f"task='{own.task}' in create_segmenter"
        )
