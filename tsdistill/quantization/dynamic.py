"""Dynamic INT8 of an ONNX graph: LSTM and linear layers multiply 8-bit integers, everything else stays float."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from tsdistill.errors import ArtifactError
from tsdistill.exporting import quiet
from tsdistill.quantization.layers import ABLE, check_complete, finished, folded, to_quantize
from tsdistill.quantization.per_channel import scale_every_matrix

BECOMES = {"LSTM": "DynamicQuantizeLSTM", "MatMul": "MatMulInteger", "Gemm": "MatMulInteger"}
"""Float operators with weights, and what each of them becomes."""


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
    source = folded(graph)
    plain = onnx.load_from_string(source)
    wanted = to_quantize(plain, "dynamic", keep_float)
    # The quantizer makes a product and a sum of every Gemm before it looks at names.
    kept = [name for layer in keep_float for name in (layer, f"{layer}_MatMul")]
    with tempfile.TemporaryDirectory() as folder, quiet():
        (Path(folder) / "folded.onnx").write_bytes(source)
        quantize_dynamic(
            Path(folder) / "folded.onnx",
            Path(folder) / "int8.onnx",
            op_types_to_quantize=list(ABLE["dynamic"]),
            nodes_to_exclude=kept,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits == 7,
        )
        model = onnx.load(Path(folder) / "int8.onnx")
    if per_channel:
        scale_every_matrix(model, plain, wanted, weight_bits)
    check_complete(model, wanted, kept, "dynamic")
    found = Counter(node.op_type for node in model.graph.node if node.op_type in BECOMES.values())
    expected = Counter(BECOMES[layer.operator] for layer in wanted)
    if found != expected:
        raise ArtifactError(
            f"every LSTM and linear layer must become INT8, got {dict(found)} instead of {dict(expected)}. Deploy it "
            "in float32 with td.export, and report this with the model's config."
        )
    return finished(model, graph)
