from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from conftest import real_data
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from isgseg.model.metrics import NO_CAP, coco_metric, read_scores


def squares(count: int) -> dict[str, torch.Tensor]:
    masks = torch.zeros(count, 256, 256, dtype=torch.bool)
    boxes = []
    for i in range(count):
        y, x = 16 * (i // 16), 16 * (i % 16)
        masks[i, y : y + 6, x : x + 6] = True
        boxes.append([x, y, x + 6, y + 6])
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "labels": torch.ones(count, dtype=torch.int64),
        "masks": masks,
    }


def score(cap: int, *pairs: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> Any:
    metric = coco_metric(cap)
    for predicted, truth in pairs:
        scores = torch.linspace(1, 0.5, len(predicted["boxes"]))
        metric.update([{**predicted, "scores": scores}], [truth])
    return read_scores(metric)


def test_perfect_predictions_of_150_objects_score_one_without_the_cap() -> None:
    many = squares(150)
    capped, uncapped = score(100, (many, many)), score(NO_CAP, (many, many))
    assert capped["segm_map"] == pytest.approx(0.663, abs=0.001)
    assert capped["segm_mar_100"] == pytest.approx(100 / 150)
    for kind in ("bbox", "segm"):
        for name in ("map", "map_50", "map_75", "mar"):
            assert uncapped[f"{kind}_{name}_uncapped"] == 1.0


def test_false_positives_on_an_empty_picture_count() -> None:
    some, none = squares(10), squares(0)
    alone = score(100, (some, some))["segm_map"]
    with_empty = score(100, (some, some), (squares(10), none))["segm_map"]
    assert alone == 1.0
    assert with_empty < 0.99


def test_masks_are_scored_not_only_boxes() -> None:
    truth = squares(10)
    masks = truth["masks"].clone()
    masks[:, ::2] = False
    scores = score(100, ({**truth, "masks": masks}, truth))
    assert scores["bbox_map"] == 1.0
    assert scores["segm_map"] == 0.0 or scores["segm_map"] < 0.2


def test_nothing_against_nothing_is_minus_one() -> None:
    assert score(100, (squares(0), squares(0)))["segm_map"] == -1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("results", "kind", "published"),
    [
        ("instances_val2014_fakesegm100_results.json", "segm", (0.320, 0.562, 0.299, 0.417)),
        ("instances_val2014_fakebbox100_results.json", "bbox", (0.505, 0.697, 0.573, 0.595)),
    ],
)
def test_public_results_get_their_published_scores(
    results: str, kind: str, published: tuple[float, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_data("coco_known_answer")
    truth = COCO(folder / "instances_val2014_100.json")
    found = defaultdict(list)
    for entry in json.loads((folder / results).read_text()):
        found[entry["image_id"]].append(entry)
    metric = coco_metric()
    for _, image in sorted(truth.imgs.items()):  # equal scores rank in the order of the pictures
        size = (image["height"], image["width"])
        truths, guesses = truth.imgToAnns[image["id"]], found[image["id"]]
        masks = [truth.annToMask(entry) for entry in truths]
        target = {
            "boxes": xyxy(truths),
            "labels": torch.tensor([entry["category_id"] for entry in truths], dtype=torch.int64),
            "masks": torch.from_numpy(np.array(masks, bool).reshape(-1, *size)),
            "iscrowd": torch.tensor([entry["iscrowd"] for entry in truths], dtype=torch.int64),
        }
        masks = [
            coco_mask.decode(entry["segmentation"]) if kind == "segm" else np.zeros(size)
            for entry in guesses
        ]
        boxes = guesses if kind == "bbox" else [{"bbox": [0, 0, 1, 1]} for _ in guesses]
        guess = {
            "boxes": xyxy(boxes),
            "labels": torch.tensor([entry["category_id"] for entry in guesses], dtype=torch.int64),
            "scores": torch.tensor([entry["score"] for entry in guesses]),
            "masks": torch.from_numpy(np.array(masks, bool).reshape(-1, *size)),
        }
        metric.update([guess], [target])
    scores = read_scores(metric)
    got = tuple(scores[f"{kind}_{name}"] for name in ("map", "map_50", "map_75", "mar_100"))
    assert got == pytest.approx(published, abs=0.0005)


def xyxy(entries: list[Any]) -> torch.Tensor:
    boxes = torch.tensor([entry["bbox"] for entry in entries]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes
