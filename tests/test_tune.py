from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Compose, balls, save_pair
from omegaconf import OmegaConf

from isgseg.evaluate import evaluate
from isgseg.model.checkpoint import load_module, read_checkpoint
from isgseg.tune import tune

QUIET = ["data.num_workers=0", "precision=32-true", "progress=false", "device=cpu"]


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    data, truth = balls(5, 30)
    data[:, :, :8] += 0.6
    return save_pair(tmp_path_factory.mktemp("cell"), "cell", data * 100, truth)


@pytest.fixture
def root(coco_root: Path, cell: tuple[Path, Path], tmp_path: Path) -> Path:
    """Only `val/`, and a `dataset.yaml` that names the cell as a volume of it."""
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "val").symlink_to(coco_root / "val")
    facts = {
        "normalization": {"method": "window", "low": 0, "high": 255},
        "context": 0,
        "volumes": [{"file": str(cell[0]), "labels": str(cell[1]), "split": "val"}],
    }
    OmegaConf.save(OmegaConf.create(facts), folder / "dataset.yaml")
    return folder


@pytest.fixture
def checkpoint(trained: Path, root: Path, tmp_path: Path) -> Path:
    """The trained network with thresholds of nobody, and the facts of `root`."""
    content = torch.load(trained / "isg_mask_rcnn_final.pth", weights_only=True)
    facts = OmegaConf.to_object(OmegaConf.load(root / "dataset.yaml"))
    assert isinstance(facts, dict)
    content["hyper_parameters"] |= {
        "thresholds": {"threshold": 0.99, "mask_threshold": 0.3, "granule_threshold": 0.999},
        "facts": {"normalization": facts["normalization"], "voxel_size": None, "context": 0},
    }
    torch.save(content, tmp_path / "cell.pth")
    return tmp_path / "cell.pth"


@pytest.mark.parametrize("views", [None, 2])
def test_the_thresholds_are_those_that_suit_the_split_and_the_volume(
    config: Compose, root: Path, cell: tuple[Path, Path], checkpoint: Path, views: int | None
) -> None:
    path = tune(
        config(
            "tune",
            *QUIET,
            f"ckpt_path={checkpoint}",
            f"data.root={root}",
            f"views={'null' if views is None else views}",
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
    assert module.hparams["views"] == len(module.network.views) == (views or 1)
    assert 0 < module.hparams["thresholds"]["granule_threshold"] < 0.999


def test_all_else_stays_as_it_was(config: Compose, root: Path, checkpoint: Path) -> None:
    options = [f"ckpt_path={checkpoint}", f"data.root={root}", "operating_point=count"]
    before, after = (
        read_checkpoint(checkpoint),
        read_checkpoint(tune(config("tune", *QUIET, *options))),
    )
    old, new = before.pop("hyper_parameters"), after.pop("hyper_parameters")
    assert {key for key in old | new if old.get(key) != new.get(key)} == {
        "thresholds",
        "operating_point",
    }
    for name, weights in before.pop("state_dict").items():
        assert torch.equal(weights, after["state_dict"][name])
    assert set(before) == set(after) - {"state_dict"}
    assert {"optimizer_states", "epoch"} <= set(after)


def test_another_volume_may_be_named(
    config: Compose, coco_root: Path, cell: tuple[Path, Path], checkpoint: Path
) -> None:
    data = [f"ckpt_path={checkpoint}", f"data.root={coco_root}"]
    alone = load_module(tune(config("tune", *QUIET, *data)))
    assert set(alone.hparams["thresholds"]) == {"threshold", "mask_threshold"}
    named = [f"volume={cell[0]}", f"labels={cell[1]}", "slices=3"]
    with_it = load_module(tune(config("tune", *QUIET, *data, *named)))
    assert "granule_threshold" in with_it.hparams["thresholds"]
    assert alone.hparams["thresholds"].items() <= with_it.hparams["thresholds"].items()


def test_labelling_decides_what_a_granule_is(config: Compose, root: Path, checkpoint: Path) -> None:
    options = [f"ckpt_path={checkpoint}", f"data.root={root}"]
    none = tune(config("tune", *QUIET, *options, "labelling.min_pixels=9999"))
    assert "granule_threshold" not in load_module(none).hparams["thresholds"]


@pytest.mark.slow
def test_the_weights_of_torchvision_get_thresholds_too(
    config: Compose, coco_root: Path, tmp_path: Path
) -> None:
    from isgseg.model.checkpoint import TORCHVISION_NETWORK
    from isgseg.model.mask_rcnn import build_mask_rcnn

    plain = tmp_path / "plain.pth"
    network = build_mask_rcnn(**TORCHVISION_NETWORK, num_classes=2)
    torch.save(network.state_dict(), plain)
    path = tune(config("tune", *QUIET, f"ckpt_path={plain}", f"data.root={coco_root}"))
    assert set(load_module(path).hparams["thresholds"]) == {"threshold", "mask_threshold"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("operating_point=recall", "model.operating_point is 'recall'; choose f1 or count"),
        ("views=3", "views"),
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
    module.look(1)
    assert not caplog.text
    module.look(8)
    assert "tuned with views=1, not 8" in caplog.text
