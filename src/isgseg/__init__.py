"""isgseg: find every insulin secretory granule in a soft X-ray tomogram.

The modules read in the order the data flows: `volume` reads tomograms, `phantom` makes synthetic
ones, `data` cuts them into COCO patches, `model` is the Mask R-CNN and its training, `labelling`
turns a volume into numbered granules with the help of `instances`, and `analysis` makes the table
and the pictures. `prepare`, `train`, `evaluate`, `predict` and `analyse` are the commands.
"""

__version__ = "0.1.0"
