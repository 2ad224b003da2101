from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import Compose, balls, save_pair
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco_mask

from isgseg.data.coco import CocoInstances
from isgseg.data.datamodule import dataset_facts
from isgseg.data.patches import annotate, drop_small, picture_maker, starts
from isgseg.normalization import Grey
from isgseg.prepare import prepare
from isgseg.volume import write_volume


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Three labelled volumes of 8 slices; the last one is for validation."""
    for seed, name in enumerate(["a", "b", "c"]):
        save_pair(tmp_path / "cells", name, *balls(8, seed))
    return tmp_path / "cells"


def arguments(cells: Path, *more: str) -> list[str]:
    return [
        f"volumes={cells}/*.mrc",
        f"labels={cells}/*_labels.mrc",
        "val=[c]",
        f"output_dir={cells.parent / 'dataset'}",
        *more,
    ]


def test_every_label_comes_back_exactly(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells, "patches.size=64")))
    val = CocoInstances(root / "val")
    _, labels = balls(8, 2)
    assert len(val) == 8
    for index, entry in enumerate(val.images):
        z = int(entry["file_name"].split("_")[1][1:])
        masks = val.target(index)["masks"].numpy()
        assert len(masks) == len(np.unique(labels[z])) - 1
        assert np.array_equal(masks.any(0) if len(masks) else labels[z] > 0, labels[z] > 0)


def test_the_dataset_tells_where_it_comes_from(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    facts = OmegaConf.load(root / "dataset.yaml")
    assert facts.voxel_size == [30.0, 30.0, 30.0]
    assert facts.normalization.method == "mode"
    assert [(entry.name, entry.split) for entry in facts.volumes] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "val"),
    ]
    assert len({entry.sha256 for entry in facts.volumes}) == 3
    assert facts.objects.val.empty_patches == 2  # kept: false positives there must count
    assert facts.objects.train.side_px_percentiles_5_25_50_75_95[2] == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    "override",
    [
        "patches.size=32",
        "patches.stride=8",
        "patches.axes=[z,x]",
        "patches.slice_step=2",
        "patches.context=1",
        "patches.context=2",
        "patches.min_pixels=60",
        "patches.empty_share=0.0",
        "normalization={method:window,low:0,high:2}",
    ],
)
def test_each_key_changes_the_dataset(cells: Path, config: Compose, override: str) -> None:
    def content(*overrides: str) -> bytes:
        root = prepare(
            config(
                "prepare",
                *arguments(cells, "patches.size=48", "patches.stride=48", "overwrite=true"),
                *overrides,
            )
        )
        files = sorted((root / "train" / "images").iterdir())
        pixels = b"".join(np.asarray(Image.open(file)).tobytes() for file in files)
        return pixels + (root / "train" / "annotations.json").read_bytes()

    assert content() != content(override)


def test_context_holds_the_neighbouring_slices(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells, "patches.context=1")))
    pictures = [
        np.asarray(Image.open(root / "val" / "images" / f"c_z{z:04d}_0000_0000.png"))
        for z in range(8)
    ]
    assert np.array_equal(pictures[3][..., 0], pictures[2][..., 1])
    assert np.array_equal(pictures[3][..., 2], pictures[4][..., 1])
    assert np.array_equal(pictures[0][..., 0], pictures[0][..., 1])


def test_wide_context_is_a_page_for_each_slice(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells, "patches.context=2")))
    dataset = CocoInstances(root / "val")
    assert dataset_facts(root)["context"] == 2
    pictures = [dataset.picture(z).numpy() for z in range(8)]
    assert dataset.files[3].name == "c_z0003_0000_0000.tif"
    for z, picture in enumerate(pictures):
        for page, distance in zip(picture, (-2, -1, 0, 1, 2), strict=True):
            assert np.array_equal(page, pictures[min(max(z + distance, 0), 7)][2])


def test_end_slices_stand_in_for_those_beyond() -> None:
    slices = np.array([0, 10, 40, 90, 160])[:, None, None]

    def picture(index: int, context: int) -> list[int]:
        values = picture_maker(slices, Grey("window", 0, 255), context)(index)
        return values.ravel().tolist()

    assert picture(2, 2) == [0, 10, 40, 90, 160]
    assert picture(0, 2) == [0, 0, 0, 10, 40]
    assert picture(4, 1) == [90, 160, 160]
    assert picture(4, 0) == [160]


def test_patches_cover_every_pixel() -> None:
    assert starts(473, 256, 256) == [0, 217]
    assert starts(256, 256, 256) == [0]
    assert starts(100, 256, 256) == [0]
    assert starts(512, 256, 128) == [0, 128, 256]


def test_small_sections_are_counted() -> None:
    labels = np.array([[5, 5, 0], [9, 0, 70]])
    kept, small = drop_small(labels, 2)
    assert small == 2
    assert kept.tolist() == [[1, 1, 0], [0, 0, 0]]


def test_an_object_with_a_hole_keeps_its_place_and_its_hole() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[4:9, 7:12] = 1
    labels[6, 9] = 0
    annotation = annotate(labels, 1, np.s_[4:9, 7:12])
    assert annotation["bbox"] == [7, 4, 5, 5]
    assert annotation["area"] == 24
    assert np.array_equal(coco_mask.decode(annotation["segmentation"]), labels)


def bad_shape(cells: Path) -> None:
    write_volume(cells / "b_labels.mrc", np.ones((8, 64, 63), np.uint16), None)


def bad_labels(cells: Path) -> None:
    write_volume(cells / "b_labels.mrc", np.full((8, 64, 64), 0.5, np.float32), None)


def nan_voxels(cells: Path) -> None:
    volume, _ = balls(8, 1)
    volume[3, 4, 5] = np.nan
    np.save(cells / "b.npy", volume)
    (cells / "b.mrc").unlink()


def truncated(cells: Path) -> None:
    (cells / "b.mrc").write_bytes((cells / "b.mrc").read_bytes()[:5000])


def missing_labels(cells: Path) -> None:
    (cells / "b_labels.mrc").unlink()


def same_volume_twice(cells: Path) -> None:
    (cells / "c.mrc").write_bytes((cells / "a.mrc").read_bytes())


def no_labels_in_val(cells: Path) -> None:
    write_volume(cells / "c_labels.mrc", np.zeros((8, 64, 64), np.uint16), None)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (bad_shape, r"b_labels\.mrc has shape \(8, 64, 63\)"),
        (bad_labels, r"b_labels\.mrc"),
        (nan_voxels, r"b\.npy"),
        (truncated, r"b\.mrc"),
        (missing_labels, "3 volumes but 2 label files"),
        (same_volume_twice, r"c\.mrc and .*a\.mrc are the same volume"),
        (no_labels_in_val, "the val split has no object"),
    ],
)
def test_bad_volumes_are_named(cells: Path, config: Compose, spoil: object, message: str) -> None:
    spoil(cells)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        prepare(
            config(
                "prepare",
                *arguments(cells, f"volumes=[{cells}/?.mrc,{cells}/?.npy]")
                if spoil is nan_voxels
                else arguments(cells),
            )
        )
    assert not list(cells.parent.glob("dataset*"))  # nothing half-written stays


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("val=[d]", r"val=\['d'\] names no volume"),
        ("val=[]", "leaves the val split empty"),
        ("val=[a,b,c]", "leaves the train split empty"),
        ("patches.size=0", "patches.size is 0"),
        ("patches.axes=[w]", "choose from z, y and x"),
        ("patches.context=-1", "choose 0, 1, 2"),
        ("patches.empty_share=1", "must be in"),
        ("volumes=null", "give volumes=, labels= and val=, or data=phantom"),
    ],
)
def test_bad_settings_are_named(cells: Path, config: Compose, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(config("prepare", *arguments(cells, override)))


def test_voxel_sizes_may_differ_a_little_only(cells: Path, config: Compose) -> None:
    volume, _ = balls(8, 0)
    write_volume(cells / "a.mrc", volume, (60.0, 60.0, 60.0))
    with pytest.raises(ValueError, match="differ by a factor of 2"):
        prepare(config("prepare", *arguments(cells)))


def test_a_dataset_is_replaced_only_when_asked(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    with pytest.raises(FileExistsError, match="overwrite=true"):
        prepare(config("prepare", *arguments(cells)))
    (root / "notes.txt").write_text("mine")
    prepare(config("prepare", *arguments(cells, "overwrite=true", "patches.slice_step=4")))
    assert (root / "notes.txt").read_text() == "mine"
    assert len(json.loads((root / "val" / "annotations.json").read_text())["images"]) == 2


def test_the_console_script_says_what_is_wrong_in_one_line(cells: Path) -> None:
    truncated(cells)
    run = subprocess.run(
        [sys.executable, "-m", "isgseg.prepare", *arguments(cells), f"paths.root={cells.parent}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "b.mrc" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_phantom_cells_are_made_and_prepared(tmp_path: Path, config: Compose) -> None:
    root = prepare(
        config(
            "prepare",
            "data=phantom",
            "data.phantom.shape=[12,96,96]",
            "data.phantom.train_seeds=[0]",
            "data.phantom.val_seeds=[5]",
            "data.phantom.granule_density=[8,9]",
            "data.phantom.train={granule_density:[30,31]}",
            "data.phantom.bead_probability=0",
            f"output_dir={tmp_path / 'phantom'}",
        )
    )
    for seed in ("0000", "0005"):
        for suffix in ("", "_labels"):
            assert (root / "volumes" / f"phantom_{seed}{suffix}.mrc").is_file()
    facts = OmegaConf.load(root / "dataset.yaml")
    assert [Path(entry.file).is_file() for entry in facts.volumes] == [True, True]
    assert facts.objects.train.objects > 1.5 * facts.objects.val.objects > 5
    with pytest.raises(ValueError, match="share a seed"):
        prepare(config("prepare", "data=phantom", "data.phantom.val_seeds=[0]"))
