"""Which device and precision suit the machine."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

import torch

from isgseg.errors import InputError
from isgseg.words import one_of, shown

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "32-true": torch.float32}


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name; None takes CUDA where there is one.

    Raises:
        InputError: there is no such device here.
    """
    there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there += ["mps"] * torch.backends.mps.is_available()
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in there and not (name == "cuda" and "cuda:0" in there):
        raise InputError(f"device={name}: there is no such device here; choose {one_of(there)}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a device is, such as `cuda: NVIDIA H200` or `cpu: AMD EPYC 9654 96-Core Processor`."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {processor()}" if processor() else device.type


@cache
def processor() -> str:
    """The model of the processor; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def check_devices(
    accelerator: str, devices: int | str | Sequence[int], strategy: str = "auto"
) -> None:
    """Whether the machine has the devices, before any process is started for them.

    Args:
        accelerator: Lightning's: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        devices: how many, their indices, or `auto`.
        strategy: Lightning's; with `ddp` on a CPU, devices are processes.

    Raises:
        InputError: it has not.
    """
    gpus = torch.cuda.device_count()
    mps = torch.backends.mps.is_available()
    missing = {"gpu": not (gpus or mps), "cuda": not gpus, "mps": not mps}
    if missing.get(accelerator):
        raise InputError(
            f"trainer.accelerator={accelerator}: there is none here; choose cpu or auto"
        )
    if devices == "auto":
        return
    wanted = int(devices) if isinstance(devices, (int, str)) else 1 + max(devices)
    on_cpu = accelerator == "cpu" or not (gpus or mps)
    most = 1 if on_cpu or not gpus else gpus
    if on_cpu and isinstance(devices, int) and strategy.startswith("ddp"):
        return
    if wanted > most:
        remedy = (
            "a CPU is one device, whose cores one process uses; trainer.strategy=ddp runs several"
            if on_cpu
            else f"this machine has {most}"
        )
        raise InputError(f"trainer.devices={shown(devices)}: {remedy}; give a number up to {most}")


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` becomes bf16 where the hardware computes in it, fp16 on older CUDA, else fp32.

    fp16 ends at 65,504, beyond which losses and norm layers are lost; bf16 has fp32's range.

    Args:
        precision: `auto`, `32-true`, `16-mixed` or `bf16-mixed`, which is returned as it is.
        device: where it will run.

    Raises:
        InputError: another precision. Box arithmetic needs fp32, so that the network's weights
            cannot be of a lower one as a whole (`bf16-true`).
    """
    check_precision(precision)
    if precision != "auto":
        return precision
    if has_bf16(device):
        return "bf16-mixed"
    return "16-mixed" if device.type == "cuda" else "32-true"


def check_precision(precision: str) -> None:
    """Raises InputError for a precision that the network cannot do."""
    if precision not in ("auto", *_DTYPES):
        raise InputError(f"precision={precision}: choose {one_of(['auto', *_DTYPES])}")


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16; where it is emulated it takes many times as long."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def keep_freed_memory() -> None:
    """Has the process keep the memory of arrays that it frees, up to 512 MB, for the next ones.

    The C library of Linux (mallopt(3)) gives arrays of some megabytes back to the system at once.
    On a CPU, each layer of a network then gets its output page by page anew, every page filled with
    zeros: a fifth of the time of a U-Net. Arrays above 32 MB, as volumes are, are given back as
    before. Where there is another C library, nothing is done.
    """
    change = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if change is not None:
        for option, value in ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**29)):
            change(option, value)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a network predicts in a precision of `pick_precision`.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in _DTYPES:
        raise InputError(f"precision={precision}: choose {one_of(_DTYPES)}")
    dtype = _DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
