"""Static and weight-only INT8, layers kept in float, torch INT8: complete, exact, refused where impossible."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests import deployables
from tests.deployables import FORCED, contexts, exported, forecaster, in_deviations, quantized, task
from tsdistill import runtime
from tsdistill.artifacts import load, save
from tsdistill.data.panel import Panel
from tsdistill.data.task import Task
from tsdistill.errors import ArtifactError, ConfigError, DataError, ShapeError, UnsupportedError
from tsdistill.exporting import Deployed, export
from tsdistill.models import LSTMConfig
from tsdistill.quantization import Quantization
from tsdistill.quantization.calibration import calibration_windows, ranges_of
from tsdistill.quantization.forms import Forms
from tsdistill.quantization.layers import constant_folded, float_layers
from tsdistill.quantization.static import static_graph
from tsdistill.quantization.weight_only import weight_only_graph

STATIC = FORCED.replace(method="static")
WEIGHTS = FORCED.replace(method="weight-only")
FOUR = WEIGHTS.replace(weight_bits=4, max_error_increase=9.0)


def operators(graph: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def layer_names(graph: bytes) -> set[str]:
    return {layer.name for layer in float_layers(onnx.load_from_string(constant_folded(graph)))}


def one_layer(operator: str, weight: np.ndarray, *shape: int) -> bytes:
    """A graph of a single layer without a bias, named "layer"."""
    sizes = {
        "MatMul": weight.shape[-1:],
        "Gemm": weight.shape[:1],
        "Conv": (weight.shape[0], shape[-1] - weight.shape[-1] + 1),
    }[operator]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims])
        for name, dims in (("context", shape), ("forecast", (*shape[:-1], *sizes) if operator == "MatMul" else sizes))
    ]
    attributes: dict[str, Any] = {"transB": 1} if operator == "Gemm" else {}
    node = helper.make_node(operator, ["context", "w"], ["forecast"], name="layer", **attributes)
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def run(graph: bytes, x: np.ndarray, *, fused: bool = True) -> np.ndarray:
    """What a graph gives; unfused, operator by operator as they are written down."""
    options = onnxruntime.SessionOptions()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]).run(None, {"context": x})[0]


# Layers have the names of their modules


def test_layers_are_named_after_their_modules() -> None:
    for kind in ("patchtst", "lstm", "mlp"):
        names = {name for name, module in forecaster(kind).named_modules() if isinstance(module, (torch.nn.Linear,))}
        assert names <= layer_names(exported(kind).onnx)
    assert {"layers.0", "layers.1"} <= layer_names(exported("lstm").onnx)


@pytest.mark.parametrize(
    ("kind", "spec", "error", "words"),
    [
        ("lstm", STATIC, UnsupportedError, r"LSTM layers \(layers.0, layers.1\).*Use method='dynamic'.*keep_float=\("),
        ("seasonal-naive", STATIC, UnsupportedError, "without layers that have weights"),
        ("seasonal-naive", WEIGHTS, UnsupportedError, "nothing to quantize"),
        ("mlp", STATIC.replace(keep_float=("embde",)), ConfigError, "'embde' is none. Did you mean `embed`"),
        ("linear", WEIGHTS.replace(keep_float=("linear",)), UnsupportedError, "every layer is kept in float"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    kind: str, spec: Quantization, error: type[Exception], words: str
) -> None:
    if kind == "linear":
        spec = spec.replace(keep_float=tuple(layer_names(exported("linear").onnx)))
    with pytest.raises(error, match=words):
        quantized(kind, spec)


def test_an_lstm_can_stay_in_float_while_the_rest_is_static() -> None:
    graph = quantized("lstm", STATIC.replace(keep_float=("layers.0", "layers.1"))).onnx
    assert operators(graph)["LSTM"] == 2
    assert layer_names(graph) == {"layers.0", "layers.1"}


# Static


@pytest.mark.parametrize("kind", ["patchtst", "mlp", "linear"])
def test_every_layer_takes_integers_in_static_int8(kind: str) -> None:
    small = quantized(kind, STATIC)
    model = onnx.load_from_string(small.onnx)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    wanted = layer_names(exported(kind).onnx)
    assert layer_names(small.onnx) == set()
    for node in model.graph.node:
        if node.name in wanted:
            assert [made_by[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2
    gap = in_deviations(small.predict(contexts(11, seed=1)) - exported(kind).predict(contexts(11, seed=1)))
    assert 0 < gap < 0.3
    assert small.precision == "int8"


def test_static_ranges_do_not_depend_on_other_windows() -> None:
    x = contexts(5, seed=2)
    x[4] += 200
    small = quantized("mlp", STATIC)
    assert in_deviations(small.predict(x)[0] - small.predict(x[:1])[0]) < 1e-4
    assert not small.mixes_windows
    assert deployables.int8("mlp").mixes_windows


@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Conv"])
def test_a_static_layer_equals_the_arithmetic_it_claims(operator: str) -> None:
    rng = np.random.default_rng(0)
    if operator == "Conv":
        x, weight = rng.normal(1, 2, size=(5, 3, 13)), rng.normal(size=(7, 3, 3))
    else:
        x, weight = rng.normal(1, 2, size=(5, 29)), rng.normal(size=(29, 11) if operator == "MatMul" else (11, 29))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    graph = one_layer(operator, weight, *x.shape[1:])
    outputs = run(static_graph(graph, ranges_of(graph, {"context": x}), per_channel=False), x)
    low, high = float(x.min()), float(x.max())
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    near = ((np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)
    step = np.abs(weight).max() / 64
    rounded = np.round(weight / step) * step
    expected = {
        "MatMul": lambda: near @ rounded,
        "Gemm": lambda: near @ rounded.T,
        "Conv": lambda: torch.nn.functional.conv1d(torch.tensor(near), torch.tensor(rounded)).numpy(),
    }[operator]()
    # A convolution gives integers again: off by steps of its own range.
    allowed = 1.5 * (expected.max() - expected.min()) / 255 if operator == "Conv" else 1e-3
    assert np.abs(outputs - expected).max() <= allowed
    assert np.abs(run(graph, x) - expected).max() > 1e-2 or operator == "Conv"


def test_calibration_reads_the_training_part_only() -> None:
    table = deployables.hourly().reset_index()
    first = int(len(table) * 0.7)
    noise = np.random.default_rng(9).normal(size=(len(table) - first, 3))
    table.loc[first:, list(deployables.CHANNELS)] = noise
    noisy = Task(Panel.from_frame(table, time="ds"), context=deployables.CONTEXT, horizon=deployables.HORIZON)
    assert not np.array_equal(noisy.validation.series, task().validation.series)
    full = exported("mlp")
    graphs = [STATIC.graph(Forms(full, data)) for data in (task(), noisy)]
    assert graphs[0] == graphs[1]
    # And it does read that.
    table.loc[: first - 40, "load"] *= 3
    wide = Task(Panel.from_frame(table, time="ds"), context=deployables.CONTEXT, horizon=deployables.HORIZON)
    assert STATIC.graph(Forms(full, wide)) != graphs[0]


def test_calibration_windows_are_as_many_as_asked_and_spread() -> None:
    windows = calibration_windows(exported("mlp").signature, task(), 7)["context"]
    assert windows.shape == (7, deployables.CONTEXT, 3)
    series = deployables.hourly().to_numpy().astype(np.float32)
    raw = windows[0] + np.asarray(exported("mlp").signature.offset)
    np.testing.assert_allclose(raw, series[: deployables.CONTEXT], rtol=1e-5, atol=1e-4)
    everything = calibration_windows(exported("mlp").signature, task(), 9999)["context"]
    assert len(everything) == len(task().train)
    np.testing.assert_array_equal(windows[-1], everything[-1])


def test_rare_values_widen_the_range_of_min_max_alone() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(997, 7 * 37)).astype(np.float32)
    x[3, 5] = 40
    graph = one_layer("MatMul", rng.normal(size=(7 * 37, 11)).astype(np.float32), 7 * 37)
    ranges = {
        name: [float(np.ravel(end)[0]) for end in ranges_of(graph, {"context": x}, name)["context"].range_value]
        for name in ("min-max", "percentile", "entropy")
    }
    assert ranges["min-max"] == [float(x.min()), 40.0]
    assert ranges["percentile"][1] < 39
    assert ranges["entropy"][1] <= 40


def test_calibration_data_that_does_not_fit_is_one_clear_error() -> None:
    full = exported("mlp")
    with pytest.raises(ConfigError, match="`task` must be a Task, whose training windows"):
        calibration_windows(full.signature, None, 5)  # type: ignore[arg-type]
    other = deployables.hourly().rename(columns={"wind": "sun"}).reset_index()
    alien = Task(Panel.from_frame(other, time="ds"), context=deployables.CONTEXT, horizon=deployables.HORIZON)
    with pytest.raises(ShapeError, match=r"'wind'.*got .*'sun'"):
        Forms(full, alien).deployed(STATIC)
    broken = {"context": np.full((2, deployables.CONTEXT, 3), np.nan, np.float32)}
    with (
        mock.patch("tsdistill.quantization.calibration.raw_inputs", return_value=broken),
        pytest.raises(DataError, match=r"finite, got NaN or infinity in 'context'"),
    ):
        Forms(full, task()).deployed(STATIC)


def test_a_layer_with_float_inputs_in_static_int8_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 29)).astype(np.float32)
    graph = one_layer("MatMul", rng.normal(size=(29, 11)).astype(np.float32), 29)
    ranges = ranges_of(graph, {"context": x})
    monkeypatch.setattr("tsdistill.quantization.static.QDQQuantizer.quantize_model", lambda self: None)
    with pytest.raises(ArtifactError, match=r"every one of 1 layers must become INT8.*layer \(MatMul\) left in float"):
        static_graph(graph, ranges)


# Weight-only


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Conv"])
def test_weights_alone_are_rounded_on_the_grid_they_claim(operator: str, bits: int) -> None:
    rng = np.random.default_rng(1)
    if operator == "Conv":
        x, weight = rng.normal(1, 2, size=(5, 37, 13)), rng.normal(size=(7, 37, 3))
    else:
        x, weight = rng.normal(1, 2, size=(5, 37)), rng.normal(size=(37, 11) if operator == "MatMul" else (11, 37))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    weight[2] = 0
    graph = weight_only_graph(one_layer(operator, weight, *x.shape[1:]), weight_bits=bits, block_size=16)
    summed, outputs = {"MatMul": (0, 1), "Gemm": (1, 0), "Conv": (1, 0)}[operator]
    top = 2 ** (bits - 1) - 1
    if bits == 8:
        others = tuple(axis for axis in range(weight.ndim) if axis != outputs)
        scale = np.abs(weight).max(axis=others, keepdims=True) / top
    else:
        blocks = [np.take(weight, range(at, min(at + 16, 37)), axis=summed) for at in range(0, 37, 16)]
        largest = [np.broadcast_to(np.abs(block).max(axis=summed, keepdims=True), block.shape) for block in blocks]
        scale = np.concatenate(largest, axis=summed) / top
    rounded = np.round(weight / np.where(scale > 0, scale, 1)) * scale
    expected = {
        "MatMul": lambda: x @ rounded,
        "Gemm": lambda: x @ rounded.T,
        "Conv": lambda: torch.nn.functional.conv1d(torch.tensor(x), torch.tensor(rounded)).numpy(),
    }[operator]()
    np.testing.assert_allclose(run(graph, x, fused=False), expected, rtol=1e-4, atol=1e-4)
    # The runtime's own product of packed weights rounds activations as well, block by block.
    assert np.abs(run(graph, x) - expected).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("kind", ["patchtst", "lstm", "mlp", "linear"])
@pytest.mark.parametrize("spec", [WEIGHTS, FOUR], ids=["8", "4"])
def test_every_layer_is_stored_in_few_bits(kind: str, spec: Quantization) -> None:
    small = quantized(kind, spec)
    assert layer_names(small.onnx) == set()
    assert small.precision == f"int{spec.bits}-weights"
    gap = in_deviations(small.predict(contexts(11, seed=1)) - exported(kind).predict(contexts(11, seed=1)))
    assert 0 < gap < (0.2 if spec.bits == 8 else 2.0)
    assert not small.mixes_windows


@pytest.fixture(scope="module")
def wide_lstm() -> Deployed:
    short = task().signature.replace(context=14)
    return export(LSTMConfig(widths=(53,), patch=7, shortcut=False).build(short))


@pytest.mark.parametrize(("bits", "smaller"), [(8, 3.0), (4, 4.5)])
def test_the_file_is_really_smaller_and_the_session_keeps_it_so(
    wide_lstm: Deployed, bits: int, smaller: float, tmp_path: Path
) -> None:
    graph = weight_only_graph(wide_lstm.onnx, weight_bits=bits)
    n_weights = sum(int(np.prod(tensor.dims)) for tensor in onnx.load_from_string(wide_lstm.onnx).graph.initializer)
    assert len(wide_lstm.onnx) - len(graph) > 4 * n_weights * (1 - 1 / smaller) * 0.9
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    held = onnx.load(tmp_path / "loaded.onnx")
    floats = [
        int(np.prod(constant.dims)) for constant in held.graph.initializer if constant.data_type == TensorProto.FLOAT
    ]
    # What is float is biases and scales: no weight was unpacked while the graph was loaded.
    assert max(floats) < 53 * 4 * 53 / 4
    assert any(node.op_type == "DequantizeLinear" for node in held.graph.node)


def test_filters_of_few_channels_have_one_scale_each_in_4_bits() -> None:
    weight = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    graph = onnx.load_from_string(weight_only_graph(one_layer("Conv", weight, 3, 13), weight_bits=4))
    assert sorted(int(np.prod(tensor.dims)) for tensor in graph.graph.initializer) == [7, 7 * 3 * 5]


def test_a_weight_that_two_layers_share_is_stored_once_and_may_stay_in_float() -> None:
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(one_layer("MatMul", rng.normal(size=(7, 7)).astype(np.float32), 7))
    model.graph.node[0].output[0] = "half"
    model.graph.node.append(helper.make_node("MatMul", ["half", "w"], ["forecast"], name="again"))
    graph = model.SerializeToString()
    both = onnx.load_from_string(weight_only_graph(graph))
    assert [tensor.data_type for tensor in both.graph.initializer] == [TensorProto.INT8, TensorProto.FLOAT]
    one = weight_only_graph(graph, keep_float=("again",))
    assert layer_names(one) == {"again"}


@pytest.mark.parametrize("spec", [STATIC, WEIGHTS, FOUR], ids=["static", "8", "4"])
def test_every_form_is_saved_verified_and_served(spec: Quantization, tmp_path: Path) -> None:
    small = quantized("mlp", spec)
    folder = save(small, tmp_path / "artifact")
    assert runtime.verify(folder)["precision"] == small.precision
    np.testing.assert_array_equal(runtime.load(folder).predict(contexts()), small.predict(contexts()))
    assert load(folder).digest == small.digest
    quantized_again = quantized("mlp", spec)
    assert quantized_again.onnx == small.onnx


# Sensitivity and mixed precision


# Torch INT8
