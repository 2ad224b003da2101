"""From a volume to its granules: what predict, evaluate, tune, the segmenter and training share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from isgseg.data.normalization import Normalization, Normalizer
from isgseg.errors import InputError, check
from isgseg.evaluation.thresholds import choose_thresholds
from isgseg.hardware import keep_freed_memory, pick_device
from isgseg.inference.appearance import as_learnt, is_constant
from isgseg.inference.map_segmentation import MapSegmenter
from isgseg.inference.maps import UNetMapper
from isgseg.inference.memory import made_ready
from isgseg.inference.messages import (
    tell_nothing_found,
    tell_thresholds,
    tell_voxel_size,
)
from isgseg.inference.method import Granules, Method, no_granules
from isgseg.inference.segmentation import SliceSegmenter
from isgseg.inference.settings import SegmentationSettings
from isgseg.inference.slices import MaskRCNNDetector
from isgseg.io.on_disk import OnDisk
from isgseg.io.volumes import Volume
from isgseg.models.checkpoint import load_checkpoint
from isgseg.models.locate import find_model
from isgseg.models.settings import Thresholds, TrainingMetadata
from isgseg.models.tta import AugmentedMaskRCNN
from isgseg.models.unet import UNet

log = logging.getLogger(__name__)


class Predictor:
    """A method of segmentation, with what its network has to be told of volumes.

    It is built once, and does not change: thresholds, scale and normalization are its own.

    Args:
        method: makes granules of a normalized volume.
        metadata: of the training data; None for a plain state dict.
        thresholds: that the method uses, for messages.
        normalization: in place of that of the training data.
    """

    def __init__(
        self,
        method: Method,
        metadata: TrainingMetadata | None,
        thresholds: Thresholds,
        normalization: Normalization | None = None,
    ) -> None:
        self.method, self.metadata, self.thresholds = method, metadata, thresholds
        self.normalization = normalization

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path | None,
        *,
        device: str | None = None,
        tta: int | None = None,
        threshold: float | None = None,
        normalization: Mapping[str, Any] | None = None,
        segmentation: Mapping[str, Any] | SegmentationSettings | None = None,
        precision: str = "auto",
        fast: bool = True,
        progress: bool = True,
    ) -> Self:
        """The network of a file, and what is asked for instead of its own settings.

        Args:
            path: a `.pth` file; None takes what `isgseg.models.locate.find_model` finds.
            device: `cuda`, `cpu`, or None for CUDA where there is one.
            tta: test-time augmentation, 1, 2, 4 or 8 flips and turns; None: the checkpoint's.
            threshold: object score threshold, which single detections are asked for too; None: the
                checkpoint's, each its own.
            normalization: keywords of `Normalization`; None, or a method of None: the checkpoint's.
            segmentation: keywords of `SegmentationSettings`.
            precision: see `isgseg.hardware.pick_precision`.
            fast: see `MaskRCNNDetector`.
            progress: show a bar.

        Raises:
            InputError: the file is no checkpoint, or a setting is out of range.
        """
        path = find_model() if path is None else Path(path)
        checkpoint = load_checkpoint(path)
        network = checkpoint.build().to(pick_device(device))
        if tta is not None and tta != checkpoint.tta and checkpoint.thresholds is not None:
            log.warning(
                "The checkpoint's thresholds were tuned with tta=%d, not %d; isgseg-tune finds "
                "those that suit",
                checkpoint.tta,
                tta,
            )
        classes = getattr(checkpoint.network, "num_classes", 2) - 1
        if classes > 1:
            names = checkpoint.metadata and checkpoint.metadata.classes
            log.info(
                "%s knows %d classes of objects%s: every one of them counts as a granule",
                path,
                classes,
                f" ({', '.join(names)})" if names else "",
            )
        predictor = cls.from_network(
            network,
            checkpoint.metadata,
            tta=checkpoint.tta if tta is None else tta,
            tuned=checkpoint.thresholds,
            threshold=threshold,
            normalization=normalization,
            segmentation=segmentation,
            precision=precision,
            fast=fast,
            progress=progress,
        )
        tell_thresholds(predictor.thresholds, checkpoint.thresholds)
        return predictor

    @classmethod
    def from_network(
        cls,
        network: AugmentedMaskRCNN | UNet,
        metadata: TrainingMetadata | None,
        *,
        tta: int = 1,
        tuned: Thresholds | None = None,
        threshold: float | None = None,
        normalization: Mapping[str, Any] | None = None,
        segmentation: Mapping[str, Any] | SegmentationSettings | None = None,
        precision: str = "auto",
        fast: bool = True,
        progress: bool = True,
    ) -> Self:
        """A network that is in memory, such as one that is being trained; it is not changed.

        Args:
            network: on the device to use.
            metadata: of its training data; None for a plain state dict.
            tta: see `from_checkpoint`, as for the keywords after the next.
            tuned: thresholds that suit it, which `threshold` and `mask_threshold` go before.
            threshold: see there.
            normalization: see there.
            segmentation: see there.
            precision: see there.
            fast: see there.
            progress: see there.

        Raises:
            InputError: a setting is out of range.
        """
        if not isinstance(segmentation, SegmentationSettings):
            segmentation = check(SegmentationSettings, dict(segmentation or {}), "segmentation")
        if normalization is not None and not isinstance(normalization, Mapping):
            raise InputError(
                f"normalization={normalization!r}: give a mapping, such as "
                "{'method': 'window', 'low': 0, 'high': 255}"
            )
        thresholds = choose_thresholds(tuned, threshold, segmentation.mask_threshold)
        if next(network.parameters()).device.type == "cpu":
            keep_freed_memory()
        looks: dict[str, Any] = {"tta": tta, "precision": precision, "fast": fast}
        looks["z_context"] = 0 if metadata is None else metadata.z_context
        learnt = None if metadata is None else metadata.voxel_size
        method: Method
        if isinstance(network, UNet):
            segmentation.require_of_maps()
            mapper = UNetMapper(network, **looks)
            method = MapSegmenter(mapper, thresholds, segmentation, learnt, progress)
        else:
            segmentation.require_of_detections()
            detector = MaskRCNNDetector(network, **looks)
            learnt = None if detector.scale is None else learnt
            method = SliceSegmenter(detector, thresholds, segmentation, learnt, progress)
        return cls(
            method,
            metadata,
            thresholds,
            None
            if normalization is None or normalization.get("method", "mode") is None
            else check(Normalization, dict(normalization), "normalization"),
        )

    def segment(self, volume: Volume, name: str = "") -> Granules:
        """The granules of a volume, labelled on its own grid.

        Of a volume that stays on the disk, labels stay as runs where a few slices of it are enough
        for the method. Otherwise it is read. Where all of it, or its maps, are in memory, a message
        says before how much that takes.

        Args:
            volume: (z, y, x), any real numbers without NaN; its voxel size in nm, or None.
            name: what messages call it.

        Raises:
            InputError: the volume cannot be normalized, or does not fit into memory; the message
                names it.
        """
        name = name or "the volume"
        if is_constant(volume.data):
            log.warning(
                "%s: all voxels are %g, so that there is no granule in it; is it the right file?",
                name,
                volume.data.min(),
            )
            return no_granules(volume.data.shape)
        method = self.method
        zooms = isinstance(method, SliceSegmenter | MapSegmenter) and method.zooms(volume)
        tell_voxel_size(name, volume.voxel_size, self.metadata, zooms)
        normalizer = self.normalizer(volume, name)
        if isinstance(volume.data, OnDisk):
            volume = made_ready(volume, method, name)
        granules = self.method.segment(volume, normalizer, name)
        if granules.labels.dtype.itemsize > 2:
            log.warning(
                "%s: more than 65,535 granules, so that labels are %s", name, granules.labels.dtype
            )
        if not len(granules.score):
            tell_nothing_found(name, normalizer, volume.voxel_size, self.metadata, self.thresholds)
        return granules

    def normalizer(self, volume: Volume, name: str = "the volume") -> Normalizer:
        """What makes of the volume's voxels what the network has learnt from.

        Raises:
            InputError: the volume cannot be normalized so; the message names it.
        """
        normalization = self.normalization or as_learnt(self.metadata, volume.data, name)
        return normalization.fit(volume.data, name)
