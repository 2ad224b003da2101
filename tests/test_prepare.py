from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Compose, balls, save_pair
from omegaconf import OmegaConf
from PIL import Image
from pycocotools import mask as coco_mask

from isgseg.config import checked
from isgseg.data.coco import CocoInstances
from isgseg.data.datamodule import dataset_metadata
from isgseg.data.metadata import read_metadata
from isgseg.data.normalization import Normalizer
from isgseg.data.patches import annotate, drop_small, image_maker, starts
from isgseg.errors import InputError
from isgseg.io.folders import locked
from isgseg.io.volumes import write_volume
from isgseg.prepare import prepare


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
    metadata = OmegaConf.load(root / "dataset.yaml")
    assert metadata.voxel_size == [30.0, 30.0, 30.0]
    assert metadata.normalization.method == "mode"
    assert [(entry.name, entry.split) for entry in metadata.volumes] == [
        ("a", "train"),
        ("b", "train"),
        ("c", "val"),
    ]
    assert len({entry.sha256 for entry in metadata.volumes}) == 3
    assert metadata.objects.val.empty_patches == 2  # kept: false positives there must count
    assert metadata.objects.train.side_px_percentiles_5_25_50_75_95[2] == pytest.approx(10, abs=1)


@pytest.mark.parametrize(
    "override",
    [
        "patches.size=32",
        "patches.stride=8",
        "patches.axes=[z,x]",
        "patches.slice_step=2",
        "patches.z_context=1",
        "patches.z_context=2",
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
                *arguments(cells, "patches.size=48", "overwrite=true"),
                *overrides,
            )
        )
        files = sorted((root / "train" / "images").iterdir())
        pixels = b"".join(np.asarray(Image.open(file)).tobytes() for file in files)
        return pixels + (root / "train" / "annotations.json").read_bytes()

    assert content() != content(override)


def test_context_holds_the_neighbouring_slices(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells, "patches.z_context=1")))
    images = [
        np.asarray(Image.open(root / "val" / "images" / f"c_z{z:04d}_0000_0000.png"))
        for z in range(8)
    ]
    assert np.array_equal(images[3][..., 0], images[2][..., 1])
    assert np.array_equal(images[3][..., 2], images[4][..., 1])
    assert np.array_equal(images[0][..., 0], images[0][..., 1])


def test_wide_context_is_a_page_for_each_slice(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells, "patches.z_context=2")))
    dataset = CocoInstances(root / "val")
    assert dataset_metadata(root)["z_context"] == 2
    images = [dataset.image(z).numpy() for z in range(8)]
    assert dataset.files[3].name == "c_z0003_0000_0000.tif"
    for z, image in enumerate(images):
        for page, distance in zip(image, (-2, -1, 0, 1, 2), strict=True):
            assert np.array_equal(page, images[min(max(z + distance, 0), 7)][2])


