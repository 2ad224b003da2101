"""Whether artefacts far brighter or darker than a granule change the granules elsewhere.

Run `python benchmarks/normalization.py CHECKPOINT --output
benchmarks/results/normalization.json`. A bead, a capillary's wall and a blank band are put into a
synthetic cell, one after the other. The granules outside of each artefact and a margin are matched
with those of the cell without it.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output

from isgseg.data.normalization import cytoplasm_mode
from isgseg.evaluation.matching import match_instances
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume
from isgseg.phantom import make_phantom

FIELD = (486, 473)  # (y, x) pixels of a slice
MARGIN = 64  # pixels around what was put in: more than the network sees of a granule
Bools = npt.NDArray[np.bool_]


def artefacts(shape: tuple[int, int, int], cytoplasm: float) -> dict[str, tuple[Bools, float]]:
    """What is put in: which pixels of a slice, (y, x), and their value."""
    _, height, width = shape
    y, x = np.indices((height, width))
    return {
        "bead, 200 px wide": (np.hypot(y - 110, x - 110) < 100, 5 * cytoplasm),
        "capillary wall": (abs(x - 0.2 * y - 40) < 6, 3 * cytoplasm),
        "blank band, 8 %": (y < 0.08 * height, 0.0),
    }


def main() -> None:
    """Labels the cell as it is and with each artefact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--seed", type=int, default=2000, help="of the synthetic cell")
    parser.add_argument("--slices", type=int, default=16)
    add_output(parser)
    args = parser.parse_args()
    predictor = Predictor.from_checkpoint(args.checkpoint, progress=False)
    phantom = make_phantom(args.seed, shape=(args.slices, *FIELD))
    result = Result("Artefacts and the granules elsewhere", seeds=[args.seed])

    def label(data: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[Any]]:
        volume = Volume(data, phantom.voxel_size)
        return predictor.normalizer(volume).high, predictor.segment(volume).labels

    data = phantom.volume
    before, labels = label(data)
    if not labels.any():
        parser.error(f"{args.checkpoint} finds no granule in this cell, so that none can change")
    for name, (inside, value) in artefacts(data.shape, cytoplasm_mode(data)).items():
        volume = data.copy()
        volume[:, inside] = value
        after, changed = label(volume)
        elsewhere = ~widened(inside)
        found = match_instances(changed * elsewhere, labels * elsewhere)
        moved = abs(after / before - 1)
        result.add("quality", f"{name}: shift of the grey scale", moved)
        result.add("quality", f"{name}: F1 elsewhere", found.f1)
        result.details[name] = {"matched": found.tp, "lost": found.fn, "new": found.fp}
    result.write(args.output)


def widened(inside: Bools) -> Bools:
    """(y, x) a square of `MARGIN` pixels around each pixel of an artefact."""
    near = np.pad(inside, MARGIN)
    for axis in (0, 1):
        near = np.any([np.roll(near, k, axis) for k in range(-MARGIN, MARGIN + 1)], axis=0)
    return near[MARGIN:-MARGIN, MARGIN:-MARGIN]


if __name__ == "__main__":
    main()
