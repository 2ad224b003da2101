"""A trained module on labelled patches: how it is loaded, and what tests or validates it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from lightning import Callback, Trainer
from torch.utils.data import DataLoader

from isgseg.data.datamodule import dataset_metadata, evaluation_loader
from isgseg.data.metadata import read_metadata
from isgseg.data.provenance import pixel_sizes
from isgseg.errors import InputError
from isgseg.hardware import pick_device, pick_precision
from isgseg.models.checkpoint import load_checkpoint
from isgseg.training.base import GranuleModule
from isgseg.training.module import MaskRCNNModule
from isgseg.training.unet_module import UNetModule

log = logging.getLogger(__name__)
MODULES: dict[str, type[GranuleModule]] = {
    module.name: module for module in (MaskRCNNModule, UNetModule)
}


def load_module(path: str | Path, **changes: Any) -> GranuleModule:
    """A trained module in evaluation mode, on the CPU.

    A plain torchvision `maskrcnn_resnet50_fpn` state dict (bare, or under `model`, `state_dict` or
    `model_state_dict`) loads too; it carries no normalization and no scale.

    Args:
        path: a `.pth` file.
        **changes: hyper-parameters in place of the checkpoint's; None keeps the checkpoint's.

    Raises:
        InputError: the file is no checkpoint, or one of something else.
    """
    checkpoint = load_checkpoint(path)
    given = checkpoint.hyper_parameters or {"weights": str(path)}
    given = {**given, "network": checkpoint.network.model_dump()}
    given |= {key: value for key, value in changes.items() if value is not None}
    try:
        module = MODULES[checkpoint.method](**given, thresholds=checkpoint.thresholds)
    except TypeError as error:
        raise InputError(
            f"{path} is a checkpoint, but not of isgseg: its hyper_parameters do not fit ({error})"
        ) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    module.network = checkpoint.build()
    module.set_tta(None)
    return module.eval()


def evaluation_trainer(
    device: str | None, precision: str, progress: bool, *callbacks: Callback
) -> Trainer:
    """A Trainer that tests or validates on one device, and writes nothing.

    Args:
        device: `cuda`, `cpu`, or None for CUDA where there is one.
        precision: see `isgseg.hardware.pick_precision`.
        progress: show a bar.
        *callbacks: those that it calls.
    """
    chosen = pick_device(device)
    return lightning.Trainer(
        accelerator=chosen.type,
        devices=1,
        precision=pick_precision(precision, chosen),  # type: ignore[arg-type]
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
    )


def warn_of_metadata(module: GranuleModule, root: str) -> None:
    """Logs in what a dataset was made otherwise than what a checkpoint has learnt from."""
    learnt, here = module.hparams.get("metadata") or {}, dataset_metadata(root)
    for key in ("normalization", "z_context"):
        if learnt.get(key) != here.get(key):
            log.warning(
                "%s differs: the checkpoint was trained with %s, %s was made with %s",
                key,
                learnt.get(key),
                root,
                here.get(key),
            )


def split_loader(
    module: GranuleModule, root: str, split: str, batch_size: int, num_workers: int
) -> tuple[DataLoader[Any], list[float] | None]:
    """The patches of a split as the module has learnt them, and the size of their pixels.

    Args:
        module: decides how 16-bit and float images become 8-bit ones, where the dataset does not.
        root: of the dataset.
        split: train or val.
        batch_size: images a step.
        num_workers: processes that load; 0 loads in the main process.

    Returns:
        The patches, in order. And of each image, the side of a pixel in nm: that of a square of
        its area. Of patches across y and x of voxels that are no cubes it differs from those
        across z. None where the dataset does not say its voxel size.

    Raises:
        InputError: a bad file, or the split has no object to score against.
    """
    metadata = read_metadata(root)
    learnt = module.hparams.get("metadata") or {}
    normalization = learnt.get("normalization") or {}
    window = None
    if metadata.normalization is None and normalization.get("method") == "window":
        window = normalization["low"], normalization["high"]
    loader = evaluation_loader(root, split, batch_size, num_workers, window)
    known, here = learnt.get("classes"), loader.dataset.dataset.classes  # type: ignore[attr-defined]
    if known is not None and known != here:
        log.warning(
            "The checkpoint learnt the classes %s, %s has %s: they are compared by their number",
            known,
            root,
            here,
        )
    if metadata.voxel_size is None:
        return loader, None
    images = loader.dataset.dataset.images  # type: ignore[attr-defined]
    return loader, np.sqrt(pixel_sizes(images, metadata).prod(1)).tolist()
