"""Where the time of a slice goes in the fast path, and how near the network is to the peak.

Run `python benchmarks/predict_parts.py --light LIGHT.pth --default DEFAULT.pth`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from contenders import MODELS, Array, add_options, predictor_of
from launches import wait
from peaks import convolution_peak
from record import Result, add_output
from torch.utils.flop_counter import FlopCounterMode

from isgseg.data.normalization import Normalizer
from isgseg.inference import segmentation, streaming
from isgseg.inference import slices as detection
from isgseg.inference.predictor import Predictor
from isgseg.instances.linking import SliceLinker
from isgseg.io.volumes import Volume, write_volume
from isgseg.models.stem import StemTransform
from isgseg.phantom import make_phantom

FIELD = (486, 473)  # (y, x) pixels of a slice
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
STAGES = (  # whose, which function, what it does
    (Predictor, "normalizer", "fit normalizer"),
    (Normalizer, "__call__", "grey values"),
    (streaming.SliceNetwork, "_tiles", "windows"),
    (streaming, "send", "to the device"),
    (detection, "_detect", "network"),
    (detection, "to_arrays", "from the device"),
    (StemTransform, "forward", "resize and first convolution"),
    (segmentation, "label_slice", "labels"),
    (SliceLinker, "add", "link"),
    (SliceLinker, "finish", "link"),
    (segmentation, "split_granules", "split"),
)


def main() -> None:
    """Times the parts of both networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--slices", type=int, default=8)
    add_output(parser)
    args = parser.parse_args()
    volume = make_phantom(args.seed, shape=(args.slices, *FIELD)).volume
    result = Result("Where the time of a slice goes", seeds=[args.seed])
    for name in MODELS:
        seconds, network = where_time_goes(predictor_of(name, args), volume)
        share = network["share of the peak"]
        result.add("speed", f"{name} fast: share of the peak of convolutions", share, "", ">= 0.6")
        result.details[name] = {"seconds a slice": seconds, "network": network}
        for part, value in seconds.items():
            print(f"  {part:30} {value:.4f} s")
    result.write(args.output)


def where_time_goes(
    predictor: Predictor, volume: Array
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds a slice of every part of the fast path, and the network's share of the peak."""
    detector = detector_of(predictor)
    normalizer = predictor.normalizer(Volume(volume, None))
    counter = FlopCounterMode(display=False)
    with counter, one_after_the_other():  # it does not count in other threads
        list(detector.detect(volume[:1], normalizer, 0.5))
    before = convolution_peak(detector.device, detector.precision)
    seconds = time_of_parts(predictor, volume)
    peak = max(before, convolution_peak(detector.device, detector.precision))
    flops = counter.get_total_flops()
    return seconds, {
        "GFLOP a slice": flops / 1e9,
        "GFLOP/s": flops / seconds["network"] / 1e9,
        "convolution peak, GFLOP/s": peak / 1e9,
        "share of the peak": flops / seconds["network"] / peak,
    }


def detector_of(predictor: Predictor) -> detection.MaskRCNNDetector:
    """What finds granules in slices for a predictor by Mask R-CNN."""
    method: Any = predictor.method
    return cast(detection.MaskRCNNDetector, method.model)


@contextmanager
def one_after_the_other() -> Iterator[None]:
    """No stage works beside another, so that the times of all add up."""
    with patch.object(streaming, "ahead", iter), patch.object(segmentation, "ahead", iter):
        yield


def time_of_parts(predictor: Predictor, volume: Array) -> dict[str, float]:
    """Seconds a slice of every part of the fast path; `all` is the whole, without writing."""
    seconds: dict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        stack.enter_context(one_after_the_other())
        for name, path in PARTS.items():
            clock(detector_of(predictor).network.get_submodule(path), name, seconds, stack)
        for owner, function, name in STAGES:
            original = getattr(owner, function)
            stack.enter_context(patch.object(owner, function, timed(original, name, seconds)))
        start = time.perf_counter()
        labels = predictor.segment(Volume(volume, None), "the phantom").labels
        seconds["all"] = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        timed(write_volume, "write", seconds)(Path(folder) / "labels.tif", labels, None)
    named = (*PARTS, "resize and first convolution", "from the device")
    seconds["rest of network"] = seconds["network"] - sum(seconds[name] for name in named)
    return {name: value / len(volume) for name, value in seconds.items()}


def clock(part: torch.nn.Module, name: str, seconds: dict[str, float], stack: ExitStack) -> None:
    """Adds up the time that a part of a network takes; its copies' too."""
    started: list[float] = []

    def begin(*_: Any) -> None:
        wait()
        started.append(time.perf_counter())

    def end(*_: Any) -> None:
        wait()
        seconds[name] += time.perf_counter() - started.pop()

    stack.callback(part.register_forward_pre_hook(begin).remove)
    stack.callback(part.register_forward_hook(end).remove)


def timed(function: Callable[..., Any], name: str, seconds: dict[str, float]) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        wait()
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            wait()
            seconds[name] += time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
