"""How well a network's anchors fit the objects, and which would fit better, before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torchvision.models.detection.anchor_utils import AnchorGenerator

from isgseg.models.settings import has_pooled_level
from isgseg.models.transform import Transform

Floats = npt.NDArray[np.float64]
DENSITIES = (1, 2)  # of anchors, that are tried
_PADDING = 32  # torchvision pads images to a multiple of this


def best_iou(boxes: npt.ArrayLike, images: npt.ArrayLike, network: Mapping[str, Any]) -> Floats:
    """The IoU of each object's box with the anchor that fits it best, of all on the image.

    Exact without trying them all: anchors of one shape stand on a grid, and the overlap with a box
    falls along each axis with the distance of the centres, so that only the nearest can be best.

    Args:
        boxes: (N, 4), xyxy, image pixels.
        images: (N, 2), height and width of the image that each is in.
        network: `model.network` of the configuration, or `build_mask_rcnn`'s keywords.

    Returns:
        (N,).

    Raises:
        ValueError: the anchors have neither as many levels as there are stages nor one more.
    """
    images = np.asarray(images, float).reshape(-1, 2)
    after = network_size(images, network["scale"])
    corners = np.asarray(boxes, float).reshape(-1, 2, 2)[..., ::-1]  # (N, 2, 2): low and high yx
    low, high = np.moveaxis(corners * (after / images)[:, None], 1, 0)
    area = (high - low).prod(1)
    best = np.zeros(len(area))
    for anchors, grid, stride in _levels(after, network):
        nearest = stride * np.clip(np.rint((low + high) / 2 / stride), 0, grid - 1)
        for start, stop in anchors:
            sides = np.minimum(high, nearest + stop) - np.maximum(low, nearest + start)
            overlap = sides.clip(0).prod(1)
            best = np.maximum(best, overlap / (area + (stop - start).prod() - overlap))
    return best


def network_size(images: Floats, scale: float | None) -> Floats:
    """Height and width of images, (N, 2), as the network sees them; see `Transform`."""
    if scale is not None:
        return np.asarray(np.rint(images * scale))
    resize = Transform(None)
    factor = np.minimum(resize.min_size[0] / images.min(1), resize.max_size / images.max(1))
    return np.asarray(np.floor(images * factor[:, None]))


def _levels(
    after: Floats, network: Mapping[str, Any]
) -> Iterator[tuple[Floats, Floats, float | Floats]]:
    """The grid of anchors on each level of the pyramid.

    Args:
        after: (N, 2), height and width of the images as the network sees them.
        network: as in `best_iou`.

    Yields:
        Corners of the anchors around a place of the grid, (A, 2, 2) yx of start and stop; how many
        places there are, (N, 2), the copies of `DenseAnchors` among them; and their distance. All
        in network pixels.
    """
    stages, factor = network["stages"], network["scale"] or 1
    density = network["anchor_density"]
    sizes = tuple(tuple(size * factor for size in level) for level in network["anchor_sizes"])
    pooled = has_pooled_level(stages, sizes)
    # torchvision's own, for it rounds half the sides of an anchor to whole pixels.
    cells = AnchorGenerator(sizes, (tuple(network["anchor_ratios"]),) * len(sizes)).cell_anchors
    anchors = [cell.double().numpy().reshape(-1, 2, 2)[..., ::-1] for cell in cells]
    padded = np.ceil(after / _PADDING) * _PADDING
    for corners, stage in zip(anchors, stages, strict=False):
        yield corners, density * padded / _stride(stage), _stride(stage) / density
    if pooled:  # torchvision's pooled level, whose stride is rounded down
        grid = np.ceil(padded / _stride(stages[-1]) / 2)
        yield anchors[-1], density * grid, padded // grid / density


def _stride(stage: int) -> int:
    """Network pixels between the places of a ResNet stage."""
    return int(2 ** (stage + 1))


@dataclass(frozen=True)
class Candidate:
    """A choice of scale, stages and anchors, and what it brings.

    Attributes:
        scale: network pixels per image pixel; twice the scale is four times the cost.
        anchor_density: copies of each anchor along each axis, which cost little.
        anchor_sizes: image pixels, for each stage.
        pitch: image pixels between anchors of the finest level.
        coverage: share of the objects that an anchor fits.
    """

    scale: float
    anchor_density: int
    anchor_sizes: list[list[float]]
    pitch: float
    coverage: float

    def network(self) -> dict[str, Any]:
        """The keys of `model.network` that it decides."""
        return {key: asdict(self)[key] for key in ("scale", "anchor_density", "anchor_sizes")}


def candidates(
    boxes: Floats,
    images: npt.ArrayLike,
    network: Mapping[str, Any],
    scales: Sequence[float],
    iou: float,
) -> list[Candidate]:
    """For each scale and density of the anchors, the best of some spreads of their sizes.

    Args:
        boxes: (N, 4), xyxy, image pixels.
        images: (N, 2), height and width of the image that each is in.
        network: as in `best_iou`; its stages, ratios and number of sizes on a level are kept.
        scales: to try.
        iou: an anchor fits an object that it overlaps this much.

    Returns:
        The cheapest first.
    """
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    stages = network["stages"]
    count = max(len(level) for level in network["anchor_sizes"])
    found = []
    for scale in scales:
        for density in DENSITIES:
            options = []
            for smallest in np.percentile(sides, [1, 5, 10, 25, 50]):
                sizes = spread(smallest, sides.max(), scale, stages, count, iou, density)
                pitch = _stride(stages[0]) / scale / density
                choice = Candidate(scale, density, sizes, pitch, 0.0)
                fits = best_iou(boxes, images, {**network, **choice.network()}) >= iou
                options.append(replace(choice, coverage=float(fits.mean())))
            found.append(max(options, key=lambda option: option.coverage))
    return sorted(found, key=lambda option: (option.scale, option.anchor_density))


def choose(options: Sequence[Candidate], coverage: float) -> Candidate:
    """The cheapest that reaches the coverage, or if none does, the one that comes nearest."""
    enough = (option for option in options if option.coverage >= coverage)
    return next(enough, max(options, key=lambda option: option.coverage))


def spread(
    smallest: float,
    largest: float,
    scale: float,
    stages: Sequence[int],
    count: int,
    iou: float,
    density: int = 1,
) -> list[list[float]]:
    """Anchor sizes from the smallest to the largest object, geometrically on each level.

    A level begins with the size that fits objects of that size wherever they lie. With places p
    apart, a square of side a is at most p / 2 off the nearest along each axis; of its area a share
    (1 - p / 2a)^2 overlaps, which must be 2 iou / (1 + iou). At IoU 0.5 that is a = 2.7 p.

    Args:
        smallest: side of the smallest anchor, image pixels.
        largest: side of the largest object, image pixels.
        scale: network pixels per image pixel.
        stages: of the ResNet, ascending.
        count: sizes on each level.
        iou: an anchor fits an object that it overlaps this much.
        density: see `DenseAnchors`.

    Returns:
        Image pixels, for each stage, such that torchvision rounds none.
    """
    fit = 0.5 / (1 - np.sqrt(2 * iou / (1 + iou)))
    starts = [fit * _stride(stage) / scale / density for stage in stages]
    starts[0] = min(smallest, starts[0])
    ends = [*starts[1:], max(2 * starts[-1], largest)]
    levels, half = [], 0  # half a side in network pixels is a whole number, larger each time
    for start, end in zip(starts, ends, strict=True):
        level = []
        for side in np.geomspace(start, end, count, endpoint=False):
            half = max(half + 1, round(side * scale / 2))
            level.append(round(2 * half / scale, 3))
        levels.append(level)
    return levels
