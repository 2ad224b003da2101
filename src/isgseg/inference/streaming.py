"""A network on the slices of a volume: a batch of them in memory at a time, and what is needed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isgseg.data.normalization import Normalizer
from isgseg.data.patches import image_maker
from isgseg.hardware import autocast, pick_precision
from isgseg.inference.method import Slices
from isgseg.inference.tiling import WHOLE, Tile, occupied, plan
from isgseg.models.tta import choose_symmetries

Result = TypeVar("Result")
Batch = TypeVar("Batch")
SIDE = 2560  # network pixels: what is computed at once is no larger than a square of this side
ZOOM_STEP = 0.02  # share by which the network's scale may be off, so that windows stay possible


class SliceNetwork(ABC, Generic[Result]):
    """A network, and how it looks at slices; a method says what it makes of them.

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
        network: Any,
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

    @abstractmethod
    def scales(self, network: Any) -> tuple[float, float] | None:
        """Network pixels per image pixel along y and x; None where the image's shape decides."""

    @abstractmethod
    def windows(self, network: Any) -> tuple[Sequence[int] | None, int]:
        """Pixels, along y and x, at multiples of which windows may begin, and how far it looks.

        The first is None where no part of an image can stand for the whole; the second is in
        network pixels.
        """

    @abstractmethod
    def compute(
        self, network: Any, images: list[npt.NDArray[np.uint8]], tiles: list[Tile]
    ) -> list[Result]:
        """What the network says of images of one shape, each from the window that owns it."""

    def stream(self, network: Any, slices: Slices, normalizer: Normalizer) -> Iterator[Result]:
        """What the network says of each slice, in order. On CUDA two batches are in memory."""
        image_of = image_maker(slices, normalizer, self.z_context)  # type: ignore[arg-type]
        on_gpu = self.fast and self.device.type == "cuda"
        count = self._slices_at_once(network, slices.shape[1:]) if on_gpu else 1

        def batch(first: int) -> list[Result]:
            numbers = range(first, min(first + count, len(slices)))
            images = [image_of(number) for number in numbers]
            tiles = self._tiles(network, images, normalizer) if self.fast else [WHOLE]
            with torch.inference_mode(), autocast(self.precision, self.device):
                return self.compute(network, images, tiles)

        batches = map(batch, range(0, len(slices), count))
        return (found for part in (ahead(batches) if on_gpu else batches) for found in part)

    def _slices_at_once(self, network: Any, shape: Sequence[int]) -> int:
        """How many slices of (H, W) pixels fit into what is computed at once."""
        y, x = self.scales(network) or (800 / min(shape),) * 2
        return max(1, int(SIDE**2 / (shape[0] * shape[1] * y * x)))

    def _tiles(
        self, network: Any, images: list[npt.NDArray[np.uint8]], normalizer: Normalizer
    ) -> list[Tile]:
        """What of these slices is to be computed, the same for all of them."""
        filled = np.any([occupied(image, normalizer) for image in images], axis=0)
        unit, reach = self.windows(network)
        scales = self.scales(network)
        if unit is None or scales is None:
            return [WHOLE] if filled.any() else []
        margin = [math.ceil(reach / scale) for scale in scales]
        return plan(filled, margin, unit, [int(SIDE / scale) for scale in scales])


def simple(scale: float) -> float:
    """The fraction of the smallest denominator that is nearly the scale.

    Windows begin at whole pixels of the image that are whole strides of the network, which lie far
    apart where the scale is no simple fraction.
    """
    for denominator in range(1, 100):
        near = max(1, round(scale * denominator)) / denominator
        if abs(near / scale - 1) <= ZOOM_STEP:
            return near
    return scale


def to_tensor(image: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """(H, W) or (H, W, C) to (C, H, W) float32 in [0, 1]."""
    tensor = torch.from_numpy(np.atleast_3d(image))
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    tensor = tensor.to(device, non_blocking=True)
    return tensor.permute(2, 0, 1) / 255


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each computed in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
