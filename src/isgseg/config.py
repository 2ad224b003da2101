"""Where the Hydra configuration is, and how a command reports a user's mistake."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "conf"
# A wheel carries conf/ inside the package; a checkout keeps it at the top, where people edit it.
CONFIG_DIR = str(_IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parents[1] / "conf")


def friendly_errors(command: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """Ends a command with one clear line where the input, not the program, is at fault.

    What must be given is asked for at once, before torch is imported. ValueError and OSError are
    what isgseg raises for bad input. HYDRA_FULL_ERROR=1 shows the whole stack trace instead, as it
    does for Hydra's own errors.
    """

    @functools.wraps(command)
    def wrapped(cfg: DictConfig) -> Result:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            log.error("%s=... must be given on the command line", "=..., ".join(missing))
            raise SystemExit(1)
        try:
            return command(cfg)
        except (ValueError, OSError, InstantiationException) as error:
            cause: BaseException = error
            if isinstance(error, InstantiationException) and error.__cause__ is not None:
                cause = error.__cause__  # Hydra wraps what a constructor raised
            if os.environ.get("HYDRA_FULL_ERROR") or not isinstance(cause, (ValueError, OSError)):
                raise
            log.error("%s", cause)
            raise SystemExit(1) from None

    return wrapped


def quiet_lightning() -> None:
    """Keeps Lightning from printing what the log prints too, and what users cannot mend."""
    logging.getLogger("lightning").handlers.clear()
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # lightning's own use of it
