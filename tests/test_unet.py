"""The U-Net through the commands, from volumes to granules, and its parts against known answers."""

from __future__ import annotations

import itertools
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import pytest
import torch
from conftest import Compose, composing
from granule_volumes import balls_dataset, touching_balls
from lightning import Callback, Trainer
from torch.nn import functional as F

import isgseg
from isgseg.data.centre_maps import centre_map, save_centre_map
from isgseg.data.datamodule import CocoDataModule
from isgseg.data.normalization import Normalization, Normalizer
from isgseg.data.transforms import Augment
from isgseg.errors import InputError
from isgseg.evaluation.matching import match_instances
from isgseg.inference import streaming
from isgseg.inference.map_segmentation import MapSegmenter, find_granules
from isgseg.inference.maps import UNetMapper
from isgseg.inference.memory import MAPS_BYTES
from isgseg.inference.predictor import Predictor
from isgseg.inference.settings import SegmentationSettings
from isgseg.instances.runs import RunLabels
from isgseg.io.volumes import Volume, open_volume, read_labels, read_volume, write_volume
from isgseg.models.checkpoint import load_checkpoint, read_checkpoint
from isgseg.models.export import export_weights
from isgseg.models.settings import Thresholds
from isgseg.models.unet import UpConv2d, build_unet
from isgseg.phantom import make_phantom
from isgseg.train import train
from isgseg.training.evaluation import load_module

Array = npt.NDArray[Any]
RUN = [
    "experiment=unet",
    "model.network.widths=[16,32,64]",
    "data.augment.intensity=[1.0,1.0]",
    "trainer.limit_train_batches=null",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.enable_progress_bar=false",
    "logger=[]",
    "~callbacks.learning_rate",
]
FINAL = "isg_unet_final.pth"


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four training patches with centre maps."""
    folder = tmp_path_factory.mktemp("balls")
    return balls_dataset(composing(folder), folder, "patches.slice_step=4")


@pytest.fixture(scope="module")
def unet(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a U-Net that has seen the four patches 60 times."""
    folder = tmp_path_factory.mktemp("unet")
    train(
        composing(folder)(
            "train",
            *RUN,
            f"data.root={balls}",
            "data.augment.flip=false",
            "data.augment.drop_z_context=0",
            "model.lr=0.1",  # 60 steps are few
            "model.warmup_steps=5",
            "trainer.max_epochs=60",
            "trainer.check_val_every_n_epoch=60",
            "~callbacks.every_5_epochs",
            "callbacks.final.every_n_epochs=60",
        )
    )
    return folder / "train" / "checkpoints"


# Centre maps


def ball(shape: tuple[int, int, int], centre: tuple[float, ...], radius: float) -> Array:
    grid = np.indices(shape)
    far = sum((axis - place) ** 2 for axis, place in zip(grid, centre, strict=True))
    return np.asarray(far <= radius**2)


def test_the_centre_of_a_ball_is_its_deepest_voxel_in_3d() -> None:
    labels = ball((21, 21, 21), (10, 10, 10), 6).astype(np.uint16)
    labels[2, 2, 2] = 9
    depth = centre_map(labels)
    assert depth[10, 10, 10] == depth[2, 2, 2] == 255
    assert not depth[labels == 0].any()
    assert depth[labels > 0].all()
    # A section near the top is shallow throughout: in 2D it would be deep in its middle.
    assert depth[5].max() < 0.4 * 255


def test_touching_instances_have_a_centre_each_and_faces_are_no_outside() -> None:
    labels = np.zeros((5, 10, 20), np.uint32)
    labels[:, :, :10], labels[:, :, 10:] = 7, 2**31
    depth = centre_map(labels)
    assert depth[:, :, 9].max() < 255 / 9
    assert (depth[:, :, 0] == 255).all()
    assert (depth[:, :, -1] == 255).all()
    assert (centre_map(np.ones((3, 3, 3), np.uint8)) == 255).all()


