"""Detections of every slice of a volume: the fast path, and the plain one it must agree with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from isgseg.data.patches import picture_maker
from isgseg.hardware import autocast, pick_precision
from isgseg.model.folding import fold, grid_unit, reach
from isgseg.model.module import MaskRCNNModule
from isgseg.normalization import Grey
from isgseg.windows import WHOLE, Window, inside, occupied, plan

SIDE = 2560  # network pixels: what is computed at once is no larger than a square of this side
Detections = dict[str, npt.NDArray[Any]]
NOTHING: Detections = {
    "masks": np.zeros((0, 28, 28), np.float32),
    "mask_boxes": np.zeros((0, 4), np.float32),
    "scores": np.zeros(0, np.float32),
}


def detect_slices(
    module: MaskRCNNModule,
    volume: npt.NDArray[Any],
    grey: Grey,
    threshold: float,
    precision: str = "auto",
    fast: bool = True,
) -> Iterator[Detections]:
    """Detections of every slice, in order.

    Args:
        module: in evaluation mode, on the device to use.
        volume: (z, y, x).
        grey: the volume's normalization.
        threshold: weaker detections never reach the mask head.
        precision: see `isgseg.hardware.pick_precision`.
        fast: leave out what lies outside of cells, cut large slices into tiles, fold norm layers
            into convolutions; on CUDA, take several slices at once, and compute ahead while the
            caller works. Else the network sees whole slices, one after the other.

    Returns:
        For each slice `masks` (N, M, M) probabilities, `mask_boxes` (N, 4) xyxy in pixels, `scores`
        (N,). One batch of slices is in memory at a time, on CUDA two.
    """
    network = fold(module.network) if fast else module.network
    network.roi_heads.score_thresh = threshold
    context = (module.hparams.get("facts") or {}).get("context", 0)
    picture_of = picture_maker(volume, grey, context)
    device = module.device
    mode = pick_precision(precision, device)
    autocast(mode, device)  # an unknown precision ends here
    ahead = fast and device.type == "cuda"
    count = _slices_at_once(network, volume.shape[1:]) if ahead else 1

    def batch(first: int) -> list[Detections]:
        numbers = range(first, min(first + count, len(volume)))
        pictures = [picture_of(number) for number in numbers]
        windows = _windows(network, pictures, grey) if fast else [WHOLE]
        with torch.inference_mode(), autocast(mode, device):
            return _detect(network, pictures, windows, device)

    batches = map(batch, range(0, len(volume), count))
    return (found for part in (_ahead(batches) if ahead else batches) for found in part)


def _slices_at_once(network: MaskRCNN, shape: Sequence[int]) -> int:
    """How many slices of (H, W) pixels fit into what is computed at once."""
    scale = network.transform.scale or 800 / min(shape)
    return max(1, int(SIDE**2 / (shape[0] * shape[1] * scale**2)))


def _windows(network: MaskRCNN, pictures: list[npt.NDArray[np.uint8]], grey: Grey) -> list[Window]:
    """What of these slices is to be computed, the same for all of them."""
    filled = np.any([occupied(picture, grey) for picture in pictures], axis=0)
    unit = grid_unit(network)
    if unit is None:
        return [WHOLE] if filled.any() else []
    scale = network.transform.scale
    return plan(filled, math.ceil(reach(network) / scale), unit, int(SIDE / scale))


def _detect(
    network: MaskRCNN,
    pictures: list[npt.NDArray[np.uint8]],
    windows: list[Window],
    device: torch.device,
) -> list[Detections]:
    """Detections of pictures of one shape, each from the window that owns it."""
    found = [[NOTHING] for _ in pictures]
    for window in windows:
        crops = [_to_tensor(picture[window.rows, window.columns], device) for picture in pictures]
        for parts, result in zip(found, network(crops), strict=True):
            parts.append(_owned(result, window))
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in NOTHING}
        for parts in found
    ]


def _to_tensor(picture: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """(H, W) or (H, W, C) to (C, H, W) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.atleast_3d(picture))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True)
    return tensor.permute(2, 0, 1).float() / 255


def _owned(result: dict[str, Tensor], window: Window) -> Detections:
    """A network's answer on a window: what belongs to it, in pixels of the slice."""
    arrays = {name: value.float().cpu().numpy() for name, value in result.items()}
    offset = np.array([window.columns.start or 0, window.rows.start or 0] * 2, np.float32)
    keep = inside(arrays["boxes"] + offset, window.core)
    return {
        "masks": arrays["masks"][keep, 0],
        "mask_boxes": arrays["mask_boxes"][keep] + offset,
        "scores": arrays["scores"][keep],
    }


def _ahead(batches: Iterator[list[Detections]]) -> Iterator[list[Detections]]:
    """The same batches, each computed in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
