"""Bright blobs by Laplacian of Gaussian, grown by a seeded watershed: no training, two settings.

    python run_log.py tune --images grey.npy --labels labels.npy --model FOLDER
    python run_log.py predict --images grey.npy --model FOLDER --output FOLDER

Volumes are `.npy`, (z, y, x) uint8; labels are instances, 0 background. `--background` is the grey
value around objects, 0 to 1: without the option the mid-grey of cytoplasm. `--sigmas` are the
scales of blobs. A volume of one slice is an image.
Blobs are maxima of the scale-normalized Laplacian of Gaussian (Lindeberg 1998). A voxel belongs to
a blob where the smoothed image exceeds the background by a share of what the blob's middle does,
and no farther from it than `REACH` radii; a watershed decides between neighbours. Least response
and share are tuned on labelled volumes, by F1 at IoU .5.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi
from scipy.spatial import cKDTree
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

Array = npt.NDArray[Any]
SIGMAS = (1.4, 1.8, 2.2, 2.7, 3.3, 4.0)  # voxels; a ball of radius r answers most at r / sqrt(3)
RESPONSES = (0.03, 0.045, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.3, 0.4)  # of the grey range
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
FIRST = 0.4  # the share that responses are tuned with
CYTOPLASM = 0.5  # of the grey range, in volumes that isgseg has normalized
REACH = 1.5  # radii
MIN_VOXELS = 20


class Look(NamedTuple):
    """What objects look like.

    Attributes:
        background: grey value around them, 0 to 1.
        sigmas: scales of blobs, voxels.
    """

    background: float = CYTOPLASM
    sigmas: tuple[float, ...] = SIGMAS


GRANULES = Look()


def main() -> None:
    """Tunes the settings, or labels volumes with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["tune", "predict"])
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", default=[])
    parser.add_argument("--model", type=Path, required=True, help="folder of the settings")
    parser.add_argument("--output", type=Path, help="folder of the labels")
    parser.add_argument("--background", type=float, default=CYTOPLASM, help="0 to 1")
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS, help="voxels")
    args = parser.parse_args()
    look = Look(args.background, tuple(args.sigmas))
    kept = args.model / "settings.json"
    if args.step == "tune":
        images = [np.load(path) for path in args.images]
        truths = [np.load(path) for path in args.labels]
        args.model.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(tune(images, truths, look), indent=2) + "\n")
        print(kept.read_text())
        return
    settings = json.loads(kept.read_text())
    args.output.mkdir(parents=True, exist_ok=True)
    for path in args.images:
        labels = segment(np.load(path), settings["response"], settings["share"], look)
        np.save(args.output / path.name, labels)


def tune(
    images: Sequence[Array], truths: Sequence[Array], look: Look = GRANULES
) -> dict[str, float]:
    """The response and the share with the best F1 over all volumes, and that F1.

    First the response at one share, then the share, then the responses beside.
    """
    grey = [image.astype(np.float32) / 255 for image in images]
    found = [blobs(volume, min(RESPONSES), look.sigmas) for volume in grey]
    tried: dict[tuple[float, float], float] = {}

    def f1(response: float, share: float) -> float:
        if (response, share) not in tried:
            counts = np.zeros(3)
            for volume, (places, radii, responses), truth in zip(grey, found, truths, strict=True):
                kept = responses >= response
                labels = grow(volume, places[kept], radii[kept], share, look.background)
                counts += matched(labels, truth)
            tried[response, share] = float(2 * counts[0] / max(counts[1] + counts[2], 1))
            print(
                f"response {response:g}, share {share:g}: {tried[response, share]:.3f}", flush=True
            )
        return tried[response, share]

    response = max(RESPONSES, key=lambda response: f1(response, FIRST))
    share = max(SHARES, key=lambda share: f1(response, share))
    index = RESPONSES.index(response)
    response = max(RESPONSES[max(index - 1, 0) : index + 2], key=lambda value: f1(value, share))
    return {"response": response, "share": share, "f1": f1(response, share)}


def segment(image: Array, response: float, share: float, look: Look = GRANULES) -> Array:
    """(z, y, x) uint8 to instances, uint16."""
    grey = image.astype(np.float32) / 255
    places, radii, _ = blobs(grey, response, look.sigmas)
    return grow(grey, places, radii, share, look.background)


def blobs(
    grey: Array, least: float, sigmas: Sequence[float] = SIGMAS
) -> tuple[Array, Array, Array]:
    """Blobs that answer at least so much, the strongest first; none in the middle of a stronger.

    Returns:
        (N, 3) places, (N,) radii in voxels, and (N,) responses.
    """
    cube = np.stack([-(sigma**2) * ndi.gaussian_laplace(grey, sigma) for sigma in sigmas], axis=-1)
    peaks = peak_local_max(cube, min_distance=1, threshold_abs=least, exclude_border=False)
    responses = cube[tuple(peaks.T)]
    order = np.argsort(-responses, kind="stable")
    places, responses = peaks[order, :3], responses[order]
    axes = sum(side > 1 for side in grey.shape)
    radii = np.sqrt(axes) * np.array(sigmas)[peaks[order, 3]]
    kept = np.ones(len(places), bool)
    tree = cKDTree(places) if len(places) else None
    for index, (place, radius) in enumerate(zip(places, radii, strict=True)):
        if kept[index] and tree is not None:
            near = np.array(tree.query_ball_point(place, radius))
            kept[near[near > index]] = False
    return places[kept], radii[kept], responses[kept]


def grow(
    grey: Array, places: Array, radii: Array, share: float, background: float = CYTOPLASM
) -> Array:
    """Instances around the blobs; those of fewer than `MIN_VOXELS` voxels go."""
    smooth = ndi.gaussian_filter(grey, 0.7)
    seeds = np.zeros(grey.shape, np.int32)
    seeds[tuple(places.T)] = np.arange(1, len(places) + 1)
    mask = np.zeros(grey.shape, bool)
    for place, radius in zip(places, radii, strict=True):
        reach = int(np.ceil(REACH * radius))
        low = np.maximum(place - reach, 0)
        box = tuple(map(slice, low, place + reach + 1))
        grid = np.indices(smooth[box].shape).reshape(3, -1).T + low - place
        near = ((grid**2).sum(1) <= (REACH * radius) ** 2).reshape(smooth[box].shape)
        level = background + share * (smooth[tuple(place)] - background)
        mask[box] |= near & (smooth[box] >= level)
    labels = watershed(-ndi.gaussian_filter(grey, 1.0), seeds, mask=mask)
    small = np.bincount(labels.ravel()) < MIN_VOXELS
    labels[small[labels]] = 0
    return labels.astype(np.uint16)


def matched(labels: Array, truth: Array) -> Array:
    """Pairs above IoU .5, instances found, and true instances."""
    shared, counts = np.unique(
        labels.ravel().astype(np.int64) << 32 | truth.ravel().astype(np.int64), return_counts=True
    )
    a, b = shared >> 32, shared & 0xFFFFFFFF
    size_a, size_b = np.bincount(labels.ravel()), np.bincount(truth.ravel())
    both = (a > 0) & (b > 0)
    union = size_a[a[both]] + size_b[b[both]] - counts[both]
    pairs = np.count_nonzero(counts[both] > 0.5 * union)
    return np.array([pairs, np.count_nonzero(size_a[1:]), np.count_nonzero(size_b[1:])])


if __name__ == "__main__":
    main()
