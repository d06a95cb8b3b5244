"""Dynamic INT8: LSTM and linear layers multiply 8-bit integers, everything else stays float."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import nn

from tsdistill.errors import ArtifactError
from tsdistill.exporting import quiet
from tsdistill.models.layers import ChannelLinear
from tsdistill.quantization.base import Quantization, bits_among
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
from tsdistill.quantization.per_channel import scale_every_matrix
from tsdistill.spec.limits import WidthOrZero

BECOMES = {"LSTM": "DynamicQuantizeLSTM", "MatMul": "MatMulInteger", "Gemm": "MatMulInteger"}
"""Float operators with weights, and what each of them becomes."""

ABILITY = Ability(
    ("Gemm", "LSTM", "MatMul"),
    {"Conv": Inability("convolutions", "which dynamic INT8 makes slower than float32", "static"), "GRU": GRUS},
)


class Dynamic(Quantization):
    """LSTM and linear layers multiply integers; activations are rounded in the range they have in that very batch.

    Use it for LSTMs, transformers and MLPs; convolutions would become slower, GRUs have no
    integer form, and it refuses both. For the fields that
    all methods have see `Quantization`.

    Args:
        weight_bits: 7 forecasts the same on every processor. Those without VNNI instructions add products of 8-bit
            weights in 16 bits, which overflow: take 8 only for machines that are known to have them.
        per_channel: One weight scale per output instead of one per layer: a little larger, and more exact.
        isolate: Forecast one window at a time. Activations are scaled over the whole batch, so that other windows move
            a forecast a little; those of isolated windows cannot, at the price of throughput.
        outliers: Inputs of every linear layer that has four times as many or more, those with the largest weights, that
            are multiplied in float: a few make 8 bits bearable where one weight is far larger than the others.

    Example:
        >>> Dynamic(isolate=True).bits
        7
    """

    ability: ClassVar[Ability] = ABILITY

    late: ClassVar[frozenset[str]] = frozenset({"outliers"})

    method: Literal["dynamic"] = "dynamic"
    weight_bits: Annotated[int, bits_among(7, 8)] = 7
    per_channel: bool = True
    isolate: bool = False
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
    def is_isolated(self) -> bool:
        """`isolate`."""
        return self.isolate

    @classmethod
    def candidates(cls, budget: Quantization) -> dict[str, Quantization]:
        """One form, with the bits of the budget."""
        return {"dynamic": budget.exchanged(cls).replace(weight_bits=budget.bits)}

    def graph(self, source: FloatGraph) -> bytes:
        """The graph with integer products on ranges found while forecasting."""
        return dynamic_graph(
            source.graph, per_channel=self.per_channel, weight_bits=self.weight_bits, keep_float=self.keep_float
        )

    def rounding(self) -> Rounding:
        """What LSTM and linear layers read, the hidden state of an LSTM at every step, and their weights."""
        return Rounding(
            (nn.Linear, ChannelLinear, nn.LSTM),
            self.weight_bits,
            per_channel=self.per_channel,
            keep_float=self.keep_float,
            rounds_inputs=True,
        )

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """With each kind of scale, and isolated."""
        return (cls(), cls(weight_bits=8, per_channel=False), cls(isolate=True))


def dynamic_graph(
    graph: bytes, *, per_channel: bool = True, weight_bits: int = 7, keep_float: Sequence[str] = ()
) -> bytes:
    """The same graph with the weights of its LSTM and linear layers in INT8.

    Args:
        graph: An fp32 ONNX file.
        per_channel: One scale per output of a layer instead of one per layer.
        weight_bits: 7 or 8; 8 overflows on processors without VNNI instructions.
        keep_float: Names of layers that stay as they are.

    Returns:
        An ONNX file that takes and gives what `graph` did.

    Raises:
        ConfigError: A name in `keep_float` is no layer.
        UnsupportedError: There is no layer to quantize, or a convolution among them.
        ArtifactError: A layer stayed in float, which the quantizer itself does in silence.
    """
    folded = constant_folded(graph)
    plain = onnx.load_from_string(folded)
    wanted = to_quantize(plain, "dynamic", ABILITY, keep_float)
    # The quantizer makes a product and a sum of every Gemm before it looks at names.
    kept = [name for layer in keep_float for name in (layer, f"{layer}_MatMul")]
    with tempfile.TemporaryDirectory() as folder, quiet():
        (Path(folder) / "folded.onnx").write_bytes(folded)
        quantize_dynamic(
            Path(folder) / "folded.onnx",
            Path(folder) / "int8.onnx",
            op_types_to_quantize=list(ABILITY.operators),
            nodes_to_exclude=kept,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits == 7,
        )
        model = onnx.load(Path(folder) / "int8.onnx")
    if per_channel:
        scale_every_matrix(model, plain, wanted, weight_bits)
    check_complete(model, wanted, kept, "dynamic")
    counts = Counter(node.op_type for node in model.graph.node if node.op_type in BECOMES.values())
    expected = Counter(BECOMES[layer.operator] for layer in wanted)
    if counts != expected:
        raise ArtifactError(
            f"every LSTM and linear layer must become INT8, got {dict(counts)} instead of {dict(expected)}. Deploy it "
            "in float32 with td.export, and report this with the model's config."
        )
    return finished(model, graph)
