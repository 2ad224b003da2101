"""What the numbers of a label volume become: in prepare, in evaluate, and where training scores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from conftest import Compose, balls, save_pair

from isgseg.data.coco import CocoInstances
from isgseg.errors import InputError
from isgseg.evaluate import evaluate
from isgseg.instances.ground_truth import load_ground_truth
from isgseg.instances.settings import InstanceSettings, SplitSettings
from isgseg.io.labels import check_instances, mask_parts
from isgseg.prepare import prepare

Array = npt.NDArray[Any]
PLACES = [(6, 12, 14), (6, 12, 24), (6, 30, 14), (6, 40, 40)]  # the first two touch
RADIUS = 4.9


def granules() -> tuple[Array, Array]:
    """A volume of 12 slices with four granules, two of which touch; and their numbers."""
    volume, labels = balls(12, 0, side=56, count=0)[0], np.zeros((12, 56, 56), np.uint16)
    for number, place in enumerate(PLACES, start=1):
        offset = (np.indices(labels.shape).T - np.array(place)).T
        labels[((offset**2).sum(0) <= RADIUS**2) & (labels == 0)] = number
    labels[6, 12, 19] = 1  # they touch here
    volume[labels > 0] += 0.6
    return volume, labels


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """`a` has a mask of 255, `b` numbers, and `c`, for validation, a mask of 1."""
    for seed, (name, value) in enumerate({"a": 255, "b": None, "c": 1}.items()):
        volume, labels = granules()
        given = labels if value is None else np.where(labels > 0, value, 0).astype(np.uint8)
        save_pair(tmp_path / "cells", name, volume + np.float32(seed * 1e-3), given)
    return tmp_path / "cells"


def prepared(config: Compose, cells: Path, *more: str) -> Path:
    return prepare(
        config(
            "prepare",
            f"volumes={cells}/*.mrc",
            f"labels={cells}/*_labels.mrc",
            "val=[c]",
            "patches.size=64",
            f"output_dir={cells.parent / 'dataset'}",
            *more,
        )
    )


def recorded(root: Path) -> dict[str, Any]:
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    return {volume["name"]: volume["instances"] for volume in content["volumes"]}


def objects(root: Path, split: str) -> int:
    """In the slice through the middle of all granules."""
    dataset = CocoInstances(root / split)
    names = [entry["file_name"] for entry in dataset.images]
    (index,) = [i for i, name in enumerate(names) if name.startswith(("a_z0006", "c_z0006"))]
    return len(dataset.target(index)["masks"])


def test_prepare_splits_a_mask_says_so_and_records_it(
    cells: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="isgseg")
    root = prepared(config, cells)
    done = recorded(root)
    settings = {"height": 0.005, "sigma": 0.5, "min_voxels": 8, "assign": "watershed"}
    assert done["a"] == done["c"] == {"method": "split", "split": settings}
    assert done["b"] == {"method": "numbers", "split": None}
    assert objects(root, "train") == objects(root, "val") == 4
    assert "a_labels.mrc: there is only one label, 255, and it has 3 separate parts" in caplog.text
    assert "instances=split made 4 granules" in caplog.text
    assert not [line for line in caplog.messages if line.startswith(f"{cells}/b_labels.mrc")]


@pytest.mark.parametrize(
    ("overrides", "number", "record"),
    [
        (["instances=components"], 3, {"method": "components", "split": None}),
        (["instances=numbers"], 1, {"method": "numbers", "split": None}),
        (["instances=split", "split.height=4"], 3, {"height": 4.0}),
        (["instances=split", "split.sigma=9"], 3, {"sigma": 9.0}),
        (["instances=split", "split.min_voxels=1000"], 3, {"min_voxels": 1000}),
        (["split.assign=blobfit"], None, {"assign": "blobfit"}),
    ],
)
def test_each_way_is_a_choice(
    cells: Path,
    config: Compose,
    overrides: list[str],
    number: int | None,
    record: dict[str, Any],
) -> None:
    root = prepared(config, cells, *overrides)
    done = recorded(root)["a"]
    assert (done | (done["split"] or {})).items() >= (record.items() if record else set())
    if number is not None:
        assert objects(root, "train") == number


def test_evaluate_refuses_a_mask_and_scores_what_is_asked_for(
    cells: Path, config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isgseg.evaluation.volumes.failure_figure", lambda _, path: path)  # slow
    (cells / "b_labels.mrc").rename(tmp_path / "c_made.mrc")
    made = [
        f"volumes={cells}/c.mrc",
        f"labels={cells}/c_labels.mrc",
        f"predicted={tmp_path}/c_made.mrc",
    ]
    with pytest.raises(InputError, match=r"c_labels\.mrc: there is only one label, 1, .* a mask.*"):
        evaluate(config("evaluate", *made))
    found = {}
    for method in ("numbers", "components", "split"):
        scores = evaluate(config("evaluate", *made, f"instances={method}"))
        found[method] = scores["pooled"]["true"], scores["pooled"]["f1"]
        assert scores["volumes"][f"{cells}/c.mrc"]["instances"] == method
    assert found["numbers"][0] == 1
    assert found["components"][0] == 3
    assert found["split"] == (4, 1.0)
    coarse = evaluate(config("evaluate", *made, "instances=split", "split.height=4"))
    assert coarse["pooled"]["true"] == 3


def test_training_scores_against_what_was_learnt_from(
    cells: Path, config: Compose, trained: Path
) -> None:
    from isgseg.training.evaluation import load_module
    from isgseg.training.volume_score import VolumeScore

    module = load_module(trained / "isg_mask_rcnn_final.pth")
    for method, number in (("components", 3), ("auto", 4)):
        root = prepared(config, cells, f"instances={method}", "overwrite=true")
        trainer: Any = SimpleNamespace(
            datamodule=SimpleNamespace(root=root), global_rank=0, world_size=1
        )
        score = VolumeScore(slices=None)
        score.setup(trainer, module, "validate")
        (part,) = score.parts
        assert len(np.unique(part.ground_truth)) - 1 == number
        named = VolumeScore(volume=f"{cells}/c.mrc", labels=f"{cells}/c_labels.mrc")
        named.setup(trainer, module, "validate")
        assert np.array_equal(named.parts[0].ground_truth, part.ground_truth)


def test_a_mask_of_one_piece_is_one_granule(tmp_path: Path) -> None:
    volume, labels = granules()
    one = save_pair(tmp_path, "one", volume, np.where(labels == 3, 1, 0).astype(np.uint8))
    read = load_ground_truth(*one, refuse_masks=True)
    assert read.made.method == "numbers"
    assert read.labels.data.max() == 1


def test_blobfit_sees_the_tomogram(tmp_path: Path) -> None:
    volume, labels = granules()
    volume = np.ones_like(volume)
    for place in PLACES:  # a bright middle each
        offset = (np.indices(volume.shape).T - np.array(place)).T
        volume += np.exp(-(offset**2).sum(0) / 20).astype(np.float32)
    files = save_pair(tmp_path, "cell", volume, (labels > 0).astype(np.uint8))
    settings = InstanceSettings(method="split", split=SplitSettings(assign="blobfit"))
    assert load_ground_truth(*files, settings).labels.data.max() == 4


def test_a_mask_is_one_number_in_several_parts() -> None:
    _, labels = granules()
    assert mask_parts(labels) == 0
    assert mask_parts((labels > 0).astype(np.uint8)) == 3
    assert mask_parts(np.where(labels == 4, 9, 0)) == 1
    assert mask_parts(np.zeros((2, 2, 2), np.uint8)) == 0


def grid(count: int) -> Array:
    """Boxes of 3 voxels a side, well apart, numbered."""
    labels = np.zeros((40, 200, 40), np.uint16)
    for number in range(count):
        z, y, x = 8 * (number // 125), 8 * (number // 5 % 25), 8 * (number % 5)
        labels[z : z + 3, y : y + 3, x : x + 3] = number + 1
    return labels


def test_numbers_with_distant_parts_are_told_from_one_in_twenty_on() -> None:
    labels = grid(300)
    assert check_instances(labels, "a.tif") == []
    few = np.where(labels > 290, labels - 250, labels).astype(np.uint16)  # 10 of 290
    assert check_instances(few, "a.tif") == []
    many = np.where(labels > 280, labels - 250, labels).astype(np.uint16)  # 20 of 280
    (reason,) = check_instances(many, "a.tif", "Do this.")
    assert "20 of 280 labels, such as 31, have parts of 8 voxels or more" in reason
    assert reason.endswith("Do this.")
    wrapped = np.where(labels > 255, labels - 255, labels).astype(np.uint8)  # 45 twice
    (reason,) = check_instances(wrapped, "a.tif")
    assert "8-bit numbers that began again after 255" in reason


def test_crumbs_are_no_distant_parts() -> None:
    labels = grid(20)
    for number in range(1, 6):
        z, y, x = np.argwhere(labels == number)[0]
        labels[z, y + 5, x] = number
    assert check_instances(labels, "a.tif") == []
