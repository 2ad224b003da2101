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
from isgseg.inference.messages import tell_thresholds
from isgseg.inference.predictor import Predictor
from isgseg.inference.settings import SegmentationSettings
from isgseg.io.formats import parse_voxel_size
from isgseg.io.volumes import FILL, Volume
from isgseg.models.checkpoint import Checkpoint, load_checkpoint
from isgseg.models.locate import find_model
from isgseg.models.settings import Thresholds
from isgseg.models.tta import AugmentedMaskRCNN

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
        task: what is looked for, and how: `isg_maskrcnn`.
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


@register_segmenter("sxt", "isg_maskrcnn")
class SXTISGMaskRCNNSegmenter(BaseSegmenter):
    """Insulin secretory granules in soft X-ray tomograms, by Mask R-CNN.

    Args:
        device: `cuda`, `cpu`, or None for CUDA where there is one.

    Raises:
        InputError: there is no such device.
    """

    name = "SXT ISG Mask R-CNN"

    def __init__(self, device: str | None = None) -> None:
        self.device = pick_device(device)
        self._checkpoint: Checkpoint | None = None
        self._network: AugmentedMaskRCNN | None = None
        self._told: Thresholds | None = None

    def load_model(self, path: str | Path | None = None) -> Self:
        """Loads a `.pth` file of isgseg-train or of torchvision's `maskrcnn_resnet50_fpn`.

        Args:
            path: the file; None takes what `find_model` finds: `$ISGSEG_MODEL`, the installed one,
                the newest under `outputs/`, or the one that comes with isgseg.

        Returns:
            The segmenter itself: `create_segmenter().load_model().predict(volume)`.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: the file is no such model, or would need unpickling.
        """
        checkpoint = load_checkpoint(find_model(path))
        self._network = checkpoint.build().to(self.device)
        self._checkpoint, self._told = checkpoint, None
        return self

    def predict(
        self, data: npt.ArrayLike, threshold: float | None = 0.5, **kwargs: Any
    ) -> npt.NDArray[Any]:
        """Labels the granules of a volume.

        Args:
            data: (D, H, W), any real numbers, without NaN.
            threshold: granules without a detection of this score are left out; None takes the
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


def as_volume(data: npt.ArrayLike) -> npt.NDArray[Any]:
    """The data as a (D, H, W) array of real numbers.

    Raises:
        ValueError: they are something else, or hold NaN or infinity.
    """
    if np.ma.is_masked(data):
        raise InputError("the volume has masked voxels; fill them, e.g. by data.filled(value)")
    try:
        volume = np.asarray(data)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of unequal length, torch's
        raise InputError(f"the data are no array of numbers: {error}") from error
    if volume.dtype.kind not in "buif":
        raise InputError(f"a volume holds real numbers, not {volume.dtype}; give an array")
    if volume.ndim != 3 or volume.size == 0:
        raise InputError(
            f"a volume has the shape (D, H, W), not {volume.shape}; stack slices by numpy.stack, "
            "and give one channel alone"
        )
    bad = np.count_nonzero(~(np.abs(volume) < FILL)) if volume.dtype.kind == "f" else 0
    if bad:
        raise InputError(
            f"the volume holds {bad} voxels that are NaN, infinite or beyond {FILL:g}; replace "
            "them by the value outside of the cell"
        )
    return volume
