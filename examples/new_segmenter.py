"""Write a segmenter of your own and use it as those of isgseg.

    python examples/new_segmenter.py

The method is the simplest there is: smooth, threshold, number connected parts. Its scores on a
synthetic cell show what a network has to beat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from isgseg import BaseSegmenter, create_segmenter
from isgseg.evaluation.matching import match_instances
from isgseg.phantom import make_phantom
from isgseg.segmenter import register_segmenter


@register_segmenter("sxt", "threshold")
class ThresholdSegmenter(BaseSegmenter):
    """Granules as the bright parts of a smoothed volume."""

    name = "threshold"

    def load_model(self, path: str | Path | None = None) -> Self:
        """There is no model."""
        return self

    def predict(
        self, data: npt.ArrayLike, threshold: float = 0.5, **kwargs: Any
    ) -> npt.NDArray[np.uint16]:
        """Labels bright parts.

        Args:
            data: (D, H, W), any real numbers.
            threshold: of the way from the median to the largest value, 0 to 1.
            **kwargs: none.

        Returns:
            (D, H, W) uint16, 0 for background, one number for each part.
        """
        smooth = ndi.gaussian_filter(np.asarray(data, np.float32), 1.0)
        low, high = np.median(smooth), np.percentile(smooth, 99.9)
        labels, _ = ndi.label(smooth > low + threshold * (high - low))
        return labels.astype(np.uint16)


def main() -> None:
    """Segments a synthetic cell and scores it."""
    phantom = make_phantom(2000, shape=(24, 160, 160))
    segmenter = create_segmenter(modality="sxt", task="threshold").load_model()
    for threshold in (0.4, 0.5, 0.6):
        labels = segmenter.predict(phantom.volume, threshold=threshold)
        scores = match_instances(labels, phantom.labels, iou=0.5)
        print(
            f"threshold {threshold}: {labels.max()} parts for {len(np.unique(phantom.labels)) - 1} "
            f"granules, precision {scores.precision:.2f}, recall {scores.recall:.2f}"
        )


if __name__ == "__main__":
    main()
