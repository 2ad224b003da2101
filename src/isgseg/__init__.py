"""isgseg: find every insulin secretory granule in a soft X-ray tomogram.

The modules read in the order the data flows: `volume` reads tomograms, `phantom` makes synthetic
ones, `data` cuts them into COCO patches, `model` is the Mask R-CNN and its training, `labelling`
turns a volume into numbered granules with the help of `instances`, and `analysis` makes the table
and the pictures. `prepare`, `doctor`, `train`, `evaluate`, `predict` and `analyse` are the
commands; `segmenter` is the same from Python:

    segmenter = isgseg.create_segmenter(modality="sxt", task="isg_maskrcnn")
    segmenter.load_model()
    instance_mask = segmenter.predict(volume, threshold=0.5)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isgseg.segmenter import BaseSegmenter, SXTISGMaskRCNNSegmenter, create_segmenter

# Torch reads it once: large tensors lie on large pages, where Linux has them on request, as fresh
# small ones cost more time than what is computed on them.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["BaseSegmenter", "SXTISGMaskRCNNSegmenter", "create_segmenter"]


def __getattr__(name: str) -> Any:
    """Imports the segmenter, and torch with it, only when it is asked for."""
    if name in __all__:
        from isgseg import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module 'isgseg' has no attribute '{name}'")
