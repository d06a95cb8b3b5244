"""A deployed graph with every size fixed: one window at a time, constants folded, shapes known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tsdistill.errors import UnsupportedError

Attributes = dict[str, object]


class Operation(NamedTuple):
    """One operator that has to be computed for every window."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


class StaticGraph(NamedTuple):
    """What is left to compute, in order, with the constants and the shape of everything.

    `coarse` names the constants that come from integers: weights that are stored in 8 bits.
    """

    nodes: tuple[Operation, ...]
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    coarse: frozenset[str]
    outputs: tuple[str, ...]


def static_graph(content: bytes, window: Mapping[str, np.ndarray]) -> StaticGraph:
    """Fix the batch at one window, fold what depends on no input, and read every shape off a run.

    Args:
        content: An ONNX file that has been checked.
        window: Inputs of one window by name, (1, step, feature).

    Raises:
        UnsupportedError: A node lies in a graph of its own or gives nothing that can be read.
    """
    import onnxruntime

    model = onnx.load_from_string(content)
    outputs = tuple(port.name for port in model.graph.output)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    known = set(outputs)
    for node in model.graph.node:
        for name in filter(None, node.output):
            if name not in known:
                model.graph.output.append(helper.make_empty_tensor_value_info(name))
                known.add(name)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    names = [port.name for port in model.graph.output]
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = dict(zip(names, session.run(names, dict(window)), strict=True))
    except Exception as error:  # onnxruntime has a dozen unrelated classes
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(f"the graph must run one window at a time to become C, got: {reason}.") from None
    coarse: set[str] = set()
    nodes = []
    for node in model.graph.node:
        inputs = tuple(node.input)
        if node.op_type == "Shape" or all(not name or name in constants for name in inputs):
            constants |= {name: np.asarray(values[name]) for name in node.output if name}
            if node.op_type == "DequantizeLinear" or not coarse.isdisjoint(inputs):
                coarse.update(node.output)
            continue
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        nodes.append(Operation(node.op_type, inputs, tuple(node.output), attributes))
    arrays = {**window, **values, **constants}
    shapes = {name: tuple(np.shape(array)) for name, array in arrays.items()}
    return StaticGraph(_in_order(nodes, {*window, *constants}), constants, shapes, frozenset(coarse), outputs)


def _in_order(nodes: list[Operation], known: set[str]) -> tuple[Operation, ...]:
    """The nodes so that everything is computed before it is used, and only what an output needs."""
    ordered, waiting = [], list(nodes)
    while waiting:
        ready = [node for node in waiting if all(not name or name in known for name in node.inputs)]
        if not ready:
            raise UnsupportedError("the nodes of the graph must not feed themselves. Export the model again.")
        ordered.append(ready[0])
        known.update(ready[0].outputs)
        waiting.remove(ready[0])
    return tuple(ordered)
