"""Which operators of a graph compute in floating point: in an INT8 graph, those that quantizing left."""

from __future__ import annotations

from collections import Counter

from tsdistill.formats import check_onnx

MOVES = frozenset(
    {
        *("Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "Pad", "Reshape", "ScatterND", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose"),
        *("Unsqueeze", "Where"),
    }
)
"""Operators that move, repeat or name values and compute none."""

INTEGERS = frozenset(
    {
        *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul"),
        *("MatMulInteger", "MatMulIntegerToFloat", "QAttention", "QGemm", "QLinearAdd", "QLinearConv", "QLinearMatMul"),
        *("QLinearMul", "QuantizeLinear"),
    }
)
"""Operators whose products are of integers, or that lead into and out of them."""


def float_operators(graph: bytes) -> dict[str, int]:
    """Operators that compute in floating point, and how many of each, in the order of their names.

    In an fp32 graph these are all that compute. In an INT8 graph they are those that stayed in float, such as softmax
    and layer norms, and the scaling around integer products. An operator whose inputs all come out of
    `DequantizeLinear` counts as integer: static quantization writes it so, and the runtime fuses the two.

    Args:
        graph: An ONNX file.

    Raises:
        ArtifactError: It is not one that may be run.

    Example:
        >>> from tsdistill.exporting import export
        >>> from tsdistill.models import SeasonalNaiveConfig
        >>> from tsdistill.testing import toy_signature
        >>> float_operators(export(SeasonalNaiveConfig(period=24).build(toy_signature())).onnx)
        {'Add': 2, 'Div': 1, 'Mul': 1, 'Sub': 2}
    """
    nodes = check_onnx(graph).nodes
    restored = {name for node in nodes if node.operator == "DequantizeLinear" for name in node.outputs}
    # A bias may stay in float or come as 32-bit integers; the first two inputs are what is multiplied.
    counts = Counter(
        node.operator
        for node in nodes
        if node.operator not in MOVES | INTEGERS and not (node.inputs and restored.issuperset(node.inputs[:2]))
    )
    return dict(sorted(counts.items()))
