from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from isgseg.data.metadata import (
    DatasetMetadata,
    Source,
    read_metadata,
    validation_pairs,
    write_metadata,
)
from isgseg.data.normalization import Normalization, Normalizer
from isgseg.data.patches import PatchSettings
from isgseg.data.plain_yaml import MAX_BYTES
from isgseg.errors import InputError

WHOLE: dict[str, Any] = {
    "voxel_size": [30.0, 30.0, 30.0],
    "z_context": 1,
    "normalization": {"method": "mode", "low": None, "high": None, "power": 3.0},
    "patches": {"size": 256, "stride": 256, "axes": ["z"], "slice_step": 1, "z_context": 1},
    "volumes": [{"name": "a", "split": "val", "file": "/x/a.mrc", "labels": "/x/a_labels.mrc"}],
}


def write(root: Path, content: Any) -> Path:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (root / "dataset.yaml").write_text(text)
    return root


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def source(file: Path, split: Any = "val") -> Source:
    labels = file.with_name(f"{file.stem}_labels.mrc")
    return Source(name=file.stem, split=split, file=str(file), labels=str(labels))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = DatasetMetadata(
        isgseg="0.1.0",
        voxel_size=(30, 30, 30),
        z_context=2,
        normalization=Normalization("window", 0, 1),
        patches=PatchSettings(axes=("z", "x"), z_context=2),
        volumes=(
            source(tmp_path / "volumes" / "a.mrc").model_copy(
                update={"shape": (4, 5, 6), "normalizer": Normalizer("window", 0, 1)}
            ),
        ),
    )
    write_metadata(written, tmp_path)
    assert read_metadata(tmp_path) == written
    assert read_metadata(tmp_path).for_checkpoint() == {
        "normalization": {"method": "window", "low": 0.0, "high": 1.0, "power": 1.0},
        "voxel_size": [30.0, 30.0, 30.0],
        "z_context": 2,
    }


def test_other_coco_folders_have_none(tmp_path: Path) -> None:
    assert read_metadata(tmp_path) == DatasetMetadata()
    assert read_metadata(write(tmp_path, "voxel_size: [30, 30, 30]")).normalization is None


def test_volumes_inside_are_found_after_a_move_and_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, root = tmp_path / "beside", tmp_path / "root"
    inside = volume(beside / "volumes" / "in.mrc")
    volume(beside / "volumes" / "in_labels.mrc")
    outside = volume(tmp_path / "cells" / "out.mrc")
    volume(tmp_path / "cells" / "out_labels.mrc")
    monkeypatch.chdir(tmp_path)
    typed = Path("cells") / "out.mrc"  # as on the command line
    write_metadata(DatasetMetadata(volumes=(source(inside), source(typed))), beside, root)
    assert "in.mrc" in (beside / "dataset.yaml").read_text()
    assert str(beside) not in (beside / "dataset.yaml").read_text()
    beside.rename(root)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    pairs = validation_pairs(Path("..") / "root")
    assert [pair[0].resolve() for pair in pairs] == [root / "volumes" / "in.mrc", outside]


def test_a_missing_validation_volume_is_a_warning_that_says_what_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = volume(tmp_path / "a.mrc")
    volume(tmp_path / "a_labels.mrc")
    gone = tmp_path / "gone.mrc"
    unused = source(tmp_path / "train.mrc", "train")
    write_metadata(DatasetMetadata(volumes=(source(there), source(gone), unused)), tmp_path)
    assert validation_pairs(tmp_path) == [(there, tmp_path / "a_labels.mrc")]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "gone.mrc" in caplog.text
    assert "the others are used alone" in caplog.text
    assert "train.mrc" not in caplog.text
    there.unlink()
    assert validation_pairs(tmp_path) == []
    assert "val/f1_3d is not computed, and the object score threshold is not tuned" in caplog.text


