"""Memory and time of isgseg-predict on volumes that are larger than the memory it may take.

Run `python benchmarks/large_volumes.py --output benchmarks/results/large_volumes.json`. A phantom
is tiled to 1,024 x 1,024 pixels and as many slices as asked for. Each measurement has a process of
its own, whose address space is limited; memory is the peak of its resident memory, by the kernel's
count, and time is that of the processor.

With 1,200 slices the network alone would take hours on one core. There a stand-in takes its place:
what is bright in a slice is a detection. All else is what isgseg-predict does: reading,
normalizing, linking, splitting, the table, the files. The network is measured on a few slices of
the same size.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import Result, add_output
from scipy import ndimage as ndi

from isgseg.io.by_slices import write_mrc_slices
from isgseg.io.ome_zarr_writing import write_zarr
from isgseg.io.on_disk import OnDisk
from isgseg.phantom import make_phantom

SIDE = 1024  # pixels of a slice, along y and x
TILE = (64, 256, 256)
NM = (30.0, 30.0, 30.0)
Row = dict[str, float]


class Bright:
    """A `SliceModel` in place of a network: what is bright in a slice is a detection."""

    def detect(
        self, slices: Any, normalizer: Any, threshold: float, zoom: Any = (1.0, 1.0)
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Detections of every slice, in order."""
        for z in range(len(slices)):
            boxes = [
                [x.start, y.start, x.stop, y.stop]
                for y, x in ndi.find_objects(ndi.label(normalizer(slices[z]) > 165)[0])
                if 4 <= y.stop - y.start <= 20 and 4 <= x.stop - x.start <= 20
            ]
            yield {
                "masks": np.ones((len(boxes), 28, 28), np.float32),
                "mask_boxes": np.array(boxes, np.float32).reshape(-1, 4),
                "scores": np.full(len(boxes), 0.9, np.float32),
            }


def main() -> None:
    """The stand-in on more and more slices, then the network on a few."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="*", default=[64, 300, 1200])
    parser.add_argument("--network-slices", type=int, nargs="*", default=[2, 6])
    parser.add_argument("--limit", type=float, default=6.0, help="GB of address space")
    parser.add_argument("--formats", nargs="*", default=["mrc", "zarr"])
    parser.add_argument("--seed", type=int, default=0)
    add_output(parser)
    args = parser.parse_args()
    result = Result(f"Volumes of {SIDE} x {SIDE} pixels a slice", seeds=[args.seed])
    tile = make_phantom(args.seed, shape=TILE).volume
    tile = np.clip(tile * 1e6, 0, 65535).astype(np.uint16)
    result.details["limit_gb"] = args.limit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in args.formats:
            rows = {n: alone(folder, tile, n, kind, False, args.limit) for n in args.slices}
            tell(result, f"stand-in, {kind}", rows)
        rows = {n: alone(folder, tile, n, "mrc", True, args.limit) for n in args.network_slices}
        tell(result, "network of the package", rows)
    result.write(args.output)


def tell(result: Result, what: str, rows: dict[int, Row]) -> None:
    """Adds the numbers of one method on more and more slices."""
    each = {count: row["seconds"] / count for count, row in rows.items()}
    for count, row in rows.items():
        name = f"{what}, {count:,} slices"
        result.add("memory", f"{name}: peak", row["peak"], "GB", "<= 4")
        result.add("speed", f"{name}: a slice", each[count], "s")
        result.details[name] = row
    if len(rows) > 1:
        first, last = min(rows), max(rows)
        growth = 100 * (each[last] / each[first] - 1)
        name = f"{what}, {first} to {last:,} slices: growth of the time a voxel"
        target = None if what.startswith("network") else "within +- 10"
        result.add("speed", name, growth, "%", target)


def alone(
    folder: Path, tile: npt.NDArray[Any], count: int, kind: str, network: bool, limit: float
) -> Row:
    """Labels a volume in a process of its own."""
    path = folder / f"cell.{kind}"
    volume = tiled(tile, count)
    if kind == "mrc":
        write_mrc_slices(path, volume, NM)
    else:
        write_zarr(path, volume, NM)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        row = pool.submit(label, path, network, limit).result()
    if kind == "mrc":
        path.unlink()
    else:
        path.rename(folder / f"old{count}.zarr")
    return row


def tiled(tile: npt.NDArray[Any], count: int) -> OnDisk:
    """The phantom beside itself, and to and fro along z, so that all slices are alike."""
    fold = [SIDE // side for side in tile.shape[1:]]
    places = np.arange(count) % (2 * len(tile))
    places = np.minimum(places, 2 * len(tile) - 1 - places)

    def read(start: int, stop: int) -> npt.NDArray[Any]:
        return np.tile(tile[places[start:stop]], (1, *fold))

    return OnDisk(Path("tiled"), (count, SIDE, SIDE), tile.dtype, read)


def label(path: Path, network: bool, limit: float) -> Row:
    """Labels a volume, and writes labels, table and manifest, as isgseg-predict does.

    Returns:
        `seconds` of the processor, the `peak` of memory and what of it was there `before`, GB;
        `granules`.
    """
    resource.setrlimit(resource.RLIMIT_AS, (int(limit * 1e9),) * 2)
    from isgseg.data.normalization import Normalization
    from isgseg.inference.manifest import Manifest, versions
    from isgseg.inference.outputs import Outputs
    from isgseg.inference.predictor import Predictor
    from isgseg.inference.segmentation import SliceSegmenter
    from isgseg.inference.settings import SegmentationSettings
    from isgseg.models.settings import Thresholds
    from isgseg.predict import Labelling, predict_file

    if network:
        predictor = Predictor.from_checkpoint(None, device="cpu", progress=False)
    else:
        thresholds = Thresholds(0.5, 0.5, 0.5)
        settings = SegmentationSettings(split=True)
        method = SliceSegmenter(Bright(), thresholds, settings)
        predictor = Predictor(method, None, thresholds, Normalization(method="mode"))
    config = {"voxel_size": None, "device": "cpu", "into_zarr": False}
    manifest = Manifest(str(path), "", "", "", versions(), config)
    outputs = Outputs.of(path, path.parent, "tif" if path.suffix == ".mrc" else "zarr")
    before = peak()
    start = time.process_time()
    item = Labelling(path, outputs.labels, path.parent / "record.json", outputs, manifest)
    made = predict_file(predictor, item)
    seconds = time.process_time() - start
    outputs.manifest.unlink()
    return {"seconds": seconds, "peak": peak(), "before": before, "granules": made.granules}


def peak() -> float:
    """Of this process's resident memory, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
