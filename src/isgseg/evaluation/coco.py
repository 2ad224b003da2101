"""Scores of detections against ground truth: COCO's, and what the operating point is tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.detection import MeanAveragePrecision
from torchmetrics.utilities import dim_zero_cat

from isgseg.evaluation.thresholds import MASK_THRESHOLDS, Matches, match

UNCAPPED = 100_000  # detections an image: more than any image has
NAMES = ("map", "map_50", "map_75", "mar")
# torchmetrics' own are rounded to float32, which shifts COCO's scores by up to .0015.
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def coco_metric(most: int = 100) -> MeanAveragePrecision:
    """COCO's box and mask scores, counting the `most` best detections of an image.

    COCO counts 100, so that perfect predictions of 150 objects score .66; with `UNCAPPED` they
    score 1. The backend is faster_coco_eval: pycocotools answers -1 for other maxima than 100.
    """
    metric = MeanAveragePrecision(
        iou_type=("bbox", "segm"),
        iou_thresholds=IOUS.tolist(),
        rec_thresholds=RECALLS.tolist(),
        max_detection_thresholds=[1, 10, most],
        backend="faster_coco_eval",
        sync_on_compute=False,  # isgseg.training.sharing does
    )
    metric.warn_on_many_detections = False  # a choice here, and both scores are shown
    return metric


def read_scores(metric: MeanAveragePrecision) -> dict[str, float]:
    """`bbox_map`, `segm_map_50`, `segm_mar_100` and the like; -1 without any ground truth.

    map is the mean over IoU .50 to .95, mar the recall at the metric's maximum, averaged likewise.
    """
    most = metric.max_detection_thresholds[-1]
    suffix = f"_{most}" if most < UNCAPPED else "_uncapped"
    values = metric.compute()
    scores = {}
    for kind in ("bbox", "segm"):
        for name in NAMES:
            key = f"{kind}_mar_{most}" if name == "mar" else f"{kind}_{name}"
            scores[f"{kind}_{name}{suffix if name == 'mar' or most == UNCAPPED else ''}"] = float(
                values[key]
            )
    return scores


def scores_by_diameter(
    metric: MeanAveragePrecision,
    edges: Sequence[float] | None = None,
    pixel: float | Sequence[float] = 1.0,
) -> list[dict[str, Any]]:
    """Mask scores of the objects of each size, by COCO's rule for area ranges, all detections.

    An object outside of a range neither counts there nor makes its detection a false positive; a
    detection that matches none counts where its own size belongs.

    Args:
        metric: a metric of `coco_metric`, with all its images.
        edges: diameters of a disc of the same area that part the bins, rising; None: quartiles.
        pixel: side of a pixel, in the unit of the edges; of all images, or of each.

    Returns:
        For each bin that has an object `from` and `to` (None: any), in that unit, `objects`, `map`
        and `recall`, means over IoU .50 to .95, and `map_50`.
    """
    pixels = np.broadcast_to(np.asarray(pixel, np.float64), len(metric.groundtruth_mask))
    ground_truth = _coco(metric.groundtruth_mask, metric.groundtruth_labels, pixels)
    found = _coco(metric.detection_mask, metric.detection_labels, pixels, metric.detection_scores)
    found.dataset["categories"] = ground_truth.dataset["categories"]
    areas = np.array([entry["area"] for entry in ground_truth.dataset["annotations"]])
    if not len(areas):
        return []
    if edges is None:  # half a pixel beside any area: COCO counts both ends of a range
        least = float(pixels.min()) ** 2
        inner = np.unique(np.floor(np.quantile(areas / least, [0.25, 0.5, 0.75])) + 0.5) * least
        edges = (2 * np.sqrt(inner / np.pi)).tolist()
    bins = list(pairwise([0.0, *edges, np.inf]))
    ranges = [[np.pi / 4 * min(side, 1e9) ** 2 for side in ends] for ends in bins]
    for coco in (ground_truth, found):
        coco.createIndex()
    evaluation = COCOeval_faster(ground_truth, found, "segm", print_function=lambda *text: None)
    settings = evaluation.params
    settings.iouThrs, settings.recThrs, settings.maxDets = IOUS, RECALLS, [UNCAPPED]
    settings.areaRng, settings.areaRngLbl = ranges, [str(ends) for ends in bins]
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    rows = []
    for index, ((low, high), (smallest, largest)) in enumerate(zip(bins, ranges, strict=True)):
        objects = int(((areas >= smallest) & (areas <= largest)).sum())
        if objects:
            rows.append(
                {
                    "from": low,
                    "to": None if high == np.inf else high,
                    "objects": objects,
                    "map": _mean(precision[:, :, :, index]),
                    "map_50": _mean(precision[0, :, :, index]),
                    "recall": _mean(recall[:, :, index]),
                }
            )
    return rows


def _coco(
    masks: Sequence[Any],
    labels: Sequence[Tensor],
    pixels: npt.NDArray[np.float64],
    scores: Sequence[Tensor] = (),
) -> COCO:
    """What a metric holds of all images, as COCO's own object; the index is not yet made.

    Areas are in the unit of the pixels' sides, squared.
    """
    annotations: list[dict[str, Any]] = []
    images = [{"id": image, "height": 0, "width": 0} for image in range(len(masks))]
    for image, (rles, numbers) in enumerate(zip(masks, labels, strict=True)):
        for index, ((size, counts), number) in enumerate(zip(rles, numbers.tolist(), strict=True)):
            rle = {"size": list(size), "counts": counts}
            images[image] |= {"height": size[0], "width": size[1]}
            entry = {"id": len(annotations) + 1, "image_id": image, "category_id": number}
            entry |= {"segmentation": rle, "iscrowd": 0}
            entry["area"] = float(coco_mask.area(rle)) * float(pixels[image]) ** 2
            annotations.append(entry | ({"score": float(scores[image][index])} if scores else {}))
    coco = COCO()
    coco.dataset = {
        "images": images,
        "categories": [{"id": number} for number in {a["category_id"] for a in annotations}],
        "annotations": annotations,
    }
    return coco


def _mean(values: Any) -> float:
    """The mean over what is defined: COCO marks with -1 what has no ground truth."""
    return float(values[values >= 0].mean())


class MatchMetric(Metric):
    """Collects the `Matches` of many images.

    Args:
        mask_thresholds: at which masks are drawn.
    """

    full_state_update = False
    scores: list[Tensor]
    hits: list[Tensor]
    ground_truths: Tensor

    def __init__(self, mask_thresholds: Sequence[float] = MASK_THRESHOLDS) -> None:
        super().__init__(sync_on_compute=False)
        self.mask_thresholds = tuple(mask_thresholds)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("hits", [], dist_reduce_fx="cat")
        self.add_state("ground_truths", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, found: list[dict[str, Tensor]], ground_truth: list[dict[str, Tensor]]) -> None:
        """Adds images.

        Args:
            found: of each image `scores` (N,), `labels` (N,), `mask_probs` (N, M, M) mask
                probabilities and `mask_boxes` (N, 4), where they lie.
            ground_truth: of each image `masks` (K, H, W) and `labels` (K,).
        """
        for guess, target in zip(found, ground_truth, strict=True):
            hits = match(
                guess["mask_probs"].numpy(),
                guess["mask_boxes"].numpy(),
                guess["scores"].numpy(),
                target["masks"].numpy(),
                (guess["labels"][:, None] == target["labels"]).numpy(),
                self.mask_thresholds,
            )
            self.scores.append(guess["scores"])
            self.hits.append(torch.from_numpy(hits))
            self.ground_truths += len(target["labels"])

    def compute(self) -> Matches:
        """All images together."""
        return Matches(
            dim_zero_cat(self.scores).cpu().numpy(),
            dim_zero_cat(self.hits).cpu().numpy(),
            int(self.ground_truths),
            self.mask_thresholds,
        )
