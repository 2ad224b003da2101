from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import Array, Compose, balls, save_pair

from isgseg.evaluate import evaluate
from isgseg.evaluation.tables import table
from isgseg.io.volumes import write_volume
from isgseg.predict import predict

NAMES = {
    f"{kind}_{name}"
    for kind in ("bbox", "segm")
    for name in (
        *("map", "map_50", "map_75", "mar_100"),
        *("map_uncapped", "map_50_uncapped", "map_75_uncapped", "mar_uncapped"),
    )
}


def options(trained: Path, root: Path, *more: str) -> list[str]:
    return [
        f"ckpt_path={trained / 'isg_mask_rcnn_best.pth'}",
        f"data.root={root}",
        "data.num_workers=0",
        "precision=32-true",
        "progress=false",
        "device=cpu",
        *more,
    ]


def test_scores_are_those_of_training_and_go_to_a_file(
    trained: Path, coco_root: Path, config: Compose, tmp_path: Path
) -> None:
    scores = evaluate(config("evaluate", *options(trained, coco_root)))
    sizes, points = scores["by_diameter"], scores["operating_points"]
    assert set(scores) == NAMES | {"by_diameter", "operating_points"}
    assert all(0 <= scores[name] <= 1 for name in NAMES)
    assert sum(row["objects"] for row in sizes) == points["best"]["ground_truths"] == 10
    assert points["best"]["f1"] >= points["checkpoint"]["f1"] > 0.5
    assert scores["segm_map_50"] > 0.5  # it has learnt the discs
    assert scores["segm_map"] == scores["segm_map_uncapped"]  # no image holds 100 objects
    written = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert written == scores
    assert (tmp_path / "evaluate" / "scores.png").stat().st_size > 0


def test_the_best_thresholds_are_told_of_a_checkpoint_that_was_not_tuned(
    trained: Path, coco_root: Path, config: Compose, tmp_path: Path
) -> None:
    path = trained / "isg_mask_rcnn_final.pth"
    tuned = evaluate(config("evaluate", *options(trained, coco_root, f"ckpt_path={path}")))
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["operating_point"] = None
    content["thresholds"] = None
    torch.save(content, tmp_path / "untuned.pth")
    untuned = evaluate(
        config("evaluate", *options(trained, coco_root, f"ckpt_path={tmp_path / 'untuned.pth'}"))
    )
    points = untuned["operating_points"]
    assert points["checkpoint"]["threshold"] == points["checkpoint"]["mask_threshold"] == 0.5
    assert points["best"] == tuned["operating_points"]["best"]
    assert points["best"]["f1"] >= points["checkpoint"]["f1"]


@pytest.mark.parametrize("unit", ["nm", "pixels"])
def test_diameters_are_in_nm_where_the_voxel_size_is_known(
    trained: Path, coco_root: Path, config: Compose, tmp_path: Path, unit: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "val").symlink_to(coco_root / "val")
    if unit == "nm":
        (root / "dataset.yaml").write_text("voxel_size: [30, 30, 30]\n")
    edges = {"nm": "[200,320]", "pixels": "[7,10.5]"}
    some = evaluate(
        config("evaluate", *options(trained, root, f"data.diameters.{unit}={edges[unit]}"))
    )
    (row,) = some["by_diameter"]  # all discs are 10 pixels, 300 nm
    assert (row["from"], row["to"]) == {"nm": (200, 320), "pixels": (7, 10.5)}[unit]
    assert row["objects"] == 10
    with pytest.raises(ValueError, match=rf"data\.diameters\.{unit}=\[9, 4\] must be positive"):
        evaluate(config("evaluate", *options(trained, root, f"data.diameters.{unit}=[9,4]")))


def test_the_split_is_a_choice(trained: Path, coco_root: Path, config: Compose) -> None:
    val = evaluate(config("evaluate", *options(trained, coco_root)))
    train = evaluate(config("evaluate", *options(trained, coco_root, "data.split=train")))
    assert val != train
    with pytest.raises(FileNotFoundError, match=r"test/annotations\.json"):
        evaluate(config("evaluate", *options(trained, coco_root, "data.split=test")))


