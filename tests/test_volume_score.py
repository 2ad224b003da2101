"""The callback that scores a volume during training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import TINY_NETWORK, TINY_RUN, Compose, balls, save_pair
from omegaconf import OmegaConf

from isgseg.data.normalization import Normalizer
from isgseg.errors import InputError
from isgseg.evaluate import evaluate
from isgseg.evaluation.thresholds import SLACK, best_point
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.settings import SegmentationSettings
from isgseg.io.volumes import Volume
from isgseg.models.settings import Thresholds
from isgseg.train import train
from isgseg.training.evaluation import load_module
from isgseg.training.part_matches import Part, match_part
from isgseg.training.volume_score import fullest


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data, ground_truth = balls(5, 30)
    data[:, :, :8] += 0.6
    return save_pair(tmp_path_factory.mktemp("cell"), "cell", data * 100, ground_truth)


@pytest.fixture
def root(coco_root: Path, tmp_path: Path) -> Path:
    """`coco_root` with the grey values that its images were made with."""
    for split in ("train", "val"):
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "root" / split).symlink_to(coco_root / split)
    metadata = "normalization: {method: window, low: 0, high: 255}\ncontext: 0\n"
    (tmp_path / "root" / "dataset.yaml").write_text(metadata)
    return tmp_path / "root"


def run(config: Compose, root: Path, trained: Path, *overrides: str) -> float | None:
    return train(
        config(
            "train",
            *TINY_NETWORK,
            *TINY_RUN,
            *overrides,
            f"data.root={root}",
            f"model.weights={trained / 'isg_mask_rcnn_final.pth'}",
            "trainer.check_val_every_n_epoch=1",
            "logger=[]",
            "~callbacks.learning_rate",
        )
    )


def scored(cell: tuple[Path, Path]) -> list[str]:
    return [
        "callbacks.volume_score.slices=null",
        f"callbacks.volume_score.volume={cell[0]}",
        f"callbacks.volume_score.labels={cell[1]}",
    ]


@pytest.mark.parametrize("threshold", [0.5, 0.999])
def test_it_is_the_f1_that_evaluate_gives_the_averaged_weights_of_the_checkpoint(
    config: Compose,
    root: Path,
    trained: Path,
    cell: tuple[Path, Path],
    tmp_path: Path,
    threshold: float,
) -> None:
    f1 = run(
        config,
        root,
        trained,
        *scored(cell),
        f"callbacks.volume_score.threshold={threshold}",
        "optimized_metric=val/f1_3d",
        "trainer.max_epochs=2",
        # The steps ruin the weights, of which the average keeps the first.
        *("model.lr=0.5", "model.warmup_steps=2", "trainer.gradient_clip_val=100"),
        "+callbacks.average._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
        "+callbacks.average.decay=1.0",
    )
    for name in ("best", "final"):
        scores = evaluate(
            config(
                "evaluate",
                f"ckpt_path={tmp_path}/train/checkpoints/isg_mask_rcnn_{name}.pth",
                f"volumes={cell[0]}",
                f"labels={cell[1]}",
                f"threshold={threshold}",
                *("precision=32-true", "device=cpu", "progress=false"),
            )
        )
        assert scores["pooled"]["f1"] == pytest.approx(f1)
    assert f1 is not None
    assert f1 > 0.5 if threshold == 0.5 else f1 < 1


@pytest.mark.parametrize(
    ("criterion", "slices", "taken"),
    [("f1", 32, ["cell", "sparse"]), ("f1", 16, ["cell"]), ("count", 32, ["cell", "sparse"])],
)
def test_it_tunes_what_granules_must_score_on_the_volumes_of_the_dataset(
    config: Compose,
    root: Path,
    trained: Path,
    cell: tuple[Path, Path],
    tmp_path: Path,
    criterion: str,
    slices: int,
    taken: list[str],
) -> None:
    sparse, ground_truth = balls(5, 31, count=2)
    sparse[:, :, :8] += 0.6
    pairs = {"cell": cell, "sparse": save_pair(tmp_path, "sparse", sparse * 100, ground_truth)}
    volumes = ",".join(str(pairs[name][0]) for name in taken)
    labels = ",".join(str(pairs[name][1]) for name in taken)
    sources = [
        {"file": str(file), "labels": str(ground_truth), "split": "val"}
        for file, ground_truth in (pairs["sparse"], cell)
    ] + [
        {"file": "gone.mrc", "labels": "gone_labels.mrc", "split": "val"},
        {"file": "train.mrc", "labels": "train_labels.mrc", "split": "train"},
    ]
    metadata = OmegaConf.load(root / "dataset.yaml")
    OmegaConf.save({**metadata, "volumes": sources}, root / "dataset.yaml")
    f1 = run(
        config,
        root,
        trained,
        f"model.operating_point={criterion}",
        f"callbacks.volume_score.slices={slices}",
        "optimized_metric=val/f1_3d",
        *("trainer.max_epochs=1", "model.lr=0.0001"),
    )
    final = tmp_path / "train" / "checkpoints" / "isg_mask_rcnn_final.pth"
    tuned = load_module(final).thresholds
    assert tuned is not None
    assert tuned.object != tuned.score

    def scores(granule: float) -> dict[str, float]:
        content = torch.load(final, weights_only=True)
        content["thresholds"] = tuned._replace(object=granule)._asdict()
        torch.save(content, tmp_path / "changed.pth")
        pooled: dict[str, float] = evaluate(
            config(
                "evaluate",
                f"ckpt_path={tmp_path / 'changed.pth'}",
                f"volumes=[{volumes}]",
                f"labels=[{labels}]",
                *("precision=32-true", "device=cpu", "progress=false"),
            )
        )["pooled"]
        return pooled

    chosen = scores(tuned.object)
    assert chosen["f1"] == pytest.approx(f1)
    for other in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99):
        if criterion == "f1":
            assert scores(other)["f1"] <= chosen["f1"] + SLACK
        else:
            assert abs(scores(other)["count_error"]) >= abs(chosen["count_error"])


def test_without_a_volume_granules_need_what_detections_need(
    config: Compose,
    root: Path,
    trained: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO"):
        run(config, root, trained, "trainer.max_epochs=1", "model.lr=0.0001")
    assert "names no validation volume that is there" in caplog.text
    module = load_module(tmp_path / "train" / "checkpoints" / "isg_mask_rcnn_final.pth")
    assert module.thresholds is not None
    assert module.thresholds.object == module.thresholds.score


def test_the_fullest_slices_are_taken() -> None:
    ground_truth = np.zeros((9, 4, 4), np.uint8)
    ground_truth[5:7] = 1
    ground_truth[1, 0, 0] = 1
    assert fullest(ground_truth, 3) == slice(4, 7)
    assert fullest(ground_truth, 1) == slice(5, 6)
    assert (
        fullest(ground_truth, 9)
        == fullest(ground_truth, 20)
        == fullest(ground_truth, None)
        == slice(0, 9)
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.volume_score.labels=null", "give both or none"),
        ("callbacks.volume_score.slices=0", r"slices=0 must be 1 or more, or null"),
    ],
)
def test_what_cannot_be_scored_is_named(
    config: Compose,
    root: Path,
    trained: Path,
    cell: tuple[Path, Path],
    override: str,
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        run(config, root, trained, *scored(cell), override)


def test_the_scores_of_patches_stay_as_they_are(
    config: Compose, root: Path, trained: Path, cell: tuple[Path, Path]
) -> None:
    short = ["trainer.max_epochs=2", "model.lr=0.0001"]
    with_it = run(
        config, root, trained, *scored(cell), "callbacks.volume_score.threshold=0.99", *short
    )
    assert with_it == run(config, root, trained, "overwrite=true", *short)


def test_early_stopping_goes_by_it(
    config: Compose, root: Path, trained: Path, cell: tuple[Path, Path], tmp_path: Path
) -> None:
    run(
        config,
        root,
        trained,
        *scored(cell),
        "callbacks.volume_score.segmentation.min_pixels=9999",  # nothing is ever found: F1 stays 0
        "optimized_metric=val/f1_3d",
        "callbacks.early_stopping.patience=1",
        "trainer.max_epochs=9",
    )
    final = tmp_path / "train" / "checkpoints" / "isg_mask_rcnn_final.pth"
    assert torch.load(final, weights_only=True)["epoch"] == 1


def test_a_bad_volume_ends_training_before_it_starts(
    config: Compose, root: Path, trained: Path, cell: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"none\.mrc: no such file"):
        run(config, root, trained, *scored((tmp_path / "none.mrc", cell[1])))


@pytest.mark.parametrize("edge", [0.4, 0.5])
def test_the_extents_of_maps_are_tuned_in_3d(edge: float) -> None:
    # A ball that is too wide at a lower mask threshold, and a speck at a higher one.
    truth = np.zeros((9, 9, 9), np.uint16)
    truth[3:6, 3:6, 3:6] = 1
    maps = np.zeros((2, 9, 9, 9), np.uint8)
    maps[:, 1:8, 1:8, 1:8] = round(255 * (edge - 0.05))
    maps[:, 3:6, 3:6, 3:6] = round(255 * (edge + 0.05))
    maps[:, 4, 4, 4] = 255

    class Known:
        def maps(self, *_: object) -> Iterator[npt.NDArray[np.uint8]]:
            return iter(maps.swapaxes(0, 1))

    part = Part("ball", Volume(truth * 1.0, None), truth, Normalizer("mode", 0.0, 1.0))
    method = MapSegmenter(Known(), Thresholds(0.5, 0.5, 0.0), SegmentationSettings())
    matches = match_part(method, part, (0.3, 0.4, 0.5, 0.6, 0.7))
    assert best_point(matches).mask_threshold == edge
    assert match_part(method, part, None).mask_thresholds == (0.5,)
