"""How long Cellpose's cyto network takes for a volume's slices, with random weights.

    python time_cellpose.py volume.npy

Slices keep their size. The published network would have granules of 9 pixels enlarged to 30, which
takes eleven times as long. What follows the network, the dynamics and the stitching, is left out:
with random weights it would mean nothing. The last line is seconds a slice.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import torch
from cellpose.models import CellposeModel

DIAMETER = 30  # pixels: the network's own, so that nothing is enlarged

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1)
volume = np.load(sys.argv[1]).astype(np.float32)
model = CellposeModel(gpu=False, pretrained_model=False, nchan=2)  # cyto: two channels, diameter 30


def label(image: np.ndarray) -> None:
    """The network on one slice."""
    model.eval(image, channels=[0, 0], diameter=DIAMETER, compute_masks=False)


label(volume[0][:64, :64])  # once: kernels
start = time.perf_counter()
for slice_ in volume:
    label(slice_)
print((time.perf_counter() - start) / len(volume))
