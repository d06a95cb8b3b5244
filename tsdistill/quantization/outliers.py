"""Linear layers of which a few inputs, those with the largest weights, are multiplied in float."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tsdistill.errors import UnsupportedError
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.layers import constant_folded, float_layers

LEAST = 4
"""A layer has to have this many times the inputs that leave it; of fewer most would stay in float."""

LAYERS = ("Gemm", "MatMul")


def with_outliers(source: FloatGraph, n_inputs: int) -> tuple[FloatGraph, tuple[str, ...]]:
    """The same float graph, in which some inputs of every wide linear layer have a product of their own.

    x W = x W' + x_S W_S, where S are the `n_inputs` inputs with the largest weight to any output, W_S their rows, and
    W' is W with these rows zero. What is left in W' is of one magnitude and bears one scale per output, where one large
    weight, such as that of the newest value in a linear forecaster, would leave few numbers for all others.

    Args:
        source: An exported float graph.
        n_inputs: Inputs to leave in float, of every layer that has at least four times as many.

    Returns:
        The graph, and the names of the layers x_S W_S, for `keep_float`.

    Raises:
        UnsupportedError: No layer is wide enough.

    Source: T. Dettmers, M. Lewis, Y. Belkada and L. Zettlemoyer, "LLM.int8(): 8-bit Matrix Multiplication for
    Transformers at Scale", NeurIPS 2022, section 3.2 (mixed-precision decomposition). Differs from the source: they
    select inputs by the size of activations, for each batch; here weights select them, once, and activations keep
    their range.
    """
    model = onnx.load_from_string(constant_folded(source.graph))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [name for node in model.graph.node for name in node.input]
    wide = {layer.name: layer.weights[0] for layer in float_layers(model) if layer.operator in LAYERS}
    nodes: list[onnx.NodeProto] = []
    added = []
    for node in model.graph.node:
        nodes.append(node)
        # A weight that several layers share keeps its rows: the others need them.
        weight = wide.get(node.name)
        if weight is None or weight not in tensors or readers.count(weight) > 1:
            continue
        is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        stored = numpy_helper.to_array(tensors[weight])
        values = np.array(stored.T if is_transposed else stored)  # (..., before, after)
        if values.shape[-2] < LEAST * n_inputs:
            continue
        size = np.abs(np.moveaxis(values, -2, 0)).reshape(values.shape[-2], -1).max(axis=1)
        rows = np.sort(np.argsort(-size, kind="stable")[:n_inputs])
        name, total = f"{node.name}.outliers", node.output[0]
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(rows.astype(np.int64), f"{name}.rows"),
                numpy_helper.from_array(np.ascontiguousarray(values[..., rows, :]), f"{name}.weight"),
            ]
        )
        values[..., rows, :] = 0
        rest = np.ascontiguousarray(values.T if is_transposed else values)
        tensors[weight].CopyFrom(numpy_helper.from_array(rest, weight))
        node.output[0] = f"{name}.rest"
        # A Sum and no Add: that would be fused with one of the products, which then is no layer of its own any more.
        nodes += [
            helper.make_node("Gather", [node.input[0], f"{name}.rows"], [f"{name}.inputs"], f"{name}.gather", axis=-1),
            helper.make_node("MatMul", [f"{name}.inputs", f"{name}.weight"], [f"{name}.product"], name),
            helper.make_node("Sum", [f"{name}.rest", f"{name}.product"], [total], f"{name}.sum"),
        ]
        added.append(name)
    if not added:
        raise UnsupportedError(
            f"`outliers` must be at most a {LEAST}th of the inputs of some linear layer, got outliers={n_inputs}. Take "
            "fewer, or 0."
        )
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return FloatGraph(replace(source.full, onnx=model.SerializeToString(deterministic=True)), source.task), tuple(added)
