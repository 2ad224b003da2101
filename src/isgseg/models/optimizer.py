"""The optimizer, and the rate at which it learns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Parameter
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, StepLR

OPTIMIZERS = ("sgd", "muon", "adamw")
SCHEDULES = ("step", "cosine")
THIN = 8  # rows or columns: matrices with fewer, such as the scores of classes, have no spectrum
BETA2 = 0.99  # of AdamW: trainings here are short
ADAM_SHARE = 0.05  # of Muon's rate, for everything else: Adam's steps are not scaled to the shape


def build_optimizer(
    parameters: Iterable[Parameter],
    name: str = "sgd",
    lr: float = 0.005,
    momentum: float = 0.9,
    weight_decay: float = 0.0005,
) -> Optimizer:
    """SGD, Muon or AdamW.

    Muon (Jordan et al. 2024, of `pytorch_optimizer`) gives each step of a weight matrix the same
    size in every direction, so that what few objects teach is not drowned; from random weights it
    learns in a third of the steps of SGD (benchmarks/README.md). Biases, norm layers and matrices
    thinner than `THIN` go by AdamW.

    Args:
        parameters: of the network; frozen ones are left out.
        name: one of `OPTIMIZERS`.
        lr: of Muon for matrices, of which its AdamW has `ADAM_SHARE`.
        momentum: of AdamW the first beta.
        weight_decay: Muon's and AdamW's are decoupled from the gradient, so that they want larger
            ones than SGD, such as .02.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if name == "sgd":
        return SGD(trained, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if name == "adamw":
        return AdamW(trained, lr=lr, betas=(momentum, BETA2), weight_decay=weight_decay)
    from isgseg.models.muon import Muon  # pytorch_optimizer takes a second

    matrices = [parameter for parameter in trained if is_matrix(parameter)]
    others = [parameter for parameter in trained if not is_matrix(parameter)]
    groups = [
        {"params": matrices, "use_muon": True, "lr": lr, "momentum": momentum},
        {"params": others, "use_muon": False, "lr": ADAM_SHARE * lr, "betas": (momentum, BETA2)},
    ]
    return Muon([group | {"weight_decay": weight_decay} for group in groups])


def is_matrix(parameter: Parameter) -> bool:
    """Whether a weight, (out, in, ...) with all but the first axis as one, is Muon's."""
    rows = len(parameter) if parameter.ndim > 1 else 1
    return min(rows, parameter.numel() // rows) >= THIN


def build_schedule(
    optimizer: Optimizer,
    name: str,
    steps: int,
    warmup_steps: int,
    step_size: int,
    gamma: float,
) -> ChainedScheduler:
    """A rate that changes every step, so that a resumed run needs no repair.

    Args:
        optimizer: whose rates are the highest ones.
        name: one of `SCHEDULES`.
        steps: of the whole training; the cosine reaches zero there.
        warmup_steps: over which the rate rises from a hundredth, at most half of all.
        step_size: after how many steps `step` multiplies the rate.
        gamma: by what.
    """
    decay: StepLR | CosineAnnealingLR
    if name == "cosine":
        decay = CosineAnnealingLR(optimizer, T_max=max(1, steps))
    else:
        decay = StepLR(optimizer, step_size=max(1, step_size), gamma=gamma)
    warmup = max(1, min(warmup_steps, steps // 2))
    rise = LinearLR(optimizer, start_factor=0.01, total_iters=warmup)
    return ChainedScheduler([rise, decay], optimizer=optimizer)


def optimization(
    parameters: Iterable[Parameter], options: Mapping[str, Any], steps: int, epochs: int
) -> dict[str, Any]:
    """Optimizer and schedule as a LightningModule returns them; the rate changes every step.

    Args:
        parameters: of the network.
        options: `optimizer`, `lr`, `momentum`, `weight_decay`, `schedule`, `warmup_steps`,
            `lr_step_epochs` and `lr_gamma`.
        steps: of the whole training.
        epochs: of the whole training.
    """
    optimizer = build_optimizer(
        parameters,
        options["optimizer"],
        lr=options["lr"],
        momentum=options["momentum"],
        weight_decay=options["weight_decay"],
    )
    scheduler = build_schedule(
        optimizer,
        options["schedule"],
        steps=steps,
        warmup_steps=options["warmup_steps"],
        step_size=round(options["lr_step_epochs"] * steps / epochs),
        gamma=options["lr_gamma"],
    )
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
    }
