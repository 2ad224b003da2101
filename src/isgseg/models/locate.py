"""Which network is used where none is named: a lab's own before the one that comes with isgseg."""

from __future__ import annotations

import logging
import os
from importlib.resources import files
from pathlib import Path

import platformdirs

from isgseg.errors import InputError, InputFileNotFoundError
from isgseg.io.paths import user_path

log = logging.getLogger(__name__)
MASK_RCNN = "mask_rcnn"  # what is looked for where no method is named
MODEL = f"isg_{MASK_RCNN}_final.pth"
SHIPPED = "phantom"  # what `model.weights` calls the network that comes with isgseg
UNSEEN = (
    "The network that comes with isgseg was trained on phantoms and has never seen a real cell: "
    "look at what it finds, and fine-tune it on labels of your own (isgseg-train "
    "experiment=finetune model.weights=phantom)"
)


def find_model(path: str | Path | None = None, method: str = MASK_RCNN) -> Path:
    """The network to use; the log says which and where it comes from.

    The order: the path that was given; `$ISGSEG_MODEL`; `models/sxt/isg_mask_rcnn_final.pth` (of
    another method, its name) in the user's data folder, where `isgseg-train install=true` puts it;
    the newest one under `outputs/`; the one that comes with isgseg, which was trained on phantoms.

    Args:
        path: a file, or None.
        method: one of `isgseg.models.settings.METHODS`.

    Raises:
        InputFileNotFoundError: there is none; the message says how to get one.
    """
    if path is not None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"{path!r} is no path of a checkpoint; give the name of a .pth file")
        given = user_path(path)
        log.info("Network: %s", given)
        if given.absolute() == shipped_model(method):
            log.warning(UNSEEN)
        return given
    named = os.environ.get("ISGSEG_MODEL")
    if named:
        log.info("Network: %s, from $ISGSEG_MODEL", named)
        return user_path(named)
    installed, shipped = installed_model(method), shipped_model(method)
    if installed.is_file():
        log.info("Network: %s, installed by isgseg-train install=true", installed)
        return installed
    runs = sorted(Path("outputs").rglob(installed.name), key=lambda path: path.stat().st_mtime)
    if runs:
        log.info("Network: %s, the newest under outputs/", runs[-1])
        return runs[-1]
    if shipped.is_file():
        log.info("Network: the one that comes with isgseg, %s", shipped)
        log.warning(UNSEEN)
        return shipped
    raise InputFileNotFoundError(
        f"no model: $ISGSEG_MODEL is not set, and there is neither {installed} nor a "
        f"{installed.name} under outputs/; train one (isgseg-train install=true keeps it for "
        "later), or name one (ckpt_path=FILE, load_model(FILE))"
    )


def named_weights(weights: str, method: str = MASK_RCNN) -> Path:
    """The file of initial weights: `phantom` is the network that comes with isgseg.

    Raises:
        InputFileNotFoundError: isgseg was installed without that network.
    """
    if weights != SHIPPED:
        return user_path(weights)
    shipped = shipped_model(method)
    if not shipped.is_file():
        raise InputFileNotFoundError(
            f"model.weights={SHIPPED}: {shipped} is not there: this isgseg has no such "
            "network; set model.weights=null, or a checkpoint of your own"
        )
    return shipped


def installed_model(method: str = MASK_RCNN) -> Path:
    """Where `isgseg-train install=true` keeps its model."""
    return platformdirs.user_data_path("isgseg") / "models" / "sxt" / f"isg_{method}_final.pth"


def shipped_model(method: str = MASK_RCNN) -> Path:
    """Where the network that comes with isgseg lies."""
    return Path(str(files("isgseg"))) / "weights" / f"isg_{method}_final.pth"
