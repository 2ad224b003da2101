"""Where the labels of a volume become the granules that are learnt from, or scored against."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from isgseg.errors import InputError
from isgseg.instances.components import Labels
from isgseg.instances.settings import InstanceSettings, SplitSettings
from isgseg.instances.split import components, split
from isgseg.io.formats import Array, VoxelSize
from isgseg.io.labels import check_instances, mask_parts
from isgseg.io.pairing import load_pair
from isgseg.io.volumes import Volume

log = logging.getLogger(__name__)

_REMEDY = (
    "Each granule needs a number of its own: instances=split takes them apart, touching ones too; "
    "instances=components numbers what hangs together"
)


@dataclass(frozen=True)
class GroundTruth:
    """A volume and its granules.

    Attributes:
        volume: its voxels, and their size.
        labels: (z, y, x) one number a granule, 0 background; the same voxel size.
        made: what was done to the numbers of the file; never `auto`.
    """

    volume: Volume
    labels: Volume
    made: InstanceSettings


def load_ground_truth(
    image: str | Path,
    labels: str | Path,
    settings: InstanceSettings | None = None,
    *,
    voxel_size: VoxelSize | None = None,
    refuse_masks: bool = False,
) -> GroundTruth:
    """Reads a volume and its labels, and makes granules of these.

    Args:
        image: the volume's file.
        labels: the file of its labels.
        settings: how; None: `auto`.
        voxel_size: see `load_pair`.
        refuse_masks: `auto` refuses a mask, where a score of granules that were guessed would
            pass for one of granules that someone drew.

    Raises:
        InputError: as `load_pair`, or a mask that is refused; the message names the file.
    """
    settings = settings or InstanceSettings()
    volume, read = load_pair(image, labels, voxel_size, check=False)
    method = settings.method
    if method == "auto":
        method = _choose(read.data, str(labels), refuse_masks)
    if method == "numbers":
        check_instances(read.data, str(labels), _REMEDY)
        return GroundTruth(volume, read, InstanceSettings(method="numbers"))
    chosen = (settings.split or SplitSettings()) if method == "split" else None
    found = apart(read.data, volume.data, chosen)
    log.info("%s: instances=%s made %d granules of its numbers", labels, method, int(found.max()))
    made = InstanceSettings(method=method, split=chosen)
    return GroundTruth(volume, replace(read, data=found), made)


def apart(labels: Labels, volume: Array, settings: SplitSettings | None) -> Labels:
    """Granules of a mask, or of numbers.

    Args:
        labels: (z, y, x) as the file has it.
        volume: (z, y, x) voxels, which `assign=blobfit` needs.
        settings: how touching granules are told apart; None: they are not.
    """
    if settings is None:
        return components(labels)
    inside = volume if settings.assign == "blobfit" else None
    return split(labels, inside, **asdict(settings))


def _choose(labels: Labels, where: str, refuse_masks: bool) -> Literal["numbers", "split"]:
    """`numbers`, or for a mask `split`, with a warning.

    Raises:
        InputError: a mask, and these are refused.
    """
    parts = mask_parts(labels)
    if parts < 2:
        return "numbers"
    number = int(labels.max())
    what = f"{where}: there is only one label, {number}, and it has {parts} separate parts: a mask"
    if refuse_masks:
        raise InputError(
            f"{what}, which does not say where one granule ends and the next begins. Number the "
            "granules, or set instances=components (what hangs together is one granule), "
            "instances=split (touching ones are told apart by shape) or instances=numbers (all of "
            "it is one object); the scores are of that choice too"
        )
    log.warning(
        "%s. Its granules are numbered by shape (instances=split), which finds most that touch, "
        "not all; instances=components numbers what hangs together, and instances=numbers takes "
        "it as one object",
        what,
    )
    return "split"
