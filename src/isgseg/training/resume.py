"""Whether a training may start in a folder, and whether it can go on from a checkpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import Callback

from isgseg.errors import InputError, InputFileExistsError
from isgseg.models.checkpoint import migrate, read_checkpoint
from isgseg.models.methods import method_of, require_method
from isgseg.models.settings import METHODS
from isgseg.words import shown

# What a checkpoint of a training holds, and of which type.
_STATE: dict[str, type | tuple[type, ...]] = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "epoch": int,
    "global_step": int,
    "callbacks": dict,
    "hyper_parameters": dict,
}


def former_checkpoints(folder: Path, resumed: str | None, overwrite: bool) -> list[Path]:
    """Checkpoints of an earlier run in the folder of a new one, which replaces them.

    Args:
        folder: `checkpoints` of the run's folder.
        resumed: the checkpoint that is resumed. Where it is one of the folder, the run goes on in
            its own folder: older checkpoints are its own, and stay.
        overwrite: whether they may be replaced.

    Raises:
        InputFileExistsError: there are some, or later ones than that which is resumed, and
            `overwrite` is false.
    """
    found = sorted(path for method in METHODS for path in folder.glob(f"isg_{method}_*.pth"))
    if resumed is not None and Path(resumed).resolve().parent == folder.resolve():
        finals = [path for path in found if path.name.endswith("_final.pth")]
        last = max(finals, key=_epoch, default=None)
        if overwrite or last is None or _epoch(last) <= _epoch(Path(resumed)):
            return []
        raise InputFileExistsError(
            f"{folder} holds later checkpoints than {resumed}; go on with ckpt_path={last}, "
            "replace them by overwrite=true, or choose another folder"
        )
    if found and not overwrite:
        raise InputFileExistsError(
            f"{folder} holds checkpoints of another run: {', '.join(path.name for path in found)}; "
            f"go on with it by ckpt_path={found[-1]}, replace them by overwrite=true, or choose "
            "another folder"
        )
    return [path for path in found if is_own(path)]


def _epoch(path: Path) -> int:
    """The epoch in which a checkpoint was written; -1 where it does not say."""
    epoch = read_checkpoint(path).get("epoch")
    return epoch if isinstance(epoch, int) else -1


def is_own(path: Path) -> bool:
    """Whether isgseg-train wrote a checkpoint.

    Raises:
        InputFileExistsError: something else has its name.
    """
    try:
        content = read_checkpoint(path)
    except ValueError:
        content = {}
    if "hyper_parameters" not in content or "state_dict" not in content:
        raise InputFileExistsError(
            f"{path} is no checkpoint of isgseg-train, so that overwrite=true does not replace it; "
            "move it, or choose another folder"
        )
    return True


def check_resumed(path: str, module: lightning.LightningModule, max_epochs: int) -> None:
    """Whether a training can go on from a checkpoint.

    Raises:
        InputError: the file is no checkpoint, holds weights alone or another network, is of another
            method, or its training is at its end.
    """
    content = read_checkpoint(path)
    if not all(isinstance(content.get(key), kind) for key, kind in _STATE.items()):
        raise InputError(
            f"ckpt_path={path} cannot be resumed: it holds weights, but no state of a training of "
            f"isgseg-train; start a new one from its weights by model.weights={path}"
        )
    own = method_of(migrate(content)["hyper_parameters"], path)
    require_method(own, method_of(module.hparams, "model"), f"ckpt_path={path}")
    epochs = content["epoch"] + 1
    if epochs >= max_epochs:
        raise InputError(
            f"ckpt_path={path} is already at epoch {epochs} of trainer.max_epochs={max_epochs}; "
            "raise trainer.max_epochs"
        )
    ours, theirs = module.state_dict(), content["state_dict"]
    differ = sorted(
        str(name)
        for name in ours.keys() | theirs.keys()
        if getattr(ours.get(name), "shape", None) != getattr(theirs.get(name), "shape", None)
    )
    if differ:
        raise InputError(
            f"ckpt_path={path} is of another network: {len(differ)} tensors differ, such as "
            f"{differ[0]}; resume it with the model= and model.network it was trained with, or "
            f"start a new training by model.weights={path}"
        )
    optimizer = content["hyper_parameters"].get("optimizer")
    if optimizer is not None and optimizer != module.hparams.get("optimizer"):
        raise InputError(
            f"ckpt_path={path} was trained with model.optimizer={shown(optimizer)}; resume with "
            "the same"
        )


class _Started(Callback):
    """Whether the first step of a training has come."""

    yes = False

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.yes = True


@contextlib.contextmanager
def resuming(trainer: lightning.Trainer, path: str | None) -> Iterator[None]:
    """What fails before the first step, while a checkpoint's state is restored, is that file's.

    Args:
        trainer: the one that fits in the block.
        path: of the checkpoint; None where nothing is resumed.

    Raises:
        InputError: the state of the training does not fit.
    """
    started = _Started()
    trainer.callbacks.append(started)  # type: ignore[attr-defined]
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if path is None or started.yes or isinstance(error, InputError):
            raise
        raise InputError(
            f"ckpt_path={path} cannot be resumed: its training state is damaged, or of other "
            f"settings ({type(error).__name__}: {error}); start a new training from its weights by "
            f"model.weights={path}"
        ) from error
