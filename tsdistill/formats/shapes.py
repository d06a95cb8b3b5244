"""The shapes that operators give, of those that can make much out of little and those that lie between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tsdistill.formats.graphs import Node, Tensor

Shape = tuple[int, ...]
Numbers = tuple[int | float, ...]


@dataclass(frozen=True)
class Value:
    """A value of a graph: its shape if that is known, its number of elements, its content if that can be a shape."""

    shape: Shape | None
    count: int
    is_constant: bool
    numbers: Numbers | None = None


BROADCASTS = frozenset(
    {
        *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater"),
        *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub"),
        *("Sum", "Where", "Xor"),
    }
)
_LIKE_FIRST = frozenset(
    {
        *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BatchNormalization", "BitwiseNot", "Cast"),
        *("CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "CumProd", "CumSum", "DequantizeLinear", "Dropout"),
        *("DynamicQuantizeLinear", "Elu", "Erf", "Exp", "EyeLike", "Floor", "Gelu", "GroupNormalization"),
        *("HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN", "LRN"),
        *("LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization"),
        *("Mish", "Neg", "Not", "QuantizeLinear", "RMSNormalization", "Reciprocal", "Relu", "ReverseSequence"),
        *("RotaryEmbedding", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid"),
        *("Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh"),
        *("TensorScatter", "ThresholdedRelu", "Trilu"),
    }
)


def _shape_of(value: Value | None) -> Shape:
    if value is None or value.shape is None:
        raise ValueError("unknown")
    return value.shape


def _numbers_of(value: Value | None) -> Shape:
    if value is None or value.numbers is None:
        raise ValueError("unknown")
    return tuple(int(number) for number in value.numbers)


def _together(*shapes: Shape) -> Shape:
    """The shape of a broadcast."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    axes = []
    for sizes in zip(*padded, strict=True):
        others = {size for size in sizes if size != 1}
        if len(others) > 1:
            raise ValueError("no broadcast")
        axes.append(others.pop() if others else 1)
    return tuple(axes)


