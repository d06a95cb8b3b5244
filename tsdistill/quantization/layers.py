"""Which layers an ONNX graph has, and which of them a method can bring to INT8."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from tsdistill.errors import ArtifactError, ConfigError, UnsupportedError, must, nearest
from tsdistill.exporting import labelled, quiet, stripped

WEIGHTS = {"Conv": (1,), "GRU": (1, 2), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (1,)}
"""Operators that may hold weights, and which of their inputs these are."""


@dataclass(frozen=True)
class Inability:
    """Why a method leaves layers alone.

    Attributes:
        layers: What they are, in the plural.
        reason: Goes on after a comma: "which ...".
        instead: The method that can do them.
    """

    layers: str
    reason: str
    instead: str


GRUS = Inability("GRU layers", "which ONNX Runtime multiplies in float only", "weight-only")
"""Its one integer operator for recurrent layers is that of an LSTM."""


@dataclass(frozen=True)
class Ability:
    """Which layers a method can round.

    Attributes:
        operators: Operators with weights that it quantizes.
        reasons: Why not the others, by operator.
    """

    operators: tuple[str, ...]
    reasons: Mapping[str, Inability] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """A layer of a graph: the name of its module, its operator, the initializers of its weights."""

    name: str
    operator: str
    weights: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def constant_folded(graph: bytes) -> bytes:
    """The graph with everything computed that depends on weights alone.

    Above all the order of a recurrent layer's gates: as long as that is computed in the graph, no quantizer sees the
    weights, and the layer silently stays in float.
    """
    model = onnx.load_from_string(graph)
    with tempfile.TemporaryDirectory() as folder, quiet():
        quant_pre_process(model, path := Path(folder) / "folded.onnx")
        return path.read_bytes()


def float_layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Every layer whose weights are constants in float, directly or through other operators."""
    constants = {tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    fixed = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        if fixed.issuperset(node.input):
            fixed.update(node.output)
            # What was rounded does not become float again by being multiplied with its scale.
            if node.op_type != "DequantizeLinear" and constants.intersection(node.input):
                constants.update(node.output)
    layers = []
    for node in model.graph.node:
        places = WEIGHTS.get(node.op_type, ())
        if places and all(node.input[place] in constants for place in places):
            layers.append(Layer(node.name, node.op_type, tuple(node.input[place] for place in places)))
    return tuple(layers)


def to_quantize(model: onnx.ModelProto, method: str, ability: Ability, keep_float: Sequence[str]) -> tuple[Layer, ...]:
    """The layers that a method shall quantize: all but those to keep.

    Raises:
        ConfigError: A name in `keep_float` is no layer.
        UnsupportedError: The method cannot do one of the layers, or there are none.
    """
    layers = float_layers(model)
    names = [layer.name for layer in layers]
    for name in keep_float:
        if name not in names:
            rule = "hold names of layers of this model"
            raise ConfigError(must("keep_float", rule, tuple(keep_float), f"{name!r} is none. {nearest(name, names)}"))
    wanted = tuple(layer for layer in layers if layer.name not in keep_float)
    if not wanted:
        reason = "without layers that have weights" if not layers else "of which every layer is kept in float"
        raise UnsupportedError(
            f"`method` must fit the model, got method={method!r} for one {reason}: there is nothing to quantize. Use "
            "td.export, or method='auto', which keeps float32."
        )
    unable = [layer for layer in wanted if layer.operator not in ability.operators]
    if unable:
        operator = unable[0].operator
        unknown = Inability(f"layers of type {operator}", "which this method does not round", "weight-only")
        inability = ability.reasons.get(operator, unknown)
        kept = tuple(sorted({*keep_float, *(layer.name for layer in unable)}))
        raise UnsupportedError(
            f"`method` must fit the model, got method={method!r} for one with {inability.layers} "
            f"({', '.join(layer.name for layer in unable)}), {inability.reason}. Use method={inability.instead!r}, or "
            f"leave them in float with keep_float={kept!r}."
        )
    return wanted


def check_complete(model: onnx.ModelProto, wanted: Sequence[Layer], kept: Sequence[str], method: str) -> None:
    """ArtifactError when a layer that should be quantized is in float, which quantizers do not report."""
    left = [layer for layer in float_layers(model) if layer.name not in kept]
    if left:
        raise ArtifactError(
            f"every one of {len(wanted)} layers must become INT8 with method={method!r}, got "
            f"{', '.join(f'{layer.name} ({layer.operator})' for layer in left)} left in float. Deploy it in float32 "
            "with td.export, and report this with the model's config."
        )


def finished(model: onnx.ModelProto, graph: bytes) -> bytes:
    """The file of a quantized model, saying of itself what the float one said."""
    return labelled(stripped(model), onnx.load_from_string(graph)).SerializeToString(deterministic=True)
