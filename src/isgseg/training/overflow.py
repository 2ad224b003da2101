"""What training does where numbers have overflowed: a batch of half precision, or the weights."""

from __future__ import annotations

import torch

from isgseg.errors import InputError


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


def require_finite_weights(network: torch.nn.Module, lr: float) -> None:
    """Ends a training whose network is lost, before it is scored or kept.

    One such step is enough, and none brings the weights back; a short training would end without a
    word.

    Args:
        network: that is trained.
        lr: `model.lr`, for the message.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    lost = [name for name, value in network.named_parameters() if not torch.isfinite(value).all()]
    if lost:
        raise InputError(
            f"{len(lost)} tensors of weights are NaN or infinite, {lost[0]} among them: the "
            f"training has diverged. Lower model.lr={lr:g}, raise model.warmup_steps, or set "
            "trainer.precision=32-true"
        )
