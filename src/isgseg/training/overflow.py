"""What training does where half precision has overflowed."""

from __future__ import annotations

import torch


def forget_overflow(network: torch.nn.Module) -> int:
    """Norm layers whose statistics an overflow has spoilt begin them anew; returns how many.

    A running mean of infinity stays one, so that training, which does not use it, would go on and
    prediction would find nothing.
    """
    spoilt = [
        layer
        for layer in network.modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
        and not all(torch.isfinite(statistic).all() for statistic in layer.buffers())
    ]
    for layer in spoilt:
        layer.reset_running_stats()
    return len(spoilt)
