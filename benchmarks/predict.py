"""How fast volumes are labelled, beside the documented path: plain torchvision at 800 pixels.

Run ``python benchmarks/predict.py --light LIGHT.pth --default DEFAULT.pth --json speed.json --plot
speed.png``. Without a checkpoint a model of ours has random weights and finds nothing, so that its
times lack mask head, pasting and linking; torchvision's, random too, draws its 100 masks.
``--slices 2 --rounds 1 --growth`` is a quick look.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import ndimage as ndi
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import maskrcnn_resnet50_fpn

from isgseg import detection, labelling
from isgseg.config import CONFIG_DIR
from isgseg.hardware import autocast, pick_device, pick_precision
from isgseg.instances.linking import SliceLinker
from isgseg.instances.matching import match_instances
from isgseg.labelling import grey_of, label_volume
from isgseg.model.checkpoint import load_module, read_checkpoint, state_dict
from isgseg.model.module import MaskRCNNModule
from isgseg.normalization import Grey, Normalization
from isgseg.phantom import make_phantom
from isgseg.volume import write_volume

Array = npt.NDArray[Any]
Contender = Callable[[Array], Array]
Rows = dict[str, dict[str, float]]
FIELD = (486, 473)  # (y, x) pixels of a slice
DOCUMENTED = "documented"
REACH = {"light fast": 15.0, "default fast": 5.0}  # times faster than the documented path
MODELS = {"default": "resnet50", "light": "resnet10"}
CONTENDERS = (DOCUMENTED, *(f"{model} {path}" for model in MODELS for path in ("plain", "fast")))
PARTS = {
    "resize": "transform",
    "backbone": "backbone.body",
    "pyramid": "backbone.fpn",
    "proposals": "rpn",
    "cut out": "roi_heads.box_roi_pool",
    "box head": "roi_heads.box_head",
    "cut out masks": "roi_heads.mask_roi_pool",
    "mask head": "roi_heads.mask_head",
    "mask predictor": "roi_heads.mask_predictor",
}


def main() -> None:
    args = arguments()
    depth = max([args.slices * args.rounds, *args.growth[:1]])
    phantom = make_phantom(args.seed, shape=(depth, *FIELD))
    device = pick_device(args.device)
    result: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "precision of ours": pick_precision(args.precision, device),
        },
        "checkpoints": {name: getattr(args, name) for name in (DOCUMENTED, *MODELS)},
    }
    print(f"{result['machine']}\n{result['checkpoints']}", flush=True)
    result["memory"], result["growth"] = alone(phantom.volume, args)
    result["speed"] = race(phantom.volume, phantom.labels, args)
    result["parts"], result["network"] = {}, {}
    for name in MODELS:
        module = module_of(name, args)
        seconds, network = where_time_goes(module, phantom.volume[: args.slices], args.precision)
        result["parts"][f"{name} fast"], result["network"][f"{name} fast"] = seconds, network
    table("where the time goes, seconds a slice", result["parts"])
    table("network", result["network"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    if args.plot:
        plot(result, args.plot)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in (DOCUMENTED, *MODELS):
        parser.add_argument(f"--{name}", metavar="FILE.pth", help="checkpoint")
    parser.add_argument("--slices", type=int, default=8, help="in a round, for every contender")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 100, 200, 400])
    parser.add_argument("--seed", type=int, default=1000, help="of the phantom")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto", help="of ours; the documented path has fp32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def module_of(name: str, args: argparse.Namespace) -> MaskRCNNModule:
    """The module of a checkpoint, or a random one of `conf/model/` to which all is background."""
    checkpoint = getattr(args, name)
    device = pick_device(args.device)
    if checkpoint:
        return load_module(checkpoint).to(device)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        config = compose("train", [f"model={MODELS[name]}"]).model.network
    network: Any = OmegaConf.to_object(config)
    torch.manual_seed(0)
    facts = {"normalization": {"method": "mode"}}
    module = MaskRCNNModule(network=network, facts=facts).eval().to(device)
    torch.nn.init.constant_(module.network.roi_heads.box_predictor.cls_score.bias[:1], 100)
    return module


def contender(name: str, volume: Array, args: argparse.Namespace) -> Contender:
    """What labels slices of this volume, by its name of CONTENDERS."""
    if name == DOCUMENTED:
        return documented(args.documented, pick_device(args.device))
    model, path = name.split()
    module = module_of(model, args)
    return ours(module, grey_of(module, volume, "the phantom"), args.precision, path == "fast")


def documented(checkpoint: str | None, device: torch.device) -> Contender:
    """Plain torchvision: 800 pixels, fp32, 100 detections, a slice at a time, joined masks."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    if checkpoint:
        model.load_state_dict(state_dict(read_checkpoint(checkpoint), checkpoint))
    model.eval().to(device)
    grey = Normalization("slice").fit(np.zeros((1, 1, 1)))

    def label(volume: Array) -> Array:
        labels = np.zeros(volume.shape, np.uint32)
        for z, slice_ in enumerate(volume):
            picture = torch.from_numpy(grey(slice_)).to(device).float().div(255)
            with torch.no_grad():
                found = model([picture.expand(3, -1, -1)])[0]
            masks = found["masks"][found["scores"] >= 0.5, 0] >= 0.5
            section, _ = ndi.label(masks.any(0).cpu().numpy(), np.ones((3, 3)))
            labels[z] = np.where(section > 0, section + labels.max(), 0)
        return labels

    return label


