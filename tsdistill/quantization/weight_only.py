"""Weight-only INT8 and INT4: weights are stored in few bits and multiplied in float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tsdistill.models.layers import ChannelLinear
from tsdistill.quantization.base import Quantization, bits_among
from tsdistill.quantization.fake_quantized import Rounding
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.layers import Ability, check_complete, constant_folded, finished, to_quantize
from tsdistill.quantization.per_channel import allow_blocks
from tsdistill.spec import Tuned
from tsdistill.spec.limits import WidthOrZero

ABILITY = Ability(("Conv", "GRU", "Gemm", "LSTM", "MatMul"))

BlockSize = Literal[16, 32, 64, 128]
"""Weights that may share a scale in 4 bits."""

OUTPUTS = {"Conv": 0, "GRU": 1, "Gemm": 0, "LSTM": 1, "MatMul": -1}
"""Axis of a layer's outputs in its weights; -1 is the last."""

SUMMED = {"Conv": 1, "GRU": 2, "Gemm": 1, "LSTM": 2, "MatMul": -2}
"""Axis that a layer sums over, along which 4-bit weights are cut into blocks; -2 is the last but one."""


class WeightOnly(Quantization):
    """Weights of all layers are stored in 8 or 4 bits; products are in float, so that forecasts take no less time.

    Use it where the file or the memory counts, whatever the architecture. It is not held to `max_latency_increase`.
    Weights always have a scale per output. For the fields that all methods have see `Quantization`.

    Args:
        weight_bits: 8 or 4.
        block_size: Weights that share a scale in 4 bits.
        outliers: Inputs of every linear layer that has four times as many or more, those with the largest weights, that
            are multiplied in float: a few make 8 bits bearable where one weight is far larger than the others.

    Example:
        >>> WeightOnly(weight_bits=4).precision
        'int4-weights'
    """

    ability: ClassVar[Ability] = ABILITY
    held_to_latency: ClassVar[bool] = False
    mixes_layers: ClassVar[bool] = False

    late: ClassVar[frozenset[str]] = frozenset({"outliers"})

    method: Literal["weight-only"] = "weight-only"
    weight_bits: Annotated[int, bits_among(4, 8), Tuned(4, 8)] = 8
    block_size: BlockSize = 32
    outliers: WidthOrZero = 0

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return self.weight_bits

    @property
    def n_outliers(self) -> int:
        """`outliers`."""
        return self.outliers

    @property
    def precision(self) -> str:
        """Named by the bits: "int8-weights" or "int4-weights"."""
        return f"int{self.weight_bits}-weights"

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """Both numbers of bits."""
        form: WeightOnly = budget.exchanged(cls)
        return {f"weight-only-{bits}": form.replace(weight_bits=bits) for bits in (8, 4)}

    def graph(self, source: FloatGraph) -> bytes:
        """The graph with weights in few bits."""
        return weight_only_graph(
            source.graph, weight_bits=self.weight_bits, block_size=self.block_size, keep_float=self.keep_float
        )

    def rounding(self) -> Rounding:
        """Weights alone."""
        return Rounding(
            (nn.Linear, ChannelLinear, nn.LSTM, nn.GRU, nn.Conv1d),
            self.weight_bits,
            block_size=self.block_size,
            keep_float=self.keep_float,
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With both numbers of bits."""
        return (cls(), cls(weight_bits=4, block_size=16))


def weight_only_graph(
    graph: bytes, *, weight_bits: int = 8, block_size: int = 32, keep_float: Sequence[str] = ()
) -> bytes:
    """The same graph with its weights in 8 or 4 bits; the runtime brings them back to float while it forecasts.

    w' = q * scale, in the standard operator DequantizeLinear: one scale per output of a layer in 8 bits (q of -127 ...
    127), one per block of `block_size` summed weights and output in 4 bits (q of -7 ... 7) where there are more.

    Args:
        graph: An fp32 ONNX file.
        weight_bits: 8 or 4.
        block_size: Weights that share a scale in 4 bits.
        keep_float: Names of layers that stay as they are.

    Returns:
        An ONNX file that takes and gives what `graph` did.

    Raises:
        ConfigError: A name in `keep_float` is no layer.
        UnsupportedError: There is no layer to quantize.
        ArtifactError: A layer stayed in float.
    """
    model = onnx.load_from_string(constant_folded(graph))
    wanted = to_quantize(model, "weight-only", ABILITY, keep_float)
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    names = {layer.name for layer in wanted}
    made: dict[tuple[str, str], str] = {}
    nodes, tensors = [], []
    for node in model.graph.node:
        if node.name in names:
            layer = next(layer for layer in wanted if layer.name == node.name)
            for place, name in enumerate(node.input):
                if name not in layer.weights or name not in arrays:
                    continue
                # Layers may share a weight, each of them along axes of its own.
                if (name, node.op_type) not in made:
                    weight = numpy_helper.to_array(arrays[name])
                    values, scale, along = _rounded(weight, node.op_type, weight_bits, block_size)
                    target = f"{name}.{node.op_type.lower()}"
                    tensors += [
                        _tensor(values, f"{target}.q", weight_bits),
                        numpy_helper.from_array(scale, f"{target}.s"),
                    ]
                    # The signature of make_node mixes its own keywords with the attributes of operators.
                    inputs: list[str] = [f"{target}.q", f"{target}.s"]
                    nodes.append(helper.make_node("DequantizeLinear", inputs, [target], **along))  # type: ignore[arg-type]
                    made[name, node.op_type] = target
                node.input[place] = made[name, node.op_type]
        nodes.append(node)
    used = {name for node in nodes for name in node.input} | {port.name for port in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*kept, *tensors])
    if weight_bits == 4 or any(attribute.name == "block_size" for node in nodes for attribute in node.attribute):
        allow_blocks(model)
    check_complete(model, wanted, keep_float, "weight-only")
    return finished(model, graph)


def _rounded(
    weight: np.ndarray, operator: str, bits: int, block_size: int
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Integers, scales, and the attributes that say along which axis these lie."""
    top = 2 ** (bits - 1) - 1
    # A block never spans the taps of a filter: short sums would have as many scales as weights. Only blocks have
    # scales for both directions of a recurrent layer, and for every map of individual ones: with 8 bits a block is a
    # whole sum.
    two_ways = operator in ("GRU", "LSTM") and len(weight) == 2
    per_channel = operator == "MatMul" and weight.ndim == 3
    if bits == 8 and per_channel:
        block_size = weight.shape[SUMMED[operator]]
    if not per_channel and (bits == 8 or (weight.shape[SUMMED[operator]] <= block_size and not two_ways)):
        axis = OUTPUTS[operator] % weight.ndim
        scale = _scale(np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis)), top)
        wide = scale.reshape([-1 if other == axis else 1 for other in range(weight.ndim)])
        return np.round(weight / wide).astype(np.int8), scale, {"axis": axis}
    axis = SUMMED[operator] % weight.ndim
    n_blocks = -(-weight.shape[axis] // block_size)
    moved = np.moveaxis(weight, axis, 0)
    padded = np.zeros((n_blocks * block_size, *moved.shape[1:]), weight.dtype)
    padded[: len(moved)] = moved
    largest = np.abs(padded).reshape(n_blocks, block_size, *padded.shape[1:]).max(axis=1)
    scale = _scale(np.moveaxis(largest, 0, axis), top)
    wide = np.repeat(scale, block_size, axis=axis).take(np.arange(len(moved)), axis=axis)
    return np.round(weight / wide).astype(np.int8), scale, {"axis": axis, "block_size": block_size}


def _scale(largest: np.ndarray, top: int) -> np.ndarray:
    """Largest / top; 1 where all weights are zero, or so small that the scale would not be a normal number."""
    scale = largest / top
    return np.where(scale < np.finfo(np.float32).tiny, 1.0, scale).astype(np.float32)


def _tensor(values: np.ndarray, name: str, bits: int) -> TensorProto:
    if bits == 8:
        return numpy_helper.from_array(values, name)
    # Two weights a byte, the first in the low half.
    nibbles = (values.ravel() & 0xF).astype(np.uint8)
    nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, np.uint8))
    packed = (nibbles[::2] | (nibbles[1::2] << 4)).tobytes()
    return helper.make_tensor(name, TensorProto.INT4, values.shape, packed, raw=True)
