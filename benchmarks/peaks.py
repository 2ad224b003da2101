"""What the machine can do at most: convolutions and memory, measured in the run that they judge."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from record import Result

from isgseg.hardware import autocast

SIDE, WIDTHS = 256, (64, 128, 256)  # pixels and channels of the convolutions tried
COPIED = 2**28  # bytes: far beyond caches


def add_peaks(result: Result, device: torch.device, precision: str) -> dict[str, float]:
    """Measures the peaks and adds them to a result.

    Args:
        result: grows by them.
        device: that the benchmark uses.
        precision: of the networks, beside fp32.

    Returns:
        Operations a second of convolutions, by precision.
    """
    peaks = {name: convolution_peak(device, name) for name in ("32-true", precision)}
    for name, peak in peaks.items():
        result.add("speed", f"machine: convolutions, {name}", peak / 1e9, "GFLOP/s")
    result.add("speed", "machine: memory, read and written", bandwidth(device) / 1e9, "GB/s")
    return peaks


def convolution_peak(device: torch.device, precision: str) -> float:
    """The most operations a second that a 3 x 3 convolution reaches here."""
    rates = []
    for width in WIDTHS:
        layer = torch.nn.Conv2d(width, width, 3, padding=1).to(device)
        layer = layer.to(memory_format=torch.channels_last)
        data = torch.rand(1, width, SIDE, SIDE, device=device)
        data = data.to(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(precision, device):
            seconds = shortest(lambda layer=layer, data=data: layer(data), device)  # type: ignore[misc]
        rates.append(2 * width**2 * 9 * SIDE**2 / seconds)
    return max(rates)


def bandwidth(device: torch.device) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / shortest(lambda: target.copy_(source), device)


def shortest(work: Callable[[], object], device: torch.device) -> float:
    """s, of six times."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