def _broadcast(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _together(*(_shape_of(value) for value in inputs if value is not None))


def _like_first(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _shape_of(inputs[0])


def _matmul(node: Node, inputs: Sequence[Value | None]) -> Shape:
    left, right = _shape_of(inputs[0]), _shape_of(inputs[1])
    rows = () if len(left) == 1 else (left[-2],)
    columns = () if len(right) == 1 else (right[-1],)
    return (*_together(left[:-2], right[:-2]), *rows, *columns)


def _gemm(node: Node, inputs: Sequence[Value | None]) -> Shape:
    left, right = _shape_of(inputs[0]), _shape_of(inputs[1])
    return left[1 if node.attributes.get("transA") else 0], right[0 if node.attributes.get("transB") else 1]


def _transposed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape_of(inputs[0])
    return tuple(shape[axis] for axis in node.attributes.get("perm") or reversed(range(len(shape))))


def _reshaped(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, wanted = _shape_of(inputs[0]), list(_numbers_of(inputs[1]))
    if not node.attributes.get("allowzero"):
        wanted = [shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        rest = -math.prod(wanted)
        wanted[wanted.index(-1)] = math.prod(shape) // rest if rest else 0
    if math.prod(wanted) != math.prod(shape):
        raise ValueError("another number of elements")
    return tuple(wanted)


def _axes(node: Node, inputs: Sequence[Value | None], rank: int) -> set[int] | None:
    """Axes as an attribute, as older graphs have them, or as the second input."""
    given = node.attributes.get("axes")
    if given is None and len(inputs) > 1 and inputs[1] is not None:
        given = _numbers_of(inputs[1])
    return None if given is None else {axis % rank for axis in given}


def _squeezed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape_of(inputs[0])
    axes = _axes(node, inputs, len(shape))
    return tuple(size for axis, size in enumerate(shape) if (size != 1 if axes is None else axis not in axes))


def _unsqueezed(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = list(_shape_of(inputs[0]))
    given = node.attributes.get("axes") or _numbers_of(inputs[1])
    for axis in sorted(axis % (len(shape) + len(given)) for axis in given):
        shape.insert(axis, 1)
    return tuple(shape)


def _concatenated(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shapes = [_shape_of(value) for value in inputs]
    axis = node.attributes["axis"] % len(shapes[0])
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _tiled(node: Node, inputs: Sequence[Value | None]) -> Shape:
    pairs = zip(_shape_of(inputs[0]), _numbers_of(inputs[1]), strict=True)
    return tuple(size * repeat for size, repeat in pairs)


def _padded(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = list(_shape_of(inputs[0]))
    pads = node.attributes.get("pads") or _numbers_of(inputs[1])
    axes = list(range(len(shape)))
    if len(inputs) > 3 and inputs[3] is not None:
        axes = [axis % len(shape) for axis in _numbers_of(inputs[3])]
    for place, axis in enumerate(axes):
        shape[axis] += pads[place] + pads[place + len(axes)]
    return tuple(shape)


def _gathered(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, places = _shape_of(inputs[0]), _shape_of(inputs[1])
    axis = node.attributes.get("axis", 0) % len(shape)
    return (*shape[:axis], *places, *shape[axis + 1 :])


def _gathered_nd(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, places = _shape_of(inputs[0]), _shape_of(inputs[1])
    return (*places[:-1], *shape[node.attributes.get("batch_dims", 0) + places[-1] :])


def _range(node: Node, inputs: Sequence[Value | None]) -> Shape:
    contents = [value.numbers if value is not None else None for value in inputs]
    (start,), (limit,), (step,) = (numbers or () for numbers in contents)
    return (max(0, math.ceil((limit - start) / step)),)


def _resized(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = list(_shape_of(inputs[0]))
    axes = node.attributes.get("axes") or range(len(shape))
    if len(inputs) > 3 and inputs[3] is not None:
        for axis, size in zip(axes, _numbers_of(inputs[3]), strict=True):
            shape[axis] = size
        return tuple(shape)
    scales = inputs[min(2, len(inputs) - 1)]
    if scales is None or scales.numbers is None:
        raise ValueError("unknown")
    for axis, scale in zip(axes, scales.numbers, strict=True):
        shape[axis] = int(shape[axis] * scale)
    return tuple(shape)


def _sliced(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = list(_shape_of(inputs[0]))
    starts, ends = _numbers_of(inputs[1]), _numbers_of(inputs[2])
    axes = _numbers_of(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else range(len(starts))
    steps = _numbers_of(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        shape[axis] = len(range(shape[axis])[start:end:step])
    return tuple(shape)


def _reduced(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape = _shape_of(inputs[0])
    axes = _axes(node, inputs, len(shape))
    if not axes:
        if node.attributes.get("noop_with_empty_axes"):
            return shape
        axes = set(range(len(shape)))
    if node.attributes.get("keepdims", 1):
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _convolved(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, kernel = _shape_of(inputs[0]), _shape_of(inputs[1])
    rank = len(shape) - 2
    pads = node.attributes.get("pads") or (0,) * 2 * rank
    strides = node.attributes.get("strides") or (1,) * rank
    dilations = node.attributes.get("dilations") or (1,) * rank
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return (shape[0], kernel[0], *shape[2:])
    sizes = [
        (shape[2 + axis] + pads[axis] + pads[axis + rank] - dilations[axis] * (kernel[2 + axis] - 1) - 1)
        // strides[axis]
        + 1
        for axis in range(rank)
    ]
    return (shape[0], kernel[0], *(max(size, 0) for size in sizes))


def _pooled(node: Node, inputs: Sequence[Value | None]) -> Shape:
    if node.attributes.get("ceil_mode") or node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise ValueError("rounded up")
    shape, kernel = _shape_of(inputs[0]), node.attributes["kernel_shape"]
    weights = Value((shape[1], shape[1], *kernel), 0, False)
    return _convolved(node, (inputs[0], weights))


def _recurrent(node: Node, inputs: Sequence[Value | None]) -> Shape:
    first, second, _ = _shape_of(inputs[0])
    n_directions = 2 if node.attributes.get("direction") == b"bidirectional" else 1
    hidden = node.attributes["hidden_size"]
    if node.attributes.get("layout"):
        return first, second, n_directions, hidden
    return first, n_directions, second, hidden


def _best(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return _reduced(
        node._replace(attributes={"axes": (node.attributes.get("axis", 0),), **node.attributes}), inputs[:1]
    )


def _deconvolved(node: Node, inputs: Sequence[Value | None]) -> Shape:
    shape, kernel = _shape_of(inputs[0]), _shape_of(inputs[1])
    rank = len(shape) - 2
    if node.attributes.get("output_shape"):
        return (shape[0], kernel[1], *node.attributes["output_shape"][-rank:])
    more = node.attributes.get("output_padding") or (0,) * rank
    strides = node.attributes.get("strides") or (1,) * rank
    dilations = node.attributes.get("dilations") or (1,) * rank
    sizes = [
        strides[axis] * (shape[2 + axis] - 1) + more[axis] + (kernel[2 + axis] - 1) * dilations[axis] + 1
        for axis in range(rank)
    ]
    return (shape[0], kernel[1] * node.attributes.get("group", 1), *sizes)


def _einsum(node: Node, inputs: Sequence[Value | None]) -> Shape:
    terms, arrow, result = node.attributes["equation"].decode().replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for letters, value in zip(terms.split(","), inputs, strict=True):
        sizes |= {
            letter: max(size, sizes.get(letter, 1)) for letter, size in zip(letters, _shape_of(value), strict=True)
        }
    if not arrow:
        result = "".join(sorted(letter for letter in sizes if terms.count(letter) == 1))
    return tuple(sizes[letter] for letter in result)


def _one_hot(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return (*_shape_of(inputs[0]), *_numbers_of(inputs[1]))


def _shape_shape(node: Node, inputs: Sequence[Value | None]) -> Shape:
    return (len(_shape_of(inputs[0])[node.attributes.get("start", 0) : node.attributes.get("end")]),)


def _written(node: Node, inputs: Sequence[Value | None]) -> Shape:
    value = next(iter(node.attributes.values()))
    return value.shape if isinstance(value, Tensor) else (len(value),) if isinstance(value, tuple) else ()


RULES: dict[str, Callable[[Node, Sequence[Value | None]], Shape]] = {
    **dict.fromkeys(BROADCASTS, _broadcast),
    **dict.fromkeys(_LIKE_FIRST, _like_first),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _matmul),
    **dict.fromkeys(("Conv", "ConvInteger"), _convolved),
    **{
        f"Reduce{name}": _reduced
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    **dict.fromkeys(("ArgMax", "ArgMin"), _best),
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pooled),
    **dict.fromkeys(("DynamicQuantizeLSTM", "GRU", "LSTM", "RNN"), _recurrent),
    "Concat": _concatenated,
    "Constant": _written,
    "ConstantOfShape": lambda node, inputs: _numbers_of(inputs[0]),
    "ConvTranspose": _deconvolved,
    "Einsum": _einsum,
    "Expand": lambda node, inputs: _together(_shape_of(inputs[0]), _numbers_of(inputs[1])),
    "Gather": _gathered,
    "GatherElements": lambda node, inputs: _shape_of(inputs[1]),
    "GatherND": _gathered_nd,
    "Gemm": _gemm,
    "OneHot": _one_hot,
    "Pad": _padded,
    "Range": _range,
    "Reshape": _reshaped,
    **dict.fromkeys(("Resize", "Upsample"), _resized),
    "Shape": _shape_shape,
    "Size": lambda node, inputs: (),
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Tile": _tiled,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
"""The shape that an operator gives; an error where it cannot be told."""