def test_distances_of_centre_maps_are_in_nm() -> None:
    labels = np.zeros((5, 11, 11), np.uint8)
    labels[1:4, 1:10, 1:10] = 1  # 3 x 90 nm high, 9 x 30 nm wide
    depth = centre_map(labels, (90.0, 30.0, 30.0))
    assert depth[2, 5, 5] == 255
    assert depth[2, 5, 2] == round(255 * 60 / 150)


def test_prepare_keeps_the_centre_map_of_each_patch(balls: Path) -> None:
    volume = read_labels(balls.parent / "a_labels.mrc")
    depth = centre_map(volume.data)
    data = CocoDataModule(str(balls))
    data.setup("fit")
    data.require_centres()
    assert data.train_set is not None
    for index, image in enumerate(data.train_set.images):
        _, target = data.train_set[index]
        # The file's voxel size is rounded, and so is the map.
        np.testing.assert_allclose(target["centre"], depth[image["slice"]].astype(int), atol=1)
        union = target["masks"].any(0) if len(target["masks"]) else target["centre"] > 255
        assert torch.equal(target["centre"] > 0, union)


def test_a_dataset_with_centre_maps_is_replaced_only_where_all_is_its_own(tmp_path: Path) -> None:
    root = balls_dataset(composing(tmp_path), tmp_path, "patches.slice_step=8")
    (root / "train" / "centre" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="was not written by isgseg-prepare"):
        balls_dataset(composing(tmp_path), tmp_path, "overwrite=true")
    (root / "train" / "centre" / "notes.txt").unlink()
    balls_dataset(composing(tmp_path), tmp_path, "overwrite=true", "patches.centre_map=false")
    assert not (root / "train" / "centre").exists()
    with pytest.raises(InputError, match=r"isgseg-prepare patches\.centre_map=true"):
        train(composing(tmp_path)("train", *RUN, f"data.root={root}"))


def test_a_centre_map_that_is_missing_or_of_another_size_is_named(
    balls: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(balls, tmp_path / "copy"))
    file = sorted((root / "train" / "centre").iterdir())[1]
    file.unlink()
    with pytest.raises(InputError, match=f"{file.name} is missing"):
        train(composing(tmp_path)("train", *RUN, f"data.root={root}"))
    save_centre_map(file, np.zeros((10, 10), np.uint8))
    with pytest.raises(InputError, match=rf"{file.name}.* 10 x 10 pixels"):
        train(composing(tmp_path)("train", *RUN, f"data.root={root}"))


@pytest.mark.parametrize(
    "options", [{"crop": 24, "crop_on_object": 1.0}, {"scale": (0.7, 1.3), "blur": 1.0}]
)
def test_centre_maps_go_where_masks_go(balls: Path, options: dict[str, Any]) -> None:
    data = CocoDataModule(str(balls))
    data.setup("fit")
    data.require_centres()
    assert data.train_set is not None
    image, target = data.train_set[1]
    target["centre"] = 200 * target["masks"].amax(0)
    augment = Augment(**options, intensity=(0.5, 0.9), noise=0.1, z_context=True)
    for seed in range(6):
        new, moved = augment(image, target, seed)
        assert moved["centre"].shape == new.shape[1:]
        union = moved["masks"].amax(0) if len(moved["masks"]) else 0 * moved["centre"]
        off = (moved["centre"].int() - 200 * union.int()).abs()
        if "crop" in options:
            assert not off.any()
        else:  # interpolated at the edges of objects
            assert (off > 100).float().mean() < 0.06


# Training


def test_four_patches_are_learnt_in_60_steps(unet: Path, balls: Path) -> None:
    module = load_module(unet / FINAL)
    data = CocoDataModule(str(balls))
    data.setup("fit")
    assert data.train_set is not None
    assert len(data.train_set) == 4
    shared = total = 0
    for index in range(4):
        image, target = data.train_set[index]
        found = module([image.float() / 255])[0][0] >= 0.5
        true = target["masks"].any(0)
        shared += int((found & true).sum())
        total += int(found.sum() + true.sum())
    assert 2 * shared / total >= 0.95


