"""How large the values of a graph become, told from the file alone: small files can ask for more than any machine has.

Every free axis counts as 1, as in the forecast of one window. Shapes are followed through the operators that can make
much out of little (broadcasts, products, Expand, Tile, Pad, ...), and whole numbers through those that compute shapes.
Where a shape is lost, a count that is surely reached goes on; of constants, which the runtime computes when it loads a
graph, a count that is surely not exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tsdistill.formats.errors import FormatError
from tsdistill.formats.graphs import MAX_NUMBERS, Graph, Node, Tensor
from tsdistill.formats.shapes import BROADCASTS, RULES, Numbers, Value

MAX_ELEMENTS = 2**28 - 1
"""Of one value for one window: a gibibyte in float32 is refused."""

MAX_CONSTANT = 2**26
"""Of all values together that are computed from constants alone."""

MAX_CONSTANT_WORK = 2**33
"""Multiplications of all matrix products of constants together."""


def check_sizes(graph: Graph) -> None:
    """FormatError when a value would have more elements than a forecaster can need."""
    values: dict[str, Value] = {
        name: Value(shape := tuple(1 if size is None else size for size in axes), math.prod(shape), False)
        for name, axes in graph.inputs.items()
    }
    values |= {name: _constant(tensor) for name, tensor in graph.tensors.items()}
    n_constant = n_products = 0
    for node in graph.nodes:
        inputs = [values.get(name) for name in node.inputs]
        value = _result(node, inputs)
        if value.count > MAX_ELEMENTS:
            raise FormatError(
                f"its node {node.operator} would make {_count(value.count)} numbers for one window, more than the "
                f"{MAX_ELEMENTS} allowed"
            )
        if value.is_constant and node.operator != "Constant":
            n_constant += value.count * len(node.outputs)
            n_products += _work(node, inputs)
        if n_constant > MAX_CONSTANT or n_products > MAX_CONSTANT_WORK:
            raise FormatError("its constants would take more memory or time to compute than a forecaster can need")
        for position, name in enumerate(node.outputs):
            count = value.count if value.is_constant else 1
            values[name] = value if position == 0 else Value(None, count, value.is_constant)


def _count(number: int) -> str:
    return str(number) if number < 10**15 else "more than 10^15"


def _constant(tensor: Tensor) -> Value:
    return Value(tensor.shape, math.prod(tensor.shape), True, tensor.numbers)


def _result(node: Node, inputs: Sequence[Value | None]) -> Value:
    present = [value for value in inputs if value is not None]
    is_constant = all(value.is_constant for value in present)
    numbers = _computed(node, inputs)
    try:
        rule = RULES.get(node.operator)
        shape = None if rule is None else rule(node, inputs)
    except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
        shape = None  # not as the operator asks for it: the runtime says so
    if shape is not None and (len(shape) > 64 or any(size < 0 for size in shape)):
        shape = None
    if shape is not None:
        return Value(shape, math.prod(shape), is_constant, numbers)
    asked = _asked(node, inputs)
    if is_constant and present:
        count = max(math.prod(max(value.count, 1) for value in present), asked)
        return Value(None, min(count, 2**62), True, numbers)
    least = max((value.count for value in present), default=1) if node.operator in BROADCASTS else 1
    if node.operator == "Concat":
        least = sum(value.count for value in present)
    return Value(None, min(max(least, asked), 2**62), is_constant, numbers)


def _asked(node: Node, inputs: Sequence[Value | None]) -> int:
    """Elements that an operator was asked for by a constant, whatever else it is given."""
    place = _SIZED_BY.get(node.operator)
    if place is None:
        return 1
    size = inputs[place] if place < len(inputs) and inputs else None
    if size is None or size.numbers is None:
        if size is not None and size.is_constant and size.count > 0:
            raise FormatError(f"its node {node.operator} makes values whose size cannot be told from the file")
        return 1
    return int(math.prod(max(abs(number), 1) for number in size.numbers))


_SIZED_BY = {
    **dict.fromkeys(("BlackmanWindow", "ConstantOfShape", "HammingWindow", "HannWindow"), 0),
    **dict.fromkeys(("CenterCropPad", "Col2Im", "DFT", "Expand", "OneHot", "Tile"), 1),
    **dict.fromkeys(("MaxUnpool",), 2),
    "Range": 1,
    **dict.fromkeys(("Resize", "Upsample"), -1),
}
"""The input of an operator that says how large its result is."""

_PASSED_ON = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that leave the numbers of a shape as they are."""


def _computed(node: Node, inputs: Sequence[Value | None]) -> Numbers | None:
    """The content of a few whole numbers, where they are known."""
    operator = node.operator
    if operator == "Constant":
        value = next(iter(node.attributes.values()))
        if isinstance(value, Tensor):
            return value.numbers
        return (value,) if isinstance(value, int) else value if _are_whole(value) else None
    if operator == "Shape" and inputs and inputs[0] is not None and inputs[0].shape is not None:
        return inputs[0].shape[node.attributes.get("start", 0) : node.attributes.get("end")]
    if operator == "Size" and inputs and inputs[0] is not None and inputs[0].shape is not None:
        return (inputs[0].count,)
    contents = [None if value is None else value.numbers for value in inputs]
    if operator in _PASSED_ON:
        return contents[0] if contents else None
    known = [numbers for numbers in contents if numbers is not None]
    if not known or len(known) != len(contents) or max(map(len, known)) > MAX_NUMBERS:
        return None
    if operator == "Concat":
        return sum(known, ())[: MAX_NUMBERS + 1]
    if operator == "Gather" and inputs[0] is not None and inputs[0].shape is not None and len(inputs[0].shape) == 1:
        return tuple(known[0][int(place)] for place in known[1] if -len(known[0]) <= place < len(known[0]))
    if operator in ("Add", "Sub", "Mul", "Div") and len(known) == 2:
        length = max(map(len, known))
        if not all(len(numbers) in (1, length) for numbers in known):
            return None
        left, right = (numbers * (length if len(numbers) == 1 else 1) for numbers in known)
        pairs = list(zip(left, right, strict=True))
        if operator == "Div":
            return tuple(one // other for one, other in pairs) if all(right) else None
        results = {"Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b}[operator]
        return tuple(max(-(2**63), min(2**63 - 1, results(one, other))) for one, other in pairs)
    if operator == "Slice" and len(known) in (3, 4, 5) and len(known[1]) == len(known[2]) == 1:
        step = int(known[4][0]) if len(known) == 5 and known[4] else 1
        return known[0][int(known[1][0]) : int(known[2][0]) : step] if step > 0 else None
    return None


def _are_whole(values: object) -> bool:
    return isinstance(values, tuple) and len(values) <= MAX_NUMBERS and all(isinstance(value, int) for value in values)


def _work(node: Node, inputs: Sequence[Value | None]) -> int:
    """Multiplications of a matrix product."""
    if node.operator not in ("Conv", "Einsum", "Gemm", "MatMul", "MatMulInteger") or len(inputs) < 2:
        return 0
    first, second = inputs[0], inputs[1]
    if first is None or second is None:
        return 0
    inner = first.shape[-1] if first.shape else 1
    return max(first.count, second.count) * max(second.count // max(inner, 1), 1) if second.shape else 0
