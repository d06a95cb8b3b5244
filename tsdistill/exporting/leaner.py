"""A graph without what torch's exporter writes around LSTM layers and nobody needs.

For one window of a small LSTM, half of the time goes to nodes of which each computes next to nothing: initial states
that are always zero, filled for every batch, and shapes read off tensors whose shapes are known. ONNX has zero states
by default, and a layer that reads one way has one direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

STATES = (5, 6)
"""Places of the initial states among an LSTM's inputs."""

DIRECTION = "lstm.direction"
"""Name of the constant that says which axis of an LSTM's output counts directions."""


def without_detours(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with LSTM layers that start from ONNX's own zeros and, where they read one way, lose that axis at once.

    What does not look as the exporter writes it is left as it is.
    """
    import onnx

    nodes = graph.graph.node
    constants = {each.name: each for each in graph.graph.initializer}
    made = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def is_zero(name: str) -> bool:
        node = made.get(name)
        while node is not None and node.op_type in ("Slice", "Expand", "Unsqueeze"):
            name = node.input[0]
            node = made.get(name)
        return name in constants and not onnx.numpy_helper.to_array(constants[name]).any()

    one_way = False
    for layer in [node for node in nodes if node.op_type == "LSTM"]:
        for place in STATES:
            if len(layer.input) > place and is_zero(layer.input[place]):
                layer.input[place] = ""
        way = next((each.s for each in layer.attribute if each.name == "direction"), b"forward")
        if way == b"bidirectional":
            continue
        for turned in readers.get(layer.output[0], []):
            for flat in readers.get(turned.output[0], []):
                if turned.op_type == "Transpose" and flat.op_type == "Reshape" and _turns(turned):
                    # (step, 1, batch, unit), turned to (step, batch, 1, unit) and made flat.
                    squeezed = onnx.helper.make_node("Squeeze", [layer.output[0], DIRECTION], flat.output)
                    squeezed.name = flat.name
                    flat.CopyFrom(squeezed)
                    one_way = True
    if one_way:
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), DIRECTION))
    return _without_unread(graph)


def _turns(node: onnx.NodeProto) -> bool:
    """Whether a Transpose swaps the two axes in the middle of four."""
    return any(each.name == "perm" and list(each.ints) == [0, 2, 1, 3] for each in node.attribute)


def _without_unread(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without nodes and constants that nobody reads."""
    wanted = {port.name for port in graph.graph.output}
    kept = []
    for node in reversed(graph.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    constants = [each for each in graph.graph.initializer if each.name in wanted]
    nodes = list(reversed(kept))
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(constants)
    return graph