def test_the_checkpoints_say_their_method_and_carry_thresholds(unet: Path) -> None:
    assert {path.name for path in unet.iterdir()} == {FINAL, "isg_unet_best.pth"}
    content = read_checkpoint(unet / FINAL)
    assert content["hyper_parameters"]["method"] == "unet"
    assert content["hyper_parameters"]["network"] == {"channels": 5, "widths": [16, 32, 64]}
    checkpoint = load_checkpoint(unet / FINAL)
    assert checkpoint.method == "unet"
    assert checkpoint.thresholds is not None
    assert checkpoint.thresholds.object not in (0.0, 0.5)  # tuned in 3D


class Killed(Callback):
    """Ends a training as a power cut does."""

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == 2:
            raise RuntimeError("killed")


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_ends(balls: Path, tmp_path: Path) -> None:
    common = [
        *RUN,
        f"data.root={balls}",
        "trainer.max_epochs=3",
        "trainer.check_val_every_n_epoch=3",
        "data.augment.noise=0.1",
        "~callbacks.volume_score",
    ]
    train(composing(tmp_path / "whole")("train", *common))
    kill = f"+callbacks.kill._target_={__name__}.Killed"
    with pytest.raises(RuntimeError, match="killed"):
        train(composing(tmp_path / "part")("train", *common, kill))
    checkpoint = tmp_path / "part" / "train" / "checkpoints" / FINAL
    assert read_checkpoint(checkpoint)["epoch"] == 1
    train(composing(tmp_path / "rest")("train", *common, f"ckpt_path={checkpoint}"))
    whole, rest = (
        read_checkpoint(tmp_path / name / "train" / "checkpoints" / FINAL)["state_dict"]
        for name in ("whole", "rest")
    )
    for name, value in whole.items():
        assert torch.equal(value, rest[name]), name


def test_a_loss_of_images_without_objects_is_finite() -> None:
    from isgseg.training.unet_module import UNetModule

    module = UNetModule({"channels": 3, "widths": [4, 8]})
    images = [torch.rand(3, 16, 20), torch.rand(1, 18, 17)]
    targets = [
        {"masks": torch.zeros(0, *image.shape[1:]), "centre": torch.zeros(image.shape[1:])}
        for image in images
    ]
    losses = module.losses(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())


# Prediction


def labels_of(unet: Path, volume: Array, **options: Any) -> Array:
    options = {"precision": "32-true", "device": "cpu", "progress": False, **options}
    predictor = Predictor.from_checkpoint(unet / FINAL, **options)
    return predictor.segment(Volume(volume, (30.0, 30.0, 30.0)), "balls").labels


def test_granules_of_a_cell_never_seen_are_told_apart(unet: Path) -> None:
    volume, truth = touching_balls((16, 48, 48), seed=5)
    matching = match_instances(labels_of(unet, volume), truth)
    assert matching.f1 > 0.8


