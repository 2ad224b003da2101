"""How well touching granules are told apart, from true masks and from what the network found.

Run `python benchmarks/split.py --output benchmarks/results/split.json`. It compares connected
components, the published blob fit (Li et al. 2022) and `isgseg.instances.split`.

`--network FOLDER` adds the labels of the shipped network, split once more. The folder holds those
that `isgseg-predict` made of the cells: `python benchmarks/split.py --network FOLDER --predict`
makes both first, in some minutes a cell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from console import run
from record import Result, add_output
from scipy import ndimage as ndi
from scipy.signal import fftconvolve

from isgseg.evaluation.matching import Matching, match_instances
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.split import components, split
from isgseg.io.volumes import read_labels, write_volume
from isgseg.phantom import make_phantom

Array = npt.NDArray[Any]
METHODS: dict[str, Callable[[Array, Array], Array]] = {
    "components": lambda mask, volume: components(mask),
    "blob fit": lambda mask, volume: split(mask, volume, assign="blobfit"),
    "split": lambda mask, volume: split(mask),
}
SEEDS = [1000, 11, 2000, 2001, 2002, 2003, 2004]
NETWORK_SEEDS = [2000, 2001, 2002, 2003, 2004]
CROWDED = {"granule_density": (2.5, 4.0), "touching": (0.2, 0.35)}
CROWDED_SEEDS = [3000, 3001, 3002]
DRAWS, BALLS = 50, 5


def main() -> None:
    """Measures true masks, five balls that touch, and the network's labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_output(parser)
    parser.add_argument("--network", type=Path, metavar="FOLDER", help="of isgseg-predict's labels")
    parser.add_argument("--predict", action="store_true", help="make them first")
    args = parser.parse_args()
    result = Result("Telling touching granules apart", seeds=[*SEEDS, *CROWDED_SEEDS])
    result.details["cells"] = []
    masks(result, "cells", SEEDS, {})
    masks(result, "crowded cells", CROWDED_SEEDS, CROWDED)
    five_balls(result)
    if args.network:
        if args.predict:
            predict(args.network)
        network(result, args.network)
    result.write(args.output)


