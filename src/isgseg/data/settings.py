"""How batches are made of a dataset, in numbers. Torch is not imported here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

_SETTINGS = ConfigDict(extra="forbid", allow_inf_nan=False)


def _rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be [low, high], the smaller number first")
    return pair


def _factors(highest: float) -> Any:
    """[low, high] of factors, strictly positive and bounded."""
    number = Annotated[float, Field(strict=True, gt=0, le=highest)]
    return Annotated[tuple[number, number], AfterValidator(_rising)]


Share = Annotated[float, Field(strict=True, ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=_SETTINGS)
class AugmentSettings:
    """How training images are augmented; `Augment` describes each field.

    Raises:
        ValueError: a value is out of range.
    """

    crop: Annotated[int, Field(strict=True, ge=1, le=65_536)] | None = None
    crop_on_object: Share = 0.0
    drop_z_context: Share = 0.0
    flip: Annotated[bool, Field(strict=True)] = True
    scale: _factors(10) = (1.0, 1.0)  # type: ignore[valid-type]
    intensity: _factors(100) = (1.0, 1.0)  # type: ignore[valid-type]
    noise: Share = 0.0
    blur: Annotated[float, Field(strict=True, ge=0, le=100)] = 0.0


@dataclass(frozen=True, kw_only=True, config=_SETTINGS)
class LoaderSettings:
    """How batches are loaded; `CocoDataModule` describes each field.

    Raises:
        ValueError: a value is out of range.
    """

    batch_size: Annotated[int, Field(strict=True, ge=1, le=65_536)] = 4
    num_workers: Annotated[int, Field(strict=True, ge=0, le=1024)] = 2
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**32)] = 0
