"""How long StarDist 3D's network takes for a volume, with random weights.

    python time_stardist.py volume.npy

The network is that of `run_stardist.py`. What follows it, suppression and the drawing of objects,
is left out: with random weights it would mean nothing. The last line is seconds a slice.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from run_stardist import NAME, THREADS, network, normalized, tiles
from stardist.models import Config3D, StarDist3D

if THREADS:
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
image = normalized(np.load(sys.argv[1]), "percentile")
config = Config3D(**network())
with tempfile.TemporaryDirectory() as folder:
    model = StarDist3D(config, name=NAME, basedir=folder)
    model.predict(image[:4], n_tiles=tiles(image[:4]), show_tile_progress=False)  # once: kernels
    start = time.perf_counter()
    model.predict(image, n_tiles=tiles(image), show_tile_progress=False)
    print((time.perf_counter() - start) / len(image))
