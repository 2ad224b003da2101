"""Maps of every slice by a U-Net: where granules are, and how deep inside of one a pixel lies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isgseg.data.normalization import Normalizer
from isgseg.inference.method import Slices
from isgseg.inference.streaming import SliceNetwork, crop, simple
from isgseg.inference.tiling import Tile
from isgseg.models.fusion import fuse_batch_norm, share_weights, whole_strides
from isgseg.models.unet import UNet

Maps = npt.NDArray[np.uint8]


class UNetMapper(SliceNetwork[Maps]):
    """A `MapModel`; see `SliceNetwork` for the arguments."""

    network: UNet

    def maps(
        self, slices: Slices, normalizer: Normalizer, zoom: tuple[float, float] = (1.0, 1.0)
    ) -> Iterator[Maps]:
        """Maps of every slice, in order; see `MapModel`."""
        network = (fuse_batch_norm if self.fast else share_weights)(self.network)
        network.symmetries = self.symmetries
        y, x = (1.0 if factor == 1 else simple(factor) for factor in zoom)
        network.zoom = y, x
        return self.stream(network, slices, normalizer)

    def scales(self, network: Any) -> tuple[float, float] | None:
        """The zoom: the network takes images as they are."""
        return network.zoom  # type: ignore[no-any-return]

    def windows(self, network: Any) -> tuple[Sequence[int] | None, int]:
        """Whole strides of the coarsest grid."""
        unit = [whole_strides(scale, network.unit) for scale in network.zoom]
        return unit, network.receptive_field

    def compute(self, network: Any, images: Tensor, tiles: list[Tile]) -> list[Maps]:
        """(2, H, W) of each image; 0 where nothing was computed."""
        found = np.zeros((len(images), 2, *images.shape[2:]), np.uint8)
        for tile in tiles:
            maps = torch.stack(network.predict(list(crop(images, tile))))
            values = (255 * maps.float()).round().byte().cpu().numpy()
            y0, x0, y1, x1 = tile.core
            top, left = tile.rows.start or 0, tile.columns.start or 0
            rows = _owned(y0, y1, top, values.shape[2])
            columns = _owned(x0, x1, left, values.shape[3])
            found[..., rows, columns] = values[..., _back(rows, top), _back(columns, left)]
        return list(found)


def _owned(low: float, high: float, start: int, length: int) -> slice:
    """The pixels from low to high of a window, which may be infinite."""
    first = start if low == -inf else max(start, int(low))
    last = start + length if high == inf else min(start + length, int(high))
    return slice(first, last)


def _back(pixels: slice, start: int) -> slice:
    """The same pixels, counted from the window's first."""
    return slice(pixels.start - start, pixels.stop - start)