def test_a_file_of_the_previous_release_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {key: value for key, value in WHOLE.items() if key != "z_context"} | {"context": 1}
    old["patches"] = {"size": 256, "context": 1}
    old["volumes"] = [
        {
            "name": "a",
            "split": "val",
            "file": "cells/a.mrc",  # relative to the folder in which prepare was started
            "labels": "cells/a_labels.mrc",
            "sha256": "0" * 64,
            "shape": [4, 5, 6],
            "grey": {"method": "mode", "low": 0.0, "high": 1.2, "power": 3.0},
        }
    ]
    volume(tmp_path / "cells" / "a.mrc")
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.chdir(tmp_path)
    metadata = read_metadata(write(root, old))
    assert metadata.z_context == 1
    assert metadata.volumes[0].normalizer == Normalizer("mode", 0, 1.2, 3)
    assert metadata.volumes[0].file == str(tmp_path / "cells" / "a.mrc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_sise": None}, r"voxel_sise=null: unknown key; did you mean voxel_size\?"),
        ({"voxel_size": [30, -1, 30]}, r"voxel_size\[1\]=-1: must be a number above 0"),
        ({"voxel_size": [30, 30]}, "voxel_size"),
        ({"voxel_size": 30}, "voxel_size=30: must be a list of 3"),
        ({"voxel_size": [30, 30, float("nan")]}, r"voxel_size\[2\]=nan: must be a finite number"),
        ({"voxel_size": ["30", 30, 30]}, r"voxel_size\[0\]=30: must be a number"),
        ({"z_context": -1}, "z_context=-1: must be a whole number from 0 to 49"),
        ({"z_context": True}, "z_context=true: must be a whole number"),
        ({"z_context": 2}, r"z_context=2, but patches\.z_context=1"),
        ({"normalization": {"method": "guess"}}, r"normalization\.method=guess: must be mode,"),
        ({"normalization": {"power": 0}}, r"normalization\.power=0: must be a number above 0"),
        ({"normalization": {"power": float("nan")}}, r"normalization\.power=nan"),
        ({"normalization": {"method": "window"}}, r"needs normalization\.low < norm"),
        ({"normalization": {"method": "percentile", "low": -1, "high": 99}}, "from 0 to 100"),
        (
            {"normalization": {"method": "mode", "power": {"_target_": "os.system"}}},
            r"normalization\.power=",
        ),
        ({"normalization": {"_target_": "os.system"}}, r"normalization\._target_=os\.system"),
        ({"normalization": "${oc.env:HOME}"}, r"normalization=\${oc\.env:HOME}: must be"),
        ({"patches": {"z_context": 1, "size": 0}}, r"patches\.size=0: must be a whole number"),
        ({"patches": {"z_context": 1, "axes": ["z", "z"]}}, "name each axis once"),
        ({"volumes": [{"split": "val", "labels": "b"}]}, r"volumes\[0\]\.file is missing"),
        ({"volumes": [{"split": "test", "file": "a", "labels": "b"}]}, r"split=test: must be"),
        ({"volumes": {"a": 1}}, r"volumes=\{'a': 1\}: must be a list"),
        (
            {"volumes": [{"split": s, "file": "a", "labels": "b"} for s in ("train", "val")]},
            "a is in both train and val",
        ),
    ],
)
def test_every_field_is_checked(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_metadata(write(tmp_path, {**WHOLE, **change}))
    assert str(tmp_path / "dataset.yaml") in str(caught.value)


@pytest.mark.parametrize("key", ["z_context", "normalization", "volumes"])
def test_what_training_depends_on_must_be_there(tmp_path: Path, key: str) -> None:
    content = {name: value for name, value in WHOLE.items() if name != key}
    with pytest.raises(InputError, match=f"{key} is missing"):
        read_metadata(write(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n- 2\n", r"holds \[1, 2\], not a mapping"),
        ("", "holds nothing, not a mapping"),
        ("voxel_size: [30, 30", "is not plain YAML: while parsing a flow sequence"),
        ("voxel_size: \x00", "is not plain YAML"),
        ("a: &a [1]\nb: [*a, *a]\n", "has an alias"),
        ("voxel_size: !!python/object/apply:os.system [ls]", "is not plain YAML"),
        ("z_context: 0\nz_context: 1\n", "key z_context is there 2 times"),
        ("z_context: !!timestamp x\n", "is not plain YAML"),
        ("[" * 50_000, "is nested too deeply"),
        ("#" * (MAX_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_metadata(write(tmp_path, text))
    assert str(tmp_path / "dataset.yaml") in str(caught.value)


def test_text_is_never_interpolated(tmp_path: Path) -> None:
    files = {"split": "val", "file": "${oc.env:HOME}/a.mrc", "labels": "${oc.env:HOME}/b.mrc"}
    metadata = read_metadata(write(tmp_path, {"volumes": [files]}))
    assert metadata.volumes[0].file == str(tmp_path / "${oc.env:HOME}" / "a.mrc")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "/dev/zero"])
def test_names_that_no_volume_can_have_are_missing(tmp_path: Path, name: str) -> None:
    files = {"split": "val", "file": name, "labels": name}
    assert validation_pairs(write(tmp_path, {"volumes": [files]})) == []


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").mkdir()
    with pytest.raises(InputError, match=r"dataset\.yaml cannot be read: Is a directory"):
        read_metadata(tmp_path)
