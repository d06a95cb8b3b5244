"""A node that lacks what its operator needs is no fault of the guard: its size is unknown, and the runtime says so."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from tsdistill.formats import check_onnx


@pytest.mark.parametrize(
    ("operator", "inputs"),
    [
        ("LSTM", ["x", "w", "w"]),
        ("GRU", ["x", "w", "w"]),
        ("Concat", ["x", "x"]),
        ("MaxPool", ["x"]),
        ("Einsum", ["x"]),
    ],
)
def test_a_missing_attribute_leaves_the_size_open(operator: str, inputs: list[str]) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5, 7]) for name in ("x", "w")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(operator, inputs, ["y"])], "g", ports, [output])
    content = helper.make_model(graph).SerializeToString()
    assert [node.operator for node in check_onnx(content).nodes] == [operator]
