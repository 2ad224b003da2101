"""Pairs of volumes and labels to a dataset folder, with a record of where everything comes from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from isgseg.data.normalization import Normalization
from isgseg.data.patches import PatchSettings, Split, cut_volume
from isgseg.errors import InputError
from isgseg.instances.ground_truth import load_ground_truth
from isgseg.instances.settings import InstanceSettings
from isgseg.io.formats import VoxelSize
from isgseg.io.paths import sha256
from isgseg.io.volumes import stem

log = logging.getLogger(__name__)


def write_dataset(
    pairs: Sequence[tuple[Path, Path]],
    val: Sequence[str],
    output: Path,
    settings: PatchSettings,
    normalization: Normalization,
    voxel_size: VoxelSize | None = None,
    instances: InstanceSettings | None = None,
) -> dict[str, Any]:
    """Writes `train/`, `val/` and `dataset.yaml`'s content.

    Args:
        pairs: volume and label files.
        val: stems of the volumes whose patches go to `val/`; the others go to `train/`.
        output: an existing folder.
        settings: how to cut.
        normalization: voxels to grey.
        voxel_size: nm, (z, y, x), in place of what the files say; None: as they say.
        instances: how the numbers of labels become granules; None: `auto`.

    Returns:
        What `dataset.yaml` says: voxel size (nm), normalization, patches, volumes with their
        SHA-256 and split, and size statistics of the objects.

    Raises:
        InputError: a volume in both splits, an empty split, voxel sizes or shapes that differ.
    """
    splits = {name: Split(output / name) for name in ("train", "val")}
    for split in splits.values():
        (split.folder / "images").mkdir(parents=True)
    sources = describe_sources(pairs, val)
    sizes: list[tuple[float, ...]] = []
    for (image, label_file), source in zip(pairs, sources, strict=True):
        read = load_ground_truth(image, label_file, instances, voxel_size=voxel_size)
        volume, ground_truth = read.volume, read.labels
        if np.array_equal(volume.data, ground_truth.data):
            raise InputError(
                f"{image} and its labels {label_file} hold the same voxels; one of them is a copy "
                "of the other: give the tomogram and its labels"
            )
        normalizer = normalization.fit(volume.data, str(image))
        log.info("Cutting %s %s into %s", image.name, volume.data.shape, source["split"])
        split = splits[source["split"]]
        cut_volume(
            split,
            stem(image),
            volume.data,
            ground_truth.data,
            normalizer,
            settings,
            all_empty=source["split"] == "val",
            voxel_size=volume.voxel_size,
        )
        source |= {
            "shape": list(volume.data.shape),
            "normalizer": asdict(normalizer),
            "instances": asdict(read.made),
        }
        if volume.voxel_size is not None:
            sizes.append(tuple(round(side, 3) for side in volume.voxel_size))
    common_size = common_voxel_size(sizes)
    for name, split in splits.items():
        finish(split, name, settings)
    return {
        "voxel_size": common_size,
        "z_context": settings.z_context,
        "normalization": asdict(normalization),
        "patches": {**asdict(settings), "axes": list(settings.axes)},
        "volumes": sources,
        "objects": {name: statistics(split) for name, split in splits.items()},
    }


def finish(split: Split, name: str, settings: PatchSettings) -> None:
    """Saves a split, and says what was left out of it.

    Raises:
        InputError: it has no object.
    """
    if not split.annotations:
        reason = (
            f"all {split.too_small} masks have fewer than "
            f"patches.min_pixels={settings.min_pixels} pixels; give less"
            if split.too_small
            else "its label volumes are all background where patches are taken; change which "
            "volumes val= names, take every slice with patches.slice_step=1, or larger patches "
            f"than patches.size={settings.size}"
        )
        raise InputError(f"the {name} split has no object: {reason}")
    split.save()
    if split.too_small:
        log.warning(
            "%s: left out %d masks of fewer than patches.min_pixels=%d pixels",
            name,
            split.too_small,
            settings.min_pixels,
        )
    if split.empty_left_out:
        log.info(
            "%s: left out %d patches without objects, so that patches.empty_share=%g",
            name,
            split.empty_left_out,
            settings.empty_share,
        )


def describe_sources(
    pairs: Sequence[tuple[Path, Path]], val: Sequence[str]
) -> list[dict[str, Any]]:
    """Which split each volume is in, with its SHA-256.

    Raises:
        InputError: a split stays empty, a stem of `val` names no volume, or two volumes share a
            name or a content.
    """
    stems = [stem(image) for image, _ in pairs]
    missing = sorted(set(val) - set(stems))
    if missing:
        raise InputError(f"val={missing} names no volume; the volumes are {stems}")
    if not val or set(val) == set(stems):
        raise InputError(
            f"val={list(val)} leaves the {'train' if val else 'val'} split empty; name some, not "
            f"all, of {stems}"
        )
    sources: list[dict[str, Any]] = []
    for name, (image, labels) in zip(stems, pairs, strict=True):
        digest = sha256(image)
        split = "val" if name in val else "train"
        for other in sources:
            if other["sha256"] == digest or other["name"] == name:
                raise InputError(
                    f"{image} and {other['file']} are the same volume (split {split} and "
                    f"{other['split']}); name each volume once"
                )
        sources.append(
            {
                "name": name,
                "split": split,
                "file": str(image),
                "labels": str(labels),
                "sha256": digest,
            }
        )
    return sources


def common_voxel_size(sizes: Sequence[tuple[float, ...]]) -> list[float] | None:
    """The median voxel size of the volumes, nm, or None where no file says it.

    Raises:
        InputError: they differ by more than half: the network sees granules at one scale.
    """
    if not sizes:
        return None
    ratio = float((np.max(sizes, axis=0) / np.min(sizes, axis=0)).max())
    if ratio > 1.5:
        raise InputError(
            f"voxel sizes differ by a factor of {ratio:.2f}: {sorted(set(sizes))} nm (z, y, x); "
            "resample the volumes to one size first"
        )
    return [float(side) for side in np.median(sizes, axis=0)]


def statistics(split: Split) -> dict[str, Any]:
    """How many patches and objects, and the percentiles of the objects' tight side in pixels."""
    sides = [float(np.sqrt(a["bbox"][2] * a["bbox"][3])) for a in split.annotations]
    images = {annotation["image_id"] for annotation in split.annotations}
    percentiles = np.percentile(sides, [5, 25, 50, 75, 95]).round(2).tolist()
    return {
        "patches": len(split.images),
        "empty_patches": len(split.images) - len(images),
        "objects": len(split.annotations),
        "side_px_percentiles_5_25_50_75_95": percentiles,
    }
