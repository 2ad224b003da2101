from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Compose, balls
from test_predict import SIZE, options

from isgseg.config import plain
from isgseg.errors import InputError
from isgseg.inference.manifest import LabelHash, hash_labels, read_manifest
from isgseg.inference.replay import replayed
from isgseg.io.volumes import read_labels, write_volume
from isgseg.overrides import literal
from isgseg.predict import predict


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    data = balls(7, 30)[0] * 100
    return write_volume(tmp_path / "cells" / "cell 1.mrc", data.astype(np.float32), SIZE)


@pytest.fixture
def made(trained: Path, cell: Path, tmp_path: Path, config: Compose) -> Path:
    """The manifest of a volume that was labelled."""
    folder = tmp_path / "labels"
    predict(config("predict", *options(trained, cell, f"output_dir={folder}", "tta=2")))
    return folder / "cell 1_labels.json"


def again(config: Compose, folder: Path, *arguments: str) -> list[Path]:
    """What isgseg-predict does with these arguments."""
    ready = replayed([*arguments, "progress=false"])
    return predict(config("predict", f"output_dir={folder}", *ready))


def test_a_manifest_holds_what_the_labels_were_made_with(
    made: Path, cell: Path, trained: Path
) -> None:
    import torch

    manifest = read_manifest(made)
    labels = read_labels(made.with_name("cell 1_labels.tif")).data
    assert manifest.volume == str(cell)
    assert manifest.checkpoint == str(trained / "isg_mask_rcnn_final.pth")
    assert manifest.labels_sha256 == hash_labels(labels)
    assert manifest.granules == labels.max() > 0
    assert manifest.versions["torch"] == torch.__version__
    assert set(manifest.versions) == {"isgseg", "python", "torch", "torchvision", "numpy"}
    assert manifest.config["segmentation"]["hysteresis_ratio"] > 0
    assert manifest.config["tta"] == 2
    assert set(manifest.thresholds) == {"score", "mask", "object"}
    assert manifest.device.startswith("cpu")
    assert manifest.seconds > 0
    assert any("tta=1, not 2" in said for said in manifest.warnings)
    assert "${" not in made.read_text()


