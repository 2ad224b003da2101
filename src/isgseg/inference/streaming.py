"""A network on the slices of a volume: a batch of them in memory at a time, and what is needed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import starmap
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isgseg.data.normalization import Normalizer
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
            into convolutions. Else the network sees whole slices, one after the other.

    Attributes:
        batched: take several slices at once, while the images of the next are made and the caller
            works on the last, each in a thread. So on CUDA, where it is fast; on a CPU the network
            has the cores.

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
        self.batched = fast and self.device.type == "cuda"
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
    def compute(self, network: Any, images: Tensor, tiles: list[Tile]) -> list[Result]:
        """What the network says of images, each part from the window that owns it.

        Args:
            network: that is asked.
            images: (N, C, H, W) uint8 on the device; see `crop`.
            tiles: the windows, the same for all images.
        """

    def stream(self, network: Any, slices: Slices, normalizer: Normalizer) -> Iterator[Result]:
        """What the network says of each slice, in order.

        One slice is in memory at a time; where `batched`, three batches are.
        """
        count = self._slices_at_once(network, slices.shape[1:]) if self.batched else 1
        beside: Callable[[Iterator[Any]], Iterator[Any]] = ahead if self.batched else iter

        def seen(slab: npt.NDArray[np.uint8]) -> tuple[Tensor, list[Tile]]:
            tiles = self._tiles(network, slab, normalizer) if self.fast else [WHOLE]
            return send(slab, self.device), tiles

        def answers(slab: Tensor, tiles: list[Tile]) -> list[Result]:
            with torch.inference_mode(), autocast(self.precision, self.device):
                return self.compute(network, in_context(slab, self.z_context), tiles)

        images = beside(map(seen, slabs(slices, normalizer, self.z_context, count)))
        batches = beside(starmap(answers, images))
        return (found for batch in batches for found in batch)

    def _slices_at_once(self, network: Any, shape: Sequence[int]) -> int:
        """How many slices of (H, W) pixels fit into what is computed at once."""
        y, x = self.scales(network) or (800 / min(shape),) * 2
        return max(1, int(SIDE**2 / (shape[0] * shape[1] * y * x)))

    def _tiles(
        self, network: Any, slab: npt.NDArray[np.uint8], normalizer: Normalizer
    ) -> list[Tile]:
        """What of the slices of a slab is to be computed, the same for all of them."""
        shown = 2 * self.z_context + 1
        starts = range(len(slab) - shown + 1)
        filled = np.any([occupied(slab[z : z + shown], normalizer) for z in starts], axis=0)
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


def slabs(
    slices: Slices, normalizer: Normalizer, context: int, count: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Grey slices of a batch each, with those before and after that its images show too.

    Each slice is normalized once: those that two batches share are kept.

    Args:
        slices: (n, H, W) voxels.
        normalizer: the volume's normalization.
        context: slices on either side. The end slices stand in for those beyond.
        count: slices of a batch.

    Returns:
        (count + 2 context, H, W); the last batch may have fewer.
    """
    kept: dict[int, npt.NDArray[np.uint8]] = {}
    for first in range(0, len(slices), count):
        stop = min(first + count, len(slices))
        shown = np.arange(first - context, stop + context).clip(0, len(slices) - 1).tolist()
        kept = {z: kept[z] if z in kept else normalizer(slices[z]) for z in dict.fromkeys(shown)}
        yield np.stack([kept[z] for z in shown])


def send(slab: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """The slab on the device; on CUDA by way of pinned memory, so that nobody waits for it."""
    tensor = torch.from_numpy(slab)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def in_context(slab: Tensor, context: int) -> Tensor:
    """A view of a slab, (n + 2 context, H, W), as images, (n, 2 context + 1, H, W).

    So a slice is sent to a device once, though many images show it.
    """
    return slab.unfold(0, 2 * context + 1, 1).movedim(-1, 1)


def crop(images: Tensor, tile: Tile) -> Tensor:
    """What a window shows of images, (N, C, H, W) uint8: (N, C, h, w) float32 in [0, 1]."""
    return images[..., tile.rows, tile.columns] / 255


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, each computed in a thread while the caller works on the one before."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch
