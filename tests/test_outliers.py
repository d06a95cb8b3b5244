"""Inputs with the largest weights stay in float: the same forecasts in float, and 8 bits that can be borne."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession

import tsdistill as td
from tsdistill.errors import ConfigError, UnsupportedError
from tsdistill.exporting import export
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.outliers import with_outliers
from tsdistill.testing import toy_frame, toy_task

TASK = toy_task()
MODELS = {
    "linear": td.LinearConfig(),
    "individual": td.LinearConfig(individual=True),
    "mlp": td.MLPConfig(width=32, depth=1),
    "multi-resolution": td.models.MultiResolutionConfig(rank=2),
    "lstm": td.LSTMConfig(widths=(16,), patch=8),
}


def spiked() -> td.models.Forecaster:
    """A linear forecaster whose newest value has a weight a hundred times larger than all others."""
    model = td.LinearConfig(individual=True).build(TASK.signature)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.01, generator=torch.Generator().manual_seed(0))
                weight.select(1 if weight.shape[1] == TASK.context else -1, TASK.context - 1).fill_(1.0)
    return model


def test_layers_that_take_plain_rows_are_split_as_well() -> None:
    clock = td.Covariates(calendar=("time-of-day",))
    task = td.Task(td.Panel.from_frame(toy_frame()), context=47, horizon=11, covariates=clock)
    model = td.MLPConfig(width=16, depth=1).build(task.signature)
    free = {"max_error_increase": 1e9, "require_gain": False, "max_batch_effect": 1e9}
    for method in ("dynamic", "static", "weight-only"):
        deployed = td.quantize(model, task, td.Quantization(method=method, outliers=1, **free))
        assert deployed.lineage[-1].metrics["candidates"][-1]["outliers"] == 1


@pytest.mark.parametrize("name", MODELS)
def test_the_float_graph_with_a_product_of_its_own_for_some_inputs_forecasts_the_same(name: str) -> None:
    full = export(MODELS[name].build(TASK.signature), TASK)
    source, kept = with_outliers(FloatGraph(full, TASK), 4)
    assert kept
    assert all(layer.endswith(".outliers") for layer in kept)
    inputs = {key: value for key, value in full.golden.items() if key not in ("forecast", "quantiles")}
    plain, split = (InferenceSession(graph).run(None, inputs)[0] for graph in (full.onnx, source.graph))
    np.testing.assert_allclose(split, plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())


def test_only_wide_layers_are_split() -> None:
    full = export(td.MLPConfig(width=20, depth=1).build(TASK.signature), TASK)
    _, kept = with_outliers(FloatGraph(full, TASK), 11)
    assert 0 < len(kept) < len(FloatGraph(full, TASK).layers)
    with pytest.raises(UnsupportedError, match="`outliers` must be at most a 4th of the inputs"):
        with_outliers(FloatGraph(full, TASK), 12)


@pytest.mark.parametrize("method", ["dynamic", "static", "weight-only"])
def test_a_few_inputs_in_float_take_away_most_of_what_rounding_costs(method: str) -> None:
    model, free = spiked(), {"max_error_increase": 1e9, "require_gain": False}
    differences = {}
    for outliers in (0, 1):
        deployed = td.quantize(model, TASK, td.Quantization(method=method, outliers=outliers, **free))
        differences[outliers] = deployed.parity["max_difference"]
        assert deployed.lineage[-1].metrics["candidates"][-1].get("outliers", 0) == outliers
    # Activations keep their one range, so that integer products keep that part of the error.
    assert differences[1] < (0.1 if method == "weight-only" else 0.7) * differences[0]


def test_auto_gets_there_by_itself_and_can_be_replayed() -> None:
    model = spiked()
    budget = {"max_error_increase": 1e-4, "max_worst_error_increase": 1e-3}
    unhurried = {"max_latency_increase": 100.0}
    auto = td.Quantization(method="auto", forms=("weight-only-8", "weight-only-8-outliers"), **budget, **unhurried)
    deployed = td.quantize(model, TASK, auto)
    rows = {row["name"]: row for row in deployed.lineage[-1].metrics["candidates"]}
    assert rows["weight-only-8"]["refused"]
    assert rows["weight-only-8-outliers"]["outliers"] == 4
    assert deployed.lineage[-1].metrics["chosen"] == "weight-only-8-outliers"
    assert "weight-only-8-outliers" in td.quantization.candidate_table(deployed)
    again = td.quantize(model, TASK, td.quantization.replay(deployed))
    assert again.onnx == deployed.onnx


def test_specs() -> None:
    spec = td.Quantization(method="dynamic", outliers=4)
    assert td.Quantization.from_dict(spec.to_dict()) == spec
    assert "outliers" not in td.Quantization(method="dynamic").to_dict()  # older files and digests stand
    for values in ({"method": "qat", "outliers": 4}, {"method": "auto", "outliers": 4}):
        with pytest.raises(ConfigError, match="`outliers` must be left out with method"):
            td.Quantization(**values)
    with pytest.raises(ConfigError, match="`outliers` must be"):
        td.Quantization(method="static", outliers=-1)
