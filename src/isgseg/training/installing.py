"""Keeping a model where prediction finds it."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from isgseg.errors import InputError
from isgseg.io.atomic import replacing
from isgseg.models.locate import installed_model

log = logging.getLogger(__name__)


def check_install(method: str, fast_dev_run: bool, overwrite: bool) -> None:
    """Whether the model of a run can be installed when it has ended.

    Args:
        method: that is trained.
        fast_dev_run: the run writes no checkpoint.
        overwrite: replace the one that is installed.

    Raises:
        InputError: it will write none, or one is installed and `overwrite` is false.
    """
    installed = installed_model(method)
    if fast_dev_run:
        raise InputError(
            "install=true, but trainer.fast_dev_run writes no checkpoint to install; leave one out"
        )
    if installed.exists() and not overwrite:
        raise InputError(
            f"install=true, but {installed} holds a model already; replace it by "
            "overwrite=true, or move it first"
        )


def install(checkpoints: Path, method: str) -> Path:
    """Copies the best model to where `load_model()` finds it; without an evaluation, the final one.

    Args:
        checkpoints: the folder of this run's checkpoints.
        method: that was trained.

    Returns:
        Where it is.

    Raises:
        InputError: there is none, because no epoch has ended.
    """
    files = [checkpoints / f"isg_{method}_{name}.pth" for name in ("best", "final")]
    there = [path for path in files if path.is_file()]
    if not there:
        raise InputError(
            f"install=true, but {checkpoints} holds no {files[0].name} to install: no epoch "
            "has ended, or callbacks.best and callbacks.final were taken out"
        )
    installed = installed_model(method)
    with replacing(installed) as beside:
        shutil.copyfile(there[0], beside)
    log.info("%s is installed as %s", there[0], installed)
    return installed
