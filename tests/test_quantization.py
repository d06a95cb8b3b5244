"""INT8 of LSTM and linear layers: complete, equal to the arithmetic it claims, and taken only where it pays."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests import deployables
from tests.deployables import (
    CONFIGS,
    FORCED,
    contexts,
    exported,
    forecaster,
    fresh,
    in_deviations,
    int8,
    quantized,
    task,
)
from tests.typed import instance_of
from tsdistill.data.panel import Panel
from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, ConfigError, OrderError, UnsupportedError
from tsdistill.evaluation import evaluate
from tsdistill.exporting import Deployed, export
from tsdistill.models import LSTMConfig, PatchTSTConfig
from tsdistill.quantization import Auto, Quantization, candidate_table, choice, layers, quantize
from tsdistill.quantization.dynamic import dynamic_graph
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.judging import Candidate, Judge, refuse_what_does_not_pay

WEIGHTED = ("patchtst", "lstm", "mlp", "linear")


def operators(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.mark.parametrize("kind", WEIGHTED)
def test_every_lstm_and_linear_layer_becomes_int8(kind: str) -> None:
    modules = list(forecaster(kind).modules())
    n_lstm = sum(isinstance(module, torch.nn.LSTM) for module in modules)
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in modules)
    counts = operators(int8(kind).onnx)
    assert n_lstm + n_linear > 0
    assert (counts["DynamicQuantizeLSTM"], counts["LSTM"]) == (n_lstm, 0)
    # The closed-form linear model keeps its matrix without an nn.Linear.
    assert counts["MatMulInteger"] == max(n_linear, int(kind == "linear"))
    assert counts["Gemm"] == 0


def test_attention_itself_stays_in_float() -> None:
    # Queries times keys and weights times values: products of two activations, twice per block.
    assert operators(int8("patchtst").onnx)["MatMul"] == 2 * instance_of(PatchTSTConfig, CONFIGS["patchtst"]).depth


@pytest.mark.parametrize("kind", WEIGHTED)
def test_int8_forecasts_stay_near_float(kind: str) -> None:
    x = contexts(11, seed=1)
    gap = in_deviations(int8(kind).predict(x) - exported(kind).predict(x))
    assert 0 < gap < 0.2
    full, small = (evaluate(model, task())["mse"] for model in (exported(kind), int8(kind)))
    assert small == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_linear_layer_equals_the_arithmetic_of_dynamic_int8(per_channel: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, size=(5, 7, 29)).astype(np.float32)
    weight = (rng.normal(size=(29, 11)) * np.linspace(0.1, 3, 11)).astype(np.float32)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 7, width])
        for name, width in (("context", 29), ("forecast", 11))
    ]
    node = helper.make_node("MatMul", ["context", "w"], ["forecast"])
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    quantized = dynamic_graph(model.SerializeToString(), per_channel=per_channel)
    product = onnxruntime.InferenceSession(quantized).run(None, {"context": x})[0]
    np.testing.assert_allclose(product, dynamic_product(x, weight, per_channel), rtol=1e-4, atol=1e-4)
    wide = dynamic_graph(model.SerializeToString(), per_channel=per_channel, weight_bits=8)
    assert largest_weight(quantized) <= 64 < largest_weight(wide) <= 127


def largest_weight(graph: bytes) -> int:
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(graph).graph.initializer]
    return max(
        int(np.abs(array.astype(np.int64)).max()) for array in arrays if array.dtype == np.int8 and array.ndim == 2
    )


def dynamic_product(x: np.ndarray, weight: np.ndarray, per_channel: bool) -> np.ndarray:
    """The plain oracle: unsigned activations with a zero point, signed weights without one, products in integers."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = (high - low) / 255
    zero = np.clip(np.round(-low / scale), 0, 255)
    q_x = np.clip(np.round(x / scale) + zero, 0, 255).astype(np.int64)
    # Seven bits, the same on both sides, so that zero is exact.
    w_scale = np.abs(weight).max(axis=0 if per_channel else None) / 64
    q_w = np.clip(np.round(weight / w_scale), -64, 64).astype(np.int64)
    return (q_x - int(zero)) @ q_w * scale * w_scale


