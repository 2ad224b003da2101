"""Volumes with bytes flipped, cut out, inserted or cut off: an InputError, or a volume."""

from __future__ import annotations

import gzip
import logging
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from isgseg.errors import InputError
from isgseg.io.volumes import read_labels, read_volume, write_volume

KINDS = (".mrc", ".mrc.gz", ".tif", ".ome.tif", ".npy", "deflate.tif", "lzma.tif")
NUMBERS = (0, 1, 2, 3, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def seed_file(folder: Path, kind: str) -> bytes:
    data = np.random.default_rng(0).integers(0, 300, (3, 6, 5)).astype(np.uint16)
    if kind.startswith("."):
        return write_volume(folder / f"seed{kind}", data, (30.0, 36.8, 30.0)).read_bytes()
    path = folder / "seed.tif"
    tifffile.imwrite(path, data, compression=kind.split(".")[0], photometric="minisblack")
    return path.read_bytes()


def damaged(good: bytes, random: np.random.Generator) -> bytes:
    """One to four changes, most of them in the first kilobytes, where headers are."""
    raw = bytearray(good)
    for _ in range(random.integers(1, 5)):
        if not raw:
            break
        head = min(len(raw), 1200 if random.random() < 0.8 else len(raw))
        at, what = int(random.integers(head)), random.integers(6)
        if what == 0:
            raw[at] ^= 1 << int(random.integers(8))
        elif what == 1:
            raw[at] = int(random.integers(256))
        elif what == 2:
            del raw[at:]
        elif what == 3:
            del raw[at : at + int(random.integers(1, 9))]
        elif what == 4:
            raw[at:at] = random.bytes(int(random.integers(1, 9)))
        else:
            number = NUMBERS[random.integers(len(NUMBERS))]
            raw[at & ~3 : (at & ~3) + 4] = struct.pack("<I" if at % 2 else ">I", number)
    return bytes(raw)


def fuzz(folder: Path, kind: str, cases: int, seed: int) -> tuple[int, int]:
    """How many damaged files were read and refused; anything else fails the test."""
    random = np.random.default_rng(seed)
    good = seed_file(folder, kind)
    packed = kind.endswith(".gz")
    path = folder / f"case{kind if kind.startswith('.') else '.tif'}"
    read = refused = 0
    for number in range(cases):
        if packed and number % 2:  # the content, not the packing
            raw = gzip.compress(damaged(gzip.decompress(good), random), 1)
        else:
            raw = damaged(good, random)
        path.write_bytes(raw)
        reader: Any = read_labels if number % 3 == 0 else read_volume
        try:
            volume = reader(path)
        except InputError as error:
            refused += path.name in str(error)
        except Exception as error:
            keep = folder / f"failed{path.name}"
            keep.write_bytes(raw)
            raise AssertionError(f"case {number} of seed {seed}: {error!r}; {keep}") from error
        else:
            assert volume.data.ndim == 3
            assert volume.data.size
            read += 1
    return read, refused


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read, refused = fuzz(tmp_path, kind, 150, seed=0)
    finally:
        logging.disable(logging.NOTSET)
    assert read + refused == 150
    assert refused > 10


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(tmp_path: Path, kind: str, seed: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fuzz(tmp_path, kind, 1500, seed)
    finally:
        logging.disable(logging.NOTSET)