def test_the_same_labels_bit_for_bit_from_a_manifest(
    made: Path, tmp_path: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (path,) = again(config, tmp_path / "again", f"manifest={made}")
    assert path.read_bytes() == made.with_name("cell 1_labels.tif").read_bytes()
    assert "The labels are those of the manifest, bit for bit" in caplog.text
    first, second = plain_content(made), plain_content(path.with_suffix(".json"))
    assert first["config"]["segmentation"] == second["config"]["segmentation"]
    assert first["labels_sha256"] == second["labels_sha256"]


def plain_content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_what_is_given_goes_before_the_manifest(
    made: Path, tmp_path: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = again(config, tmp_path / "again", f"manifest={made}", "threshold=1")
    assert not read_labels(path).data.any()
    assert "Another threshold than that of the manifest" in caplog.text
    other = write_volume(tmp_path / "other.mrc", balls(3, 4)[0] * 100, SIZE)
    (path,) = again(config, tmp_path / "again", f"manifest={made}", f"volumes={other}")
    assert path.name == "other_labels.tif"
    assert "other.mrc is another volume than that of the manifest" in caplog.text
    with pytest.raises(InputError, match=r"segmentation=slices: a manifest holds single keys"):
        replayed([f"manifest={made}", "segmentation=slices"])


@pytest.mark.parametrize("kind", ["volume", "checkpoint"])
def test_a_changed_file_is_said(made: Path, tmp_path: Path, config: Compose, kind: str) -> None:
    content = plain_content(made)
    content[f"{kind}_sha256"] = "0" * 64
    made.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{Path(content[kind]).name} has changed since"):
        again(config, tmp_path / "again", f"manifest={made}")


def test_what_is_no_manifest_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cell_labels\.json is not there; give the <stem>_labels"):
        replayed([f"manifest={tmp_path}/cell_labels.json"])
    (tmp_path / "cell_labels.json").write_text("{}")
    with pytest.raises(InputError, match="is no manifest"):
        replayed([f"manifest={tmp_path}/cell_labels.json"])
    (tmp_path / "old.json").write_text('{"created_by": "isgseg-predict", "threshold": 0.5}')
    with pytest.raises(InputError, match="earlier release"):
        replayed([f"manifest={tmp_path}/old.json"])


def test_results_of_the_last_release_are_known(
    made: Path, trained: Path, cell: Path, config: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifest = read_manifest(made)
    old = {
        "created_by": "isgseg-predict",
        "labels_sha256": manifest.labels_sha256,
        "isgseg": manifest.versions["isgseg"],
        "checkpoint_sha256": manifest.checkpoint_sha256,
        "volume_sha256": manifest.volume_sha256,
        **{key: manifest.deciding()[key] for key in ("threshold", "normalization", "tta")},
        **{key: manifest.deciding()[key] for key in ("segmentation", "voxel_size", "precision")},
        "fast": True,
    }
    origin = made.with_name("cell 1_granules.json")
    origin.write_text(json.dumps(old))
    made.unlink()
    arguments = options(trained, cell, f"output_dir={made.parent}", "tta=2")
    predict(config("predict", *arguments))
    assert "which is complete" in caplog.text
    assert not made.exists()
    predict(config("predict", *arguments, "threshold=1", "overwrite=true"))
    assert made.exists()
    assert not origin.exists()


def test_a_manifest_of_someone_else_stays(
    trained: Path, cell: Path, tmp_path: Path, config: Compose
) -> None:
    theirs = tmp_path / "labels" / "cell 1_labels.json"
    theirs.parent.mkdir()
    theirs.write_text("{}")
    arguments = options(trained, cell, f"output_dir={theirs.parent}", "overwrite=true")
    with pytest.raises(InputError, match="was not written by isgseg-predict"):
        predict(config("predict", *arguments))
    assert theirs.read_text() == "{}"


def test_the_hash_of_labels_is_the_same_slab_by_slab() -> None:
    labels = np.random.default_rng(0).integers(0, 300, (7, 5, 6)).astype(np.uint16)
    digest = LabelHash()
    for first in range(0, 7, 3):
        digest.update(labels[first : first + 3].astype(np.uint32))
    assert digest.hexdigest() == hash_labels(labels) == hash_labels(np.asfortranarray(labels))


@pytest.mark.parametrize(
    "text",
    ["a'b.mrc", "x\\y", "end\\", "q\\'x", "a, b [c].mrc", "a${b}.mrc", "783_5", "null", '"q"'],
)
def test_any_text_survives_hydra(text: str, config: Compose) -> None:
    assert plain(config("predict", f"++volumes={literal(text)}"))["volumes"] == text


@pytest.mark.parametrize(
    "flags",
    [["--config-path={folder}", "--config-name={name}"], ["-cp", "{folder}", "-cn", "{name}"]],
)
def test_hydras_own_flags_name_a_manifest(made: Path, flags: list[str]) -> None:
    named = [flag.format(folder=made.parent, name=made.stem) for flag in flags]
    assert replayed([*named, "output_dir=x"]) == replayed([f"manifest='{made}'", "output_dir=x"])
    assert replayed(["--config-name", "other"]) == ["--config-name", "other"]


@pytest.mark.slow
def test_the_command_takes_a_manifest(made: Path, tmp_path: Path) -> None:
    arguments = [f"--config-path={made.parent}", "--config-name", made.stem]
    folders = [f"output_dir={tmp_path}/again", f"paths.root={tmp_path}/out"]
    command = [sys.executable, "-m", "isgseg.predict", *arguments, *folders]
    subprocess.run(command, check=True)
    labels = tmp_path / "again" / "cell 1_labels.tif"
    assert labels.read_bytes() == made.with_name(labels.name).read_bytes()