def test_quantizing_again_gives_the_same_bytes_in_silence_and_leaves_the_forecaster_alone(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = fresh("lstm")
    before = model.digest
    expected, logging_before = int8("lstm").digest, (list(logging.root.handlers), logging.root.manager.disable)
    capfd.readouterr()
    again = quantize(model, task(), FORCED)
    assert capfd.readouterr() == ("", "")
    assert (list(logging.root.handlers), logging.root.manager.disable) == logging_before
    assert again.digest == expected
    assert again.digest != exported("lstm").digest
    assert (model.digest, [step.verb for step in model.lineage]) == (before, ["train"])


def test_the_test_part_has_no_say() -> None:
    table = deployables.hourly().reset_index()
    first = len(table) - int(len(table) * 0.2)
    table.loc[first:, list(deployables.CHANNELS)] = np.random.default_rng(9).normal(size=(len(table) - first, 3))
    noisy = Task(Panel.from_frame(table, time="ds"), context=deployables.CONTEXT, horizon=deployables.HORIZON)
    assert not np.array_equal(noisy.test.series, task().test.series)
    again = quantize(forecaster("linear"), noisy, FORCED)
    assert again.digest == int8("linear").digest
    np.testing.assert_array_equal(again.golden["context"], int8("linear").golden["context"])


def test_the_lineage_keeps_the_table_of_candidates() -> None:
    step = int8("mlp").lineage[-1]
    assert [item.verb for item in int8("mlp").lineage] == ["train", "export", "quantize"]
    assert step.data == task().fingerprint
    assert step.spec == {"quantization": FORCED.to_dict()}
    table = {row["name"]: row for row in step.metrics["candidates"]}
    assert step.metrics["chosen"] == "dynamic"
    assert table["fp32"]["graph_bytes"] == len(exported("mlp").onnx)
    assert table["dynamic"]["graph_bytes"] == len(int8("mlp").onnx)
    assert table["dynamic"]["mse"] == pytest.approx(evaluate(int8("mlp"), task())["mse"])
    assert min(row["latency_ms"]["1"] for row in table.values()) > 0
    assert table["fp32"]["refused"] == ["method='dynamic' was asked for"]
    assert candidate_table(int8("mlp")).splitlines()[2].endswith("selected")
    assert candidate_table(exported("mlp")) == ""


Numbers = dict[str, tuple[float, float, int]]


def measured_as(monkeypatch: pytest.MonkeyPatch, numbers: Numbers) -> None:
    """Replace what the clock, the validation part and the bytes say of the linear forecaster's forms."""
    forms, small = {id(exported("linear")): "fp32"}, int8("linear")
    specs: dict[int, str] = {}

    def deployed(self: Forms, spec: Quantization) -> Deployed:
        names = (spec.method, f"{spec.method}-{spec.bits}")
        name = next((candidate for candidate in names if candidate in numbers), None)
        if name is None:
            raise UnsupportedError(f"{spec.method} cannot be made.")
        model = replace(small, n_parameters=1000 + len(specs))
        specs[id(model)] = name
        kept.append(model)
        return model

    kept: list[Deployed] = []

    def errors(self: Judge, model: Deployed) -> dict[str, Any]:
        mse, full = numbers[forms.get(id(model)) or specs[id(model)]][0], numbers["fp32"][0]
        return {"mse": mse, "increase": mse / full - 1, "worst_increase": mse / full - 1, "worst": "step 1"}

    def measure(candidates: dict[str, Any], task: Task, spec: Quantization) -> dict[str, dict[str, Any]]:
        return {name: {"graph_bytes": numbers[name][2], "latency_ms": {"1": numbers[name][1]}} for name in candidates}

    monkeypatch.setattr(choice, "measure", measure)
    monkeypatch.setattr(choice, "export", lambda model, task: exported("linear"))
    monkeypatch.setattr(choice, "mixed", lambda forms, judge, spec: None)
    monkeypatch.setattr(Forms, "deployed", deployed)
    monkeypatch.setattr(Judge, "errors", errors)


@pytest.mark.parametrize(("increase", "precision"), [(0.0, "int8"), (0.5, "fp32")])
def test_a_control_takes_the_form_of_the_chosen_one(
    monkeypatch: pytest.MonkeyPatch, increase: float, precision: str
) -> None:
    small = {kind: int8(kind) for kind in ("linear", "mlp")}  # before anything is replaced
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": (0.5 + increase, 1.0, 30)})
    monkeypatch.setattr(choice, "export", lambda model, task: replace(exported("linear"), control=exported("mlp")))
    monkeypatch.setattr(Judge, "errors", errors_by_precision({"fp32": 0.5, "int8": 0.5 + increase}))

    def deployed(self: Forms, spec: Quantization) -> Deployed:
        if spec.method != "dynamic":
            raise UnsupportedError("only dynamic")
        return small[self.full.config.kind]

    monkeypatch.setattr(Forms, "deployed", deployed)
    chosen = quantize(forecaster("linear"), task(), Quantization(method="auto"))
    assert chosen.control is not None
    assert (chosen.precision, chosen.control.precision) == (precision, precision)
    assert chosen.control.onnx == (int8 if precision == "int8" else exported)("mlp").onnx
    assert chosen.control.control is None


def errors_by_precision(numbers: dict[str, float]) -> Any:
    def errors(self: Judge, model: Deployed) -> dict[str, Any]:
        increase = numbers[model.precision] / numbers["fp32"] - 1
        return {"mse": numbers[model.precision], "increase": increase, "worst_increase": increase, "worst": "step 1"}

    return errors


@pytest.mark.parametrize(
    ("int8_numbers", "words"),
    [
        ((0.53, 1.0, 50), r"validation MSE is 0.53 against 0.5 in float32, \+6.0% where .* allows \+2.0%"),
        ((0.5, 1.2, 50), r"one window takes 1.200 ms against 1.000 ms in fp32"),
        ((0.5, 0.5, 101), r"it has 101 bytes against 100"),
        ((float("nan"), 0.5, 50), r"validation MSE is nan"),
        ((0.6, 1.2, 200), r"validation MSE .*; the MSE of step 1 rises by \+20.0% where max_worst_error_increase"),
        ((0.5, 1.2, 200), r"it has 200 bytes .*; one window takes"),
    ],
)
def test_int8_that_does_not_pay_is_refused_with_numbers(
    monkeypatch: pytest.MonkeyPatch, int8_numbers: tuple[float, float, int], words: str
) -> None:
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": int8_numbers})
    with pytest.raises(UnsupportedError, match=rf"{words}.*method='auto'.*require_gain=False"):
        quantize(forecaster("linear"), task())
    chosen = quantize(forecaster("linear"), task(), Quantization(method="auto"))
    assert chosen.precision == "fp32"
    assert chosen.onnx == exported("linear").onnx
    assert chosen.lineage[-1].metrics["chosen"] == "fp32"
    rows = {row["name"]: row["refused"] for row in chosen.lineage[-1].metrics["candidates"]}
    assert rows["fp32"] == []
    assert re.search(words.split(".*;")[0], "; ".join(rows["dynamic"]))
    assert rows["static"] == ["static cannot be made."]


@pytest.mark.parametrize("method", ["dynamic", "auto"])
def test_int8_that_pays_is_taken(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": (0.509, 1.02, 30)})
    chosen = quantize(forecaster("linear"), task(), Quantization(method=method))
    rows = {row["name"]: row["refused"] for row in chosen.lineage[-1].metrics["candidates"]}
    assert chosen.precision == "int8"
    assert rows["dynamic"] == []
    assert rows["fp32"]


FORMS: Numbers = {
    "fp32": (0.5, 10, 100),
    "dynamic": (0.5, 6, 40),
    "static": (0.5, 6.15, 38),
    "weight-only-8": (0.5, 9, 30),
    "weight-only-4": (0.501, 14, 20),
}


@pytest.mark.parametrize(
    ("change", "options", "chosen"),
    [
        ({}, {}, "static"),  # 2.5 % slower than the fastest, and smaller
        ({"static": (0.5, 6.24, 38)}, {}, "dynamic"),  # 4 % slower, which the clock cannot tell from more than 5 %
        ({"dynamic": (0.5, 6, 4000), "static": (0.5, 6.15, 3990), "fp32": (0.5, 10, 9000)}, {}, "dynamic"),
        ({}, {"max_latency_increase": 0.55}, "weight-only-8"),
        ({}, {"max_latency_increase": 2.0}, "weight-only-4"),
        ({}, {"max_latency_increase": 2.0, "max_error_increase": 0.001}, "weight-only-8"),
        ({"dynamic": (0.6, 6, 40), "static": (0.5, 10.6, 38)}, {}, "weight-only-8"),  # what is refused sets no pace
        ({"weight-only-4": (0.5, 1, 101)}, {}, "static"),  # nor what is larger
        ({"dynamic": (0.5, 0.1, 40), "static": (0.5, 0.119, 38)}, {}, "static"),  # 0.02 ms is nobody's concern
        ({"dynamic": (0.5, 0.1, 40), "static": (0.5, 0.125, 38)}, {}, "dynamic"),
        ({}, {"require_gain": False}, "dynamic"),
        ({"dynamic": (0.6, 6, 40)}, {"require_gain": False}, "static"),
    ],
)
def test_auto_takes_the_smallest_of_the_fastest(
    monkeypatch: pytest.MonkeyPatch, change: Numbers, options: dict[str, Any], chosen: str
) -> None:
    measured_as(monkeypatch, FORMS | change)
    metrics = quantize(forecaster("linear"), task(), Quantization(method="auto", **options)).lineage[-1].metrics
    assert metrics["chosen"] == chosen
    rows = {row["name"]: row["refused"] for row in metrics["candidates"]}
    assert [name for name, reasons in rows.items() if not reasons] == [chosen]


def test_latency_counts_at_every_batch_size_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(**times: tuple[float, float]) -> list[Candidate]:
        sizes = {"fp32": 100, "dynamic": 40, "static": 30}
        return [
            Candidate(name, numbers={"graph_bytes": sizes[name], "latency_ms": {"1": one, "64": many}})
            for name, (one, many) in times.items()
        ]

    spec = Quantization(method="auto", batch_sizes=(1, 64))
    candidates = rows(fp32=(1.0, 10.0), dynamic=(0.5, 9.9), static=(0.5, 20.0))
    refuse_what_does_not_pay(candidates, spec)
    assert [bool(candidate.refused) for candidate in candidates] == [True, False, True]
    assert "64 windows take 20.000 ms against 9.900 ms in dynamic" in candidates[2].refused[0]
    assert "(+5% and 0.02 ms, less 2% that the clock may err by)" in candidates[2].refused[0]
    # Nobody is among the fastest everywhere: the one least behind is left.
    candidates = rows(fp32=(1.0, 10.0), dynamic=(0.5, 13.0), static=(0.5, 20.0))
    refuse_what_does_not_pay(candidates, spec)
    assert [bool(candidate.refused) for candidate in candidates] == [True, False, True]
    assert "or +29.8% as no form is fast at every batch size" in candidates[2].refused[0]


def test_slower_int8_is_taken_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": (0.5, 1.2, 30)})
    assert quantize(forecaster("linear"), task(), Quantization(max_latency_increase=0.25)).precision == "int8"
    with pytest.raises(
        UnsupportedError, match=r"1\.200 ms against 1\.000 ms in fp32, more than .* allows \(\+10% and 0\.02 ms\)"
    ):
        quantize(forecaster("linear"), task(), Quantization(max_latency_increase=0.1))


def test_weight_only_is_asked_for_bytes_and_not_held_to_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "weight-only": (0.5, 9.0, 30)})
    spec = Quantization(method="weight-only")
    assert quantize(forecaster("linear"), task(), spec).lineage[-1].metrics["chosen"] == "weight-only"
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "weight-only": (0.5, 0.5, 101)})
    with pytest.raises(UnsupportedError, match="it has 101 bytes"):
        quantize(forecaster("linear"), task(), spec)


