"""Whether the weights of a graph are numbers: NaN and infinities are only of use in masks and bounds."""

from __future__ import annotations

from tsdistill.formats.errors import FormatError
from tsdistill.formats.graphs import Graph, Tensor
from tsdistill.formats.operators import PRODUCTS

_MOVES = frozenset(
    {
        *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)

_FLOATS = {1: (4, 0x7F, 0x80), 10: (2, 0x7C, 0x00), 11: (8, 0x7F, 0xF0), 16: (2, 0x7F, 0x80)}
"""Of float, float16, double and bfloat16: bytes, and the bits that are all set, in the highest byte and the one below,
where a number is NaN or infinite."""


def check_finite(graph: Graph) -> None:
    """FormatError when weights are NaN or infinite.

    A constant of 0, 1 and infinities is a mask, and a single number may be a bound; either is refused as well where it
    is multiplied.
    """
    multiplied: set[str] = set()
    for node in reversed(graph.nodes):
        if node.operator in PRODUCTS:
            # The fourth input of Attention is a mask.
            multiplied.update(node.inputs[:3] if node.operator == "Attention" else node.inputs)
        elif node.operator in _MOVES and not multiplied.isdisjoint(node.outputs):
            multiplied.update(node.inputs[:1] if node.operator != "Concat" else node.inputs)
    for tensor in graph.constants():
        if not _has_only_numbers(tensor) and (tensor.name in multiplied or not _is_mask(tensor)):
            raise FormatError(f"its weights {tensor.name[:80]!r} are not finite (NaN or infinite)")


def _has_only_numbers(tensor: Tensor) -> bool:
    if tensor.dtype not in _FLOATS or (not tensor.is_raw and tensor.dtype not in (1, 11)):
        return True
    width, high, below = _FLOATS[tensor.dtype]
    content = memoryview(tensor.content)
    candidates = {top for top in range(256) if top & high == high}
    if candidates.isdisjoint(set(content[width - 1 :: width])):
        return True
    pairs = zip(content[width - 1 :: width], content[width - 2 :: width], strict=True)
    return not any(top & high == high and lower & below == below for top, lower in pairs)


def _is_mask(tensor: Tensor) -> bool:
    """Whether it is one number, or of 0, 1, -1 and infinities only."""
    width = _FLOATS[tensor.dtype][0]
    if len(tensor.content) == width:
        return True
    content = memoryview(tensor.content)
    words = set(content.cast("H") if width == 2 else content.cast("I") if width == 4 else content.cast("Q"))
    return words <= _MASKS[tensor.dtype]


def _words(one: int, infinity: int, bits: int) -> set[int]:
    sign = 1 << (bits - 1)
    return {0, sign, one, one | sign, infinity, infinity | sign}


_MASKS = {
    1: _words(0x3F800000, 0x7F800000, 32),
    10: _words(0x3C00, 0x7C00, 16),
    11: _words(0x3FF0000000000000, 0x7FF0000000000000, 64),
    16: _words(0x3F80, 0x7F80, 16),
}
