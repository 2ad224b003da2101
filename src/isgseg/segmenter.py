"""The documented Python interface: create a segmenter, load a model, predict a volume."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import platformdirs

from isgseg.hardware import pick_device
from isgseg.labelling import Labelling, grey_of, label_volume
from isgseg.model.checkpoint import load_module
from isgseg.model.module import MaskRCNNModule

log = logging.getLogger(__name__)
MODEL = "isg_mask_rcnn_final.pth"


class BaseSegmenter(ABC):
    """What every segmenter offers.

    A new method is a subclass with `register_segmenter(modality, task)` before it; nothing else
    changes.

    Attributes:
        name: what people call the method.
    """

    name: ClassVar[str]

    @abstractmethod
    def load_model(self, path: str | Path | None = None) -> None:
        """Loads the model of a file, or one that the segmenter finds by itself.

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
        raise ValueError(
            f"no segmenter for modality='{modality}' task='{task}'; there are: {known}"
        )
    return _SEGMENTERS[modality, task](**options)


@register_segmenter("sxt", "isg_maskrcnn")
class SXTISGMaskRCNNSegmenter(BaseSegmenter):
    """Insulin secretory granules in soft X-ray tomograms, by Mask R-CNN.

    Args:
        device: `cuda`, `cpu`, or None for CUDA where there is one.
    """

    name = "SXT ISG Mask R-CNN"

    def __init__(self, device: str | None = None) -> None:
        self.device = pick_device(device)
        self.module: MaskRCNNModule | None = None

    def load_model(self, path: str | Path | None = None) -> None:
        """Loads a `.pth` file of isgseg-train or of torchvision's `maskrcnn_resnet50_fpn`.

        Args:
            path: the file; None takes what `find_model` finds.

        Raises:
            FileNotFoundError: there is no model.
            ValueError: the file is no such model, or would need unpickling.
        """
        path = find_model() if path is None else Path(path)
        self.module = load_module(path).to(self.device)
        log.info("Model: %s on %s", path, self.device)

    def predict(
        self, data: npt.ArrayLike, threshold: float | None = 0.5, **kwargs: Any
    ) -> npt.NDArray[Any]:
        """Labels the granules of a volume.

        Args:
            data: (D, H, W), any real numbers, without NaN.
            threshold: granules without a detection of this score are left out; None takes the one
                that validation tuned, from the checkpoint, as isgseg-predict does.
            **kwargs: the keys of `conf/labelling/`, and `progress` (True shows a bar),
                `voxel_size` (nm, (z, y, x)), `precision` and `views`; see `conf/prediction/`.

        Returns:
            (D, H, W) uint16, 0 for background, one number for each granule; uint32, with a
            warning, beyond 65,535 granules.

        Raises:
            RuntimeError: no model is loaded.
            ValueError: the data are no volume, or a keyword is unknown or out of range.
        """
        if self.module is None:
            raise RuntimeError("no model is loaded; call load_model() first")
        volume = as_volume(data)
        run = {
            key: kwargs.pop(key) for key in ("progress", "voxel_size", "precision") & kwargs.keys()
        }
        views = kwargs.pop("views", None)
        unknown = sorted(kwargs.keys() - Labelling.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(
                f"predict does not know {', '.join(unknown)}; it takes progress, voxel_size, "
                f"precision, views, {', '.join(Labelling.__dataclass_fields__)}"
            )
        self.module.look(views)
        grey = grey_of(self.module, volume, "the volume")
        return label_volume(
            self.module, volume, grey, threshold=threshold, labelling=Labelling(**kwargs), **run
        ).labels


def find_model() -> Path:
    """The model to use where none is named.

    It looks at `$ISGSEG_MODEL`, at `models/sxt/isg_mask_rcnn_final.pth` in the user's data folder
    (where `isgseg-train install=true` puts it) and at the newest one under `outputs/`.

    Raises:
        FileNotFoundError: there is none; the message says how to get one.
    """
    named = os.environ.get("ISGSEG_MODEL")
    if named:
        return Path(named)
    if installed_model().is_file():
        return installed_model()
    runs = sorted(Path("outputs").rglob(MODEL), key=lambda path: path.stat().st_mtime)
    if runs:
        return runs[-1]
    raise FileNotFoundError(
        f"no model: $ISGSEG_MODEL is not set, and there is neither {installed_model()} nor a "
        f"{MODEL} under outputs/; train one (isgseg-train install=true keeps it for later), or "
        "give load_model a path"
    )


def installed_model() -> Path:
    """Where `isgseg-train install=true` keeps its final model."""
    return platformdirs.user_data_path("isgseg") / "models" / "sxt" / MODEL


def as_volume(data: npt.ArrayLike) -> npt.NDArray[Any]:
    """The data as a (D, H, W) array of real numbers.

    Raises:
        ValueError: they are something else, or hold NaN or infinity.
    """
    volume = np.asarray(data)
    if volume.dtype.kind not in "buif":
        raise ValueError(f"a volume holds real numbers, not {volume.dtype}")
    if volume.ndim != 3 or volume.size == 0:
        raise ValueError(f"a volume has the shape (D, H, W), not {volume.shape}")
    bad = np.count_nonzero(~np.isfinite(volume)) if volume.dtype.kind == "f" else 0
    if bad:
        raise ValueError(f"the volume holds {bad} voxels that are NaN or infinite")
    return volume
