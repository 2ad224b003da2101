"""The classes of a dataset: which categories of its COCO files they are, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from isgseg.data.annotations import Annotations
from isgseg.errors import InputError


def class_names(files: Sequence[Annotations]) -> list[str]:
    """The classes of a dataset, in the order in which the network numbers them, from 1.

    A class is a category, by its name, that has an annotation in some split: parents that only
    group others, and those that a tool adds, are none. It has one number in all splits, whatever
    the identifiers in each file.

    Args:
        files: of train and val; with one, its classes.

    Raises:
        InputError: a split has objects of a class that the first split, from which the network
            learns, has not.
    """
    first, *others = files
    for other in others:
        strange = [name for name in other.used if name not in first.used]
        if strange and first.used:
            raise InputError(
                f"{other.path} has objects of the category '{strange[0]}', but those of "
                f"{first.path} are of {first.used}; give a category the same name in both files"
            )
    return list(dict.fromkeys(name for file in files for name in file.used))


def require_classes(classes: Sequence[str], num_classes: int) -> None:
    """Whether a network can learn all classes of a dataset.

    Args:
        classes: names, of `class_names`.
        num_classes: of the network, with the background.

    Raises:
        InputError: the dataset has more.
    """
    if len(classes) >= num_classes:
        raise InputError(
            f"the dataset has objects of {len(classes)} categories, {list(classes)}, but "
            f"model.network.num_classes={num_classes}, with the background; set "
            f"model.network.num_classes={len(classes) + 1} (each category is predicted as "
            "granules), or leave in annotations.json the category of granules alone"
        )