def test_other_preparation_is_warned_of(
    trained: Path,
    coco_root: Path,
    config: Compose,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for split in ("train", "val"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / split).symlink_to(coco_root / split)
    (tmp_path / "root" / "dataset.yaml").write_text("normalization: {method: mode}\nz_context: 1\n")
    evaluate(config("evaluate", *options(trained, tmp_path / "root")))
    assert "normalization differs" in caplog.text
    assert "z_context differs" in caplog.text


def test_the_table_shows_both_caps() -> None:
    scores = {name: 0.25 for name in NAMES} | {"segm_mar_uncapped": 0.875}
    lines = table(scores).splitlines()
    assert lines[-1].split() == ["recall", "0.250", "0.250", "0.250", "0.875"]
    assert lines[2].startswith("mAP@[.50:.95]")


def test_the_console_script_scores(trained: Path, coco_root: Path, tmp_path: Path) -> None:
    arguments = options(trained, coco_root, f"output_dir={tmp_path}", f"paths.root={tmp_path}/out")
    run = subprocess.run(
        [sys.executable, "-m", "isgseg.evaluate", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "mAP@.50" in run.stdout + run.stderr
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert set(written) == NAMES | {"by_diameter", "operating_points"}


SIZE = (30.0, 30.0, 30.0)
SCENE = (20, 60, 60)


def boxes(*corners: tuple[tuple[int, int, int], tuple[int, int, int]]) -> Array:
    """A label volume of boxes, each given by its first voxel and its shape, (z, y, x)."""
    labels = np.zeros(SCENE, np.uint16)
    for number, ((z, y, x), (d, h, w)) in enumerate(corners, start=1):
        labels[z : z + d, y : y + h, x : x + w] = number
    return labels


CUBE = (8, 8, 8)
TRUTH = boxes(
    ((6, 4, 4), CUBE),  # found
    ((6, 4, 24), CUBE),  # found, 2 voxels aside: IoU .6
    ((6, 4, 44), CUBE),  # split
    ((6, 24, 4), CUBE),  # merged with the next
    ((6, 24, 12), CUBE),
    ((6, 24, 44), CUBE),  # missed
)
PREDICTED = boxes(
    ((6, 4, 4), CUBE),
    ((6, 4, 26), CUBE),
    ((6, 4, 44), (8, 8, 3)),
    ((6, 4, 49), (8, 8, 3)),
    ((6, 24, 4), (9, 8, 16)),
    ((6, 44, 4), (4, 4, 4)),  # spurious
)


@pytest.fixture
def scene(tmp_path: Path) -> list[str]:
    """A volume with ground truth and prediction of which all scores are known."""
    normalizer = np.random.default_rng(0).normal(1, 0.1, SCENE) + (TRUTH > 0)
    save_pair(tmp_path, "scene", normalizer.astype(np.float32), TRUTH)
    write_volume(tmp_path / "made.tif", PREDICTED, None)
    return [
        f"volumes={tmp_path / 'scene.mrc'}",
        f"labels={tmp_path / 'scene_labels.mrc'}",
        f"predicted={tmp_path / 'made.tif'}",
    ]


def test_label_volumes_that_are_there_already_have_known_scores(
    scene: list[str], config: Compose, tmp_path: Path
) -> None:
    scores = evaluate(config("evaluate", *scene, "diameters=[200]"))
    (numbers,) = scores["volumes"].values()
    assert numbers == scores["pooled"]
    by_diameter, f1_at = numbers.pop("by_diameter"), numbers.pop("f1_at")
    assert numbers.pop("instances") == "numbers"  # how the ground truth was read
    assert numbers == pytest.approx(
        {
            **{"true": 6, "predicted": 6, "tp": 2, "fp": 4, "fn": 4, "splits": 1, "merges": 1},
            **{"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "rq": 1 / 3},
            **{"sq": 0.8, "pq": 0.8 / 3, "count_error": 0, "count_error_relative": 0},
            "mean_average_precision": (3 * 4 / 8 + 3 / 9 + 2 * 2 / 10 + 3 * 1 / 11) / 9,
        }
    )
    assert list(f1_at) == ["0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9"]
    assert list(f1_at.values()) == pytest.approx([4 / 6] * 3 + [3 / 6] + [2 / 6] * 2 + [1 / 6] * 3)
    counts = {"ground_truth": 0, "false_negatives": 0, "predicted": 1, "false_positives": 1}
    assert by_diameter[0] == {"from_nm": 0, "to_nm": 200, **counts}
    assert by_diameter[1] == {
        **{"from_nm": 200, "to_nm": None},
        **{"ground_truth": 6, "false_negatives": 4, "predicted": 5, "false_positives": 3},
    }
    assert json.loads((tmp_path / "evaluate" / "metrics.json").read_text()) == evaluate(
        config("evaluate", *scene, "diameters=[200]")
    )


def test_every_instance_of_both_sides_has_its_outcome(
    scene: list[str], config: Compose, tmp_path: Path
) -> None:
    evaluate(config("evaluate", *scene))
    table = pd.read_csv(tmp_path / "evaluate" / "instances.csv")
    assert (table["file"] == str(tmp_path / "scene.mrc")).all()
    ground_truth, predicted = (
        table[table["side"] == side] for side in ("ground_truth", "predicted")
    )
    assert ground_truth["label"].tolist() == predicted["label"].tolist() == [1, 2, 3, 4, 5, 6]
    assert ground_truth["outcome"].tolist() == [
        *["matched"] * 2,
        "split",
        *["merged"] * 2,
        "false_negative",
    ]
    assert predicted["outcome"].tolist() == [
        *["matched"] * 2,
        *["split"] * 2,
        *["merged", "false_positive"],
    ]
    assert ground_truth["iou"].tolist() == pytest.approx([1, 0.6, 0, 0, 0, 0])
    false_negatives = ground_truth.iloc[-1]
    assert false_negatives[["centroid_z", "centroid_y", "centroid_x"]].tolist() == [9.5, 27.5, 47.5]
    assert false_negatives["equivalent_diameter_nm"] == pytest.approx(
        30 * (512 * 6 / np.pi) ** (1 / 3)
    )
    assert (tmp_path / "evaluate" / "failures.png").is_file()


def test_several_volumes_are_scored_each_and_together(
    scene: list[str], config: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "more").mkdir()
    for name, labels in (("", TRUTH), ("_labels", TRUTH), ("_made", TRUTH)):
        write_volume(tmp_path / "more" / f"scene{name}.mrc", labels, SIZE)
    more = [
        f"volumes=[{tmp_path}/scene.mrc,{tmp_path}/more/scene.mrc]",
        f"labels={tmp_path}/**/scene_labels.mrc",
        f"predicted=[{tmp_path}/made.tif,{tmp_path}/more/scene_made.mrc]",
    ]
    with caplog.at_level("INFO"):
        scores = evaluate(config("evaluate", *more))
    assert sorted(part["f1"] for part in scores["volumes"].values()) == [pytest.approx(1 / 3), 1]
    assert scores["pooled"]["tp"] == 8
    assert scores["pooled"]["f1"] == pytest.approx(8 / 12)
    lines = caplog.text.splitlines()
    assert sum(line.startswith("scene.mrc") for line in lines) == 2
    (row,) = (line.split() for line in lines if line.startswith("all "))
    assert row[:6] == ["all", "12", "12", "0.667", "0.667", "0.667"]


def test_a_perfect_prediction_has_no_failure_to_show(
    scene: list[str], config: Compose, tmp_path: Path
) -> None:
    perfect = [*scene[:2], f"predicted={tmp_path / 'scene_labels.mrc'}"]
    scores = evaluate(config("evaluate", *perfect))["pooled"]
    assert scores["f1"] == scores["pq"] == scores["mean_average_precision"] == 1
    assert not (tmp_path / "evaluate" / "failures.png").exists()


def test_without_a_voxel_size_there_are_no_nanometres(
    scene: list[str], config: Compose, tmp_path: Path
) -> None:
    for name, labels in (("bare", TRUTH), ("bare_labels", TRUTH)):
        write_volume(tmp_path / f"{name}.npy", labels, None)
    bare = [f"volumes={tmp_path}/bare.npy", f"labels={tmp_path}/bare_labels.npy"]
    scores = evaluate(config("evaluate", *bare, scene[2]))
    assert scores["pooled"]["by_diameter"] is None
    assert scores["pooled"]["f1"] == pytest.approx(1 / 3)


def test_what_cannot_be_scored_is_refused(
    scene: list[str], config: Compose, trained: Path, tmp_path: Path
) -> None:
    volumes, labels, predicted = scene
    checkpoint = f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}"
    for overrides, message in (
        ([], r"data\.root=.* or volumes=.* must be given"),
        (["data.root=x"], "ckpt_path=.* must be given"),
        ([volumes, checkpoint], "labels=.* must be given"),
        ([predicted], "volumes=.* and labels=.* must be given"),
        ([volumes, labels], "ckpt_path=.* and predicted=.* must be given"),
        ([*scene, checkpoint], "one of ckpt_path=.* and predicted="),
        ([*scene, "diameters=[200,100]"], "diameters=.*rise"),
        ([*scene[:2], f"predicted=[{tmp_path}/made.tif,{tmp_path}/scene.mrc]"], "the same files"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(config("evaluate", *overrides))
    write_volume(tmp_path / "other.mrc", TRUTH[1:], SIZE)
    with pytest.raises(ValueError, match=r"other\.mrc are \(19, 60, 60\)"):
        evaluate(config("evaluate", volumes, labels, f"predicted={tmp_path / 'other.mrc'}"))
    assert not (tmp_path / "evaluate").exists()


def test_a_checkpoint_is_scored_by_what_predict_writes(
    trained: Path, coco_root: Path, config: Compose, tmp_path: Path
) -> None:
    data, ground_truth = balls(7, 30)
    data[:, :, :8] += 0.6
    image, label_file = save_pair(tmp_path, "cell", data * 100, ground_truth)
    shared = [
        f"ckpt_path={trained / 'isg_mask_rcnn_final.pth'}",
        f"volumes={image}",
        "normalization={method:window,low:0,high:255}",
        "segmentation.min_overlap=0.3",
        "precision=32-true",
        "progress=false",
        "device=cpu",
    ]
    for threshold in (0.5, 0.99):
        options = [*shared, f"threshold={threshold}"]
        (made,) = predict(config("predict", *options, "overwrite=true"))
        direct = evaluate(config("evaluate", *options, f"labels={label_file}"))
        again = [f"volumes={image}", f"labels={label_file}", f"predicted={made}"]
        assert direct == evaluate(config("evaluate", *again))
        if threshold == 0.5:
            assert direct["pooled"]["f1"] > 0.8
    both = evaluate(config("evaluate", *options, f"labels={label_file}", f"data.root={coco_root}"))
    assert set(both) == NAMES | {"by_diameter", "operating_points", "volumes", "pooled"}
    assert both["pooled"] == direct["pooled"]


def test_patches_across_other_axes_have_the_pixels_of_their_planes(
    trained: Path, config: Compose, tmp_path: Path
) -> None:
    from isgseg.prepare import prepare
    from isgseg.training.evaluation import load_module, split_loader

    for seed, name in enumerate("ab"):
        data, labels = balls(8, seed)
        write_volume(tmp_path / f"{name}.mrc", data, (60.0, 30.0, 30.0))
        write_volume(tmp_path / f"{name}_labels.mrc", labels, (60.0, 30.0, 30.0))
    root = prepare(
        config(
            "prepare",
            f"volumes={tmp_path}/?.mrc",
            f"labels={tmp_path}/*_labels.mrc",
            "val=[b]",
            "patches.axes=[z,y]",
            f"output_dir={tmp_path / 'data'}",
        )
    )
    module = load_module(trained / "isg_mask_rcnn_final.pth")
    loader, sides = split_loader(module, str(root), "val", 2, 0)
    assert sides is not None
    images = loader.dataset.dataset.images  # type: ignore[attr-defined]
    assert len(sides) == len(images)
    for side, image in zip(sides, images, strict=True):
        across_z = image["height"] == 64  # slices across y have the eight rows of z
        assert side == pytest.approx(30 if across_z else (60 * 30) ** 0.5)
