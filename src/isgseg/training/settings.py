"""How a network is trained, in numbers. Torch is not imported here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainingSettings(BaseModel):
    """Hyper-parameters of `MaskRCNNModule`, which describes each, but for the network and the data.

    `conf/model/` shows the same keys to people, and a checkpoint holds them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimizer: Literal["sgd", "muon", "adamw"]
    lr: Annotated[float, Field(ge=0, le=10)]  # beyond, weights are lost within a few steps
    momentum: Annotated[float, Field(ge=0, lt=1)]  # at 1 no step is ever forgotten
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    schedule: Literal["step", "cosine"]
    lr_step_epochs: Annotated[int, Field(ge=1)]
    lr_gamma: Annotated[float, Field(gt=0, le=1)]  # a rate that grows without end diverges
    warmup_steps: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    operating_point: Literal["f1", "count"] | None
    tta: Literal[1, 2, 4, 8]
