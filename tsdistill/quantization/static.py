"""Static INT8: convolutions and linear layers multiply 8-bit integers in ranges found beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from torch import nn

from tsdistill.errors import ArtifactError
from tsdistill.exporting import quiet
from tsdistill.models.base import Forecaster
from tsdistill.models.layers import ChannelLinear
from tsdistill.quantization.base import Quantization, bits_among
from tsdistill.quantization.calibration import CALIBRATED, Ranges, digest_of_windows
from tsdistill.quantization.fake_quantized import Rounding
from tsdistill.quantization.float_graph import FloatGraph
from tsdistill.quantization.layers import (
    GRUS,
    Ability,
    Inability,
    check_complete,
    constant_folded,
    finished,
    to_quantize,
)
from tsdistill.quantization.observers import Observer
from tsdistill.quantization.per_channel import scale_every_matrix
from tsdistill.spec.limits import Count, WidthOrZero

ABILITY = Ability(
    CALIBRATED,
    {"LSTM": Inability("LSTM layers", "which ONNX Runtime cannot run on calibrated ranges", "dynamic"), "GRU": GRUS},
)


class Static(Quantization):
    """Convolutions and linear layers multiply integers; activations are rounded in the range they had in training data.

    Use it for convolutions, which nothing else makes faster, and for transformers and MLPs; not for LSTMs and GRUs.
    Windows of a batch never influence one another. For the fields that all methods have see `Quantization`.

    Args:
        weight_bits: 7 forecasts the same on every processor. Those without VNNI instructions add products of 8-bit
            weights in 16 bits, which overflow: take 8 only for machines that are known to have them.
        per_channel: One weight scale per output instead of one per layer: a little larger, and more exact.
        n_calibration: Training windows, spread over time, that ranges are found on.
        calibration: Range of an activation: all it was seen to have ("min-max"), without the rarest values
            ("percentile"), the one that keeps most of its distribution ("entropy"), or the one in which rounding and
            clamping together make the smallest squared error ("mse").
        outliers: Inputs of every linear layer that has four times as many or more, those with the largest weights, that
            are multiplied in float: a few make 8 bits bearable where one weight is far larger than the others.

    Example:
        >>> Static(calibration="mse").bits
        7
    """

    ability: ClassVar[Ability] = ABILITY

    late: ClassVar[frozenset[str]] = frozenset({"outliers"})

    method: Literal["static"] = "static"
    weight_bits: Annotated[int, bits_among(7, 8)] = 7
    per_channel: bool = True
    n_calibration: Count = 128
    calibration: Observer = "min-max"
    outliers: WidthOrZero = 0

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return self.weight_bits

    @property
    def n_outliers(self) -> int:
        """`outliers`."""
        return self.outliers

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """One form, with the bits of the budget."""
        return {"static": budget.exchanged(cls).replace(weight_bits=budget.bits)}

    def graph(self, source: FloatGraph) -> bytes:
        """The graph with integer products on calibrated ranges."""
        # Refused before calibration takes its time.
        to_quantize(onnx.load_from_string(constant_folded(source.graph)), self.method, ABILITY, self.keep_float)
        return static_graph(
            source.graph,
            source.ranges(self.n_calibration, self.calibration),
            per_channel=self.per_channel,
            weight_bits=self.weight_bits,
            keep_float=self.keep_float,
        )

    def details(self, source: FloatGraph) -> dict[str, Any]:
        """With the digest of the windows that gave the ranges."""
        windows = source.calibration_windows(self.n_calibration)
        return {**super().details(source), "calibration_windows": digest_of_windows(windows)}

    def rounding(self) -> Rounding:
        """What convolutions and linear layers read, their weights, and what convolutions give."""
        return Rounding(
            (nn.Linear, ChannelLinear, nn.Conv1d),
            self.weight_bits,
            per_channel=self.per_channel,
            keep_float=self.keep_float,
            rounds_inputs=True,
            rounds_outputs_of=(nn.Conv1d,),
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With each way to calibrate."""
        return (cls(), cls(weight_bits=8, per_channel=False), cls(calibration="mse", n_calibration=31))


def convolves(forecaster: Forecaster, keep_float: Sequence[str] = ()) -> bool:
    """Whether a forecaster has convolutions to round, which static INT8 alone makes faster."""
    modules = forecaster.named_modules()
    return any(isinstance(module, nn.Conv1d) and name not in keep_float for name, module in modules)


def static_graph(
    graph: bytes, ranges: Ranges, *, per_channel: bool = True, weight_bits: int = 7, keep_float: Sequence[str] = ()
) -> bytes:
    """The same graph with convolutions and linear layers in INT8, weights and activations.

    Layers take and give integers between QuantizeLinear and DequantizeLinear, which the runtime fuses; linear layers
    give float. Products of two activations, in attention, stay in float.

    Args:
        graph: An fp32 ONNX file.
        ranges: Of this graph, from `ranges_of`.
        per_channel: One weight scale per output of a layer instead of one per layer.
        weight_bits: 7 or 8; 8 overflows on processors without VNNI instructions.
        keep_float: Names of layers that stay as they are.

    Returns:
        An ONNX file that takes and gives what `graph` did.

    Raises:
        ConfigError: A name in `keep_float` is no layer.
        UnsupportedError: There is no layer to quantize, or an LSTM or a GRU among them.
        ArtifactError: A layer stayed in float.
    """
    plain = onnx.load_from_string(constant_folded(graph))
    wanted = to_quantize(plain, "static", ABILITY, keep_float)
    with quiet():
        quantizer = QDQQuantizer(
            onnx.shape_inference.infer_shapes(plain),
            per_channel,
            weight_bits == 7,
            QuantType.QInt8,
            QuantType.QUInt8,
            ranges,
            [layer.name for layer in wanted],
            [],
            list(ABILITY.operators),
            {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        quantizer.quantize_model()
        model = quantizer.model.model
    if per_channel:
        scale_every_matrix(model, plain, wanted, weight_bits)
    check_complete(model, wanted, keep_float, "static")
    rounded = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    names = {layer.name for layer in wanted}
    half = [node.name for node in model.graph.node if node.name in names and not rounded.issuperset(node.input[:2])]
    if half:
        raise ArtifactError(
            f"every layer must take integers with method='static', got float activations or weights in "
            f"{', '.join(half)}. Deploy it in float32 with td.export, and report this with the model's config."
        )
    return finished(model, graph)
