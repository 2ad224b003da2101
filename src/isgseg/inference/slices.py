"""Detections of every slice by Mask R-CNN: the fast path, and the plain one it must agree with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from isgseg.data.normalization import Normalizer
from isgseg.data.patches import image_maker
from isgseg.hardware import autocast, pick_precision
from isgseg.inference.method import Detections, Slices
from isgseg.inference.tiling import WHOLE, Tile, inside, occupied, plan
from isgseg.models.fusion import fuse_batch_norm, grid_unit, receptive_field, share_weights
from isgseg.models.tta import AugmentedMaskRCNN, choose_symmetries

SIDE = 2560  # network pixels: what is computed at once is no larger than a square of this side
ZOOM_STEP = 0.02  # share by which the network's scale may be off, so that windows stay possible
NOTHING: Detections = {
    "masks": np.zeros((0, 28, 28), np.float32),
    "mask_boxes": np.zeros((0, 4), np.float32),
    "scores": np.zeros(0, np.float32),
}


class MaskRCNNDetector:
    """A `SliceModel`: a network, and how it looks at slices.

    The network is not changed: each call works on a copy that shares its weights.

    Args:
        network: on the device to use.
        z_context: slices on either side that an image shows too.
        tta: 1, 2, 4 or 8 flips and turns of an image, of which the mean is taken.
        precision: see `isgseg.hardware.pick_precision`.
        fast: leave out what lies outside of cells, cut large slices into tiles, fuse norm layers
            into convolutions; on CUDA, take several slices at once, and compute ahead while the
            caller works. Else the network sees whole slices, one after the other.

    Raises:
        ValueError: an unknown precision, or another number of flips and turns.
    """

    def __init__(
        self,
        network: AugmentedMaskRCNN,
        *,
        z_context: int = 0,
        tta: int = 1,
        precision: str = "auto",
        fast: bool = True,
    ) -> None:
        self.network, self.z_context, self.fast = network, z_context, fast
        self.symmetries = choose_symmetries(tta, slices=bool(z_context))
        self.device = next(network.parameters()).device
        self.precision = pick_precision(precision, self.device)
        autocast(self.precision, self.device)  # an unknown precision ends here

    @property
    def scale(self) -> float | None:
        """Network pixels per image pixel; None where the size of an image decides."""
        scale: float | None = self.network.transform.scale
        return scale

    def detect(
        self,
        slices: Slices,
        normalizer: Normalizer,
        threshold: float,
        zoom: tuple[float, float] = (1.0, 1.0),
    ) -> Iterator[Detections]:
        """Detections of every slice, in order; see `SliceModel`.

        Weaker detections than the threshold never reach the mask head. One batch of slices is in
        memory at a time, on CUDA two.
        """
        network = self._copy(threshold, zoom)
        image_of = image_maker(slices, normalizer, self.z_context)  # type: ignore[arg-type]
        ahead = self.fast and self.device.type == "cuda"
        count = _slices_at_once(network, slices.shape[1:]) if ahead else 1

        def batch(first: int) -> list[Detections]:
            numbers = range(first, min(first + count, len(slices)))
            images = [image_of(number) for number in numbers]
            tiles = _tiles(network, images, normalizer) if self.fast else [WHOLE]
            with torch.inference_mode(), autocast(self.precision, self.device):
                return _detect(network, images, tiles, self.device)

        batches = map(batch, range(0, len(slices), count))
        return (found for part in (_ahead(batches) if ahead else batches) for found in part)

    def _copy(self, threshold: float, zoom: tuple[float, float]) -> AugmentedMaskRCNN:
        """The network with a score threshold and a scale of its own."""
        copied = fuse_batch_norm if self.fast else share_weights
        network: AugmentedMaskRCNN = copied(self.network)
        network.roi_heads.score_thresh = threshold
        network.symmetries = self.symmetries
        scale = network.transform.scale
        if scale is not None:
            y, x = (factor if factor == 1 else _simple(scale * factor) / scale for factor in zoom)
            network.transform.zoom = y, x
        return network


def _simple(scale: float) -> float:
    """The fraction of the smallest denominator that is nearly the scale.

    Windows begin at whole pixels of the image that are whole strides of the network, which lie far
    apart where the scale is no simple fraction.
    """
    for denominator in range(1, 100):
        near = max(1, round(scale * denominator)) / denominator
        if abs(near / scale - 1) <= ZOOM_STEP:
            return near
    return scale


def _slices_at_once(network: MaskRCNN, shape: Sequence[int]) -> int:
    """How many slices of (H, W) pixels fit into what is computed at once."""
    y, x = network.transform.scales or (800 / min(shape),) * 2
    return max(1, int(SIDE**2 / (shape[0] * shape[1] * y * x)))


def _tiles(
    network: MaskRCNN, images: list[npt.NDArray[np.uint8]], normalizer: Normalizer
) -> list[Tile]:
    """What of these slices is to be computed, the same for all of them."""
    filled = np.any([occupied(image, normalizer) for image in images], axis=0)
    unit = grid_unit(network)
    if unit is None:
        return [WHOLE] if filled.any() else []
    scales = network.transform.scales
    margin = [math.ceil(receptive_field(network) / scale) for scale in scales]
    return plan(filled, margin, unit, [int(SIDE / scale) for scale in scales])


def _detect(
    network: MaskRCNN,
    images: list[npt.NDArray[np.uint8]],
    tiles: list[Tile],
    device: torch.device,
) -> list[Detections]:
    """Detections of images of one shape, each from the window that owns it."""
    found = [[NOTHING] for _ in images]
    for tile in tiles:
        crops = [_to_tensor(image[tile.rows, tile.columns], device) for image in images]
        for parts, result in zip(found, network(crops), strict=True):
            parts.append(_owned(result, tile))
    return [
        {name: np.concatenate([part[name] for part in parts]) for name in NOTHING}
        for parts in found
    ]


def _to_tensor(image: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """(H, W) or (H, W, C) to (C, H, W) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.atleast_3d(image))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True)
    return tensor.permute(2, 0, 1).float() / 255


def _owned(result: dict[str, Tensor], tile: Tile) -> Detections:
    """A network's answer on a window: what belongs to it, in pixels of the slice."""
    arrays = {name: value.float().cpu().numpy() for name, value in result.items()}
    offset = np.array([tile.columns.start or 0, tile.rows.start or 0] * 2, np.float32)
    keep = inside(arrays["boxes"] + offset, tile.core)
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
