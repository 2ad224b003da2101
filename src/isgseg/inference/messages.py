"""What prediction tells its user: thresholds, voxel sizes, what to check if nothing is found."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from isgseg.data.normalization import Normalizer
from isgseg.models.settings import Thresholds, TrainingMetadata

log = logging.getLogger(__name__)
_RATIO = 1.25  # between voxel sizes, from which on granules are too large or too small


def tell_thresholds(used: Thresholds, tuned: Thresholds | None) -> None:
    """Logs which thresholds are used, and how to get those that validation tuned."""
    log.info("Thresholds: detections %.3g, masks %.3g, granules %.3g", *used)
    if tuned is None:
        log.info("The checkpoint holds none that were tuned; isgseg-tune finds them on labels")
    elif tuned != used:
        log.info(
            "The checkpoint's own, tuned at validation, are %.3g, %.3g and %.3g; threshold=null "
            "(in Python threshold=None) uses them",
            *tuned,
        )


def tell_voxel_size(
    name: str,
    voxel_size: Sequence[float] | None,
    metadata: TrainingMetadata | None,
    resampled: bool,
) -> None:
    """Logs what becomes of voxels of another size than those that the network learnt.

    Args:
        name: of the volume.
        voxel_size: nm, (z, y, x), of the volume; None where it is not known.
        metadata: of the training data.
        resampled: whether the method makes up for the difference.
    """
    learnt = metadata.voxel_size if metadata else None
    if learnt is None:
        return
    if voxel_size is None:
        log.warning(
            "%s: the voxel size is not known, and is taken to be that of the training data, %s nm "
            "(z, y, x); set voxel_size= if it is another",
            name,
            _rounded(learnt),
        )
        return
    if resampled:
        log.info(
            "%s: voxels of %s nm (z, y, x) are resampled to those that the network learnt, %s nm; "
            "labels keep the volume's own",
            name,
            _rounded(voxel_size),
            _rounded(learnt),
        )
        return
    ratio = max(max(a / b, b / a) for a, b in zip(learnt, voxel_size, strict=True))
    if ratio > _RATIO:
        log.warning(
            "%s has voxels of %s nm (z, y, x), and the network, which has no fixed scale, learnt "
            "from %s nm: granules are %.2g times as large or small as it knows them; resample the "
            "volume first",
            name,
            _rounded(voxel_size),
            _rounded(learnt),
            ratio,
        )


def tell_nothing_found(
    name: str,
    normalizer: Normalizer,
    voxel_size: Sequence[float] | None,
    metadata: TrainingMetadata | None,
    thresholds: Thresholds,
) -> None:
    """Logs what to check where a volume has no granule; the arguments are what was used."""
    learnt = metadata.voxel_size if metadata else None
    log.warning(
        "%s: no granule found. Check that it is a tomogram; the normalization (method %s, %.4g to "
        "%.4g; normalization=); the voxel size (%s nm here, %s nm learnt; voxel_size=); the "
        "thresholds (detections %.3g, granules %.3g; threshold=)",
        name,
        normalizer.method,
        normalizer.low,
        normalizer.high,
        "unknown" if voxel_size is None else _rounded(voxel_size),
        "unknown" if learnt is None else _rounded(learnt),
        thresholds.score,
        thresholds.object,
    )


def _rounded(size: Sequence[float]) -> list[float]:
    return [round(float(side), 2) for side in size]