def test_labels_do_not_hang_on_how_slices_are_computed(
    unet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, _ = touching_balls((6, 64, 200), seed=6)
    plain = labels_of(unet, volume, fast=False)
    assert plain.max() > 5
    np.testing.assert_array_equal(labels_of(unet, volume), plain)
    monkeypatch.setattr(streaming, "SIDE", 128)
    np.testing.assert_array_equal(labels_of(unet, volume), plain)


def test_what_lies_outside_of_cells_is_not_computed(unet: Path) -> None:
    volume, _ = touching_balls((6, 64, 200), seed=6)
    volume[:, :, 100:] = 0.4
    mapper = UNetMapper(load_checkpoint(unet / FINAL).build(), z_context=2, precision="32-true")
    normalizer = Normalizer("mode", 0.0, 1.0)
    for maps in mapper.maps(volume, normalizer):
        assert maps[:, :, :90].any()
        assert not maps[:, :, 170:].any()


def test_what_is_coarse_is_convolved_as_if_it_were_enlarged() -> None:
    torch.manual_seed(0)
    layer = UpConv2d(3, 5, 4)
    fine, coarse = torch.rand(2, 3, 8, 12), torch.rand(2, 5, 4, 6)
    both = torch.cat([fine, F.interpolate(coarse, scale_factor=2.0)], 1)
    expected = F.conv2d(both, layer.weight, padding=1)
    assert torch.allclose(layer(fine, coarse), expected, atol=1e-5)
    one, other = (
        torch.autograd.grad(values.square().sum(), layer.weight)[0]
        for values in (layer(fine, coarse), expected)
    )
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_part_of_an_image_says_what_the_whole_says() -> None:
    torch.manual_seed(0)
    network = build_unet(channels=1, widths=[4, 8, 12]).eval()
    image = torch.rand(1, 160, 96)
    with torch.no_grad():
        whole = network.predict([image])[0]
        part = network.predict([image[:, 2 * network.unit :]])[0]
    reach = network.receptive_field
    inside = part[:, reach:] - whole[:, 2 * network.unit + reach :]
    assert inside.abs().max() < 1e-5
    assert (part[:, 0] - whole[:, 2 * network.unit]).abs().max() > 1e-4


def test_flips_and_turns_leave_the_mean_over_them_as_it_is() -> None:
    from isgseg.models.tta import SYMMETRIES

    torch.manual_seed(0)
    network = build_unet(channels=3, widths=[4, 8]).eval()
    network.symmetries = SYMMETRIES[:4]
    image = torch.rand(3, 32, 32)
    with torch.no_grad():
        plain = network.predict([image])[0]
        for symmetry in SYMMETRIES[:4]:
            seen = symmetry.turn(image.flip(0) if symmetry.reverse else image)
            turned = network.predict([seen])[0]
            assert torch.allclose(symmetry.inverse.turn(turned), plain, atol=1e-5)


class Brightness:
    """A `MapModel` that takes grey values for both maps, and knows no direction."""

    def maps(self, slices: Any, normalizer: Any, zoom: Any = (1.0, 1.0)) -> Any:
        for number in range(len(slices)):
            yield np.stack([slices[number]] * 2).astype(np.uint8)


def granules_of(volume: Array, axes: str, **options: Any) -> Any:
    thresholds = Thresholds(0.5, options.pop("mask", 0.3), options.pop("object", 0.0))
    settings = SegmentationSettings(axes=axes, **options)
    method = MapSegmenter(Brightness(), thresholds, settings, (30.0, 30.0, 30.0))
    size = (30.0, 30.0, 30.0)
    return method.segment(Volume(volume, size), Normalizer("window", 0.0, 255.0))


def two_balls() -> Array:
    labels = np.zeros((16, 20, 30), np.uint8)
    labels[ball(labels.shape, (8, 9, 9), 5)] = 1
    labels[ball(labels.shape, (8, 9, 19), 5)] = 2
    return centre_map(labels)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_permuted_axes_permute_the_granules(order: tuple[int, int, int]) -> None:
    depth = two_balls()
    plain = granules_of(depth, "zyx")
    assert len(plain.score) == 2
    turned = granules_of(depth.transpose(order), "zyx")
    back = turned.labels.transpose(np.argsort(order))
    assert match_instances(back, plain.labels).f1 == 1
    assert ((back > 0) == (plain.labels > 0)).all()
    np.testing.assert_allclose(sorted(turned.score), sorted(plain.score))


def test_the_mean_over_axes_is_that_of_the_maps() -> None:
    class Tilted(Brightness):
        calls = 0

        def maps(self, slices: Any, normalizer: Any, zoom: Any = (1.0, 1.0)) -> Any:
            Tilted.calls += 1
            for number in range(len(slices)):
                yield np.full((2, *slices[number].shape), 40 * Tilted.calls, np.uint8)

    settings = SegmentationSettings(axes="zyx")
    method = MapSegmenter(Tilted(), Thresholds(0.5, 0.3, 0), settings)
    maps = method.maps(Volume(np.zeros((4, 5, 6), np.float32), None), Normalizer("mode", 0.0, 1.0))
    assert maps.dtype == np.uint8
    assert (maps == 80).all()


def test_granules_are_sifted_by_score_and_size() -> None:
    depth = two_balls()
    depth[:, :, 15:] = depth[:, :, 15:] // 2 + (depth[:, :, 15:] > 0) * 40  # a weaker one
    found = find_granules(
        depth, depth, Thresholds(0.5, 0.1, 0.0), SegmentationSettings(), (30.0,) * 3
    )
    assert len(found.score) == 2
    assert (np.diff(found.score) < 0).all()
    assert found.slices.tolist() == [11, 11]
    better = Thresholds(0.5, 0.1, float(found.score.mean()))
    assert len(find_granules(depth, depth, better, SegmentationSettings(), None).score) == 1
    for options in ({"min_slices": 12}, {"min_diameter_nm": 400.0}, {"min_score": 0.9}):
        none = find_granules(
            depth, depth, Thresholds(0.5, 0.1, 0), SegmentationSettings(**options), (30.0,) * 3
        )
        assert none.labels.max() == 0


def test_the_height_of_the_centre_map_decides_what_is_one_granule() -> None:
    depth = two_balls()
    depth[:, :, 15:] -= (depth[:, :, 15:] > 0) * np.uint8(20)  # of equal ones both are seeds
    for height, count in ((0.1, 2), (0.9, 1)):
        assert len(granules_of(depth, "z", mask=0.1, maps={"height": height}).score) == count


def test_voxels_of_another_size_are_resampled_and_labels_keep_the_grid() -> None:
    depth = two_balls()
    settings = SegmentationSettings()
    method = MapSegmenter(Brightness(), Thresholds(0.5, 0.3, 0), settings, (20.0, 30.0, 30.0))
    volume = Volume(depth, (30.0, 30.0, 30.0))
    assert method.zooms(volume)
    found = method.segment(volume, Normalizer("window", 0.0, 255.0))
    plain = granules_of(depth, "z")
    assert found.labels.shape == depth.shape
    assert match_instances(found.labels, plain.labels).f1 == 1


def test_from_the_disk_the_labels_of_maps_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    depth, size = two_balls(), (30.0, 30.0, 30.0)
    path = write_volume(tmp_path / "balls.npy", depth, size)
    on_disk = Volume(open_volume(path).data, size)
    thresholds = Thresholds(0.5, 0.3, 0.0)
    for axes, learnt in (("z", size), ("z", (20.0, 30.0, 30.0)), ("y", size), ("zyx", size)):
        method = MapSegmenter(Brightness(), thresholds, SegmentationSettings(axes=axes), learnt)
        predictor = Predictor(method, None, thresholds, Normalization("window", 0.0, 255.0))
        found = predictor.segment(on_disk, "balls.npy")
        expected = predictor.segment(Volume(depth, size))
        assert isinstance(found.labels, RunLabels) == (axes == "z")
        assert found.labels.max() == 2
        assert np.array_equal(np.asarray(found.labels), expected.labels)
        assert found.score.tolist() == expected.score.tolist()
        what = "maps of the volume" if axes == "z" else "the volume"
        assert f"balls.npy: this method needs {what} as a whole, about 0.0 GB" in caplog.text
        caplog.clear()


def test_maps_and_labels_take_what_is_said_before(tmp_path: Path) -> None:
    """Nothing of eight bytes a voxel is made on the way."""
    depth = np.tile(two_balls(), (4, 4, 6))
    path = write_volume(tmp_path / "balls.npy", depth, None)
    method = MapSegmenter(Brightness(), Thresholds(0.5, 0.3, 0.0), SegmentationSettings())
    tracemalloc.start()
    found = method.segment(Volume(open_volume(path).data, None), Normalizer("window", 0.0, 255.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.score) == 2 * 4 * 4 * 6
    assert (MAPS_BYTES - 1) * depth.size < peak < (MAPS_BYTES + 0.5) * depth.size


# Through the commands


def test_predict_tune_evaluate_and_export_take_a_unet(
    unet: Path, balls: Path, tmp_path: Path
) -> None:
    from isgseg.evaluate import evaluate
    from isgseg.predict import predict
    from isgseg.tune import tune

    config = composing(tmp_path)
    data = [f"data.root={balls}", "data.num_workers=0", "progress=false", "device=cpu"]
    tuned = tune(config("tune", f"ckpt_path={unet / FINAL}", *data))
    assert read_checkpoint(tuned)["hyper_parameters"]["method"] == "unet"
    volumes = [f"volumes={balls.parent / 'b.mrc'}", "progress=false", "device=cpu"]
    (labels,) = predict(config("predict", f"ckpt_path={tuned}", *volumes, "format=mrc"))
    truth = read_labels(balls.parent / "b_labels.mrc").data
    assert match_instances(read_labels(labels).data, truth).f1 > 0.8
    scores = evaluate(
        config(
            "evaluate",
            f"ckpt_path={tuned}",
            *data,
            f"volumes={balls.parent / 'b.mrc'}",
            f"labels={balls.parent / 'b_labels.mrc'}",
        )
    )
    assert scores["segm_map_50"] > 0.3
    assert scores["operating_points"]["best"]["f1"] > 0.6
    assert json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    small = export_weights(tuned, tmp_path / "small.pth")
    assert load_checkpoint(small).method == "unet"
    volume = read_volume(balls.parent / "b.mrc").data
    network = [load_checkpoint(path).build() for path in (tuned, small)]
    image = torch.from_numpy(volume[None, 4].astype(np.float32))
    with torch.no_grad():
        one, other = (each.predict([image])[0] for each in network)
    assert (one - other).abs().max() < 0.02


def test_the_documented_interface(unet: Path) -> None:
    volume, truth = touching_balls((16, 48, 48), seed=5)
    segmenter = isgseg.create_segmenter(modality="sxt", task="isg_instance", device="cpu")
    labels = segmenter.load_model(unet / FINAL).predict(volume, threshold=0.2, voxel_size=30.0)
    assert labels.dtype == np.uint16
    assert match_instances(labels, truth).f1 > 0.8
    masks = isgseg.create_segmenter("sxt", "isg", device="cpu").load_model(unet / FINAL)
    mask = masks.predict(volume, threshold=0.2, voxel_size=30.0)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels > 0)


# Wrong pairings


def test_a_checkpoint_of_the_other_method_is_refused(
    unet: Path, trained: Path, balls: Path, coco_root: Path, tmp_path: Path
) -> None:
    mask_rcnn = trained / "isg_mask_rcnn_final.pth"
    for task, path, said in (
        ("isg_maskrcnn", unet / FINAL, "is a U-Net, not a Mask R-CNN.*task='isg_instance'"),
        ("isg_instance", mask_rcnn, "is a Mask R-CNN, not a U-Net.*task='isg_maskrcnn'"),
        ("isg", mask_rcnn, "is a Mask R-CNN, not a U-Net"),
    ):
        with pytest.raises(InputError, match=said):
            isgseg.create_segmenter("sxt", task, device="cpu").load_model(path)
    config = composing(tmp_path)
    for overrides, said in (
        ([*RUN, f"ckpt_path={mask_rcnn}"], "ckpt_path=.* is a Mask R-CNN, not a U-Net"),
        ([*RUN, f"model.weights={mask_rcnn}"], "is a Mask R-CNN, not a U-Net.*model=resnet50"),
        ([*RUN, "model.network=null", f"model.weights={mask_rcnn}"], "is a Mask R-CNN"),
        ([*RUN, "model.weights=coco"], "fit no U-Net"),
        (["model=resnet10", f"model.weights={unet / FINAL}"], "is a U-Net, not a Mask R-CNN"),
        (["model=resnet10", f"ckpt_path={unet / FINAL}"], "is a U-Net, not a Mask R-CNN"),
    ):
        with pytest.raises(InputError, match=said):
            train(config("train", f"data.root={balls}", *overrides, "overwrite=true"))


@pytest.mark.slow
def test_the_u_net_of_the_package_finds_granules_and_starts_a_training(
    balls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)  # no outputs/ there
    monkeypatch.delenv("ISGSEG_MODEL", raising=False)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "user" / name)
    cell = make_phantom(6, shape=(24, 256, 256), voxel_size=(33.0, 33.0))
    segmenter = isgseg.create_segmenter("sxt", "isg_instance", device="cpu").load_model()
    assert isinstance(segmenter, isgseg.segmenter.NetworkSegmenter)
    found = segmenter.predict(cell.volume, threshold=None, voxel_size=33.0, progress=False)
    assert "has never seen a real cell" in caplog.text
    # Measured with the network of this release: 21 of 30, and 7 others.
    match = match_instances(found, cell.labels)
    assert match.tp >= 0.5 * (match.tp + match.fn)
    assert match.fp <= match.tp
    overrides = ["model.network=null", "model.weights=phantom", "trainer.fast_dev_run=true"]
    train(composing(tmp_path)("train", f"data.root={balls}", *RUN, *overrides))
    assert "phantom: " in caplog.text


