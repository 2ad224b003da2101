"""Muon in a precision that the hardware has."""

from __future__ import annotations

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor

from isgseg.hardware import has_bf16


class Muon(pytorch_optimizer.Muon):
    """`pytorch_optimizer`'s Muon, which orthogonalizes in fp32 where bf16 would be emulated.

    On a CPU without bf16 a step would take some ten times as long as the network's own.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        """Updates of one shape, (out, in, ...), to their orthogonal factors, (out, in)."""
        if has_bf16(updates[0].device):
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        return [
            zero_power_via_newton_schulz_5(
                update.flatten(1),
                num_steps=group["ns_steps"],
                weights=group["ns_coeffs"],
                dtype=torch.float32,
            )
            for update in updates
        ]
