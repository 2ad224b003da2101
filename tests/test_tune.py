from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Compose, balls, save_pair
from omegaconf import OmegaConf

from isgseg.evaluate import evaluate
from isgseg.models.checkpoint import read_checkpoint
from isgseg.training.evaluation import load_module
from isgseg.tune import tune

QUIET = ["data.num_workers=0", "precision=32-true", "progress=false", "device=cpu"]


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data, ground_truth = balls(5, 30)
    data[:, :, :8] += 0.6
    return save_pair(tmp_path_factory.mktemp("cell"), "cell", data * 100, ground_truth)


@pytest.fixture
def root(coco_root: Path, cell: tuple[Path, Path], tmp_path: Path) -> Path:
    """Only `val/`, and a `dataset.yaml` that names the cell as a volume of it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "val").symlink_to(coco_root / "val")
    metadata = {
        "normalization": {"method": "window", "low": 0, "high": 255},
        "z_context": 0,
        "volumes": [{"file": str(cell[0]), "labels": str(cell[1]), "split": "val"}],
    }
    OmegaConf.save(OmegaConf.create(metadata), folder / "dataset.yaml")
    return folder


@pytest.fixture
def checkpoint(trained: Path, root: Path, tmp_path: Path) -> Path:
    """The trained network with thresholds of nobody, and the facts of `root`."""
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    metadata = OmegaConf.to_object(OmegaConf.load(root / "dataset.yaml"))
    assert isinstance(metadata, dict)
    content["thresholds"] = {"score": 0.99, "mask": 0.3, "object": 0.999}
    content["hyper_parameters"] |= {
        "metadata": {
            "normalization": metadata["normalization"],
            "voxel_size": None,
            "z_context": 0,
        },
    }
    torch.save(content, tmp_path / "cell.pth")
    return tmp_path / "cell.pth"


@pytest.mark.parametrize("tta", [None, 2])
def test_the_thresholds_are_those_that_suit_the_split_and_the_volume(
    config: Compose, root: Path, cell: tuple[Path, Path], checkpoint: Path, tta: int | None
) -> None:
    path = tune(
        config(
            "tune",
            *QUIET,
            f"ckpt_path={checkpoint}",
            f"data.root={root}",
            f"tta={'null' if tta is None else tta}",
        )
    )
    assert path.name == "cell_tuned.pth"
    scores = evaluate(
        config(
            "evaluate",
            *QUIET,
            f"ckpt_path={path}",
            f"data.root={root}",
            f"volumes={cell[0]}",
            f"labels={cell[1]}",
        )
    )
    points = scores["operating_points"]
    assert points["checkpoint"] == points["best"]
    assert points["best"]["f1"] > 0.5
    assert scores["pooled"]["f1"] > 0.5  # at .999, as it was, next to nothing is found
    module = load_module(path)
    assert module.hparams["tta"] == len(module.network.symmetries) == (tta or 1)
    assert module.thresholds is not None
    assert 0 < module.thresholds.object < 0.999


def test_all_else_stays_as_it_was(config: Compose, root: Path, checkpoint: Path) -> None:
    options = [f"ckpt_path={checkpoint}", f"data.root={root}", "operating_point=count"]
    before, after = (
        read_checkpoint(checkpoint),
        read_checkpoint(tune(config("tune", *QUIET, *options))),
    )
    old, new = before.pop("hyper_parameters"), after.pop("hyper_parameters")
    assert {key for key in old | new if old.get(key) != new.get(key)} == {"operating_point"}
    assert before.pop("thresholds") != after.pop("thresholds")
    for name, weights in before.pop("state_dict").items():
        assert torch.equal(weights, after["state_dict"][name])
    assert set(before) == set(after) - {"state_dict"}
    assert {"optimizer_states", "epoch"} <= set(after)


def test_another_volume_may_be_named(
    config: Compose, coco_root: Path, cell: tuple[Path, Path], checkpoint: Path
) -> None:
    data = [f"ckpt_path={checkpoint}", f"data.root={coco_root}"]
    alone = load_module(tune(config("tune", *QUIET, *data)))
    assert alone.thresholds is not None
    assert alone.thresholds.object == alone.thresholds.score
    named = [f"volume={cell[0]}", f"labels={cell[1]}", "slices=3"]
    with_it = load_module(tune(config("tune", *QUIET, *data, *named)))
    assert with_it.thresholds is not None
    assert with_it.thresholds[:2] == alone.thresholds[:2]
    assert with_it.thresholds.object != alone.thresholds.object


def test_segmentation_decides_what_a_granule_is(
    config: Compose, root: Path, checkpoint: Path
) -> None:
    options = [f"ckpt_path={checkpoint}", f"data.root={root}"]
    none = tune(config("tune", *QUIET, *options, "segmentation.min_pixels=9999"))
    kept = load_module(none).thresholds
    assert kept is not None
    assert kept.object == kept.score


@pytest.mark.slow
def test_the_weights_of_torchvision_get_thresholds_too(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    from isgseg.models.mask_rcnn import build_mask_rcnn
    from isgseg.models.settings import TORCHVISION

    plain = tmp_path / "plain.pth"
    network = build_mask_rcnn(**TORCHVISION, num_classes=2)
    torch.save(network.state_dict(), plain)
    path = tune(config("tune", *QUIET, f"ckpt_path={plain}", f"data.root={coco_root}"))
    assert load_module(path).thresholds is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("operating_point=recall", "operating_point"),
        ("tta=3", "tta"),
        ("slices=0", "must be 1 or more"),
        ("volume=a.mrc", "give both or none"),
        ("data.root=nowhere", "nowhere"),
    ],
)
def test_what_cannot_be_tuned_is_named(
    config: Compose, root: Path, checkpoint: Path, override: str, message: str
) -> None:
    options = [f"ckpt_path={checkpoint}", f"data.root={root}", override]
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tune(config("tune", *QUIET, *options))


def test_other_views_than_those_of_the_thresholds_are_warned_of(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = load_module(checkpoint)
    module.set_tta(1)
    assert not caplog.text
    module.set_tta(8)
    assert "tuned with tta=1, not 8" in caplog.text
