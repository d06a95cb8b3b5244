"""Covariates reach the models that look at them, in the units they look at them in, and nobody else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tsdistill.data import Covariates
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Batch, Task
from tsdistill.errors import ShapeError
from tsdistill.evaluation import baselines, evaluate, forecasts
from tsdistill.exporting import Deployed
from tsdistill.models import LinearConfig

CONTEXT, HORIZON = 29, 7
KNOWN = Covariates(calendar=("time-of-day",), future=("plan",), past=("seen",))


def task_of(scale: float = 1.0, covariates: Covariates | None = KNOWN, context: int = CONTEXT) -> Task:
    values = scale * np.random.default_rng(0).normal(size=(211, 4)) * [1, 10, 100, 1000] + [5, 50, 0, 7]
    stamps = pd.date_range("2013-01-01", periods=211, freq="h")
    panel = Panel((Item("x", stamps, values),), channels=("a", "plan", "b", "seen"), frequency="h")
    return Task(panel, context=context, horizon=HORIZON, covariates=covariates)


class Recorder:
    """A teacher that repeats the first steps of its context and keeps what it was shown."""

    digest = "recorder"

    def __init__(self, signature: Any) -> None:
        self.signature = signature
        self.shown: list[Batch] = []

    def forecast(self, batch: Any) -> torch.Tensor:
        self.shown.append(batch)
        return batch.context[:, :HORIZON]


def raw_of(task: Task, column: int) -> np.ndarray:
    """Raw values of a column in context and horizon of every test window, (window, step)."""
    values, first = task.panel.items[0].values[:, column], task.borders[0].validation - task.context
    return np.stack([values[first + row : first + row + task.context + HORIZON] for row in range(len(task.test))])


def test_a_model_sees_covariates_as_the_windows_have_them() -> None:
    task = task_of()
    model = Recorder(task.signature)
    forecasts(model, task.test, task.signature)
    whole, shown = task.test.batch(torch.arange(len(task.test))), model.shown[0]
    for rows, wanted in ((shown.future, whole.future), (shown.past, whole.past)):
        assert rows is not None
        assert wanted is not None
        assert torch.equal(rows, wanted)
    assert shown.future is not None
    assert shown.future.shape == (len(task.test), CONTEXT + HORIZON, 3)


def test_a_model_of_another_scaling_sees_covariates_in_its_own() -> None:
    task, own = task_of(scale=3.0), task_of()
    model = Recorder(own.signature)
    forecast = forecasts(model, task.test, task.signature)
    shown = model.shown[0]
    for name, place, column in (("future", 2, 1), ("past", 0, 3)):
        mean, scale = (getattr(own.signature, f"{name}_{what}")[place] for what in ("mean", "scale"))
        seen = getattr(shown, name)[..., place].numpy()
        assert seen * scale + mean == pytest.approx(raw_of(task, column)[:, : seen.shape[1]], rel=1e-3, abs=1e-2)
    assert forecast == pytest.approx(task.test.batch(torch.arange(len(task.test))).context[:, :HORIZON], abs=1e-5)


def test_a_model_without_covariates_is_shown_none() -> None:
    task = task_of()
    model = Recorder(task.without_covariates().signature)
    forecasts(model, task.test, task.signature)
    assert model.shown[0].future is model.shown[0].past is None


def test_a_deployed_model_gets_raw_covariates_of_its_own_steps() -> None:
    task, longer = task_of(), task_of(context=31)
    calls: list[dict[str, np.ndarray]] = []

    def run(**inputs: np.ndarray) -> np.ndarray:
        calls.append(inputs)
        return inputs["context"][:, :HORIZON]

    deployed = Deployed(b"", LinearConfig(), task.signature, "fp32", (), 0, {}, {})
    deployed.__dict__["predictor"] = SimpleNamespace(run=run)
    forecast = forecasts(deployed, longer.test, longer.signature)
    (inputs,) = calls
    assert inputs["future"][..., 2] == pytest.approx(raw_of(longer, 1)[:, 2:], rel=1e-4, abs=1e-3)
    assert inputs["past"][..., 0] == pytest.approx(raw_of(longer, 3)[:, 2:31], rel=1e-4, abs=1e-2)
    assert {values.shape[1] for values in inputs.values()} == {CONTEXT, CONTEXT + HORIZON}
    assert {values.dtype for values in inputs.values()} == {np.dtype(np.float32)}
    assert forecast == pytest.approx(
        longer.test.batch(torch.arange(len(longer.test))).context[:, 2 : 2 + HORIZON], abs=1e-5
    )


@pytest.mark.parametrize(
    "other", [None, Covariates(calendar=("time-of-week",), future=("plan",), past=("seen",))], ids=["none", "others"]
)
def test_a_model_whose_covariates_the_task_lacks_is_refused(other: Covariates | None) -> None:
    task = task_of(covariates=other)
    means = {"mean": task.signature.mean, "scale": task.signature.scale}
    signature = task_of().signature.replace(channels=task.channels, **means)
    with pytest.raises(ShapeError, match="`future` must be the model's covariates"):
        forecasts(Recorder(signature), task.test, task.signature)


def test_baselines_look_at_no_covariates() -> None:
    task = task_of()
    for name, model in baselines(task).items():
        assert model.signature.covariates is None, name
        plain = evaluate(baselines(task.without_covariates())[name], task.without_covariates())
        assert evaluate(model, task) == pytest.approx(plain, rel=1e-6)


def test_what_is_timed_gets_raw_inputs_of_its_own_steps() -> None:
    from tsdistill.report.comparison import _latencies
    from tsdistill.report.entries import Entry

    task, longer = task_of(), task_of(context=31)
    seen: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []

    class Timed:
        def __init__(self, signature: Any) -> None:
            self.signature = signature

        def predict(self, context: np.ndarray, **known: np.ndarray) -> None:
            seen.append((context, known))

    for signature in (task.signature, task.without_covariates().signature):
        seen.clear()
        _latencies([Entry("a", "model", Timed(signature), "onnx fp32", 0)], longer, "test", 1)
        context, known = seen[-1]
        assert context[0, :, 0] == pytest.approx(raw_of(longer, 0)[0, :31], abs=1e-4)
        if signature.future:
            assert known["future"][0, :, 2] == pytest.approx(raw_of(longer, 1)[0, 2:], abs=1e-3)
            assert known["past"][0, :, 0] == pytest.approx(raw_of(longer, 3)[0, 2:31], rel=1e-4, abs=1e-2)
        else:
            assert known == {}