def masks(result: Result, name: str, seeds: list[int], settings: dict[str, Any]) -> None:
    """The true mask of synthetic cells, split; the details hold each cell."""
    scores: dict[str, list[Matching]] = {method: [] for method in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for seed in seeds:
        cell = make_phantom(seed, **settings)
        for method, apart in METHODS.items():
            start = time.process_time()
            labels = apart(cell.labels > 0, cell.volume)
            seconds[method] += time.process_time() - start
            scores[method].append(match_instances(labels, cell.labels))
            result.details["cells"].append(
                {"kind": name, "seed": seed, "method": method} | numbers(scores[method][-1])
            )
    for method, found in scores.items():
        f1 = float(np.mean([matching.f1 for matching in found]))
        result.add("quality", f"true masks of {name}, {method}: F1", f1)
    gain = min(a.f1 - b.f1 for a, b in zip(scores["split"], scores["components"], strict=True))
    result.add("quality", f"true masks of {name}: least gain in F1", gain, target=">= 0")
    most = max(matching.splits for matching in scores["split"])
    result.add("quality", f"true masks of {name}: most splits of a cell", most, target="<= 1")
    for seed, target in ((1000, 0.944), (11, 0.888)) if not settings else ():
        matching = scores["split"][seeds.index(seed)]
        result.add("quality", f"true mask of cell {seed}: F1", matching.f1, target=f">= {target}")
    for method, spent in seconds.items():
        result.add("speed", f"{name}, {method}: time of the processor", spent / len(seeds), "s")


def numbers(matching: Matching) -> dict[str, float]:
    return {
        "true": matching.tp + matching.fn,
        "f1": round(matching.f1, 4),
        "recall": round(matching.recall, 4),
        "splits": matching.splits,
        "merges": matching.merges,
    }


def five_balls(result: Result) -> None:
    """The synthetic benchmark of Li et al. 2022, with balls: how many of five that touch are found.

    Each is placed at random where it touches the others and overlaps none; all are one component.
    """
    found: dict[str, list[int]] = {method: [] for method in METHODS}
    for seed in range(DRAWS):
        labels, volume = touching_balls(np.random.default_rng(seed))
        for method, apart in METHODS.items():
            found[method].append(match_instances(apart(labels > 0, volume), labels).tp)
    for method, counts in found.items():
        target = ">= 4" if method == "split" else None
        name = f"five touching balls, {method}: mean found"
        result.add("quality", name, float(np.mean(counts)), target=target)


def touching_balls(random: np.random.Generator) -> tuple[Array, Array]:
    """(50, 100, 100) five balls of 5 to 13 voxels, and their tomogram, in 1/um."""
    labels = np.zeros((50, 100, 100), np.uint8)
    volume = random.normal(0.25, 0.02, labels.shape)  # as published
    for number in range(1, BALLS + 1):
        radius = random.uniform(2.5, 6.5)
        side = int(radius) + 2
        grid = np.indices((2 * side + 1,) * 3).T - side - random.uniform(-0.5, 0.5, 3)
        distance = np.sqrt((grid**2).sum(-1)).T
        ball = distance <= radius
        places = np.argwhere(allowed(labels > 0, ball))
        z, y, x = places[random.integers(len(places))] - side
        window = np.s_[z : z + 2 * side + 1, y : y + 2 * side + 1, x : x + 2 * side + 1]
        labels[window][ball] = number
        # A granule's value falls from its middle outward, and differs by 6 % between granules.
        value = random.normal(0.42, 0.025) * (1 - 0.15 * (distance / radius) ** 2)
        volume[window][ball] = (value + random.normal(0, 0.02, ball.shape))[ball]
    return labels, volume


def allowed(mask: Array, ball: Array) -> Array:
    """(z, y, x) where the middle of a ball may lie: inside, on no other, and touching one."""
    side = ball.shape[0] // 2
    kernel = ball[::-1, ::-1, ::-1].astype(float)
    inside = np.zeros(mask.shape, bool)
    inside[side:-side, side:-side, side:-side] = True
    if not mask.any():
        return inside
    free = fftconvolve(mask.astype(float), kernel, mode="same") < 0.5
    near = fftconvolve(ndi.binary_dilation(mask).astype(float), kernel, mode="same") > 0.5
    return inside & free & near


def predict(folder: Path) -> None:
    """Makes the cells, and labels them by the shipped network."""
    for seed in NETWORK_SEEDS:
        cell = make_phantom(seed)
        write_volume(folder / f"cell_{seed}.mrc", cell.volume, cell.voxel_size)
    files = f"volumes={folder}/cell_*.mrc", f"output_dir={folder}"
    run("predict", *files, "progress=false", folder=folder / "run")


def network(result: Result, folder: Path) -> None:
    """The network's labels, as they are and split once more with the settings of the package."""
    settings = SegmentationSettings()
    scores: dict[str, list[Matching]] = {"as they are": [], "split": []}
    for seed in NETWORK_SEEDS:
        truth = make_phantom(seed).labels
        labels = read_labels(folder / f"cell_{seed}_labels.tif").data
        again = split(
            labels,
            height=settings.split_height,
            sigma=settings.split_sigma,
            min_voxels=settings.split_min_voxels,
        )
        for name, found in (("as they are", labels), ("split", again)):
            scores[name].append(match_instances(found, truth))
            entry = {"kind": "the network's labels", "seed": seed, "method": name}
            result.details["cells"].append(entry | numbers(scores[name][-1]))
    pairs = list(zip(scores["split"], scores["as they are"], strict=True))
    f1 = float(np.mean([before.f1 for _, before in pairs]))
    gain = float(np.mean([after.f1 - before.f1 for after, before in pairs]))
    merges = sum(after.merges - before.merges for after, before in pairs)
    splits = max(after.splits - before.splits for after, before in pairs)
    name = "the network's labels of five cells"
    result.add("quality", f"{name}: F1", f1)
    result.add("quality", f"{name}, split again: gain in F1", gain, target=">= 0.007")
    result.add("quality", f"{name}, split again: merges more", merges, target="<= 0")
    result.add("quality", f"{name}, split again: most splits more", splits, target="<= 1")


if __name__ == "__main__":
    main()
