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
MODEL = "isg_mask_rcnn_final.pth"
SHIPPED = "phantom"  # what `model.weights` calls the network that comes with isgseg
UNSEEN = (
    "The network that comes with isgseg was trained on phantoms and has never seen a real cell: "
    "look at what it finds, and fine-tune it on labels of your own (isgseg-train "
    "experiment=finetune model.weights=phantom)"
)


def find_model(path: str | Path | None = None) -> Path:
    """The network to use; the log says which and where it comes from.

    The order: the path that was given; `$ISGSEG_MODEL`; `models/sxt/isg_mask_rcnn_final.pth` in the
    user's data folder, where `isgseg-train install=true` puts it; the newest one under `outputs/`;
    the one that comes with isgseg, which was trained on phantoms.

    Args:
        path: a file, or None.

    Raises:
        InputFileNotFoundError: there is none; the message says how to get one.
    """
    if path is not None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"{path!r} is no path of a checkpoint; give the name of a .pth file")
        given = user_path(path)
        log.info("Network: %s", given)
        if given.absolute() == shipped_model():
            log.warning(UNSEEN)
        return given
    named = os.environ.get("ISGSEG_MODEL")
    if named:
        log.info("Network: %s, from $ISGSEG_MODEL", named)
        return user_path(named)
    if installed_model().is_file():
        log.info("Network: %s, installed by isgseg-train install=true", installed_model())
        return installed_model()
    runs = sorted(Path("outputs").rglob(MODEL), key=lambda path: path.stat().st_mtime)
    if runs:
        log.info("Network: %s, the newest under outputs/", runs[-1])
        return runs[-1]
    if shipped_model().is_file():
        log.info("Network: the one that comes with isgseg, %s", shipped_model())
        log.warning(UNSEEN)
        return shipped_model()
    raise InputFileNotFoundError(
        f"no model: $ISGSEG_MODEL is not set, and there is neither {installed_model()} nor a "
        f"{MODEL} under outputs/; train one (isgseg-train install=true keeps it for later), or "
        "name one (ckpt_path=FILE, load_model(FILE))"
    )


def named_weights(weights: str) -> Path:
    """The file of initial weights: `phantom` is the network that comes with isgseg.

    Raises:
        InputFileNotFoundError: isgseg was installed without that network.
    """
    if weights != SHIPPED:
        return user_path(weights)
    if not shipped_model().is_file():
        raise InputFileNotFoundError(
            f"model.weights={SHIPPED}: {shipped_model()} is not there: this isgseg was installed "
            "without its network; set model.weights=null, or a checkpoint of your own"
        )
    return shipped_model()


def installed_model() -> Path:
    """Where `isgseg-train install=true` keeps its model."""
    return platformdirs.user_data_path("isgseg") / "models" / "sxt" / MODEL


def shipped_model() -> Path:
    """Where the network that comes with isgseg lies."""
    return Path(str(files("isgseg"))) / "weights" / MODEL