def test_end_slices_stand_in_for_those_beyond() -> None:
    slices = np.array([0, 10, 40, 90, 160])[:, None, None]

    def image(index: int, z_context: int) -> list[int]:
        values = image_maker(slices, Normalizer("window", 0, 255), z_context)(index)
        return values.ravel().tolist()

    assert image(2, 2) == [0, 10, 40, 90, 160]
    assert image(0, 2) == [0, 0, 0, 10, 40]
    assert image(4, 1) == [90, 160, 160]
    assert image(4, 0) == [160]


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
        (bad_shape, r"b\.mrc is \(8, 64, 64\).*b_labels\.mrc are \(8, 64, 63\)"),
        (bad_labels, r"b_labels\.mrc"),
        (nan_voxels, r"b\.npy"),
        (truncated, r"b\.mrc"),
        (missing_labels, "3 volumes and 2 label files cannot be paired"),
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
        ("patches.size=0", "size=0: must be a whole number from 1"),
        ("patches.axes=[w]", "axes.*must be z, y or x"),
        ("patches.z_context=-1", "z_context=-1: must be a whole number from 0"),
        ("patches.empty_share=1", "empty_share=1: must be a number"),
        ("volumes=null", "give volumes=, labels= and val=, or source=phantom"),
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


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_dataset_is_replaced_only_when_asked(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    before = tree(root)
    with pytest.raises(FileExistsError, match="overwrite=true"):
        prepare(config("prepare", *arguments(cells)))
    assert tree(root) == before
    (root / "notes.txt").write_text("mine")
    prepare(config("prepare", *arguments(cells, "overwrite=true", "patches.slice_step=4")))
    assert (root / "notes.txt").read_text() == "mine"
    assert len(json.loads((root / "val" / "annotations.json").read_text())["images"]) == 2
    assert {path.name for path in root.iterdir()} == {"train", "val", "dataset.yaml", "notes.txt"}


@pytest.mark.parametrize("overwrite", ["false", "true"])
@pytest.mark.parametrize(
    "name",
    [
        "train/images/photo.png",
        "val/notes.txt",
        "train",
        "val/images",
        "dataset.yaml",
        "train/annotations.json",
    ],
)
def test_what_isgseg_did_not_write_is_never_replaced(
    cells: Path, config: Compose, overwrite: str, name: str
) -> None:
    mine = cells.parent / "dataset" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("volumes: mine")
    with pytest.raises(InputError, match=r"dataset.* was not written by isgseg-prepare.*move it"):
        prepare(config("prepare", *arguments(cells, f"overwrite={overwrite}")))
    assert tree(cells.parent / "dataset") == {name: b"volumes: mine"}


@pytest.mark.parametrize(
    "name", ["train/mine.txt", "val/images/mine.png", "train/images/deep/mine.png"]
)
def test_what_was_added_to_a_dataset_is_never_replaced(
    cells: Path, config: Compose, name: str
) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("mine")
    before = tree(root)
    with pytest.raises(InputError, match="was not written by isgseg-prepare"):
        prepare(config("prepare", *arguments(cells, "overwrite=true")))
    assert tree(root) == before


def test_a_part_that_is_a_link_is_never_replaced(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    (root / "train").rename(cells.parent / "elsewhere")
    (root / "train").symlink_to(cells.parent / "elsewhere")
    with pytest.raises(InputError, match="train was not written by isgseg-prepare"):
        prepare(config("prepare", *arguments(cells, "overwrite=true")))


TINY_PHANTOMS = [
    "source=phantom",
    "source.phantom.shape=[12,96,96]",
    "source.phantom.train_seeds=[0]",
    "source.phantom.val_seeds=[5]",
    "source.phantom.granule_density=[8,9]",
    "source.phantom.bead_probability=0",
]


@pytest.mark.parametrize("overwrite", ["false", "true"])
def test_raw_volumes_in_the_folder_survive_phantoms(
    tmp_path: Path, config: Compose, overwrite: str
) -> None:
    """Even where a dataset was made of them, and lies beside them."""
    root = tmp_path / "data"
    for seed, name in enumerate(["phantom_1", "phantom_2"]):
        save_pair(root / "volumes", name, *balls(8, seed))
    raw = tree(root / "volumes")
    phantom = config("prepare", *TINY_PHANTOMS, f"output_dir={root}", f"overwrite={overwrite}")
    with pytest.raises(InputError, match="volumes was not written by isgseg-prepare"):
        prepare(phantom)
    files = (f"volumes={root}/volumes/*.mrc", f"labels={root}/volumes/*_labels.mrc")
    prepare(config("prepare", *files, "val=[phantom_2]", f"output_dir={root}"))
    with pytest.raises(InputError, match=r"phantom_1.mrc was not written by isgseg-prepare"):
        prepare(phantom)
    assert tree(root / "volumes") == raw
    prepare(config("prepare", *files, "val=[phantom_1]", f"output_dir={root}", "overwrite=true"))
    assert tree(root / "volumes") == raw


def test_a_folder_called_partial_is_nobodys_scratch(cells: Path, config: Compose) -> None:
    mine = cells.parent / "dataset.partial" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    prepare(config("prepare", *arguments(cells)))
    assert mine.read_text() == "mine"


def test_a_failed_replacement_leaves_the_old_dataset(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    before = tree(root)
    truncated(cells)
    with pytest.raises(InputError, match=r"b\.mrc"):
        prepare(config("prepare", *arguments(cells, "overwrite=true")))
    assert tree(root) == before


def test_a_dataset_of_the_last_release_is_replaced(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    content = yaml.safe_load((root / "dataset.yaml").read_text())
    assert content.pop("isgseg")
    assert content.pop("source") == "volumes"
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    prepare(config("prepare", *arguments(cells, "overwrite=true")))
    assert "isgseg:" in (root / "dataset.yaml").read_text()


def test_the_working_folder_may_be_the_dataset(
    cells: Path, config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cells.parent / "here").mkdir()
    monkeypatch.chdir(cells.parent / "here")
    prepare(config("prepare", *arguments(cells, "output_dir=.")))
    prepare(config("prepare", *arguments(cells, "output_dir=.", "overwrite=true")))
    assert {path.name for path in Path().iterdir()} == {"train", "val", "dataset.yaml"}


def test_a_place_that_is_a_file_is_named(cells: Path, config: Compose) -> None:
    for place in ("file", "file/deep"):
        (cells.parent / "file").write_text("mine")
        with pytest.raises(InputError, match=r"file.*give a (folder|place)"):
            prepare(config("prepare", *arguments(cells, f"output_dir={cells.parent}/{place}")))
    assert (cells.parent / "file").read_text() == "mine"


def test_of_two_at_once_the_second_is_told(cells: Path, config: Compose) -> None:
    with (
        locked(cells.parent / "dataset"),
        pytest.raises(InputError, match="dataset: another process is writing into it"),
    ):
        prepare(config("prepare", *arguments(cells)))


def test_a_full_disk_leaves_the_old_dataset(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    before = tree(root)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            prepare(config("prepare", *arguments(cells, "overwrite=true")))
        except InputError as error:
            os._exit(0 if "dataset: cannot be written: File too large; free" in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert tree(root) == before


@pytest.mark.slow
def test_killed_at_any_time_the_dataset_is_old_or_new(cells: Path, config: Compose) -> None:
    root = prepare(config("prepare", *arguments(cells)))
    old, kills = tree(root), 0
    more = ("overwrite=true", "patches.slice_step=2")
    command = [sys.executable, "-m", "isgseg.prepare", *arguments(cells, *more)]
    random = np.random.default_rng(0)
    for _ in range(12):
        run = subprocess.Popen(
            [*command, f"paths.root={cells.parent}"], stdout=subprocess.DEVNULL, stderr=-3
        )
        try:
            run.wait(random.uniform(0.6, 1.5))
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
        content = {n: b for n, b in tree(root).items() if not n.startswith(".isgseg")}
        names = {n for n in content if n.endswith(".png")}
        listed = {
            f"{split}/images/{image['file_name']}"
            for split in ("train", "val")
            for image in json.loads(content[f"{split}/annotations.json"])["images"]
        }
        assert names == listed
        step = yaml.safe_load(content["dataset.yaml"])["patches"]["slice_step"]
        assert content == old if step == 1 else len(names) < len(old) - 3
    assert kills > 3
    prepare(config("prepare", *arguments(cells, "overwrite=true")))
    assert tree(root).keys() == old.keys()


def test_validation_volumes_may_look_like_numbers(tmp_path: Path, config: Compose) -> None:
    names = ["783_5", "769_7", "1e3", "a"]
    for seed, name in enumerate(names):
        save_pair(tmp_path / "cells", name, *balls(4, seed))
    for given in ("783_5", "[783_5,1e3]", "[a,769_7]"):
        root = prepare(
            config("prepare", *arguments(tmp_path / "cells", "overwrite=true", f"val={given}"))
        )
        volumes = yaml.safe_load((root / "dataset.yaml").read_text())["volumes"]
        val = {entry["name"] for entry in volumes if entry["split"] == "val"}
        assert val == set(given.strip("[]").split(","))
    save_pair(tmp_path / "cells", "78_35", *balls(4, 7))
    with pytest.raises(InputError, match=r"val=7835 may be any of \['78_35', '783_5'\]; quote"):
        prepare(config("prepare", *arguments(tmp_path / "cells", "overwrite=true", "val=783_5")))
    with pytest.raises(InputError, match="names no volume"):
        prepare(config("prepare", *arguments(tmp_path / "cells", "overwrite=true", "val=7")))


def test_voxel_size_of_the_command_line_wins(cells: Path, config: Compose) -> None:
    for given, size in (("25", [25.0] * 3), ("[40,30,20]", [40.0, 30.0, 20.0])):
        root = prepare(
            config("prepare", *arguments(cells, f"voxel_size={given}", "overwrite=true"))
        )
        assert yaml.safe_load((root / "dataset.yaml").read_text())["voxel_size"] == size
    with pytest.raises(InputError, match="voxel_size=nm: give nm"):
        prepare(config("prepare", *arguments(cells, "voxel_size=nm", "overwrite=true")))


def test_a_voxel_size_of_one_angstrom_is_no_voxel_size(cells: Path, config: Compose) -> None:
    for seed, name in enumerate(["a", "b", "c"]):
        volume, labels = balls(8, seed)
        write_volume(cells / f"{name}.mrc", volume, (0.1, 0.1, 0.1))
        write_volume(cells / f"{name}_labels.mrc", labels, (0.1, 0.1, 0.1))
    root = prepare(config("prepare", *arguments(cells)))
    assert read_metadata(root).voxel_size is None
    write_volume(cells / "a_labels.mrc", balls(8, 0)[1], (30, 30, 30))
    root = prepare(config("prepare", *arguments(cells, "overwrite=true")))
    assert read_metadata(root).voxel_size == (30, 30, 30)


def test_sections_that_are_all_too_small_are_not_called_background(
    cells: Path, config: Compose
) -> None:
    with pytest.raises(InputError, match=r"have fewer than patches\.min_pixels=99999"):
        prepare(config("prepare", *arguments(cells, "patches.min_pixels=99999")))


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
    root = prepare(config("prepare", *TINY_PHANTOMS, f"output_dir={tmp_path / 'phantom'}"))
    for seed in ("0000", "0005"):
        for suffix in ("", "_labels"):
            assert (root / "volumes" / f"phantom_{seed}{suffix}.mrc").is_file()
    metadata = read_metadata(root)
    assert [Path(entry.file).is_file() for entry in metadata.volumes] == [True, True]
    assert min(numbers.objects for numbers in metadata.objects.values()) > 5
    again = ["prepare", *TINY_PHANTOMS, f"output_dir={root}", "source.phantom.val_seeds=[6]"]
    prepare(config(*again, "overwrite=true"))  # volumes/ is isgseg's own here
    assert sorted({path.name[8:12] for path in (root / "volumes").iterdir()}) == ["0000", "0006"]
    with pytest.raises(ValueError, match="share a seed"):
        prepare(config("prepare", "source=phantom", "source.phantom.val_seeds=[0]"))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("source.phantom.val_seeds=[]", "val_seeds"),
        ("source.phantom.train_seeds=[]", "train_seeds"),
        ("patches.stride=300", "patches.stride is 300, patches.size 256"),
    ],
)
def test_what_would_lose_data_is_refused_before_a_cell_is_made(
    config: Compose, override: str, named: str
) -> None:
    with pytest.raises(InputError, match=re.escape(named)):
        checked("prepare", config("prepare", "source=phantom", override))
