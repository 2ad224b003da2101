"""`isgseg-predict manifest=cell_labels.json`: labels are made again as a manifest says.

The settings of the manifest become arguments, which those that are typed go before.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isgseg.errors import InputError
from isgseg.inference.manifest import Manifest, read_manifest
from isgseg.io.paths import is_file, user_path
from isgseg.overrides import GROUPS, literal, value_of

log = logging.getLogger(__name__)
# Of this run, not of the labels.
_OWN = {"task_name", "paths", "output_dir", "overwrite", "progress", "manifest", "into_zarr"}
_HYDRA = {"--config-path": "path", "-cp": "path", "--config-name": "name", "-cn": "name"}


def replayed(arguments: Sequence[str]) -> list[str]:
    """Arguments of isgseg-predict, with what a manifest among them says in front.

    A manifest is named by `manifest=FILE`, or as Hydra names a configuration, by
    `--config-path FOLDER --config-name cell_labels`.

    Args:
        arguments: as typed, without the program's name.

    Raises:
        InputError: the manifest cannot be read, or a whole group is chosen beside it.
    """
    arguments = _as_key(list(arguments))
    given = [argument for argument in arguments if argument.startswith("manifest=")]
    if not given or given[-1] in ("manifest=", "manifest=null"):
        return arguments
    for argument in arguments:
        group, _, choice = argument.lstrip("+~").partition("=")
        if group in GROUPS and not choice.startswith("{"):
            raise InputError(
                f"{argument}: a manifest holds single keys, not choices of groups; beside "
                f"manifest= give keys, such as {group}.KEY=VALUE"
            )
    manifest = read_manifest(user_path(str(value_of(given[-1]))))
    content = {key: value for key, value in manifest.config.items() if key not in _OWN}
    content |= {"volumes": manifest.volume, "ckpt_path": manifest.checkpoint}
    return [*_overrides(content), *arguments]


def check_replay(told: Manifest, here: Manifest) -> None:
    """Whether the volume and the checkpoint are still those of a manifest.

    Others may be given, by `volumes=` and `ckpt_path=`. What then differs is logged.

    Args:
        told: the manifest that was given.
        here: that of the labels to be made.

    Raises:
        InputError: a file of the manifest's path has changed.
    """
    for kind, key in (("volume", "volumes"), ("checkpoint", "ckpt_path")):
        path = getattr(here, kind)
        if getattr(here, f"{kind}_sha256") == getattr(told, f"{kind}_sha256"):
            continue
        if path == getattr(told, kind):
            raise InputError(
                f"{path} has changed since the manifest was written: its SHA-256 is another one. "
                f"Give {key}= the file as it was; without manifest= this one can be used"
            )
        log.warning("%s is another %s than that of the manifest", path, kind)
    before, now = told.deciding(), here.deciding()
    hashes = {"volume_sha256", "checkpoint_sha256"}
    differ = [key for key in now if key not in hashes and now[key] != before[key]]
    differ += [key for key, one in here.versions.items() if told.versions.get(key) != one]
    if differ:
        log.warning("Another %s than that of the manifest", ", ".join(dict.fromkeys(differ)))


def tell_replay(told: Manifest, made: Manifest) -> None:
    """Logs whether labels are those of a manifest, if they were made of the same and the same way.

    Args:
        told: the manifest that was given.
        made: that of the labels that were made.
    """
    if told.deciding() != made.deciding():
        return
    if told.labels_sha256 == made.labels_sha256:
        log.info("The labels are those of the manifest, bit for bit")
        return
    log.warning(
        "The labels are not those of the manifest: %d granules, %d there. It was made on %s with "
        "%s, this on %s with %s",
        made.granules,
        told.granules,
        told.device,
        _listed(told.versions),
        made.device,
        _listed(made.versions),
    )


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _as_key(arguments: list[str]) -> list[str]:
    """Hydra's flags for a configuration as `manifest=FILE`, where they name a manifest."""
    found: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in _HYDRA:
            found[_HYDRA[flag]] = value if equals else next(words, "")
        else:
            rest.append(word)
    if "name" not in found:
        return arguments
    file = user_path(found.get("path", ".")) / found["name"]
    file = file if file.suffix == ".json" else file.with_name(f"{file.name}.json")
    return [f"manifest={literal(str(file))}", *rest] if is_file(file) else arguments


def _overrides(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """One argument for each key, `a.b=1`."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _overrides(value, f"{prefix}{key}.")
        else:
            yield f"++{prefix}{key}={_shown(value)}"


def _shown(value: Any) -> str:
    """A plain value as Hydra reads it."""
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_shown(item)}' for key, item in value.items())}}}"
    return "null" if value is None else repr(value).lower()  # 1E-05 and True are read either way