def test_require_gain_off_asks_for_accuracy_only(monkeypatch: pytest.MonkeyPatch) -> None:
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": (0.5, 9.0, 900)})
    assert quantize(forecaster("linear"), task(), Quantization(require_gain=False)).precision == "int8"
    measured_as(monkeypatch, {"fp32": (0.5, 1.0, 100), "dynamic": (0.6, 9.0, 900)})
    with pytest.raises(UnsupportedError, match="validation MSE"):
        quantize(forecaster("linear"), task(), Quantization(require_gain=False))


def test_a_model_without_layers_has_nothing_to_quantize() -> None:
    with pytest.raises(UnsupportedError, match=r"without layers that have weights.*td.export"):
        quantized("seasonal-naive")
    chosen = quantized("seasonal-naive", Quantization(method="auto"))
    assert chosen.precision == "fp32"
    rows = {row["name"]: row["refused"] for row in chosen.lineage[-1].metrics["candidates"]}
    assert all("nothing to quantize" in rows[name][0] for name in Auto().variants())


def test_a_layer_that_silently_stays_in_float_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    # What happens to an LSTM when the folding of its gate order is forgotten.
    monkeypatch.setattr(layers, "quant_pre_process", lambda model, path: onnx.save(model, path))
    layers.constant_folded.cache_clear()
    short = task().signature.replace(context=14)
    wide = export(LSTMConfig(widths=(53,), patch=7, shortcut=False).build(short)).onnx
    with pytest.raises(ArtifactError, match=r"must become INT8.*layers.0 \(LSTM\) left in float"):
        dynamic_graph(wide, per_channel=True)
    monkeypatch.undo()
    layers.constant_folded.cache_clear()
    quantized_well = dynamic_graph(wide, per_channel=True)
    assert operators(quantized_well)["DynamicQuantizeLSTM"] == 1
    assert len(quantized_well) < len(wide) / 2.5


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"method": "dynamical"}, ConfigError, "`method` must be that of a known quantization.*Did you mean `dynamic`"),
        ({"weight_bits": 4}, ConfigError, "`weight_bits` must be 7 or 8 when method='dynamic'"),
        ({"method": "weight-only", "weight_bits": 7}, ConfigError, "`weight_bits` must be 4 or 8"),
        ({"batch_sizes": (1, 1)}, ConfigError, "`batch_sizes` must be different numbers"),
        ({"batch_sizes": ()}, ConfigError, "`batch_sizes`"),
        ({"method": "static", "n_calibration": 0}, ConfigError, "`n_calibration`"),
        ({"method": "static", "calibration": "median"}, ConfigError, "`calibration` must be 'min-max'"),
        ({"max_error_increase": -0.1}, ConfigError, "`max_error_increase` must"),
        ({"max_error": 0.1}, ConfigError, "Did you mean `max_error_increase`"),
    ],
)
def test_specs_that_cannot_be(values: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Quantization(**values)


def test_a_spec_survives_json_and_toml() -> None:
    spec = Quantization(method="auto", isolate=True, max_error_increase=0.1)
    assert Quantization.from_json(spec.to_json()) == spec == Quantization.from_toml(spec.to_toml())


def test_what_cannot_be_quantized_is_refused() -> None:
    with pytest.raises(OrderError, match="`quantize` must get a trainable forecaster"):
        quantize(exported("linear"), task())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"`quantization` must be a Quantization.*td.Quantization"):
        quantize(forecaster("linear"), task(), SimpleNamespace(method="dynamic"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`task` must be a Task, got task=None"):
        quantize(forecaster("linear"), None)  # type: ignore[arg-type]
