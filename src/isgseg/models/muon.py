"""Muon in a precision that the hardware has, and with the fewest operations in it."""

from __future__ import annotations

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import (
    zero_power_via_gram_newton_schulz,
    zero_power_via_newton_schulz_5,
)
from torch import Tensor

from isgseg.hardware import has_bf16

WIDE = 2  # times as long as high: from there on iterating on the small square is less work


class Muon(pytorch_optimizer.Muon):
    """`pytorch_optimizer`'s Muon, which orthogonalizes in fp32 where bf16 would be emulated.

    On a CPU without bf16 a step would take some ten times as long as the network's own. Matrices
    of one shape are taken together, as `pytorch_optimizer` takes them in bf16: on CUDA most of a
    step is the launching of small kernels.
    """

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        """Updates of one shape, (out, in, ...), to their orthogonal factors, (out, in).

        In fp32 wide matrices go by their Gram matrix, whose iterations are the same but for
        rounding. In bf16 its error would be two to three times as large.
        """
        if has_bf16(updates[0].device):
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        matrices = torch.stack([update.flatten(1) for update in updates])
        rows, columns = sorted(matrices.shape[1:])
        wide = columns >= WIDE * rows
        iterate = zero_power_via_gram_newton_schulz if wide else zero_power_via_newton_schulz_5
        factors = iterate(
            matrices,
            num_steps=group["ns_steps"],
            weights=group["ns_coeffs"],
            dtype=torch.float32,
        )
        return list(factors.unbind())
