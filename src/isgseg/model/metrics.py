"""COCO scores of detections against truth."""

from __future__ import annotations

import numpy as np
from torchmetrics.detection import MeanAveragePrecision

NO_CAP = 100_000  # detections a picture: more than any picture has
NAMES = ("map", "map_50", "map_75", "mar")


def coco_metric(cap: int = 100) -> MeanAveragePrecision:
    """COCO's box and mask scores, counting `cap` detections a picture.

    COCO counts 100, so that perfect predictions of 150 objects score .66; with `NO_CAP` they score
    1. The backend is faster_coco_eval: pycocotools answers -1 for other caps than 100.
    """
    metric = MeanAveragePrecision(
        iou_type=("bbox", "segm"),
        # torchmetrics' own are rounded to float32, which shifts COCO's scores by up to .0015.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        max_detection_thresholds=[1, 10, cap],
        backend="faster_coco_eval",
    )
    metric.warn_on_many_detections = False  # the cap is a choice here, and the other one is shown
    return metric


def read_scores(metric: MeanAveragePrecision) -> dict[str, float]:
    """`bbox_map`, `segm_map_50`, `segm_mar_100` and the like; -1 where there is no truth at all.

    map is the mean over IoU .50 to .95, mar the recall at the metric's cap, averaged likewise.
    """
    cap = metric.max_detection_thresholds[-1]
    suffix = f"_{cap}" if cap < NO_CAP else "_uncapped"
    values = metric.compute()
    scores = {}
    for kind in ("bbox", "segm"):
        for name in NAMES:
            key = f"{kind}_mar_{cap}" if name == "mar" else f"{kind}_{name}"
            scores[f"{kind}_{name}{suffix if name == 'mar' or cap == NO_CAP else ''}"] = float(
                values[key]
            )
    return scores
