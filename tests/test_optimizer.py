"""The optimizer and its rate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import TINY_NETWORK, Compose
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch.nn import Parameter

from isgseg.errors import InputError
from isgseg.models.muon import Muon
from isgseg.models.optimizer import ADAM_SHARE, build_optimizer, build_schedule


def parameters() -> list[Parameter]:
    torch.manual_seed(0)
    shapes = [(12, 9, 3, 3), (40, 16), (2, 64, 1, 1), (64, 2), (30,)]
    return [Parameter(torch.randn(shape)) for shape in shapes]


@pytest.mark.parametrize("native", [True, False], ids=["bf16", "fp32"])
def test_muon_moves_a_matrix_equally_far_in_every_direction(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    precisions: set[torch.dtype] = set()
    for name in ("mm", "bmm"):
        product = getattr(torch, name)

        def spy(*factors: torch.Tensor, out: torch.Tensor, product: Any = product) -> Any:
            precisions.update(factor.dtype for factor in factors)
            return product(*factors, out=out)

        monkeypatch.setattr(torch, name, spy)
    monkeypatch.setattr("isgseg.models.muon.has_bf16", lambda device: native)
    weights = parameters()
    frozen = Parameter(torch.randn(20, 20), requires_grad=False)
    before = [weight.detach().clone() for weight in weights]
    optimizer = build_optimizer([*weights, frozen], "muon", lr=0.01, momentum=0.9, weight_decay=0.0)
    groups = optimizer.param_groups
    assert [len(group["params"]) for group in groups] == [2, 3]
    assert [group["lr"] for group in groups] == [0.01, ADAM_SHARE * 0.01]
    for weight in weights:  # all but one direction hardly matter to the gradient
        flat = torch.randn(len(weight), weight.numel() // len(weight))
        flat[0] *= 100
        weight.grad = flat.reshape(weight.shape)
    optimizer.step()
    assert precisions == {torch.bfloat16 if native else torch.float32}
    moved = [weight.detach() - old for weight, old in zip(weights, before, strict=True)]
    for step in moved[:2]:
        sizes = torch.linalg.svdvals(step.flatten(1)) / 0.01
        aspect = max(1, len(step) / step[0].numel()) ** 0.5
        assert 0.6 * aspect < sizes.min() <= sizes.max() < 1.3 * aspect
    for step in moved[2:]:  # Adam's first step: the same for every number
        torch.testing.assert_close(
            step.abs(), torch.full_like(step, ADAM_SHARE * 0.01), rtol=0.01, atol=0
        )


@pytest.mark.parametrize("native", [True, False], ids=["bf16", "fp32"])
@pytest.mark.parametrize("shape", [(16, 9, 3, 3), (24, 24), (96, 16)], ids=str)
def test_matrices_taken_together_step_as_each_alone(
    shape: tuple[int, ...], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isgseg.models.muon.has_bf16", lambda device: native)
    torch.manual_seed(0)
    together = [Parameter(torch.randn(shape)) for _ in range(3)]
    alone = [Parameter(weight.detach().clone()) for weight in together]
    optimizers = [build_optimizer(weights, "muon") for weights in (together, *([a] for a in alone))]
    for _ in range(3):
        for weight, twin in zip(together, alone, strict=True):
            weight.grad = torch.randn(shape)
            twin.grad = weight.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for weight, twin in zip(together, alone, strict=True):
        difference = (weight - twin).norm() / weight.norm()
        assert difference < (1e-3 if native else 1e-6)


@pytest.mark.parametrize("shape", [(16, 9, 3, 3), (24, 24), (96, 16)], ids=str)
def test_in_fp32_factors_are_those_of_double_precision(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isgseg.models.muon.has_bf16", lambda device: False)
    torch.manual_seed(0)
    weights = Parameter(torch.randn(shape))
    group = build_optimizer([weights], "muon").param_groups[0]
    updates = [torch.randn(shape) * 10.0 ** -torch.arange(shape[-1]) for _ in range(2)]
    factors = Muon._orthogonalize(group, updates)
    for update, factor in zip(updates, factors, strict=True):
        exact = zero_power_via_newton_schulz_5(update.double().flatten(1), dtype=torch.float64)
        torch.testing.assert_close(factor, exact.float(), rtol=0, atol=1e-4)


def test_decay_shrinks_the_weights_by_its_share_of_the_rate() -> None:
    for weight, group in zip(parameters()[::4], [0, 1], strict=True):
        before = weight.detach().clone()
        optimizer = build_optimizer([weight], "muon", lr=0.1, momentum=0.9, weight_decay=0.5)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        rate = optimizer.param_groups[group]["lr"]
        torch.testing.assert_close(weight.detach(), before * (1 - rate * 0.5))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("step", [0.01, 0.505, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01]),
        ("cosine", [0.01, 0.4858, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381, 0]),
    ],
)
def test_the_rate_rises_and_falls_in_all_groups(schedule: str, expected: list[float]) -> None:
    optimizer = build_optimizer(parameters(), "muon", lr=1.0)
    scheduler = build_schedule(optimizer, schedule, steps=8, warmup_steps=2, step_size=4, gamma=0.1)
    for share in expected:
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([share, share * ADAM_SHARE], abs=1e-4)
        optimizer.step()
        scheduler.step()


def test_the_command_line_chooses(config: Compose) -> None:
    from isgseg.config import checked

    assert config("train", "data.root=x").model.optimizer == "sgd"
    cfg = config("train", *TINY_NETWORK, "data.root=x", "model.optimizer=adam")
    with pytest.raises(InputError, match=r"model\.optimizer=adam: must be sgd, muon or adamw"):
        checked("train", cfg)
