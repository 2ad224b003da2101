"""How detections become granules, in numbers. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from isgseg.errors import InputError
from isgseg.instances.settings import MAPS, SETTINGS, LinkSettings, Share, SplitSettings
from isgseg.words import shown


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SegmentationSettings(LinkSettings):
    """How detections become granules; `conf/segmentation/` describes each key.

    Attributes:
        separate: each detection keeps its own mask; else the connected components of all masks of a
            slice are the granules.
        link: masks of neighbouring slices become one granule; else numbers are unique over all
            slices, and the settings of linking and splitting have no effect.
        hysteresis_ratio: a granule has one detection that reaches the object score threshold, and
            others that reach this share of the score threshold of detections (hysteresis, as edges
            are traced: Canny 1986), because the caps of a granule score less than its middle.
            Without linking all must reach the score threshold.
        mask_threshold: pixels with at least this mask probability belong to a granule; None takes
            the checkpoint's. See `label_slice`, as for the next two.
        max_overlap: see there.
        min_pixels: see there.
        axes: across which the volume is sliced, of z, y and x. With several, granules are what
            they agree on, and `min_diameter_nm` is asked of these.
        min_votes: axes that must agree; see `merge_instances`, as for the next.
        min_iou: see there.
        split: granules are told apart by shape once more, where several were linked to one.
        split_height: see `height` of `SplitSettings`, as for the next two.
        split_sigma: see there.
        split_min_voxels: see there.
        maps: how the maps of a U-Net are split.

    Raises:
        ValueError: a setting is out of range, or slices of several axes are not linked.
    """

    separate: bool = True
    link: bool = True
    hysteresis_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    mask_threshold: Share | None = None
    max_overlap: Share = 0.5
    min_pixels: Annotated[int, Field(ge=1)] = 1
    axes: str = "z"
    min_votes: Annotated[int, Field(ge=2, le=3)] = 2
    min_iou: Annotated[float, Field(gt=0, le=1)] = 0.2
    split: bool = True
    split_height: Annotated[float, Field(gt=0)] = 0.05
    split_sigma: Annotated[float, Field(ge=0, le=10)] = 0.5
    split_min_voxels: Annotated[int, Field(ge=1)] = 8
    maps: SplitSettings = MAPS

    @model_validator(mode="after")
    def _axes_agree(self) -> Self:
        """Refuses axes that are none, and those that cannot agree.

        Raises:
            ValueError: the message names the key.
        """
        if not self.axes or len(set(self.axes)) < len(self.axes) or set(self.axes) - set("zyx"):
            raise ValueError(f"axes must be some of z, y and x, such as zyx, not '{self.axes}'")
        if len(self.axes) == 1:
            return self
        if not self.link:
            raise ValueError(f"link=false numbers slices, on which axes={self.axes} cannot agree")
        if self.min_votes > len(self.axes):
            raise ValueError(f"min_votes must be 2 to {len(self.axes)}, not {self.min_votes}")
        return self

    def require_of_maps(self) -> None:
        """Refuses what was set for detections and says nothing to a U-Net.

        Raises:
            InputError: the message names the keys.
        """
        self._refuse(
            [name for name in DEFAULTS if name not in OF_MAPS],
            "is of Mask R-CNN, whose detections are linked, and this network is a U-Net, whose "
            "maps are split in 3D",
        )

    def require_of_detections(self) -> None:
        """Refuses what was set for maps and says nothing to Mask R-CNN.

        Raises:
            InputError: the message names the keys.
        """
        self._refuse(["maps"], "is of a U-Net, and this network is a Mask R-CNN")

    def _refuse(self, names: Sequence[str], why: str) -> None:
        other = [name for name in names if getattr(self, name) != DEFAULTS[name]]
        if other:
            keys = ", ".join(f"segmentation.{name}={shown(getattr(self, name))}" for name in other)
            raise InputError(f"{keys} {why}; leave it out")


# What counts for a U-Net, and what a setting is where it was not set.
OF_MAPS = ("mask_threshold", "min_diameter_nm", "min_slices", "min_score", "axes", "maps")
DEFAULTS = vars(SegmentationSettings())
