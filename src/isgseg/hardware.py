"""Which precision suits the machine."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

_DTYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16, "32-true": torch.float32}


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name; None takes CUDA where there is one."""
    return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))


def pick_precision(precision: str, device: torch.device) -> str:
    """`auto` becomes bf16 where the hardware computes in it, fp16 on older CUDA, else fp32.

    fp16 ends at 65,504, beyond which losses and norm layers are lost; bf16 has fp32's range.

    Args:
        precision: `auto`, or any of Lightning's precisions, which is returned as it is.
        device: where it will run.
    """
    if precision != "auto":
        return str(precision)
    if has_bf16(device):
        return "bf16-mixed"
    return "16-mixed" if device.type == "cuda" else "32-true"


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bf16; where it is emulated it takes many times as long."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context in which a network predicts in a precision of `pick_precision`.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in _DTYPES:
        raise ValueError(f"precision is '{precision}'; choose auto, {', '.join(_DTYPES)}")
    dtype = _DTYPES[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)
