"""Damages many files of every kind that isgseg reads, and counts what goes wrong.

    python tests/reliability/fuzz.py --files 100000 --seed 0

A batch of files runs in a process of its own, so that a crash or a hang ends only that. A file is
read, or refused by an `InputError` of one line. Any fault gives exit status 1.
"""

from __future__ import annotations

import argparse
import io
import logging
import multiprocessing
import random
import sys
import tempfile
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

Reader = Callable[[], None]  # damages a file and reads it
FAULTS = ("crashes", "hangs", "unclean")
BATCH = 100  # files
HANG = 60.0  # seconds of one file from which on it is a hang
START = 600.0  # seconds to import and to make the first file
VOLUMES = (".mrc", ".mrc.gz", ".tif", ".ome.tif", ".npy", "deflate.tif", "lzma.tif")
KINDS = (*(f"volume {kind}" for kind in VOLUMES), "annotations", "image", "metadata", "checkpoint")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    for number in range(-(-arguments.files // BATCH)):
        kind = KINDS[number % len(KINDS)]
        files = min(BATCH, arguments.files - number * BATCH)
        found = run_batch(kind, files, arguments.seed * 1_000_003 + number)
        total.update(found + Counter({f"{kind}: {name}": n for name, n in found.items()}))
    print({name: total[name] for name in ("files", "read", "refused", *FAULTS)})
    for kind in KINDS:
        print(f"  {kind}: {total[f'{kind}: files']} files, {total[f'{kind}: refused']} refused")
    return int(any(total[name] for name in FAULTS))


def run_batch(kind: str, files: int, seed: int) -> Counter[str]:
    """What became of the files of one batch; a crash or a hang ends it early."""
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(theirs, kind, files, seed))
    process.start()
    theirs.close()
    found: Counter[str] = Counter()
    try:
        ours.poll(START)
        ours.recv()
        while found["files"] < files:
            if not ours.poll(HANG):
                found.update(["files", "hangs"])
                print(f"hang: {kind}, seed {seed}, file {found['files']}", flush=True)
                break
            outcome, text = ours.recv()
            found.update(["files", outcome])
            if outcome == "unclean":
                print(f"unclean: {kind}, seed {seed}, file {found['files']}:\n{text}", flush=True)
    except EOFError:
        found.update(["files", "crashes"])
        print(f"crash: {kind}, seed {seed}, file {found['files'] + 1}", flush=True)
    process.kill()
    process.join()
    return found


def work(pipe: Connection, kind: str, files: int, seed: int) -> None:
    """Damages and reads files, and tells of each what became of it."""
    from isgseg.errors import InputError

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        read = READERS[kind.split(maxsplit=1)[0]](Path(folder), kind, chance)
        pipe.send(("started", ""))
        for _ in range(files):
            try:
                read()
                outcome = ("read", "")
            except InputError as error:
                clean = len(str(error).splitlines()) == 1 and len(str(error)) < 5000
                outcome = ("refused", "") if clean else ("unclean", f"message: {error!r}")
            except Exception:
                outcome = ("unclean", traceback.format_exc())
            pipe.send(outcome)


def volumes(folder: Path, kind: str, chance: random.Random) -> Reader:
    """Of MRC, TIFF and NPY files."""
    import gzip

    import numpy as np
    from test_fuzz_volumes import damaged, seed_file

    from isgseg.io.volumes import read_labels, read_volume

    suffix = kind.split(maxsplit=1)[1]
    good = seed_file(folder, suffix)
    generator = np.random.default_rng(chance.getrandbits(32))
    path = folder / f"case{suffix if suffix.startswith('.') else '.tif'}"

    def read() -> None:
        if suffix.endswith(".gz") and chance.random() < 0.5:
            path.write_bytes(gzip.compress(damaged(gzip.decompress(good), generator), 1))
        else:
            path.write_bytes(damaged(good, generator))
        (read_labels if chance.random() < 0.3 else read_volume)(path)

    return read


def _dataset(folder: Path) -> Path:
    from conftest import save_coco

    for seed, split in enumerate(("train", "val")):
        save_coco(folder / split, images=2, seed=seed)
    return folder


def coco(folder: Path, kind: str, chance: random.Random) -> Reader:
    """Of COCO's annotations.json, in its values and in its bytes."""
    import json

    from test_fuzz_coco import damage, mutate

    path = _dataset(folder) / "val" / "annotations.json"
    good = path.read_bytes()

    def read() -> None:
        content = json.loads(good)
        mutate(content, chance)
        path.write_text(json.dumps(content))
        if chance.random() < 0.1:
            path.write_bytes(damage(good, chance))
        _use(folder)

    return read


def images(folder: Path, kind: str, chance: random.Random) -> Reader:
    """Of a COCO image."""
    from test_fuzz_coco import damage

    path = _dataset(folder) / "val" / "images" / "image_0.png"
    good = path.read_bytes()

    def read() -> None:
        path.write_bytes(damage(good, chance))
        _use(folder)

    return read


def _use(root: Path) -> None:
    """Reads everything of a dataset that training would."""
    from isgseg.data.splits import open_splits

    for split in open_splits(root).values():
        split.require_objects()
        for index in range(len(split)):
            image, target = split[index]
            assert image.shape[1:] == target["masks"].shape[1:] == split.size(index)


def metadata(folder: Path, kind: str, chance: random.Random) -> Reader:
    """Of dataset.yaml."""
    import yaml
    from test_fuzz_coco import damage, mutate

    from isgseg.data.metadata import read_metadata

    normalization = {"method": "mode", "low": None, "high": None, "power": 3.0}
    good = {"voxel_size": [30.0] * 3, "z_context": 0, "normalization": normalization}
    path = folder / "dataset.yaml"

    def read() -> None:
        content = yaml.safe_load(yaml.safe_dump(good))
        mutate(content, chance)
        path.write_text(yaml.safe_dump(content), errors="replace")
        if chance.random() < 0.3:
            path.write_bytes(damage(yaml.safe_dump(good).encode(), chance))
        read_metadata(folder).for_checkpoint()

    return read


def checkpoints(folder: Path, kind: str, chance: random.Random) -> Reader:
    """Of a .pth file, in its content, its bytes and its pickle."""
    import torch
    from test_fuzz_coco import damage, mutate

    from isgseg.models.checkpoint import load_checkpoint

    weights = {f"network.layer{i}.weight": torch.ones(3, 2) for i in range(3)}
    network = {"backbone": "resnet18", "scale": 1.0, "anchor_sizes": [[6], [12]], "stages": [1, 2]}
    facts = {"voxel_size": [30.0] * 3, "z_context": 0, "normalization": {"method": "mode"}}
    path = folder / "case.pth"

    def content() -> dict[str, object]:
        return {
            "state_dict": dict(weights),
            "hyper_parameters": {"network": dict(network), "metadata": dict(facts), "tta": 1},
            "thresholds": {"score": 0.5, "mask": 0.5, "object": 0.5},
        }

    torch.save(content(), path)
    good = path.read_bytes()

    def read() -> None:
        how = chance.random()
        if how < 0.4:
            changed = content()
            mutate(changed, chance)
            torch.save(changed, path)
        elif how < 0.7:
            path.write_bytes(damage(good, chance))
        else:
            buffer = io.BytesIO()
            with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w") as new:
                for name in old.namelist():
                    raw = old.read(name)
                    new.writestr(name, damage(raw, chance) if name.endswith(".pkl") else raw)
            path.write_bytes(buffer.getvalue())
        load_checkpoint(path)

    return read


READERS: dict[str, Callable[[Path, str, random.Random], Reader]] = dict(
    volume=volumes, annotations=coco, image=images, metadata=metadata, checkpoint=checkpoints
)

if __name__ == "__main__":
    sys.exit(main())
