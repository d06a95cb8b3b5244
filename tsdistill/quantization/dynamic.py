"""Dynamic INT8 of an ONNX graph: LSTM and linear layers multiply 8-bit integers, everything else stays float."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from tsdistill.errors import ArtifactError, UnsupportedError
from tsdistill.exporting import labelled, quiet, stripped

LAYERS = {"LSTM": "DynamicQuantizeLSTM", "MatMul": "MatMulInteger", "Gemm": "MatMulInteger"}
"""Float operators with weights, and what each of them becomes."""


def dynamic_graph(graph: bytes, *, per_channel: bool, weight_bits: int = 7) -> bytes:
    """The same graph with the weights of its LSTM and linear layers in INT8.

    Args:
        graph: An fp32 ONNX file.
        per_channel: One scale per output of a layer instead of one per layer.
        weight_bits: 7 or 8; 8 overflows on processors without VNNI instructions.

    Returns:
        An ONNX file that takes and gives what `graph` did.

    Raises:
        UnsupportedError: There is no LSTM and no linear layer in it.
        ArtifactError: A layer stayed in float, which the quantizer itself does in silence.
    """
    float_model = onnx.load_from_string(graph)
    wanted = Counter(LAYERS[op] for op in weighted_layers(float_model))
    if not wanted:
        raise UnsupportedError(
            "`method` must fit the model, got method='dynamic' for one without LSTM and linear layers: there is "
            "nothing to quantize. Use td.export, or method='auto', which keeps float32."
        )
    with tempfile.TemporaryDirectory() as folder, quiet():
        # Folds the reordering of LSTM gates into the weights; without this an LSTM silently stays in float.
        quant_pre_process(float_model, Path(folder) / "folded.onnx")
        quantize_dynamic(
            Path(folder) / "folded.onnx",
            Path(folder) / "int8.onnx",
            op_types_to_quantize=sorted(LAYERS),
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits == 7,
        )
        model = stripped(onnx.load(Path(folder) / "int8.onnx"))
    found = Counter(node.op_type for node in model.graph.node if node.op_type in LAYERS.values())
    left = weighted_layers(model)
    if left or found != wanted:
        raise ArtifactError(
            f"every LSTM and linear layer must become INT8, got {dict(found)} instead of {dict(wanted)}"
            f"{f', with {left} left in float' if left else ''}. Deploy it in float32 with td.export, and report this "
            "with the model's config."
        )
    return labelled(model, float_model).SerializeToString(deterministic=True)


def weighted_layers(model: onnx.ModelProto) -> list[str]:
    """Operator of every LSTM and linear layer whose weights are constants, directly or through other operators."""
    constants = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
    return [node.op_type for node in model.graph.node if node.op_type in LAYERS and node.input[1] in constants]
