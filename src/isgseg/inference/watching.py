"""Prediction that somebody watches: slice by slice as it goes on, with a way to stop it.

Granules below the object score threshold are kept too, as candidates: a threshold that is moved
later does not need another run of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg.data.normalization import Normalizer
from isgseg.inference.candidates import with_candidates
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.masks import label_slice
from isgseg.inference.method import Detections, MapModel, SliceModel, Slices
from isgseg.inference.predictor import Predictor
from isgseg.inference.segmentation import SliceSegmenter
from isgseg.inference.settings import SegmentationSettings

Seen = Callable[[int, int, Any], None]


class Watched:
    """A `SliceModel` or `MapModel` that tells of each slice before it goes on to the next.

    Args:
        model: that is watched.
        seen: is called with the number of the slice, of how many, and what was found in it:
            detections or maps. What it raises stops the prediction.
    """

    def __init__(self, model: Any, seen: Seen) -> None:
        self.model, self.seen = model, seen

    def detect(
        self,
        slices: Slices,
        normalizer: Normalizer,
        threshold: float,
        zoom: tuple[float, float] = (1.0, 1.0),
    ) -> Iterator[Detections]:
        """See `SliceModel`."""
        model: SliceModel = self.model
        for number, found in enumerate(model.detect(slices, normalizer, threshold, zoom)):
            self.seen(number, len(slices), found)
            yield found

    def maps(
        self, slices: Slices, normalizer: Normalizer, zoom: tuple[float, float] = (1.0, 1.0)
    ) -> Iterator[npt.NDArray[Any]]:
        """See `MapModel`."""
        model: MapModel = self.model
        for number, found in enumerate(model.maps(slices, normalizer, zoom)):
            self.seen(number, len(slices), found)
            yield found


def watched(predictor: Predictor, seen: Seen, *, candidates: bool = True) -> Predictor:
    """The predictor with somebody who watches, and with candidates among its granules.

    Args:
        predictor: is not changed.
        seen: see `Watched`.
        candidates: see `isgseg.inference.candidates.with_candidates`; False leaves them out.
    """
    method = predictor.method
    if not isinstance(method, SliceSegmenter | MapSegmenter):
        raise TypeError(f"{type(method).__name__} has no slices to watch")
    if candidates:
        predictor = with_candidates(predictor)
    model: Any = Watched(method.model, seen)
    method = replace(method, model=model, thresholds=predictor.thresholds, progress=False)
    return Predictor(method, predictor.metadata, predictor.thresholds, predictor.normalization)


def preview(predictor: Predictor, found: Any, shape: tuple[int, ...]) -> npt.NDArray[np.int32]:
    """(y, x) what was found in one slice, numbered within the slice, for somebody who watches.

    Args:
        predictor: whose thresholds count.
        found: of `Watched`.
        shape: (y, x) of the slice.
    """
    method, thresholds = predictor.method, predictor.thresholds
    if not isinstance(found, dict):
        mask = np.asarray(found[0]) >= thresholds.mask * 255
        return np.asarray(ndi.label(mask)[0], np.int32)
    settings = method.settings if isinstance(method, SliceSegmenter) else SegmentationSettings()
    labels, _ = label_slice(
        found["masks"],
        found["mask_boxes"],
        found["scores"],
        (shape[0], shape[1]),
        threshold=thresholds.score,
        mask_threshold=thresholds.mask,
        max_overlap=settings.max_overlap,
        min_pixels=settings.min_pixels,
    )
    return labels
