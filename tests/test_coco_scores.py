from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from conftest import real_data
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from isgseg.evaluation.coco import UNCAPPED, coco_metric, read_scores, scores_by_diameter


def squares(count: int, sides: Sequence[int] = (6,)) -> dict[str, torch.Tensor]:
    masks = torch.zeros(count, 256, 256, dtype=torch.bool)
    boxes = []
    for i in range(count):
        y, x, side = 16 * (i // 16), 16 * (i % 16), sides[i % len(sides)]
        masks[i, y : y + side, x : x + side] = True
        boxes.append([x, y, x + side, y + side])
    return {
        "boxes": torch.tensor(boxes).float().reshape(-1, 4),
        "labels": torch.ones(count, dtype=torch.int64),
        "masks": masks,
    }


def fill(cap: int, *pairs: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> Any:
    metric = coco_metric(cap)
    for predicted, ground_truth in pairs:
        scores = torch.linspace(1, 0.5, len(predicted["boxes"]))
        metric.update([{**predicted, "scores": scores}], [ground_truth])
    return metric


def score(cap: int, *pairs: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]) -> Any:
    return read_scores(fill(cap, *pairs))


def test_perfect_predictions_of_150_objects_score_one_without_the_cap() -> None:
    many = squares(150)
    capped, uncapped = score(100, (many, many)), score(UNCAPPED, (many, many))
    assert capped["segm_map"] == pytest.approx(0.663, abs=0.001)
    assert capped["segm_mar_100"] == pytest.approx(100 / 150)
    for kind in ("bbox", "segm"):
        for name in ("map", "map_50", "map_75", "mar"):
            assert uncapped[f"{kind}_{name}_uncapped"] == 1.0


def test_false_positives_on_an_empty_image_count() -> None:
    some, none = squares(10), squares(0)
    alone = score(100, (some, some))["segm_map"]
    with_empty = score(100, (some, some), (squares(10), none))["segm_map"]
    assert alone == 1.0
    assert with_empty < 0.99


def test_masks_are_scored_not_only_boxes() -> None:
    ground_truth = squares(10)
    masks = ground_truth["masks"].clone()
    masks[:, ::2] = False
    scores = score(100, ({**ground_truth, "masks": masks}, ground_truth))
    assert scores["bbox_map"] == 1.0
    assert scores["segm_map"] == pytest.approx(0.1)


def test_nothing_against_nothing_is_minus_one() -> None:
    assert score(100, (squares(0), squares(0)))["segm_map"] == -1


def take(objects: dict[str, torch.Tensor], *kept: int) -> dict[str, torch.Tensor]:
    return {name: value[list(kept)] for name, value in objects.items()}


def test_each_diameter_has_its_own_scores() -> None:
    """Squares of 4, 8 and 12 pixels have equivalent diameters of 4.5, 9.0 and 13.5 pixels."""
    ground_truth = squares(6, (4, 8, 12))
    found = take(ground_truth, 0, 1, 3, 5)  # both small ones, one of 8 pixels and one of 12
    found["masks"][3, :, :6] = ground_truth["masks"][5, :, :6] = False
    found["masks"][3, :, 80:84] = False  # a third of the last: IoU .67
    rows = scores_by_diameter(fill(UNCAPPED, (found, ground_truth)), [7, 11])
    assert [(row["from"], row["to"], row["objects"]) for row in rows] == [
        (0, 7, 2),
        (7, 11, 2),
        (11, None, 2),
    ]
    small, medium, large = rows
    assert small["map"] == small["map_50"] == small["recall"] == 1
    half = 51 / 101  # of the recalls at which COCO reads the precision
    assert medium["map"] == medium["map_50"] == pytest.approx(half)
    assert medium["recall"] == 0.5
    assert large["map_50"] == pytest.approx(half)
    assert large["map"] == pytest.approx(half * 4 / 10)  # IoU .50, .55, .60, .65
    assert large["recall"] == pytest.approx(0.5 * 4 / 10)


def test_a_false_positive_counts_where_its_own_size_belongs() -> None:
    ground_truth, none = squares(4, (4, 8)), squares(0)
    metric = fill(UNCAPPED, (squares(2, (8,)), none), (ground_truth, ground_truth))
    small, large = scores_by_diameter(metric, [7])
    assert small["map"] == 1
    assert large["map"] < 0.7
    assert large["recall"] == 1


def test_diameters_are_in_the_unit_of_the_pixel_and_bins_without_objects_left_out() -> None:
    ground_truth = squares(6, (4, 8))
    metric = fill(UNCAPPED, (ground_truth, ground_truth))
    in_nm = scores_by_diameter(metric, [100, 200, 300, 400], pixel=30.0)
    assert [(row["from"], row["to"]) for row in in_nm] == [(100, 200), (200, 300)]
    assert scores_by_diameter(fill(UNCAPPED, (ground_truth, squares(0))), [7]) == []
    false_negatives = scores_by_diameter(fill(UNCAPPED, (squares(0), ground_truth)), [7])
    assert [(row["map"], row["recall"]) for row in false_negatives] == [(0, 0), (0, 0)]


def test_without_edges_the_bins_are_quartiles_of_the_objects() -> None:
    ground_truth = squares(8, (4, 6, 8, 10))
    rows = scores_by_diameter(fill(UNCAPPED, (ground_truth, ground_truth)))
    assert [row["objects"] for row in rows] == [2, 2, 2, 2]
    one_size = squares(8)
    (row,) = scores_by_diameter(fill(UNCAPPED, (one_size, one_size)))
    assert (row["objects"], row["map"]) == (8, 1)


def test_150_objects_of_one_size_all_count() -> None:
    many = squares(150)
    (row,) = scores_by_diameter(fill(UNCAPPED, (many, many)), [3, 10])
    assert row == {"from": 3, "to": 10, "objects": 150, "map": 1, "map_50": 1, "recall": 1}


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
    ground_truth = COCO(folder / "instances_val2014_100.json")
    found = defaultdict(list)
    for entry in json.loads((folder / results).read_text()):
        found[entry["image_id"]].append(entry)
    metric = coco_metric()
    for _, image in sorted(
        ground_truth.imgs.items()
    ):  # equal scores rank in the order of the images
        size = (image["height"], image["width"])
        ground_truths, guesses = ground_truth.imgToAnns[image["id"]], found[image["id"]]
        masks = [ground_truth.annToMask(entry) for entry in ground_truths]
        target = {
            "boxes": xyxy(ground_truths),
            "labels": torch.tensor(
                [entry["category_id"] for entry in ground_truths], dtype=torch.int64
            ),
            "masks": torch.from_numpy(np.array(masks, bool).reshape(-1, *size)),
            "iscrowd": torch.tensor(
                [entry["iscrowd"] for entry in ground_truths], dtype=torch.int64
            ),
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


def test_each_image_has_pixels_of_its_own_size() -> None:
    """A disc of 10 pixels is 300 nm in one image and 600 nm in the other."""
    y, x = np.indices((32, 32)) - 16
    disc = torch.from_numpy(np.hypot(y, x) <= 5)[None]
    target = {"masks": disc, "labels": torch.ones(1, dtype=torch.int64)}
    target["boxes"] = torch.tensor([[11.0, 11, 22, 22]])
    metric = coco_metric(UNCAPPED)
    metric.update([{**target, "scores": torch.ones(1)}] * 2, [target] * 2)
    rows = scores_by_diameter(metric, [200.0, 450.0], [30.0, 60.0])
    assert [(row["from"], row["to"], row["objects"]) for row in rows] == [
        (200.0, 450.0, 1),
        (450.0, None, 1),
    ]
    assert [row["map"] for row in rows] == pytest.approx([1, 1])
    (both,) = scores_by_diameter(metric, [200.0, 450.0], 30.0)
    assert both["objects"] == 2