def test_settings_of_the_other_method_are_refused(unet: Path, trained: Path) -> None:
    with pytest.raises(InputError, match=r"segmentation\.max_gap=3.*is of Mask R-CNN"):
        labels_of(unet, np.zeros((3, 9, 9)), segmentation={"max_gap": 3})
    with pytest.raises(InputError, match=r"separate=false, segmentation\.link=false"):
        labels_of(unet, np.zeros((3, 9, 9)), segmentation={"separate": False, "link": False})
    with pytest.raises(InputError, match=r"segmentation\.maps=.*is of a U-Net"):
        Predictor.from_checkpoint(
            trained / "isg_mask_rcnn_final.pth", segmentation={"maps": {"height": 0.2}}
        )


def test_the_doctor_says_what_it_cannot_do_for_a_unet(balls: Path, tmp_path: Path) -> None:
    from isgseg.doctor import doctor

    with pytest.raises(InputError, match="leave model= out"):
        doctor(composing(tmp_path)("doctor", f"data.root={balls}", "model=unet"))


def test_a_method_that_nobody_knows_is_named(unet: Path, tmp_path: Path) -> None:
    content = read_checkpoint(unet / FINAL)
    content["hyper_parameters"]["method"] = "transformer"
    torch.save(content, tmp_path / "new.pth")
    with pytest.raises(InputError, match="must be mask_rcnn or unet"):
        load_checkpoint(tmp_path / "new.pth")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.network.widths", "[24]", "a list of 2 to 6"),
        ("model.network.widths", "[24,-1]", "from 1 to 1024"),
        ("model.method", "mask_rcnn", "must be"),
        ("model.lr", "0", "above 0"),
    ],
)
def test_settings_out_of_range_are_named(config: Compose, key: str, value: str, said: str) -> None:
    from isgseg.config import checked

    with pytest.raises(InputError, match=said) as caught:
        checked("train", config("train", "model=unet", "data.root=x", f"{key}={value}"))
    assert key in str(caught.value)
