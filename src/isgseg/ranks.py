"""Which of several processes of one job this is, where `srun`, submitit or `torchrun` started them.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

# Number of this process, and of all of them.
_VARIABLES = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))


def rank() -> int:
    """The number of this process, from 0; 0 too where it is the only one."""
    for number, count in _VARIABLES:
        if int(os.environ.get(count, "1")) > 1 and number in os.environ:
            return int(os.environ[number])
    return 0


@contextlib.contextmanager
def without_files(command: str) -> Iterator[list[str]]:
    """What a further process of one training adds to its arguments, so that it writes no file.

    Hydra would make a folder of its own for each. The first process adds nothing, nor does any of
    another command than `train`, where each does work of its own.
    """
    if command != "train" or rank() == 0:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="isgseg-") as folder:
        yield [
            f"hydra.run.dir={folder}",
            f"hydra.sweep.dir={folder}",
            "hydra.output_subdir=null",
            "hydra.job_logging.root.level=ERROR",
        ]
