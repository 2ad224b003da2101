"""What counts as one granule, in numbers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0, le=1)]
SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class LinkSettings:
    """How masks of neighbouring slices become one granule; `conf/segmentation/` shows the keys.

    Attributes:
        min_overlap: share of the smaller of two masks that must overlap; twice that over one
            missing mask, and so on.
        max_distance: how many radii of the larger mask the two centroids may lie apart.
        max_gap: how many missing masks in a row are bridged.
        constriction: a track is cut where its diameter falls to this share of the diameter on
            either side, if both sides may be whole; 0 never cuts.
        max_length_nm: nm (slices where no voxel size is given): longer tracks are cut at their
            thinnest place; None: any length.
        min_diameter_nm: nm (voxels where no voxel size is given): instances smaller than a ball of
            this diameter are dropped; 0 keeps all.
        min_slices: instances that were detected in fewer slices are dropped; bridged ones do not
            count.
        min_score: instances of a lower mean score are dropped.

    Raises:
        ValueError: a setting is out of range.
    """

    min_overlap: Annotated[float, Field(gt=0, le=1)] = 0.25
    max_distance: Annotated[float, Field(gt=0)] = 1.5
    max_gap: Annotated[int, Field(ge=0)] = 1
    constriction: Share = 0.75
    max_length_nm: Annotated[float, Field(gt=0)] | None = None
    min_diameter_nm: Annotated[float, Field(ge=0)] = 0.0
    min_slices: Annotated[int, Field(ge=1)] = 1
    min_score: Share = 0.0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class SplitSettings:
    """How touching granules are told apart in 3D; see `isgseg.instances.split.split`.

    Attributes:
        height: by how much the map must fall between two maxima that are two granules: voxels of
            the distance map, or units of a map that is given.
        sigma: of the Gaussian that smooths the map first, voxels.
        min_voxels: a smaller part goes to the neighbour that it has the longest border with.
        assign: how voxels find their granule: `watershed`, or `blobfit`, the published method.

    Raises:
        ValueError: a setting is out of range.
    """

    height: Annotated[float, Field(gt=0)] = 0.005
    sigma: Annotated[float, Field(ge=0, le=10)] = 0.5
    min_voxels: Annotated[int, Field(ge=1)] = 8
    assign: Literal["watershed", "blobfit"] = "watershed"


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class InstanceSettings:
    """How the numbers of a label volume become granules; see `isgseg.instances.ground_truth`.

    Attributes:
        method: `numbers`: each number is a granule; `components`: each connected part of a number
            is one, by faces; `split`: touching granules are told apart too; `auto`: `numbers`, but
            a mask, one number for all granules, is split.
        split: how; None: as `SplitSettings` has it.

    Raises:
        ValueError: a setting is out of range.
    """

    method: Literal["auto", "numbers", "components", "split"] = "auto"
    split: SplitSettings | None = None


MAPS = SplitSettings(height=0.1)  # of a centre map, 0 to 1, that a network has predicted
