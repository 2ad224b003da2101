"""What a call asks of a device: operators, kernels, waits, and how long the device is busy."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile


def launches(call: Callable[[], Any]) -> dict[str, Any]:
    """Counts of one call; call it once before, so that what happens once only does not count.

    Returns:
        `operators` that the host asks for. On CUDA also `kernels and copies`, `busy`, the share of
        the time in which the device does one of them, `waits` of the host for the device, and
        `waits at`, the lines of code that wait most.
    """
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    start = time.perf_counter()
    with profile(activities=activities) as profiler:
        call()
        wait()
    seconds = time.perf_counter() - start
    events = profiler.events() or []
    inner = [event for event in events if event.device_type == DeviceType.CPU]
    found: dict[str, Any] = {"operators": sum(not event.cpu_children for event in inner)}
    if cuda:
        work = [event for event in events if event.device_type == DeviceType.CUDA]
        found["kernels and copies"] = len(work)
        found["busy"] = sum(event.time_range.elapsed_us() for event in work) / 1e6 / seconds
        found["waits"], found["waits at"] = waits(call)
    return found


def waits(call: Callable[[], Any]) -> tuple[int, dict[str, int]]:
    """How often the host waits for the GPU in one call, and the ten lines that do so most."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    lines = [one for one in caught if "synchroniz" in str(one.message)]
    places = Counter(f"{'/'.join(one.filename.split('/')[-2:])}:{one.lineno}" for one in lines)
    return len(lines), dict(places.most_common(10))


def wait() -> None:
    """Until the GPU, if there is one, has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
