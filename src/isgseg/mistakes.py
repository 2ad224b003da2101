"""What is wrong with a command line, said in one line before any work."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NoReturn

from omegaconf.errors import OmegaConfBaseException

from isgseg.config import CONFIG_DIR
from isgseg.errors import InputError
from isgseg.words import one_of


def stop(name: str, error: Exception) -> NoReturn:
    """Says an error in a line on standard error, and ends the program."""
    from hydra.errors import HydraException

    said, cause = str(error), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        said = f"{said}\n{cause}"
    if said.startswith("Config group override must be"):  # Hydra does not say which
        said = (
            f"{', '.join(_empty_groups(sys.argv[1:])) or 'a group'}: a group needs one of its "
            f"choices, which isgseg-{name} --help lists; ~GROUP takes a group out"
        )
    if unknown := re.search(r"^Could not override '([^']+)'.*is not in struct", said, re.DOTALL):
        said = f"{unknown[1]}: unknown key; {_hint(name, unknown[1])}"
    system: BaseException | None = error  # OmegaConf wraps what a resolver raised
    while system is not None and not isinstance(system, OSError):
        system = system.__cause__ or system.__context__
    if system is not None and not isinstance(error, (InputError, HydraException)):
        said = (
            f"the folder of this run cannot be made: {system}; start in a folder that you may "
            "write to, or choose one by paths.root=FOLDER"
        )
    said = re.sub(r"\n +(object_type|reference_type)=.*", "", said)
    print(f"isgseg-{name}: {said}", file=sys.stderr)
    raise SystemExit(1) from None


def _empty_groups(arguments: list[str]) -> list[str]:
    """The arguments that give a group of `conf/` no choice, such as `model=null`."""
    found = []
    for argument in arguments:
        group, equals, choice = argument.lstrip("+").partition("=")
        if equals and choice in ("null", "") and (Path(CONFIG_DIR) / group).is_dir():
            found.append(argument)
    return found


def _hint(name: str, key: str) -> str:
    """The key of a command that was perhaps meant."""
    from difflib import get_close_matches

    from isgseg.schema import schema_of
    from isgseg.schema.messages import dotted_keys, json_schema

    known = dotted_keys(json_schema(schema_of(name)))
    last = key.rsplit(".", 1)[-1]
    same = [other for other in known if other.rsplit(".", 1)[-1] == last]
    near = same or get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {one_of(near)}?"
    return f"isgseg-{name} --cfg job shows those there are"
