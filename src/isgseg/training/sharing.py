"""What several processes have found, brought together; with one process it is its own."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torchmetrics import Metric

Value = TypeVar("Value")


def gather(value: Value) -> list[Value]:
    """The values of all processes, in the order of their ranks; every process must call it."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values


def in_turns(shares: list[list[Value]]) -> list[Value]:
    """Items that were given to processes one after the other, in their order."""
    count = sum(map(len, shares))
    return [shares[index % len(shares)][index // len(shares)] for index in range(count)]


def share_states(metric: Metric) -> None:
    """Gives a metric in every process what those of all have seen, in the order of the ranks.

    Torchmetrics' own way waits for ever where processes have seen different numbers of images.

    Args:
        metric: whose states are lists, which are joined, and numbers, which are added. It must not
            be updated further, and not synchronize by itself.
    """
    for name, values in _joined(gather(dict(metric.metric_state))).items():
        setattr(metric, name, values)
    metric._computed = None


def _joined(states: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name, first in states[0].items():
        values = [state[name] for state in states]
        if isinstance(first, list):
            joined[name] = [one for value in values for one in value]
        else:
            joined[name] = torch.stack(values).sum(0)
    return joined
