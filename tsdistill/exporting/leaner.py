"""A graph without what torch's exporter writes around LSTM layers and nobody needs.

For one window of a small LSTM, much of the time goes to nodes of which each computes next to nothing: initial states
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

    What does not look as the exporter writes it, with the shapes that it infers, is left as it is.
    """
    import onnx

    nodes = graph.graph.node
    if any(each.HasField("g") or each.graphs for node in nodes for each in node.attribute):
        return graph  # what branches read is not among the inputs of the nodes that hold them
    constants = {each.name: each for each in graph.graph.initializer}
    made = {name: node for node in nodes for name in node.output}
    shapes = {each.name: _shape(each) for each in graph.graph.value_info}
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

    def numbers(name: str) -> list[int]:
        return onnx.numpy_helper.to_array(constants[name]).tolist() if name in constants else []

    def is_flat(turned: onnx.NodeProto, flat: onnx.NodeProto) -> bool:
        """Whether (step, batch, 1, unit) is made (step, batch, unit), by shapes that are known or read off `turned`."""
        before, after = (shapes.get(node.output[0], []) for node in (turned, flat))
        if len(before) != 4 or before[2] != 1 or "" in before:
            return False
        if after == [*before[:2], before[3]]:
            return True
        wanted = made.get(flat.input[1])
        if wanted is None or wanted.op_type != "Concat" or len(wanted.input) != 3:
            return False
        cuts = [made.get(name) for name in wanted.input[:2]]
        return all(
            cut is not None
            and cut.op_type == "Slice"
            and (numbers(cut.input[1]), numbers(cut.input[2])) == ([place], [place + 1])
            and (source := made.get(cut.input[0])) is not None
            and (source.op_type, source.input[0]) == ("Shape", turned.output[0])
            for place, cut in enumerate(cuts)
        )

    layers = [node for node in nodes if node.op_type == "LSTM"]
    squeezed = 0
    for layer in layers:
        for place in STATES:
            if len(layer.input) > place and is_zero(layer.input[place]):
                layer.input[place] = ""
        for turned in readers.get(layer.output[0], []):
            for flat in readers.get(turned.output[0], []):
                # (step, 1, batch, unit), turned and made flat.
                as_written = (turned.op_type, flat.op_type) == ("Transpose", "Reshape") and _turns(turned)
                if as_written and is_flat(turned, flat):
                    plain = onnx.helper.make_node("Squeeze", [layer.output[0], DIRECTION], flat.output, flat.name)
                    flat.CopyFrom(plain)
                    squeezed += 1
    if squeezed:
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), DIRECTION))
    return _without_unread(graph) if layers else graph


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Sizes of the axes, or their names."""
    return [
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in value.type.tensor_type.shape.dim
    ]


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
