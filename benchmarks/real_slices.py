"""How well a network finds the granules of real soft X-ray slices that people have labelled.

Run `python benchmarks/real_slices.py CHECKPOINT --output benchmarks/results/real_slices.json`. The
slices are a COCO folder with boxes, `sxt_real_dev` of the test data (`--data` names another). They
have no licence and stay out of the repository.

Each slice is one image, scaled so that its cytoplasm's most frequent value is .0101. The centre of
a detection is its mask's centre of mass. The centre of a drawn granule is the middle of its box.
Pairs are a linear assignment of centres up to 3 pixels apart. **The labels are incomplete**:
granules of neighbouring cells are hardly ever drawn, and not all of the labelled cell's. Precision
is a lower bound. Look at each false positive (`--pictures FOLDER`: green is found and drawn, red
is found only, blue is drawn only).
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from record import Result, add_output, public_data
from scipy import ndimage as ndi
from scipy.optimize import linear_sum_assignment

from isgseg.inference.map_segmentation import MapSegmenter, find_granules
from isgseg.inference.masks import label_slice
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume

Floats = npt.NDArray[np.floating]
CYTOPLASM = 0.0101  # LAC per voxel that the most frequent value is scaled to
PIXELS = 3.0  # most between the centres of a pair
THRESHOLDS = np.arange(0.10, 0.851, 0.05).round(2)
WEAKEST = 0.02  # score of the weakest detection that is looked at
WIDTHS = (0.0, 3.5, 5.5, 7.5, 9.5, np.inf)  # of drawn boxes, pixels
IMAGE_SCALE = 3


class Slice(NamedTuple):
    """A labelled slice.

    Attributes:
        name: of its file.
        image: (y, x), the cytoplasm's value is CYTOPLASM.
        boxes: (N, 4), x, y, width, height of what is drawn.
    """

    name: str
    image: Floats
    boxes: Floats


def main() -> None:
    """Scores a checkpoint and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Formatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--pictures", type=Path, help="a folder for an image of every slice")
    add_output(parser)
    arguments = parser.parse_args()
    slices = read_slices(arguments.data)
    predictor = Predictor.from_checkpoint(arguments.checkpoint, progress=False)
    found = [find(predictor, part.image) for part in slices]
    result = score(slices, found)
    print(table(result))
    record(result).write(arguments.output)
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for part, (centres, scores) in zip(slices, found, strict=True):
            kept = centres[scores >= result["best"]["threshold"]]
            draw(part, kept).save(arguments.pictures / f"{Path(part.name).stem}.png")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows the module's text as it is written."""


def default_data() -> Path:
    """`sxt_real_dev` in the folder of the test data."""
    return public_data() / "sxt_real_dev"


def read_slices(folder: Path) -> list[Slice]:
    """The slices of a COCO folder, scaled."""
    content = json.loads((folder / "annotations.json").read_text())
    boxes: dict[int, list[list[float]]] = {entry["id"]: [] for entry in content["images"]}
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append(annotation["bbox"])
    slices = []
    for entry in content["images"]:
        image = np.asarray(Image.open(folder / entry["file_name"]), dtype=np.float64)
        image *= CYTOPLASM / cytoplasm(image)
        drawn = np.array(boxes[entry["id"]], dtype=np.float64).reshape(-1, 4)
        slices.append(Slice(entry["file_name"], image, drawn))
    return slices


def cytoplasm(image: Floats) -> float:
    """The most frequent value of what is brighter than a quarter of the image."""
    bright = image[image > np.percentile(image, 25)]
    counts, edges = np.histogram(bright, 200, tuple(np.percentile(bright, [1, 90])))
    peak = int(np.convolve(counts, np.ones(9), "same").argmax())
    return float((edges[peak] + edges[peak + 1]) / 2)


def record(scores: dict[str, Any]) -> Result:
    """The scores as a result for the report."""
    result = Result(f"Real slices, {scores['slices']} of them; precision is a lower bound")
    best = scores["best"]
    result.add("quality", "real slices: best F1 of centres within 3 px", best["f1"], "", ">= 0.55")
    result.add("quality", "real slices: precision there", best["precision"])
    result.add("quality", "real slices: recall there", best["recall"])
    recall = scores["recall_at_precision_half"]
    result.add("quality", "real slices: recall at precision .5", recall, "", ">= 0.55")
    result.details |= {key: value for key, value in scores.items() if key != "per_slice"}
    return result


def find(predictor: Predictor, image: Floats) -> tuple[Floats, Floats]:
    """The granules of one image, as isgseg labels a slice: each granule once.

    Returns:
        (N, 2) centres of mass (y, x) of the masks, pixels, and (N,) scores.
    """
    volume = Volume(image[None].astype(np.float32), None)
    method: Any = predictor.method
    if isinstance(method, MapSegmenter):
        maps = method.maps(volume, predictor.normalizer(volume))
        thresholds = method.thresholds._replace(object=WEAKEST)
        granules = find_granules(*maps, thresholds, method.settings, None)
        labels, scores = granules.labels[0], granules.score
    else:
        (found,) = method.model.detect(volume.data, predictor.normalizer(volume), WEAKEST)
        labels, scores = label_slice(
            found["masks"],
            found["mask_boxes"],
            found["scores"],
            image.shape,
            threshold=WEAKEST,
        )
    centres = ndi.center_of_mass(labels > 0, labels, np.arange(1, len(scores) + 1))
    return np.array(centres, dtype=np.float64).reshape(-1, 2), scores


