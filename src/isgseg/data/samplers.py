"""Which images each of several processes is given; one process is given all.

Both are torch's `DistributedSampler` by class, so that Lightning puts no other in their place: its
own would draw the same order in every epoch, and would show some validation images twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DistributedSampler


class SeededSampler(DistributedSampler[Any]):
    """A shuffled order of (index, seed) pairs that depends on seed and epoch alone.

    Lightning calls `set_epoch`, so that a resumed run continues with the very same batches. Of
    several processes the first has the first batch of the order, the second the second, and so
    on in turns, so that all together take the steps of one that accumulates as many batches. The
    last batches, too few for one each, are left out; another epoch's order has them.

    Args:
        length: number of images.
        seed: of the order.
        batch_size: images of a batch.
        rank: which of the processes this is, from 0.
        processes: how many there are.
    """

    def __init__(
        self, length: int, seed: int, batch_size: int = 1, rank: int = 0, processes: int = 1
    ) -> None:
        super().__init__(range(length), processes, rank, seed=seed)  # type: ignore[arg-type]
        self.length, self.batch_size = length, batch_size
        self.batches = length // (batch_size * processes)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        seeds = torch.randint(2**62, (self.length,), generator=generator).tolist()
        pairs = list(zip(order, seeds, strict=True))
        for batch in range(self.rank, self.batches * self.num_replicas, self.num_replicas):
            yield from pairs[batch * self.batch_size : (batch + 1) * self.batch_size]


class ShareSampler(DistributedSampler[Any]):
    """Every image once, in order: the first process has the first batches, and so on.

    All have equally many batches, since they wait for one another after each. Where a process has
    fewer images, None fills them up; see `isgseg.data.datamodule.collate`.

    Args:
        length: number of images.
        batch_size: images of a batch.
        rank: which of the processes this is, from 0.
        processes: how many there are.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, processes: int = 1) -> None:
        super().__init__(range(length), processes, rank, shuffle=False)  # type: ignore[arg-type]
        self.length = length
        batches = -(-length // batch_size)
        self.share = -(-batches // processes) * batch_size
        if processes == 1:
            self.share = length

    def __len__(self) -> int:
        return self.share

    def __iter__(self) -> Iterator[int | None]:
        first = self.rank * self.share
        for index in range(first, first + self.share):
            yield index if index < self.length else None
