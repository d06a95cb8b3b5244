"""A graph without the superfluous nodes that torch's exporter writes around recurrent layers.

For one window of a small LSTM, much of the time goes to nodes of which each computes almost nothing: initial states
that are always zero, filled for every batch, and shapes read off tensors whose shapes are known. ONNX has zero states
by default, and the axis of directions of a unidirectional layer has one entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

STATES = {"GRU": (5,), "LSTM": (5, 6)}
"""Recurrent layers, and the places of the initial states among their inputs."""

DIRECTION = "{}.direction"
"""Name of the constant that holds the axis of directions in the output of such a layer."""


def without_detours(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with recurrent layers that start from ONNX's own zeros and, if unidirectional, drop that axis at once.

    Only the exporter's own patterns are changed, with the shapes that it infers.
    """
    import onnx

    nodes = graph.graph.node
    if any(attribute.HasField("g") or attribute.graphs for node in nodes for attribute in node.attribute):
        return graph  # what branches read is not among the inputs of the nodes that hold them
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    producers = {name: node for node in nodes for name in node.output}
    shapes = {value.name: _shape(value) for value in graph.graph.value_info}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def is_zero(name: str) -> bool:
        node = producers.get(name)
        while node is not None and node.op_type in ("Slice", "Expand", "Unsqueeze"):
            name = node.input[0]
            node = producers.get(name)
        return name in constants and not onnx.numpy_helper.to_array(constants[name]).any()

    def numbers(name: str) -> list[int]:
        return onnx.numpy_helper.to_array(constants[name]).tolist() if name in constants else []

    def drops_directions(transpose: onnx.NodeProto, reshape: onnx.NodeProto) -> bool:
        """Whether (step, batch, 1, unit) is made (step, batch, unit), by known shapes or those of `transpose`."""
        before, after = (shapes.get(node.output[0], []) for node in (transpose, reshape))
        if len(before) != 4 or before[2] != 1 or "" in before:
            return False
        if after == [*before[:2], before[3]]:
            return True
        wanted = producers.get(reshape.input[1])
        if wanted is None or wanted.op_type != "Concat" or len(wanted.input) != 3:
            return False
        cuts = [producers.get(name) for name in wanted.input[:2]]
        return all(
            cut is not None
            and cut.op_type == "Slice"
            and (numbers(cut.input[1]), numbers(cut.input[2])) == ([place], [place + 1])
            and (source := producers.get(cut.input[0])) is not None
            and (source.op_type, source.input[0]) == ("Shape", transpose.output[0])
            for place, cut in enumerate(cuts)
        )

    layers = [node for node in nodes if node.op_type in STATES]
    squeezed = set()
    for layer in layers:
        direction = DIRECTION.format(layer.op_type.lower())
        for place in STATES[layer.op_type]:
            if len(layer.input) > place and is_zero(layer.input[place]):
                layer.input[place] = ""
        for transpose in readers.get(layer.output[0], []):
            for reshape in readers.get(transpose.output[0], []):
                # (step, 1, batch, unit), transposed and made flat.
                exported = (transpose.op_type, reshape.op_type) == ("Transpose", "Reshape") and _turns(transpose)
                if exported and drops_directions(transpose, reshape):
                    plain = onnx.helper.make_node("Squeeze", [layer.output[0], direction], reshape.output, reshape.name)
                    reshape.CopyFrom(plain)
                    squeezed.add(direction)
    for name in sorted(squeezed):
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], dtype=np.int64), name))
    return _without_unread(graph) if layers else graph


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    """Sizes of the axes, or their names."""
    return [
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param for axis in value.type.tensor_type.shape.dim
    ]


def _turns(node: onnx.NodeProto) -> bool:
    """Whether a Transpose swaps the two axes in the middle of four."""
    return any(entry.name == "perm" and list(entry.ints) == [0, 2, 1, 3] for entry in node.attribute)


def _without_unread(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without nodes and constants that are not used."""
    used = {port.name for port in graph.graph.output}
    kept = []
    for node in reversed(graph.graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.graph.initializer if tensor.name in used]
    nodes = list(reversed(kept))
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(constants)
    return graph