def ours(module: MaskRCNNModule, grey: Grey, precision: str, fast: bool) -> Contender:
    def label(volume: Array) -> Array:
        settings: Any = {"precision": precision, "fast": fast, "progress": False}
        return label_volume(module, volume, grey, **settings).labels

    return label


def race(volume: Array, truth: Array, args: argparse.Namespace) -> Rows:
    """Every contender on the same slices, in turn, in every round; medians over the rounds."""
    contenders = {name: contender(name, volume, args) for name in CONTENDERS}
    for label in contenders.values():
        label(volume[:1])  # what happens once only: memory, kernels
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(args.rounds):
        part = slice(number * args.slices, (number + 1) * args.slices)
        seconds, labels = {}, {}
        for name, label in contenders.items():
            start = time.perf_counter()
            labels[name] = label(volume[part])
            seconds[name] = (time.perf_counter() - start) / args.slices
        for name, own in labels.items():
            row = {
                "seconds a slice": seconds[name],
                "ratio": seconds[DOCUMENTED] / seconds[name],
                "objects a slice": float(np.mean([len(np.unique(s[s > 0])) for s in own])),
                "F1, truth": match_instances(own, truth[part]).f1,
            }
            if name.endswith("fast"):
                plain = labels[name.replace("fast", "plain")]
                row["F1, plain"] = match_instances(own, plain).f1
                row["voxels unlike plain"] = float((own != plain).sum())
            found[name].append(row)
    rows = {
        name: {key: statistics.median(one[key] for one in several) for key in several[0]}
        for name, several in found.items()
    }
    table("speed", rows)
    for name, reach in REACH.items():
        print(f"{name}: {rows[name]['ratio']:.2f} times the documented path, to reach {reach:g}")
    return rows


