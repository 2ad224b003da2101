"""The configuration of Lightning's Trainer, `conf/trainer/`, and what can be added to it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from isgseg.schema.fields import (
    Count,
    CountFrom0,
    NotNegative,
    Positive,
    Precision,
    Section,
    Text,
    only_for,
)


def _duration(value: str) -> str:
    if not re.fullmatch(r"\d+:[0-2]\d:[0-5]\d:[0-5]\d", value):
        raise ValueError("must be days:hours:minutes:seconds, such as 00:00:30:00")
    return value


Batches = Count | Annotated[float, Field(gt=0, le=1)]
# isgseg passes these itself; Lightning would take them without a word, and they would be lost.
_ELSEWHERE = {
    "callbacks": "set the group callbacks instead",
    "logger": "set the group logger instead",
    "plugins": "isgseg gives its own",
    "enable_checkpointing": "leave checkpoints out by ~callbacks.best and the like",
    "barebones": "it would write neither log nor checkpoint",
    "overfit_batches": "set trainer.limit_train_batches instead",
    "num_nodes": "isgseg trains on one machine; set trainer.devices for its GPUs",
}


class LightningTrainer(Section):
    """`conf/trainer/`; the fields with a default here are added with `+`."""

    target: str = Field(alias="_target_")
    convert: str = Field("all", alias="_convert_")
    default_root_dir: Text
    max_epochs: Count
    max_time: Annotated[str, AfterValidator(_duration)] | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Literal["auto"] | Count | Annotated[list[CountFrom0], Field(min_length=1)]
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    accumulate_grad_batches: Count
    precision: Precision
    gradient_clip_val: NotNegative | None
    gradient_clip_algorithm: Literal["norm", "value"]
    check_val_every_n_epoch: Count
    num_sanity_val_steps: Annotated[int, Field(ge=-1)]
    limit_train_batches: Batches | None
    limit_val_batches: Batches | None
    log_every_n_steps: CountFrom0
    fast_dev_run: bool | CountFrom0
    enable_progress_bar: bool
    enable_model_summary: bool
    min_epochs: Count | None = None
    max_steps: Literal[-1] | Count = -1
    min_steps: Count | None = None
    limit_test_batches: Batches | None = None
    limit_predict_batches: Batches | None = None
    val_check_interval: Count | Positive | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    detect_anomaly: bool = False
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: CountFrom0 = 0
    enable_autolog_hparams: bool = True
    model_registry: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_elsewhere(cls, values: Any) -> Any:
        for key in sorted(set(values) & set(_ELSEWHERE), key=str):
            raise ValueError(f"trainer.{key} cannot be given: {_ELSEWHERE[key]}")
        return values

    @model_validator(mode="after")
    def _min_below_max(self) -> Self:
        if self.min_epochs is not None and self.min_epochs > self.max_epochs:
            raise ValueError(
                f"min_epochs={self.min_epochs} is more than max_epochs={self.max_epochs}"
            )
        return self


Trainer = Annotated[LightningTrainer, only_for("lightning.Trainer")]
