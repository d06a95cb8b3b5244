"""Weights that are a matrix for every channel, as layers with individual maps have them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from onnx import helper, numpy_helper

from tsdistill.quantization.affine import symmetric_grid
from tsdistill.quantization.layers import Layer

BLOCKS_SINCE = 21
"""The ONNX operator set that knows scales per block, and 4 bits."""


def scale_every_matrix(model: onnx.ModelProto, source: onnx.ModelProto, wanted: Sequence[Layer], bits: int) -> None:
    """Give weights (channel, before, after) of a quantized graph a scale for every channel and output, in place.

    The quantizer gives them one for every `after` (dynamic) or `before` (static), with which ONNX Runtime does not
    multiply them: its integer kernels take scales of (channel, 1, after). To the standard these are one block of all
    `before`.

    Args:
        model: What the quantizer made with a scale per output.
        source: The float graph it was made from.
        wanted: Layers that it quantized.
        bits: Of a weight, 7 or 8.
    """
    names = {layer.weights[0] for layer in wanted if layer.operator == "MatMul"}
    matrices = {
        tensor.name: tensor for tensor in source.graph.initializer if tensor.name in names and len(tensor.dims) == 3
    }
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, tensor in matrices.items():
        weight = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        grid = symmetric_grid(weight.abs().amax(dim=1, keepdim=True), bits=bits)
        parts = {"quantized": grid.quantize(weight).to(torch.int8), "scale": grid.scale}
        parts["zero_point"] = torch.zeros_like(grid.scale, dtype=torch.int8)
        for part, values in parts.items():
            tensors[f"{name}_{part}"].CopyFrom(numpy_helper.from_array(values.numpy(), f"{name}_{part}"))
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] == f"{name}_quantized":
                del node.attribute[:]
                along = {"axis": 1, "block_size": weight.shape[1]}
                node.attribute.extend(helper.make_attribute(*item) for item in along.items())
                allow_blocks(model)


def allow_blocks(model: onnx.ModelProto) -> None:
    """Raise the operator set of a graph, in place, to one that knows scales per block."""
    standard = next(opset for opset in model.opset_import if opset.domain in ("", "ai.onnx"))
    standard.version = max(standard.version, BLOCKS_SINCE)
