"""Which granules are found, by how far they stand out from what lies around them.

Run `python benchmarks/visibility.py TRUTH light=LABELS unet=LABELS --output
benchmarks/results/visibility.json`. TRUTH is a folder of phantoms, `<cell>.mrc` with
`<cell>_labels.mrc`. LABELS are folders of `<cell>_labels.tif`, as `isgseg-predict` writes them.

The contrast of a granule is its mean grey value less that of its shell, two voxels thick, over the
standard deviation of the grey values of all shells. The phantom draws granules that hardly differ
from their noise. Nobody would draw them in a real tomogram, and no method finds them. The last
numbers leave them out: a granule below a contrast is then neither found nor missed, and what was
found there is neither right nor wrong.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from record import Result, add_output
from scipy import ndimage as ndi
from skimage.segmentation import expand_labels

from isgseg.evaluation.matching import match_instances
from isgseg.io.volumes import read_labels, read_volume

EDGES = (-np.inf, 0.5, 0.75, 1.0, 1.5, np.inf)
VISIBLE = 1.0
SHELL = 2  # voxels
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Measures recall by contrast, for each method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("truth", type=Path)
    parser.add_argument("labels", nargs="+", metavar="NAME=FOLDER")
    add_output(parser)
    args = parser.parse_args()
    result = Result("Granules found, by their contrast")
    rows = []
    for entry in args.labels:
        name, _, folder = entry.partition("=")
        cells = [outcomes(args.truth, path) for path in sorted(Path(folder).rglob("*_labels.tif"))]
        contrast = np.concatenate([cell[0] for cell in cells])
        found = np.concatenate([cell[1] for cell in cells])
        wrong = sum(cell[2] for cell in cells)
        visible = contrast >= VISIBLE
        result.add("quality", f"{name}: F1 of all granules", f1(found, wrong))
        title = f"{name}: F1 of granules that stand out by {VISIBLE:g} and more"
        result.add("quality", title, f1(found[visible], wrong))
        bins = [(contrast >= low) & (contrast < high) for low, high in pairwise(EDGES)]
        rows.append([name, *(f"{found[inside].mean():.2f}" for inside in bins)])
        shares = [f"{inside.mean():.0%}" for inside in bins]
    result.details["table"] = {
        "caption": f"Recall at IoU .5 by contrast, of {len(contrast)} granules",
        "columns": ["contrast", *(span(*limits) for limits in pairwise(EDGES))],
        "rows": [["share of the granules", *shares], *rows],
    }
    result.write(args.output)


def outcomes(truth: Path, predicted: Path) -> tuple[Floats, npt.NDArray[np.bool_], int]:
    """Of each true granule its contrast and whether it is found at IoU .5; and false positives."""
    cell = predicted.name.removesuffix("_labels.tif")
    labels = np.asarray(read_labels(truth / f"{cell}_labels.mrc").data)
    grey = np.asarray(read_volume(truth / f"{cell}.mrc").data, np.float32)
    matching = match_instances(np.asarray(read_labels(predicted).data), labels)
    granules = matching.ground_truth
    return contrasts(grey, labels, granules.label), granules.outcome == "matched", matching.fp


def contrasts(
    grey: npt.NDArray[np.float32], labels: npt.NDArray[np.integer], index: npt.NDArray[np.integer]
) -> Floats:
    """(N,) of the granules with the numbers of `index`; a granule without a shell has 0."""
    shells = np.where(labels > 0, 0, expand_labels(labels, SHELL))
    around = ndi.mean(grey, shells, index)
    inside = ndi.mean(grey, labels, index)
    difference: Floats = np.asarray(inside, np.float64) - np.asarray(around, np.float64)
    return np.nan_to_num(difference / float(grey[shells > 0].std()))


def f1(found: npt.NDArray[np.bool_], wrong: int) -> float:
    """2 TP / (2 TP + FN + FP), of which true granules are found and how many others are wrong."""
    return float(2 * found.sum() / (found.sum() + len(found) + wrong))


def span(low: float, high: float) -> str:
    """`0.5 to 0.75`, `< 0.5`."""
    if not np.isfinite(low):
        return f"< {high:g}"
    return f">= {low:g}" if not np.isfinite(high) else f"{low:g} to {high:g}"


if __name__ == "__main__":
    main()
