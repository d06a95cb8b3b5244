"""How much each layer minds being rounded, mixed precision, and torch beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from tests import deployables
from tests.deployables import FORCED, contexts, exported, forecaster, in_deviations, quantized, task
from tests.test_quantization_forms import FOUR, STATIC, WEIGHTS, layer_names, operators
from tsdistill.errors import ConfigError, OrderError, UnsupportedError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import Deployed, export
from tsdistill.models import TCNConfig
from tsdistill.quantization import Quantization, quantization_sensitivity, sensitivities, torch_int8
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.judging import Judge
from tsdistill.quantization.sensitivities import mixed
from tsdistill.quantization.torch_int8 import TorchInt8


def sensitivity(kind: str, spec: Quantization | None = None) -> Any:
    with mock.patch.object(sensitivities, "export", return_value=exported(kind)):
        return quantization_sensitivity(forecaster(kind), task(), spec)


def test_one_layer_at_a_time_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    original = Judge.errors

    def errors(self: Judge, model: Deployed) -> dict[str, Any]:
        seen.append(layer_names(model.onnx))
        return original(self, model)

    monkeypatch.setattr(Judge, "errors", errors)
    table = sensitivity("mlp")
    names = layer_names(exported("mlp").onnx)
    assert {layer.layer for layer in table.layers} == names
    assert sorted(map(sorted, seen)) == sorted([sorted(names), *(sorted(names - {name}) for name in names)])
    assert [layer.n_weights for layer in table.layers if layer.layer == "shortcut"] == [29 * 7]
    assert len(str(table).splitlines()) == len(names) + 2
    assert list(table.to_frame()["layer"]) == [row["layer"] for row in table.to_dict()["layers"]]


def test_the_costliest_layer_comes_first() -> None:
    # Weights of very different sizes under one scale: the small ones are rounded away.
    model = deployables.fresh("mlp")
    with torch.no_grad():
        model.get_parameter("shortcut.weight")[0, 0] = 300.0
    table = quantization_sensitivity(model, task(), FORCED.replace(per_channel=False))
    assert table.layers[0].layer == "shortcut"
    assert table.layers[0].worst_increase > 5 * table.layers[1].worst_increase


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (STATIC, {"embed", "last", "shortcut"}),
        (FORCED.replace(keep_float=("embed",)), {"layers.0", "layers.1", "last", "shortcut"}),
    ],
)
def test_sensitivity_leaves_out_what_a_method_cannot_do_and_what_is_kept(spec: Quantization, names: set[str]) -> None:
    assert {layer.layer for layer in sensitivity("lstm", spec).layers} == names


def test_sensitivity_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(OrderError, match="trainable"):
        quantization_sensitivity(exported("mlp"), task())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be a Quantization"):
        quantization_sensitivity(forecaster("mlp"), task(), "dynamic")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="nothing to quantize"):
        sensitivity("seasonal-naive")


def test_mixed_precision_keeps_the_costly_layers_in_float_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"embed": 0.01, "blocks.0.expand": 0.04, "blocks.0.contract": 0.001, "last": 0.03, "shortcut": 0.0}
    forms = Forms(exported("mlp"), task())
    monkeypatch.setattr(
        Forms, "deployed", lambda self, spec: replace(self.full, n_parameters=0, golden=spec.keep_float)
    )

    def errors(self: Judge, model: Deployed) -> dict[str, Any]:
        kept = costs if model is self.full else model.golden
        cost = sum(value for name, value in costs.items() if name not in kept)
        return {"mse": 1 + cost, "increase": cost, "worst_increase": cost, "worst": "step 1", "difference": cost}

    monkeypatch.setattr(Judge, "errors", errors)
    for budget, kept in (
        (0.02, ("blocks.0.expand", "last")),
        (0.045, ("blocks.0.expand",)),
        (0.0005, tuple(costs)[:4]),
    ):
        spec = mixed(forms, Judge(exported("mlp"), task()), Quantization(max_error_increase=budget))
        assert spec is not None
        assert set(spec.keep_float) == set(kept)
    costs["shortcut"] = 0.001
    assert mixed(forms, Judge(exported("mlp"), task()), Quantization(max_error_increase=0.0)) is None


def test_the_worst_step_and_channel_are_found() -> None:
    judge = Judge(exported("mlp"), task())
    full = judge.errors(exported("mlp"))
    assert (full["increase"], full["worst_increase"]) == (0.0, 0.0)
    other = quantized("mlp", FOUR)
    errors, scores = judge.errors(other), (judge._score(other), judge._score(exported("mlp")))
    steps, channels = (
        getattr(scores[0], name) / getattr(scores[1], name) - 1 for name in ("mse_by_step", "mse_by_channel")
    )
    assert errors["worst_increase"] == pytest.approx(max(steps.max(), channels.max()))
    place = int(np.argmax([*steps, *channels]))
    assert (
        errors["worst"]
        == [*(f"step {step}" for step in range(1, 8)), *map("channel {!r}".format, deployables.CHANNELS)][place]
    )
    assert errors["mse"] == pytest.approx(evaluate(other, task())["mse"])


def test_a_convolution_is_static_and_not_dynamic() -> None:
    full = export(TCNConfig(width=7, depth=2, patch=5).build(task().signature), task())
    forms = Forms(full, task())
    n_convolutions = operators(full.onnx)["Conv"]
    assert n_convolutions == 6
    with pytest.raises(
        UnsupportedError, match=r"convolutions \(blocks.0.expand.*slower than float32. Use method='static'"
    ):
        forms.deployed(FORCED)
    assert layer_names(forms.deployed(STATIC).onnx) == layer_names(forms.deployed(WEIGHTS).onnx) == set()


def test_torch_int8_can_be_scored_and_timed_and_nothing_else() -> None:
    model = forecaster("lstm")
    before = model.digest
    small = TorchInt8(model)
    assert model.digest == before
    assert evaluate(small, task())["mse"] == pytest.approx(evaluate(model, task())["mse"], rel=0.02)
    assert 0 < in_deviations(small.predict(contexts()) - model.predict(contexts())) < 0.2
    assert model.n_parameters < small.size_bytes < 4 * model.n_parameters
    assert not isinstance(small, Deployed)
    with pytest.raises(UnsupportedError, match="without one"):
        TorchInt8(forecaster("seasonal-naive"))
    with pytest.raises(OrderError, match="deployed"):
        TorchInt8(exported("lstm"))  # type: ignore[arg-type]


def test_a_torch_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_int8, "ENGINES", ("none-of-them",))
    with pytest.raises(
        UnsupportedError, match=r"quantize_dynamic and one of the backends none-of-them, got torch .*dynamic"
    ):
        TorchInt8(forecaster("lstm"))
