"""A checkpoint for others: half-precision weights and what prediction needs, no optimizer.

`python -m isgseg.models.export CHECKPOINT TARGET`
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch
from torch import Tensor

from isgseg.errors import InputFileExistsError
from isgseg.io.atomic import replacing
from isgseg.models.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


def export_weights(checkpoint: str | Path, target: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a small file that predicts as the checkpoint does, and can be fine-tuned.

    Matrices become float16. Norm layers and biases stay float32: their variances span more orders
    of magnitude than float16 does, and they are small.

    Args:
        checkpoint: a `.pth` file of isgseg-train.
        target: the file to write.
        overwrite: replace a file that is there.

    Returns:
        The target.

    Raises:
        InputError: the checkpoint is none, or the target is there already.
    """
    source, target = load_checkpoint(checkpoint), Path(target)
    source.build()  # the weights fit the network, or this ends here
    if target.exists() and not overwrite:
        raise InputFileExistsError(f"{target} exists; name another file, or set overwrite")
    content = {
        "model": {name: _half(value) for name, value in source.weights.items()},
        "hyper_parameters": {
            "method": source.method,
            "network": source.network.model_dump(),
            "tta": source.tta,
            "metadata": None if source.metadata is None else _plain(source.metadata.model_dump()),
        },
        "thresholds": None if source.thresholds is None else source.thresholds._asdict(),
    }
    with replacing(target) as beside:
        torch.save(content, beside)
    log.info("%s: %.1f MB", target, target.stat().st_size / 1e6)
    return target


def _half(value: Tensor) -> Tensor:
    """A matrix in float16 where it holds every number; anything else as it is."""
    if value.ndim < 2 or not value.is_floating_point():
        return value.clone()
    half = value.half()
    return half if bool(torch.isfinite(half).all()) else value.clone()


def _plain(value: object) -> object:
    """Dataclasses inside of metadata as dictionaries, which `weights_only=True` reads."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return value


def main() -> None:
    """Console entry: `python -m isgseg.models.export CHECKPOINT TARGET`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m isgseg.models.export")
    parser.add_argument("checkpoint", help="a .pth file of isgseg-train")
    parser.add_argument("target", help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    arguments = parser.parse_args()
    export_weights(arguments.checkpoint, arguments.target, overwrite=arguments.overwrite)


if __name__ == "__main__":
    main()
