"""isgseg: find every insulin secretory granule in a soft X-ray tomogram.

The folders read in the order the data flows: `io` reads and writes volumes, `phantom` makes
synthetic ones, `data` cuts them into COCO patches, `models` holds the networks (Mask R-CNN, U-Net)
and their checkpoints, `training` trains them, `inference` turns a volume into numbered granules
with the help of `instances`, `evaluation` scores them, and `analysis` makes tables and figures.
`prepare`, `doctor`, `train`, `tune`, `evaluate`, `predict` and `analyse` are the commands;
`segmenter` is prediction from Python:

    segmenter = isgseg.create_segmenter(modality="sxt", task="isg_maskrcnn")
    segmenter.load_model()
    instance_mask = segmenter.predict(volume, threshold=0.5)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isgseg.segmenter import BaseSegmenter, SXTISGMaskRCNNSegmenter, create_segmenter

__version__ = "0.2.0"
__all__ = ["BaseSegmenter", "SXTISGMaskRCNNSegmenter", "create_segmenter"]


def __getattr__(name: str) -> Any:
    """Imports the segmenter, and torch with it, only when it is asked for."""
    if name in __all__:
        from isgseg import segmenter

        return getattr(segmenter, name)
    raise AttributeError(f"module 'isgseg' has no attribute '{name}'")
