"""What the exporter writes around LSTM layers and nobody needs: gone, and not a bit of a forecast with it."""

from __future__ import annotations

import copy

import deployables
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tsdistill.exporting import graph as graphs
from tsdistill.exporting.leaner import without_detours
from tsdistill.models import LSTMConfig

CONFIGS = {
    "one way": LSTMConfig(widths=(5, 3), patch=7),
    "both ways": LSTMConfig(widths=(5, 3), patch=7, bidirectional=True),
    "channels together": LSTMConfig(widths=(5,), patch=7, mixing=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_leaner_graph_gives_the_same_forecasts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CONFIGS[name].build(deployables.task().signature).eval()
    lean = onnx.load_from_string(graphs.graph_of(model))
    monkeypatch.setattr(graphs, "without_detours", lambda graph: graph)
    plain = onnx.load_from_string(graphs.graph_of(model))
    for batch in (1, 5):
        x = {"context": deployables.contexts(batch).astype(np.float32)}
        ours, theirs = (_run(each, x) for each in (lean, plain))
        assert np.array_equal(ours, theirs)
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
@pytest.mark.parametrize("perm", [[0, 2, 1, 3], [1, 2, 0, 3]])
def test_what_is_not_written_as_the_exporter_does_stays(start: float, perm: list[int]) -> None:
    rng, units = np.random.default_rng(0), 3
    state = np.full((1, 4, units), start, np.float32)
    constants = {
        "w": rng.standard_normal((1, 4 * units, 2)).astype(np.float32),
        "r": rng.standard_normal((1, 4 * units, units)).astype(np.float32),
        "state": state,
        "flat": np.array([-1, 4, units], np.int64),
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "", "", "state", "state"], ["y"], hidden_size=units),
        helper.make_node("Transpose", ["y"], ["turned"], perm=perm),
        helper.make_node("Reshape", ["turned", "flat"], ["forecast"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 4, 2])]
    outputs = [helper.make_tensor_value_info("forecast", TensorProto.FLOAT, None)]
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    lean = without_detours(copy.deepcopy(plain))
    x = {"x": rng.standard_normal((5, 4, 2)).astype(np.float32)}
    assert np.array_equal(_run(lean, x), _run(plain, x))
    kinds = [node.op_type for node in lean.graph.node]
    assert kinds == (["LSTM", "Squeeze"] if perm == [0, 2, 1, 3] else ["LSTM", "Transpose", "Reshape"])
    assert ("state" in [each.name for each in lean.graph.initializer]) == (start > 0)
