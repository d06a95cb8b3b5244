"""What the exporter writes around LSTM layers and nobody needs: gone, and not a bit of a forecast with it."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import deployables
from tsdistill.exporting import graph as graphs
from tsdistill.exporting import tracing
from tsdistill.exporting.leaner import without_detours
from tsdistill.models import LSTMConfig

CONFIGS = {
    "one way": LSTMConfig(widths=(5, 3), patch=7),
    "both ways": LSTMConfig(widths=(5, 3), patch=7, bidirectional=True),
    "channels together": LSTMConfig(widths=(5,), patch=7, mixing=True),
}


@pytest.mark.parametrize(
    "name", ["one way", *(pytest.param(name, marks=pytest.mark.slow) for name in list(CONFIGS)[1:])]
)
def test_a_leaner_graph_gives_the_same_forecasts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CONFIGS[name].build(deployables.task().signature).eval()
    lean = onnx.load_from_string(graphs.graph_of(model))
    monkeypatch.setattr(graphs, "without_detours", lambda graph: graph)
    monkeypatch.setattr(graphs, "_graphs", tracing.Latest())
    plain = onnx.load_from_string(graphs.graph_of(model))
    for batch in (1, 5):
        x = {"context": deployables.contexts(batch).astype(np.float32)}
        lean_forecast, plain_forecast = (_run(proto, x) for proto in (lean, plain))
        assert np.array_equal(lean_forecast, plain_forecast)
    kinds = [node.op_type for node in lean.graph.node]
    assert "Expand" in [node.op_type for node in plain.graph.node]
    assert "Expand" not in kinds
    assert kinds.count("LSTM") == len(CONFIGS[name].widths)
    if name != "both ways":
        assert "Shape" not in kinds
        assert len(kinds) < len(plain.graph.node) - 10


def _run(graph: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["forecast"], inputs)[0])


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize(
    ("perm", "shape", "squeezed"),
    [
        ([0, 2, 1, 3], [-1, 4, 3], True),
        ([0, 2, 1, 3], [5, 12], False),
        ([0, 2, 1, 3], [-1, 3], False),
        ([0, 2, 1, 3], [4, 5, 3], False),
        ([1, 2, 0, 3], [-1, 4, 3], False),
    ],
)
def test_what_is_not_written_as_the_exporter_does_stays(
    start: float, perm: list[int], shape: list[int], squeezed: bool
) -> None:
    rng, units = np.random.default_rng(0), 3
    constants: dict[str, np.ndarray] = {
        "w": rng.standard_normal((1, 4 * units, 2)).astype(np.float32),
        "r": rng.standard_normal((1, 4 * units, units)).astype(np.float32),
        "state": np.full((1, 4, units), start, np.float32),
        "flat": np.array(shape, np.int64),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "state", "state"], ["y"], hidden_size=units),
        helper.make_node("Transpose", ["y"], ["turned"], perm=perm),
        helper.make_node("Reshape", ["turned", "flat"], ["flattened"]),
        helper.make_node("Tanh", ["flattened"], ["forecast"]),
    ]
    plain = _model(nodes, [5, 4, 2], constants)
    lean = without_detours(onnx.shape_inference.infer_shapes(plain))
    x = {"x": rng.standard_normal((5, 4, 2)).astype(np.float32)}
    assert np.array_equal(_run(lean, x), _run(plain, x))
    assert ("Squeeze" in [node.op_type for node in lean.graph.node]) == squeezed
    assert ("state" in [tensor.name for tensor in lean.graph.initializer]) == (start > 0)


def test_what_a_branch_reads_is_kept() -> None:
    one = np.ones((2,), np.float32)
    branches = {
        name: helper.make_graph(
            [helper.make_node("Mul", ["doubled", factor], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])],
        )
        for name, factor in (("then", "one"), ("else", "two"))
    }
    nodes = [
        helper.make_node("Add", ["x", "x"], ["doubled"]),
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["is"], to=TensorProto.BOOL),
        helper.make_node("If", ["is"], ["forecast"], then_branch=branches["then"], else_branch=branches["else"]),
    ]
    plain = _model(nodes, [2], {"one": one, "two": 2 * one})
    lean = without_detours(copy.deepcopy(plain))
    for x in (one, 0 * one):
        assert np.array_equal(_run(lean, {"x": x}), _run(plain, {"x": x}))


def _model(nodes: list[onnx.NodeProto], shape: list[int], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, None)]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