def where_time_goes(
    module: MaskRCNNModule, volume: Array, precision: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds a slice of every part of the fast path, and the network's share of the peak."""
    seconds: dict[str, float] = defaultdict(float)
    counter = FlopCounterMode(display=False)
    device = module.device
    precision = pick_precision(precision, device)
    grey = grey_of(module, volume, "the phantom")
    with counter, patch.object(detection, "_ahead", iter):  # it does not count in other threads
        list(detection.detect_slices(module, volume[:1], grey, 0.5, precision))
    before = convolution_peak(device, precision)
    with ExitStack() as stack:
        for name, path in PARTS.items():
            clock(module.network.get_submodule(path), name, seconds, stack)
        for owner, function, name in (
            (Grey, "__call__", "grey"),
            (detection, "_windows", "windows"),
            (detection, "_detect", "network"),
            (labelling, "label_slice", "paste"),
            (SliceLinker, "add", "link"),
            (SliceLinker, "finish", "link"),
        ):
            original = getattr(owner, function)
            stack.enter_context(patch.object(owner, function, timed(original, name, seconds)))
        start = time.perf_counter()
        labels = ours(module, grey, precision, fast=True)(volume)
        seconds["all"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        timed(write_volume, "write", seconds)(Path(folder) / "labels.tif", labels, None)
    seconds["rest of network"] = seconds["network"] - sum(seconds[name] for name in PARTS)
    each = {name: value / len(volume) for name, value in seconds.items()}
    peak = max(before, convolution_peak(device, precision))
    flops = counter.get_total_flops()
    return each, {
        "GFLOP a slice": flops / 1e9,
        "GFLOP/s": flops / each["network"] / 1e9,
        "convolution peak, GFLOP/s": peak / 1e9,
        "share of the peak": flops / each["network"] / peak,
    }


def clock(part: torch.nn.Module, name: str, seconds: dict[str, float], stack: ExitStack) -> None:
    """Adds up the time that a part of a network takes; its copies' too."""
    started: list[float] = []

    def begin(*_: Any) -> None:
        started.append(time.perf_counter())

    def end(*_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds[name] += time.perf_counter() - started.pop()

    stack.callback(part.register_forward_pre_hook(begin).remove)
    stack.callback(part.register_forward_hook(end).remove)


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - start

    return run


def convolution_peak(device: torch.device, precision: str) -> float:
    """The most operations a second that a 3 x 3 convolution reaches here."""
    rates = []
    for width in (64, 128, 256):
        layer = torch.nn.Conv2d(width, width, 3, padding=1).to(device)
        layer = layer.to(memory_format=torch.channels_last)
        data = torch.rand(1, width, 256, 256, device=device)
        data = data.to(memory_format=torch.channels_last)
        for _ in range(6):
            with torch.inference_mode(), autocast(precision, device):
                start = time.perf_counter()
                layer(data)
                if device.type == "cuda":
                    torch.cuda.synchronize()
            rates.append(2 * width**2 * 9 * 256**2 / (time.perf_counter() - start))
    return max(rates)


def alone(volume: Array, args: argparse.Namespace) -> tuple[Rows, Rows]:
    """Peak memory of every contender, and time and memory of the light fast one as volumes grow.

    Each in a process of its own, with the peak of its resident memory by the kernel's count.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.npy"
        np.save(path, volume)

        def run(name: str, count: int) -> dict[str, float]:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                return pool.submit(label_alone, path, name, count, args).result()

        memory = {name: run(name, 2) for name in CONTENDERS}
        table("2 slices, a process each", memory)
        rows = {str(count): run("light fast", count) for count in args.growth}
        table("light fast, slices", rows)
    return memory, rows


def label_alone(path: Path, name: str, count: int, args: argparse.Namespace) -> dict[str, float]:
    """Labels slices of a volume and writes the labels.

    More slices than there are: to and fro through them, so that each further one is as much work.
    Those of a deeper cell would not be, because a cell is wider in its middle.
    """
    stored = np.load(path, mmap_mode="r")
    places = np.arange(count) % (2 * len(stored))
    volume = np.array(stored[np.minimum(places, 2 * len(stored) - 1 - places)])
    del stored  # its pages would count as ours
    label = contender(name, volume, args)
    start = time.perf_counter()
    labels = label(volume)
    write_volume(path.with_name("labels.tif"), labels, None)
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    data = (volume.nbytes + labels.nbytes) / 2**20
    return {
        "seconds": seconds,
        "seconds a slice": seconds / count,
        "peak, MB": peak,
        "volume + labels, MB": data,
        "beyond these, MB": peak - data,
    }


def table(title: str, rows: Rows) -> None:
    """Prints a Markdown table; rows may lack columns."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, row in rows.items():
        cells = [f"{row[key]:.4g}" if key in row else "" for key in columns]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds a slice by contender, where they go in the fast paths, and growth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (speed, parts, more) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    rows = result["speed"]
    bars = speed.barh(list(rows), [row["seconds a slice"] for row in rows.values()])
    speed.bar_label(bars, [f"{row['ratio']:.1f} x" for row in rows.values()], padding=2)
    speed.invert_yaxis()
    speed.set(xlabel="seconds a slice", title="473 x 486 px slices")
    speed.margins(x=0.15)
    for name, seconds in result["parts"].items():
        kept = {key: value for key, value in seconds.items() if key not in ("all", "network")}
        left = 0.0
        for index, value in enumerate(kept.values()):
            share = 100 * value / sum(kept.values())
            parts.barh(name, share, left=left, color=plt.get_cmap("tab20")(index))
            left += share
    parts.legend(list(kept), fontsize="x-small", loc="upper center", ncols=3)
    parts.set(xlabel="% of the time", title="where the time goes", ylim=(-0.6, 3.2))
    rows = result["growth"]
    counts = [int(count) for count in rows]
    more.plot(counts, [row["seconds"] for row in rows.values()], "o-", color="C0")
    more.set(xlabel="slices", ylabel="seconds", title="light fast, as volumes grow")
    memory = more.twinx()
    memory.plot(counts, [row["peak, MB"] / 1024 for row in rows.values()], "s--", color="C1")
    memory.set(ylabel="peak memory (dashed), GB", ylim=(0, None))
    more.set(ylim=(0, None))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