def drawn_centres(boxes: Floats) -> Floats:
    """(N, 2) middles (y, x) of (N, 4) boxes x, y, width, height, pixels."""
    return (boxes[:, :2] + boxes[:, 2:] / 2 - 0.5)[:, ::-1]


def match(found: Floats, drawn: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Indices of paired centres, of both lists: as many pairs as possible, then the nearest."""
    distance = np.linalg.norm(found[:, None] - drawn[None], axis=-1)
    rows, columns = linear_sum_assignment(np.where(distance <= PIXELS, distance, 1e6))
    near = distance[rows, columns] <= PIXELS
    return rows[near], columns[near]


def score(slices: list[Slice], found: list[tuple[Floats, Floats]]) -> dict[str, Any]:
    """Precision, recall and F1 at every threshold, the best of them, and false negatives."""
    drawn = [drawn_centres(part.boxes) for part in slices]
    total = sum(len(centres) for centres in drawn)

    def at(threshold: float, only: int | None = None) -> dict[str, float]:
        numbers = range(len(slices)) if only is None else [only]
        kept = {n: found[n][0][found[n][1] >= threshold] for n in numbers}
        pairs = sum(len(match(kept[n], drawn[n])[0]) for n in numbers)
        count = sum(len(centres) for centres in kept.values())
        wanted = sum(len(drawn[n]) for n in numbers)
        return {
            "threshold": float(threshold),
            "precision": round(pairs / max(count, 1), 4),
            "recall": round(pairs / max(wanted, 1), 4),
            "f1": round(2 * pairs / max(count + wanted, 1), 4),
        }

    rows = [at(threshold) for threshold in THRESHOLDS]
    best = max(rows, key=lambda row: row["f1"])
    fine = [at(threshold) for threshold in np.arange(WEAKEST, 0.99, 0.01).round(2)]
    precise = [row["recall"] for row in fine if row["precision"] >= 0.5]
    names = [part.name for part in slices]
    return {
        "slices": len(slices),
        "granules": total,
        "pixels": PIXELS,
        "best": best,
        "recall_at_precision_half": max(precise, default=0.0),
        "thresholds": rows,
        "per_slice": {name: at(best["threshold"], n) for n, name in enumerate(names)},
        "median_score_by_width": by_width(slices, found),
    }


def by_width(slices: list[Slice], found: list[tuple[Floats, Floats]]) -> dict[str, Any]:
    """For each width of a drawn box: how many, the share that has a detection, and its score."""
    widths, scores = [], []
    for part, (centres, values) in zip(slices, found, strict=True):
        rows, columns = match(centres, drawn_centres(part.boxes))
        best = np.zeros(len(part.boxes))
        best[columns] = values[rows]
        widths.append(np.sqrt(part.boxes[:, 2] * part.boxes[:, 3]))
        scores.append(best)
    width, value = np.concatenate(widths), np.concatenate(scores)
    out = {}
    for low, high in pairwise(WIDTHS):
        own = value[(width >= low) & (width < high)]
        seen = own[own > 0]
        out[f"{low:g} to {high:g} px"] = {
            "granules": len(own),
            "detected": round(float((own > 0).mean()), 3) if len(own) else None,
            "median_score": round(float(np.median(seen)), 3) if len(seen) else None,
        }
    return out


def table(result: dict[str, Any]) -> str:
    """The result to read."""
    lines = [f"{result['slices']} slices, {result['granules']} granules drawn"]
    lines.append("threshold  precision  recall    F1")
    for row in result["thresholds"]:
        star = " *" if row == result["best"] else ""
        lines.append("{threshold:9.2f}{precision:11.3f}{recall:8.3f}{f1:8.3f}".format(**row) + star)
    lines.append(f"recall at precision .5: {result['recall_at_precision_half']:.3f}")
    for width, numbers in result["median_score_by_width"].items():
        lines.append(
            f"{width:14s} {numbers['granules']:3d} drawn, {numbers['detected']} of them detected, "
            f"median score {numbers['median_score']}"
        )
    lines += [f"{name[-28:]:28s} F1 {row['f1']:.2f}" for name, row in result["per_slice"].items()]
    return "\n".join(lines)


def draw(part: Slice, centres: Floats) -> Image.Image:
    """The slice, plain and with what is found and drawn."""
    grey = np.clip(part.image / (1.8 * CYTOPLASM) * 255, 0, 255).astype(np.uint8)
    size = (grey.shape[1] * IMAGE_SCALE, grey.shape[0] * IMAGE_SCALE)
    plain = Image.fromarray(grey).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    marked = plain.copy()
    pen = ImageDraw.Draw(marked)
    drawn = drawn_centres(part.boxes)
    hit, wanted = (set(side.tolist()) for side in match(centres, drawn))
    for n, (y, x) in enumerate(centres):
        colour = (60, 255, 60) if n in hit else (255, 60, 60)
        pen.ellipse(circle(y, x, 6), outline=colour)
    for n, (y, x) in enumerate(drawn):
        if n not in wanted:
            pen.ellipse(circle(y, x, 4), outline=(80, 140, 255))
    both = Image.new("RGB", (2 * size[0], size[1]))
    both.paste(plain, (0, 0))
    both.paste(marked, (size[0], 0))
    return both


def circle(y: float, x: float, radius: float) -> list[float]:
    """Box of a circle in the enlarged image, from pixels of the slice."""
    middle, r = (x + 0.5, y + 0.5), radius
    return [IMAGE_SCALE * (c + d) for d in (-r, r) for c in middle]


if __name__ == "__main__":
    main()
