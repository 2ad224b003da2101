"""Inputs that users have by mistake: read right, or refused in a line with a remedy."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
import torch
from conftest import balls

import isgseg
from isgseg.data.normalization import Normalization
from isgseg.errors import InputError
from isgseg.io.formats import parse_voxel_size
from isgseg.io.pairing import find_pairs
from isgseg.io.volumes import VolumeError, read_volume, write_volume
from isgseg.models.checkpoint import load_checkpoint, read_checkpoint

RAMP = np.arange(120, dtype=np.uint16).reshape(4, 6, 5)


def mrc(path: Path, **fields: Any) -> Path:
    with mrcfile.new(path, RAMP, overwrite=True) as file:
        for name, value in fields.items():
            file.header[name] = value
    return path


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.mrc", b"II*\0" + bytes(500), "a TIFF file; name it .tif"),
        ("a.tif", b"\x93NUMPY" + bytes(500), "an NPY file; name it .npy"),
        ("a.mrc", b"<!DOCTYPE html>" + b" " * 2000, "a web page; download"),
        ("a.npy", bytes(208) + b"MAP " + bytes(900), "an MRC file; name it .mrc"),
        ("a.mrc.gz", gzip.compress(b"II*\0" + bytes(500), mtime=0), "a TIFF file"),
        ("a.mrc.gz", gzip.compress(bytes(9000), mtime=0)[:-9], "copy or export it again"),
        ("a.mrc", bytes(9000), "Map ID.*; copy or export it again"),
        ("a.tif", b"", "not a TIFF file.*; copy or export"),
        ("a.st", b"x", "can be renamed"),
        ("a.tif.gz", b"x", "unpack it first"),
    ],
)
def test_what_a_file_is_and_what_would_do(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=reason) as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(6, 5), (2, 4, 6, 5), (0, 6, 5)])
def test_a_remedy_for_every_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(VolumeError, match=r"stack the slices|one channel|export it again"):
        read_volume(tmp_path / "a.npy")


@pytest.mark.parametrize("cell", [(1e30, 1e30, 1e30), (1.5, 1.8, 1.2), (5e-3, 6e-3, 4e-3)])
def test_voxels_of_no_microscope_are_unknown(
    tmp_path: Path, cell: tuple[float, ...], caplog: pytest.LogCaptureFixture
) -> None:
    assert read_volume(mrc(tmp_path / "a.mrc", cella=cell)).voxel_size is None
    assert "not that of a microscope" in caplog.text


@pytest.mark.parametrize("given", [0.03, 1e-9, 1e9, [30, 30, 1e8]])
def test_a_voxel_size_in_another_unit_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match="1 um is 1000 nm"):
        parse_voxel_size(given)
    assert parse_voxel_size(np.array([30.0, 30, 31])) == (30, 30, 31)


def test_slices_written_one_by_one_are_a_volume(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in RAMP:
            file.write(plane, contiguous=False)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, RAMP)


def test_metadata_without_sense_are_no_reason_to_refuse_voxels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for spacing in ("abc", float("nan")):
        metadata = {"axes": "ZYX", "unit": "um", "spacing": spacing}
        tifffile.imwrite(tmp_path / "a.tif", RAMP, imagej=True, metadata=metadata)
        assert read_volume(tmp_path / "a.tif").voxel_size is None
    assert "no voxel size that can be read" in caplog.text


def test_missing_frames_are_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RAMP, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    path.write_bytes(path.read_bytes().replace(b'SizeZ="4"', b'SizeZ="9"'))
    with pytest.raises(VolumeError, match="missing 5 frames"):
        read_volume(path)


def test_volumes_and_labels_that_were_exchanged(tmp_path: Path) -> None:
    for name in ("a.mrc", "a_labels.mrc", "b.mrc", "b_labels.mrc"):
        write_volume(tmp_path / name, RAMP, None)
    with pytest.raises(InputError, match="exchange the two"):
        find_pairs(str(tmp_path / "*_labels.mrc"), str(tmp_path / "[ab].mrc"))
    (tmp_path / "labels").mkdir()
    write_volume(tmp_path / "labels" / "isg1.mrc", RAMP, None)
    write_volume(tmp_path / "isg1.mrc", RAMP, None)
    assert find_pairs(str(tmp_path / "isg1.mrc"), str(tmp_path / "labels" / "isg1.mrc"))


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(),
        Normalization("percentile", 1, 99),
        Normalization("window", 100, 200),
        Normalization("window", -3, 1),
    ],
)
def test_nothing_to_see_is_refused(normalization: Normalization) -> None:
    with pytest.raises(InputError, match="nothing to see"):
        normalization.fit(np.full((3, 4, 5), 2.0, np.float32), "a.mrc")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c, w: c.update(thresholds={"score": 2, "mask": 0.5, "object": 0.5}), "from 0 to 1"),
        (lambda c, w: c.update(thresholds={"score": 0.5}), "mask is missing: a number from 0"),
        (lambda c, w: w.update({w["first"]: w[w["first"]].to(torch.complex64)}), "is complex"),
        (lambda c, w: w.update({w["first"]: w[w["first"]].int()}), "not floats"),
        (lambda c, w: w[w["first"]].fill_(1e30), "NaN, infinite or beyond"),
    ],
)
def test_content_of_a_checkpoint(trained: Path, tmp_path: Path, change: Any, reason: str) -> None:
    content = read_checkpoint(trained / "isg_mask_rcnn_final.pth")
    weights = content["state_dict"]
    weights["first"] = next(name for name in weights if name.endswith("conv1.weight"))
    change(content, weights)
    del weights["first"]
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=reason):
        load_checkpoint(tmp_path / "x.pth").build()


def test_names_of_weights_are_text(tmp_path: Path) -> None:
    torch.save({1: torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="no network weights"):
        load_checkpoint(tmp_path / "x.pth")


def test_no_advice_to_unpickle_after_all(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"objects \(torch.nn.modules.linear.Linear\)") as caught:
        load_checkpoint(tmp_path / "x.pth")
    assert "weights_only" not in str(caught.value)


def test_calls_of_the_python_interface_can_be_chained(trained: Path) -> None:
    volume, _ = balls(3, 1)
    path = trained / "isg_mask_rcnn_final.pth"
    found = isgseg.create_segmenter(device="cpu").load_model(path).predict(volume, progress=False)
    assert found.max() > 0


@pytest.mark.parametrize("path", [3, b"x", "a" * 5000, "~nobody_of_that_name/a.pth", "a\0b"])
def test_what_is_no_path_of_a_checkpoint(path: Any) -> None:
    with pytest.raises(InputError):
        isgseg.create_segmenter(device="cpu").load_model(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([[[1, 2], [3]]], "no array of numbers"),
        (torch.zeros(2, 3, 4, requires_grad=True), "no array of numbers"),
        (np.ma.masked_array(np.zeros((2, 3, 4)), np.ones((2, 3, 4), bool)), "masked voxels; fill"),
        (np.full((2, 3, 4), 9.97e36), "beyond 1e.30; replace"),
        (np.zeros((3, 4)), "stack slices"),
    ],
)
def test_arrays_that_are_no_volumes(trained: Path, data: Any, reason: str) -> None:
    segmenter = isgseg.create_segmenter(device="cpu").load_model(trained / "isg_mask_rcnn_best.pth")
    with pytest.raises(InputError, match=reason):
        segmenter.predict(data, progress=False)


@pytest.mark.parametrize(
    "keyword",
    [{"tta": True}, {"tta": 2.0}, {"normalization": "mode"}, {"normalization": [1]}],
)
def test_keywords_of_other_types(trained: Path, keyword: dict[str, Any]) -> None:
    segmenter = isgseg.create_segmenter(device="cpu").load_model(trained / "isg_mask_rcnn_best.pth")
    with pytest.raises(InputError, match=next(iter(keyword))):
        segmenter.predict(balls(3, 1)[0], progress=False, **keyword)
