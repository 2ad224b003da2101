from __future__ import annotations

import pickle
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch.utils.data import DataLoader, Dataset

from isgseg.errors import (
    InputError,
    InputFileExistsError,
    InputFileNotFoundError,
    InputPermissionError,
    check,
)

Positive = Annotated[float, Field(gt=0)]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def once(values: list[str]) -> list[str]:
    if len(set(values)) < len(values):
        raise ValueError("name each axis once")
    return values


class Inner(BaseModel):
    model_config = STRICT
    low: float = Field(0.0, ge=0, le=1)


class Outer(BaseModel):
    model_config = STRICT
    size: float = Field(gt=0)
    format: Literal["tif", "mrc"] = "tif"
    voxel: Positive | Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    inner: Inner = Inner(low=0.0)
    axes: Annotated[list[str], AfterValidator(once)] = ["z"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Plain:
    count: int = 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": float("nan")}, "size=nan: must be a finite number above 0"),
        ({"size": True}, "size=true: must be a number above 0"),
        ({}, "size is missing: a number above 0"),
        ({"size": 1, "format": "png"}, "format=png: must be tif or mrc"),
        ({"size": 1, "inner": {"low": 2}}, "inner.low=2: must be a number from 0 to 1"),
        ({"size": 1, "inner": {"lwo": 2}}, "inner.lwo=2: unknown key; did you mean low?"),
        ({"size": 1, "inner": None}, "inner=null: must be a mapping of low"),
        ({"size": 1, "axes": ["z", "z"]}, "axes=['z', 'z']: name each axis once"),
        (
            {"size": 1, "voxel": [1, 2, -3]},
            "voxel=[1, 2, -3]: must be a number above 0 or a list of 3, each a number above 0",
        ),
    ],
)
def test_key_value_and_what_is_right_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as caught:
        check(Outer, values, "file.yaml")
    assert str(caught.value).startswith(f"file.yaml: {said}")


def test_all_faults_are_in_one_message() -> None:
    with pytest.raises(InputError, match=r"size=0: .*; format=png: .*; inner.low=-1: "):
        check(Outer, {"size": 0, "format": "png", "inner": {"low": -1}}, "")


def test_what_is_right_comes_back_as_the_model() -> None:
    assert check(Outer, {"size": 2, "inner": {"low": 1}}, "x").inner.low == 1
    assert check(Plain, {"count": 3}, "x") == Plain(3)
    with pytest.raises(InputError, match="cuont=3: unknown key; did you mean count"):
        check(Plain, {"cuont": 3}, "x")


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (InputFileNotFoundError, FileNotFoundError),
        (InputFileExistsError, FileExistsError),
        (InputPermissionError, PermissionError),
    ],
)
def test_errors_about_files_are_both_kinds_and_can_be_pickled(
    kind: type[InputError], also: type[OSError]
) -> None:
    error = pickle.loads(pickle.dumps(kind("cell.mrc: not there")))
    assert isinstance(error, InputError)
    assert isinstance(error, also)
    assert str(error) == "cell.mrc: not there"


class Broken(Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise InputFileNotFoundError("image.png: cannot be read:\nit is cut short")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_message_is_the_same_with_and_without_workers(workers: int) -> None:
    with pytest.raises(InputFileNotFoundError) as caught:
        list(DataLoader(Broken(), num_workers=workers))
    assert str(caught.value) == "image.png: cannot be read:\nit is cut short"
