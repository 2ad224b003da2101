"""The configuration: where it is, and the check of the whole of it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from isgseg.errors import InputError
from isgseg.overrides import modernize_config

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "conf"
# A wheel carries conf/ inside the package; a checkout keeps it at the top, where people edit it.
CONFIG_DIR = str(_IN_WHEEL if _IN_WHEEL.is_dir() else _PACKAGE.parents[1] / "conf")


def checked(name: str, cfg: DictConfig) -> DictConfig:
    """The config of a command, with every key checked against `isgseg.schema`.

    Args:
        name: of the command.
        cfg: as Hydra composed it.

    Returns:
        The same, with names of the last release renamed.

    Raises:
        InputError: a key is missing, unknown or has a value that it may not have; all are named.
    """
    from isgseg.errors import check
    from isgseg.schema import schema_of

    missing = sorted(_missing(OmegaConf.to_container(cfg)))
    if missing:
        raise InputError(f"{'=..., '.join(missing)}=... must be given on the command line")
    content = plain(cfg)
    old_names = modernize_config(content)
    for message in old_names:
        log.warning("%s", message)
    check(schema_of(name), content, "")
    return OmegaConf.create(content, flags={"allow_objects": True}) if old_names else cfg


def _missing(content: Any, path: str = "") -> Iterator[str]:
    """The keys of a config that are `???`; interpolations are not looked into."""
    if content == "???":
        yield path
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _missing(value, f"{path}.{key}" if path else str(key))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain values, with its interpolations resolved.

    Raises:
        InputError: one cannot be resolved; a file name with `${` in it is one too.
    """
    try:
        content = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"{error.full_key or 'the configuration'}: {said}; in a file name write \\${{ for ${{"
        ) from error
    assert isinstance(content, dict)
    return content  # type: ignore[return-value]


def quiet_lightning() -> None:
    """Keeps Lightning from printing what the log prints too, and what users cannot mend."""
    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).handlers.clear()
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated")  # lightning's own use of it
    # What is logged without it is of all processes already.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")


def unique_folder(folder: str) -> str:
    """A new folder of that name; where it is there already, of that name with _2, _3, ...

    Two runs that start in the same second get different ones.
    """
    path, number = Path(folder), 1
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            path.mkdir()
            return str(path)
        except FileExistsError:
            number += 1
            path = Path(f"{folder}_{number}")


# When the module is imported: a task of a launcher does so, and composes its config anew.
OmegaConf.register_new_resolver("isgseg.unique", unique_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("isgseg.sum", lambda *numbers: sum(numbers), replace=True)
