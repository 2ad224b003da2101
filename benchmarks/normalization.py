"""Whether things far brighter or darker than a granule change granules elsewhere.

Run ``python benchmarks/normalization.py CHECKPOINT VOLUME``. A bead, a capillary's wall and a blank
band are put into the volume, one after the other, and the labels outside of them, and of a margin,
are matched with those of the volume as it is.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import numpy.typing as npt

from isgseg.instances.matching import match_instances
from isgseg.labelling import grey_of, label_volume
from isgseg.model.checkpoint import load_module
from isgseg.normalization import cytoplasm_mode
from isgseg.volume import read_volume

MARGIN = 64  # pixels around what was put in: more than the network sees of a granule
Bools = npt.NDArray[np.bool_]


def intruders(shape: tuple[int, int, int], cytoplasm: float) -> dict[str, tuple[Bools, float]]:
    """What is put in: which pixels of a slice, (y, x), and their value."""
    _, height, width = shape
    y, x = np.indices((height, width))
    return {
        "bead, 200 px wide": (np.hypot(y - 110, x - 110) < 100, 5 * cytoplasm),
        "capillary wall": (abs(x - 0.2 * y - 40) < 6, 3 * cytoplasm),
        "blank band, 8 %": (y < 0.08 * height, 0.0),
    }


def main() -> None:
    """Prints one row for each of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("volume")
    parser.add_argument("--slices", type=int, default=16)
    arguments = parser.parse_args()
    module = load_module(arguments.checkpoint)
    source = read_volume(arguments.volume)
    data = source.data[: arguments.slices].astype(np.float32)

    def label(volume: npt.NDArray[np.float32]) -> tuple[float, npt.NDArray[Any]]:
        grey = grey_of(module, volume, "volume")
        granules = label_volume(module, volume, grey, voxel_size=source.voxel_size)
        return grey.high, granules.labels

    before, labels = label(data)
    print(f"{'':20}{'cytoplasm':>12}{'granules':>10}{'matched':>9}{'lost':>6}{'new':>5}")
    for name, (inside, value) in intruders(data.shape, cytoplasm_mode(data)).items():
        volume = data.copy()
        volume[:, inside] = value
        after, changed = label(volume)
        near = np.pad(inside, MARGIN)
        for axis in (0, 1):  # a square around each pixel that was changed
            near = np.any([np.roll(near, k, axis) for k in range(-MARGIN, MARGIN + 1)], axis=0)
        elsewhere = ~near[MARGIN:-MARGIN, MARGIN:-MARGIN]
        found = match_instances(changed * elsewhere, labels * elsewhere)
        print(
            f"{name:20}{after / before - 1:+12.2%}{found.tp + found.fn:10}{found.tp:9}"
            f"{found.fn:6}{found.fp:5}"
        )


if __name__ == "__main__":
    main()
