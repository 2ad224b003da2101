"""The documented Python interface: create a segmenter, load a model, predict a volume."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from isgseg.errors import InputError
from isgseg.hardware import pick_device
from isgseg.inference.arrays import as_volume
from isgseg.inference.messages import tell_thresholds
from isgseg.inference.predictor import Predictor
from isgseg.inference.settings import SegmentationSettings
from isgseg.io.formats import parse_voxel_size
from isgseg.io.volumes import Volume
from isgseg.models.checkpoint import Checkpoint, load_checkpoint
from isgseg.models.locate import find_model
from isgseg.models.methods import require_method
from isgseg.models.settings import Thresholds
from isgseg.models.tta import AugmentedMaskRCNN
from isgseg.models.unet import UNet

_RUN = ("progress", "voxel_size", "precision", "tta", "normalization")


class BaseSegmenter(ABC):
    """What every segmenter offers.

    A new method is a subclass with `register_segmenter(modality, task)` before it; nothing else
    changes.

    Attributes:
        name: what people call the method.
    """

    name: ClassVar[str]

    @abstractmethod
    def load_model(self, path: str | Path | None = None) -> Self:
        """Loads the model of a file, or one that the segmenter finds by itself.

        Returns:
            The segmenter, so that calls can be chained.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: the file is none.
        """

    @abstractmethod
    def predict(self, data: npt.ArrayLike, threshold: float = 0.5, **kwargs: Any) -> Any:
        """Labels a volume.

        Args:
            data: (D, H, W), any real numbers.
            threshold: objects with a lower score are left out.
            **kwargs: the method's own settings.

        Returns:
            (D, H, W) unsigned integers, 0 for background, one number for each object.

        Raises:
            RuntimeError: no model is loaded.
            ValueError: the data are no volume.
        """


_SEGMENTERS: dict[tuple[str, str], type[BaseSegmenter]] = {}


def register_segmenter(
    modality: str, task: str
) -> Callable[[type[BaseSegmenter]], type[BaseSegmenter]]:
    """A class decorator that makes a segmenter known to `create_segmenter`."""

    def register(segmenter: type[BaseSegmenter]) -> type[BaseSegmenter]:
        _SEGMENTERS[modality, task] = segmenter
        return segmenter

    return register


def create_segmenter(
    modality: str = "sxt", task: str = "isg_maskrcnn", **options: Any
) -> BaseSegmenter:
    """A segmenter by name.

    Args:
        modality: how the volume was imaged: `sxt`, soft X-ray tomography.
        task: what is looked for, and how: `isg_maskrcnn`; `isg_instance`, each granule by a U-Net;
            `isg`, where granules are, by a U-Net.
        **options: of the segmenter's constructor, such as `device`.

    Raises:
        ValueError: there is no such segmenter; the message lists those that exist.
    """
    if (modality, task) not in _SEGMENTERS:
        known = ", ".join(f"modality='{m}' task='{t}'" for m, t in sorted(_SEGMENTERS))
        raise InputError(
            f"no segmenter for modality='{modality}' task='{task}'; there are: {known}"
        )
    return _SEGMENTERS[modality, task](**options)


class NetworkSegmenter(BaseSegmenter):
    """Granules by a network of isgseg-train.

    Args:
        device: `cuda`, `cpu`, or None for CUDA where there is one.

    Attributes:
        method: of `isgseg.models.methods.METHODS`, whose checkpoints it takes.

    Raises:
        InputError: there is no such device.
    """

    method: ClassVar[str]

    def __init__(self, device: str | None = None) -> None:
        self.device = pick_device(device)
        self._checkpoint: Checkpoint | None = None
        self._network: AugmentedMaskRCNN | UNet | None = None
        self._told: Thresholds | None = None

    def load_model(self, path: str | Path | None = None) -> Self:
        """Loads a `.pth` file of isgseg-train; of Mask R-CNN also torchvision's state dicts.

        Args:
            path: the file; None takes what `find_model` finds: `$ISGSEG_MODEL`, the installed one,
                the newest under `outputs/`, or the one that comes with isgseg.

        Returns:
            The segmenter itself: `create_segmenter().load_model().predict(volume)`.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: the file is no such model, one of another method, or would need unpickling.
        """
        path = find_model(path, self.method)
        checkpoint = load_checkpoint(path)
        require_method(checkpoint.method, self.method, path)
        self._network = checkpoint.build().to(self.device)
        self._checkpoint, self._told = checkpoint, None
        return self

    def predict(
        self, data: npt.ArrayLike, threshold: float | None = 0.5, **kwargs: Any
    ) -> npt.NDArray[Any]:
        """Labels the granules of a volume.

        Args:
            data: (D, H, W), any real numbers, without NaN.
            threshold: granules of a lower score are left out; None takes the
                thresholds that validation tuned, from the checkpoint, as isgseg-predict does.
            **kwargs: the keys of `conf/segmentation/`, and `progress` (True shows a bar),
                `voxel_size` (nm, one number or (z, y, x)), `precision`, `tta` and `normalization`;
                see `conf/prediction/`.

        Returns:
            (D, H, W) uint16, 0 for background, one number for each granule; uint32, with a
            warning, beyond 65,535 granules.

        Raises:
            RuntimeError: no model is loaded.
            ValueError: the data are no volume, or a keyword is unknown or out of range.
        """
        if self._network is None or self._checkpoint is None:
            raise RuntimeError("no model is loaded; call load_model() first")
        known = SegmentationSettings.__dataclass_fields__
        unknown = sorted(kwargs.keys() - known.keys() - set(_RUN))
        if unknown:
            raise InputError(
                f"predict does not know {', '.join(unknown)}; it takes {', '.join((*_RUN, *known))}"
            )
        run = {key: kwargs.pop(key) for key in _RUN if key in kwargs}
        size = parse_voxel_size(run.pop("voxel_size", None))
        checkpoint = self._checkpoint
        tta = run.pop("tta", None)
        predictor = Predictor.from_network(
            self._network,
            checkpoint.metadata,
            tta=checkpoint.tta if tta is None else tta,
            tuned=checkpoint.thresholds,
            threshold=threshold,
            segmentation=kwargs,
            **run,
        )
        if predictor.thresholds != self._told:
            tell_thresholds(predictor.thresholds, checkpoint.thresholds)
            self._told = predictor.thresholds
        return predictor.segment(Volume(as_volume(data), size)).labels


@register_segmenter("sxt", "isg_maskrcnn")
class SXTISGMaskRCNNSegmenter(NetworkSegmenter):
    """Insulin secretory granules in soft X-ray tomograms, by Mask R-CNN."""

    name = "SXT ISG Mask R-CNN"
    method = "mask_rcnn"


@register_segmenter("sxt", "isg_instance")
class SXTISGUNetSegmenter(NetworkSegmenter):
    """Insulin secretory granules in soft X-ray tomograms, by a U-Net and a watershed in 3D."""

    name = "SXT ISG U-Net"
    method = "unet"


@register_segmenter("sxt", "isg")
class SXTISGMaskSegmenter(SXTISGUNetSegmenter):
    """Where insulin secretory granules are in soft X-ray tomograms, by a U-Net."""

    name = "SXT ISG mask"

    def predict(
        self, data: npt.ArrayLike, threshold: float | None = 0.5, **kwargs: Any
    ) -> npt.NDArray[Any]:
        """As `NetworkSegmenter.predict`, but (D, H, W) uint8: 1 in granules, 0 elsewhere."""
        return (super().predict(data, threshold, **kwargs) > 0).astype(np.uint8)
