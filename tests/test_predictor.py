"""What a predictor knows of volumes, and that it changes nothing but its own state."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import balls

from isgseg.data.normalization import Normalizer
from isgseg.errors import InputError
from isgseg.inference.appearance import AS_IT_IS, as_learnt, holds_bytes
from isgseg.inference.method import Granules, no_granules
from isgseg.inference.predictor import Predictor
from isgseg.io.volumes import Volume
from isgseg.models.checkpoint import load_checkpoint
from isgseg.models.settings import Thresholds, TrainingMetadata

Array = np.ndarray[Any, Any]
FINAL = "isg_mask_rcnn_final.pth"
PLAIN: dict[str, Any] = {"progress": False, "precision": "32-true", "device": "cpu"}


@pytest.fixture(scope="module")
def bytes_() -> Array:
    """Grey values as the images have them that the network was trained on."""
    data = balls(5, 30)[0]
    data[:, :, :8] += 0.6
    return np.clip(data * 100, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_a_network_of_8_bit_images_takes_8_bit_values_as_they_are(
    trained: Path, bytes_: Array, dtype: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    predictor = Predictor.from_checkpoint(trained / FINAL, **PLAIN)
    found = predictor.segment(Volume(bytes_.astype(dtype), None), "cell.mrc")
    assert "cell.mrc holds 8-bit values: they are taken as they are" in caplog.text
    window = {"method": "window", "low": 0.0, "high": 255.0}
    same = Predictor.from_checkpoint(trained / FINAL, normalization=window, **PLAIN)
    assert found.labels.max() >= 5
    assert np.array_equal(found.labels, same.segment(Volume(bytes_, None)).labels)


def test_values_of_8_bits_pass_unchanged() -> None:
    values = np.arange(256, dtype=np.float32).reshape(1, 16, 16)
    assert np.array_equal(AS_IT_IS.fit(values)(values), values.astype(np.uint8))


def test_what_holds_the_values_of_an_8_bit_image() -> None:
    for values, expected in (
        (np.array([0, 255], np.uint8), True),
        (np.array([0, 3], np.uint8), True),
        (np.array([0, 127], np.int8), True),
        (np.array([-1, 127], np.int8), False),
        (np.array([0, 255], np.uint16), True),
        (np.array([0, 256], np.uint16), False),
        (np.array([0, 255.0]), True),
        (np.array([0, 254.5]), False),
        (np.array([0, 1.0]), False),  # a mask, or LAC
        (np.array([0.0045, 0.0145]), False),
    ):
        assert holds_bytes(values.reshape(2, 1, 1)) == expected, values


def test_other_values_are_windowed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    volume = np.random.default_rng(0).random((2, 8, 8))
    chosen = as_learnt(TrainingMetadata(), volume, "cell.mrc")
    assert (chosen.method, chosen.low, chosen.high) == ("percentile", 0.1, 99.9)
    assert "cell.mrc is windowed between its percentiles" in caplog.text
    assert as_learnt(None, volume, "cell.mrc").method == "slice"
    own = TrainingMetadata(normalization={"method": "mode"})  # type: ignore[arg-type]
    assert as_learnt(own, volume, "cell.mrc").method == "mode"


def test_a_constant_volume_has_no_granule_and_says_so(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.from_checkpoint(trained / FINAL, **PLAIN)
    found = predictor.segment(Volume(np.full((2, 32, 32), 7.0), None), "blank.mrc")
    assert not found.labels.any()
    assert "blank.mrc: all voxels are 7" in caplog.text


def test_no_granule_is_a_line_that_says_what_to_check(
    trained: Path, bytes_: Array, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.from_checkpoint(trained / FINAL, threshold=1.0, **PLAIN)
    assert not predictor.segment(Volume(bytes_, None), "cell.mrc").labels.any()
    (line,) = (record.message for record in caplog.records if "no granule" in record.message)
    for word in ("cell.mrc", "normalization", "voxel size", "thresholds", "1"):
        assert word in line


def changed(trained: Path, folder: Path, **metadata: Any) -> Path:
    """The trained checkpoint with other metadata."""
    content = torch.load(trained / FINAL, weights_only=True)
    content["hyper_parameters"]["metadata"] |= metadata
    torch.save(content, folder / "changed.pth")
    return folder / "changed.pth"


def test_classes_are_told_and_all_count(
    trained: Path, bytes_: Array, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    content = torch.load(trained / FINAL, weights_only=True)
    given = content["hyper_parameters"]
    given["network"]["num_classes"] = 3
    given["metadata"]["classes"] = ["granule", "lysosome"]
    for name, value in content["state_dict"].items():
        parts = {"cls_score": 2, "bbox_pred": 8, "mask_fcn_logits": 2}
        if "predictor" in name and (rows := [n for part, n in parts.items() if part in name]):
            last = value[rows[0] // 2 :]  # of the granules; the third class is the same again
            content["state_dict"][name] = torch.cat([value, last])
    torch.save(content, tmp_path / "two.pth")
    found = Predictor.from_checkpoint(tmp_path / "two.pth", threshold=0.3, **PLAIN)
    assert "knows 2 classes of objects (granule, lysosome): every one" in caplog.text
    assert found.segment(Volume(bytes_, None)).labels.max() >= 4


def test_an_unknown_voxel_size_is_taken_as_that_of_the_training_with_a_warning(
    trained: Path, bytes_: Array, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed(trained, tmp_path, voxel_size=[30.0, 30.0, 30.0])
    predictor = Predictor.from_checkpoint(path, **PLAIN)
    unknown = predictor.segment(Volume(bytes_, None), "cell.mrc")
    assert "set voxel_size=" in caplog.text
    caplog.clear()
    known = predictor.segment(Volume(bytes_, (30.0, 30.0, 30.0)), "cell.mrc")
    assert not caplog.text
    assert np.array_equal(unknown.labels, known.labels)


def test_predicting_changes_nothing_of_the_network(trained: Path, bytes_: Array) -> None:
    network = load_checkpoint(trained / FINAL).build()
    before = copy.deepcopy(network.state_dict())
    state = (network.roi_heads.score_thresh, network.symmetries, network.transform.zoom)
    for fast in (True, False):
        predictor = Predictor.from_network(
            network,
            TrainingMetadata(voxel_size=[20.0, 20.0, 20.0]),
            tta=2,
            threshold=0.9,
            fast=fast,
            progress=False,
        )
        predictor.segment(Volume(bytes_, (30.0, 30.0, 30.0)))
    assert state == (network.roi_heads.score_thresh, network.symmetries, network.transform.zoom)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_second_method_needs_the_protocol_alone(bytes_: Array) -> None:
    class Bright:
        """One granule: all that is bright."""

        def segment(self, volume: Volume, normalizer: Normalizer, name: str = "") -> Granules:
            labels = (normalizer(volume.data) > 130).astype(np.uint16)
            one = np.ones(1)
            return Granules(labels, one, one, np.ones(1, np.int64))

    predictor = Predictor(Bright(), TrainingMetadata(), Thresholds(0.5, 0.5, 0.5))
    assert predictor.segment(Volume(bytes_, None)).labels.max() == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 2}, "threshold=2 must be a number from 0 to 1"),
        ({"threshold": float("nan")}, "threshold=nan must be"),
        ({"segmentation": {"mask_threshold": 2}}, "mask_threshold=2"),
        ({"segmentation": {"max_overlap": 7}}, "max_overlap=7"),
        ({"segmentation": {"min_pixels": -5}}, "min_pixels=-5"),
        ({"segmentation": {"min_slices": float("nan")}}, "min_slices=nan"),
        ({"segmentation": {"separate": "maybe"}}, "separate=maybe"),
        ({"segmentation": {"colour": "red"}}, "colour"),
        ({"normalization": {"method": "median"}}, "method=median"),
        ({"tta": 3}, "tta is 3"),
        ({"precision": "64"}, "precision"),
        ({"device": "foo"}, "device=foo"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(
    trained: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Predictor.from_checkpoint(trained / FINAL, **{**PLAIN, **settings})


def test_no_granules_are_background() -> None:
    none = no_granules((2, 3, 4))
    assert none.labels.shape == (2, 3, 4)
    assert not none.labels.any()
    assert len(none.score) == len(none.best) == len(none.slices) == 0
