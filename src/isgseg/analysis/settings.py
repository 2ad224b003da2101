"""What is measured of granules in their cell, in numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False)
Length = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class ChanceSettings:
    """Placements of the same balls at random.

    Attributes:
        placements: how many; 0: none, and no chance levels.
        seed: of them all.

    Raises:
        ValueError: a setting is out of range.
    """

    placements: Annotated[int, Field(ge=0, le=9999)] = 99
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class RelationSettings:
    """Limits and steps, in nm; `conf/analyse.yaml` shows the keys.

    Attributes:
        near: a granule whose gap to a structure is at most this is near it.
        cluster_gap: granules with at most this gap belong to one cluster.
        neighbourhood: granules whose centres are at most this far apart are counted as neighbours.
        radial_steps: equal steps between nucleus and plasma membrane.
        reach: curves over distance end here.
        step: of the curves over distance.

    Raises:
        ValueError: a setting is out of range.
    """

    near: Length = 100.0
    cluster_gap: Length = 100.0
    neighbourhood: Length = 500.0
    radial_steps: Annotated[int, Field(ge=1, le=100)] = 8
    reach: Length = 2000.0
    step: Length = 50.0
