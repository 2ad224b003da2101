"""What the name of a file says: which cell it is of, and whether it holds labels.

Names are compared without the words that tell an image from its labels, without regard to case,
and with numbers as numbers: `Cell_01_image.mrc` and `cell1_labels.tif` are of one cell.
"""

from __future__ import annotations

import re
from pathlib import Path

from isgseg.errors import InputError
from isgseg.io.places import place_of, stem

Key = tuple[str | int, ...]

# Words that say what a file holds of a cell, not which cell.
_IMAGE_WORD = re.compile(
    "images?|imgs?|im|raw|vol(ume)?s?|tomo(gram)?s?|rec(on(struction)?s?)?|data|inputs?|lac|sxt"
)
_LABEL_WORD = re.compile(
    "labels?|labell?ed|lbls?|seg(s|mented|mentations?)?|masks?|gt|ground|truth|groundtruth|"
    "annot(ated|ations?)?|granules?|isgs?|vesicles?|organelles?|instances?|targets?|manual|"
    "pred(icted|ictions?)?"
)


def _name(path: Path) -> str:
    """The name of the file, and that of a part of it where it says what it holds."""
    try:
        name = stem(path)
    except InputError:  # a folder
        return path.name
    place = place_of(path)
    part = place.inside.rpartition("/")[2] if place else ""
    return f"{name}_{part}" if part and all(map(_is_role, _split(part))) else name


def _split(name: str) -> list[str]:
    return re.findall(r"[0-9]+|[^\W\d_]+|[^\W_]", name.lower())


def _words(path: Path) -> list[str]:
    return _split(_name(path))


def _bare(path: Path) -> list[str]:
    """The words of a name without those that tell an image from labels, at either end."""
    words = _words(path)
    while words and _is_role(words[-1]):
        words.pop()
    while words and _is_role(words[0]):
        words.pop(0)
    return words


def _is_role(word: str) -> bool:
    return bool(_IMAGE_WORD.fullmatch(word) or _LABEL_WORD.fullmatch(word))


def cell_of(path: Path) -> Key:
    """Which cell a file or folder is of: the words of its name but those of its role."""
    return tuple(int(word) if word.isascii() and word.isdigit() else word for word in _bare(path))


def spelling_of(path: Path) -> tuple[str, ...]:
    """The same, with numbers as they are written: 01 is not 1."""
    return tuple(_bare(path))


def numbers_of(path: Path) -> list[int]:
    """The numbers of a name."""
    return [part for part in cell_of(path) if isinstance(part, int)]


def is_label(path: Path) -> bool:
    """Whether a name begins or ends with a word that says that the file holds labels."""
    words = _words(path)
    return any(_LABEL_WORD.fullmatch(word) for word in (*words[:1], *words[-1:]))
