"""What is kept with a model is plain data: converted where one reading is possible, else one clear error."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tsdistill as td
from tsdistill.errors import ConfigError
from tsdistill.models import Forecaster
from tsdistill.plain import DEEPEST, plain_data
from tsdistill.spec import LineageStep
from tsdistill.testing import toy_signature


class Part(enum.Enum):
    TEST = "test"


@dataclasses.dataclass
class Judged:
    mse: Any
    part: Part = Part.TEST


def model() -> Forecaster:
    return td.LinearConfig().build(toy_signature())


KEPT: list[tuple[Any, Any]] = [
    (np.float32(0.5), 0.5),
    (np.float16(0.5), 0.5),
    (np.longdouble(0.5), 0.5),
    (np.int64(7), 7),
    (np.uint8(7), 7),
    (np.bool_(True), True),
    (np.str_("a"), "a"),
    (np.array(2.5), 2.5),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (np.array([1.0, np.nan]), [1.0, None]),
    (np.datetime64("2024-01-02"), "2024-01-02"),
    (torch.tensor(0.5), 0.5),
    (torch.tensor(7), 7),
    (torch.tensor(True), True),
    (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
    (torch.tensor([1.0, 2.0], requires_grad=True), [1.0, 2.0]),
    (torch.tensor([[1, 2]]), [[1, 2]]),
    (float("nan"), None),
    (float("-inf"), None),
    (np.float64("nan"), None),
    (torch.tensor(torch.inf), None),
    (Decimal("0.25"), 0.25),
    (Decimal("sNaN"), None),
    (Fraction(1, 4), 0.25),
    (PurePosixPath("models/etth1"), "models/etth1"),
    (datetime.date(2024, 1, 2), "2024-01-02"),
    (datetime.datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
    (datetime.timedelta(hours=1), "1:00:00"),
    (pd.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
    (pd.NaT, None),
    (pd.NA, None),
    (pd.Series({"mse": 0.5}), [0.5]),
    (pd.DataFrame({"mse": [0.5]}), {"mse": {"0": 0.5}}),
    ((1, [2, {"a": (3,)}]), [1, [2, {"a": [3]}]]),
    ({"b", "a"}, ["a", "b"]),
    ({1: "one", 2.5: "x", None: "z", np.int64(4): "w"}, {"1": "one", "2.5": "x", "None": "z", "4": "w"}),
    (Judged(np.float32(0.5)), {"mse": 0.5, "part": "test"}),
    (td.LinearConfig().to_dict(), td.LinearConfig().to_dict()),
    (None, None),
    ("Müller", "Müller"),
    (2**200, 2**200),
]


def test_numbers_of_libraries_paths_and_dates_are_kept_as_plain_data(tmp_path: Path) -> None:
    metrics = {f"m{place}": value for place, (value, _) in enumerate(KEPT)}
    td.save(model(), tmp_path / "model", metrics={"nested": metrics, **metrics})
    written = json.loads((tmp_path / "model" / "manifest.json").read_text())["metrics"]
    for place, (value, wanted) in enumerate(KEPT):
        assert written[f"m{place}"] == written["nested"][f"m{place}"] == wanted, value
        assert type(written[f"m{place}"]) is type(wanted), value
    assert isinstance(td.load(tmp_path / "model"), Forecaster)


def circle() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["again"] = values
    return values


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"a": object()}, ["`metrics['a']`", "got a object", "leave it out"]),
        ({"a": {"b": [1, 2j]}}, ["`metrics['a']['b'][1]`", "2j"]),
        ({"a": b"raw"}, ["`metrics['a']`", "b'raw'"]),
        ({"a": print, "b": open}, ["2 problems in `metrics`", "`metrics['a']`", "`metrics['b']`"]),
        ({("x", 1): 2}, ["Keys of `metrics`", "tuple"]),
        ({1: 2, "1": 3}, ["Keys of `metrics` must differ as text", "'1'"]),
        ({"a": np.zeros(20_000)}, ["at most 10,000 numbers", "20,000"]),
        ({"a": torch.zeros(200, 200)}, ["at most 10,000 numbers", "40,000"]),
        ({"a": torch.zeros(3, device="meta")}, ["`metrics['a']`"]),
        ({"a": 10**5000}, ["at most 4000 digits"]),
        ({"a": "\ud800"}, ["UTF-8"]),
        ({"\ud800": 1}, ["UTF-8"]),
        ({"a": Part}, ["`metrics['a']`", "got a EnumType"]),
        (circle(), [f"at most {DEEPEST} levels"]),
        ([1, 2], ["`metrics` must be a dictionary", "[1, 2]"]),
        (0.5, ["`metrics` must be a dictionary", "0.5"]),
        (pd.Series([1.0]), ["`metrics` must be a dictionary", "a Series"]),
    ],
    ids=["object", "complex", "bytes", "all", "tuple", "twice", "array", "tensor", "meta", "digits", "text", "key",
         "class", "circle", "list", "number", "series"],
)  # fmt: skip
def test_what_cannot_be_kept_is_one_clear_error(metrics: Any, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        td.save(model(), tmp_path / "model", metrics=metrics)
    assert [word for word in words if word not in str(error.value)] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", [None, 3, b"models", ["models"]])
def test_a_folder_is_a_path(folder: Any) -> None:
    with pytest.raises(ConfigError, match="`folder` must be"):
        td.save(model(), folder)
    with pytest.raises(ConfigError, match="`folder` must be"):
        td.load(folder)
    with pytest.raises(ConfigError, match="`folder` must be"):
        td.artifacts.verify(folder)


def test_a_deployed_model_and_steps_of_the_users_own_are_kept_alike(tmp_path: Path) -> None:
    student = model().with_step(
        LineageStep(verb="own", spec={"rate": np.float32(0.5), "at": Path("x")}, metrics={"mse": torch.tensor(0.25)})
    )
    td.save(student, tmp_path / "model")
    assert td.load(tmp_path / "model").lineage[-1].spec == {"rate": 0.5, "at": "x"}
    assert td.load(tmp_path / "model").lineage[-1].metrics == {"mse": 0.25}
    deployed = td.export(model())
    td.save(deployed, tmp_path / "deployed", metrics={"mse": np.float32(0.5)})
    assert json.loads((tmp_path / "deployed" / "manifest.json").read_text())["metrics"] == {"mse": 0.5}
    with pytest.raises(ConfigError, match="`metrics` must be a dictionary"):
        td.save(deployed, tmp_path / "other", metrics=[1])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"rate.*must be a number"):
        LineageStep(verb="own", spec={"rate": object()})


def test_plain_data_stays_as_it_is() -> None:
    values: dict[str, Any] = {"a": [1, 2.5, None, True, "x", {"b": []}], "c": {}}
    assert plain_data("values", values) == values
