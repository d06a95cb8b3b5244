"""Operators that compute number by number, that move numbers, and that sum along axes."""

from __future__ import annotations

import functools

import numpy as np

from tsdistill.edge.cells import Expression, Number, View, spread
from tsdistill.edge.compiler import Compiler, broadcast, number, rule
from tsdistill.edge.static_graph import Operation
from tsdistill.errors import UnsupportedError

FORMULAS = {
    "Add": "({} + {})",
    "Sum": "({} + {})",
    "Sub": "({} - {})",
    "Mul": "({} * {})",
    "Div": "({} / {})",
    "Neg": "(-{})",
    "Sqrt": "sqrtf({})",
    "Exp": "expf({})",
    "Log": "logf({})",
    "Erf": "erff({})",
    "Sin": "sinf({})",
    "Cos": "cosf({})",
    "Atan": "atanf({})",
    "Abs": "fabsf({})",
    "Floor": "floorf({})",
    "Reciprocal": "(1.0f / {})",
    "Sigmoid": "gate_sigmoid({})",
    "Tanh": "gate_tanh({})",
    "Relu": "fmaxf({}, 0.0f)",
    "Max": "fmaxf({}, {})",
    "Min": "fminf({}, {})",
    "Greater": "({} > {})",
    "Less": "({} < {})",
    "IsNaN": "isnan({})",
    "Where": "({} ? {} : {})",
}
"""Number by number."""


def _elementwise(compiler: Compiler, node: Operation) -> None:
    if node.operator == "Sum" and len(node.inputs) != 2:
        raise UnsupportedError("an operator Sum must have two inputs to become C. Export another architecture.")
    if node.operator in ("Sigmoid", "Tanh"):
        compiler.kernels.add("gates")
    if node.operator in ("Greater", "Less", "IsNaN"):
        compiler.users[node.outputs[0]] = 1  # a truth value is only ever part of a formula
    broadcast(compiler, node, FORMULAS[node.operator])


for _operator in FORMULAS:
    rule(_operator)(_elementwise)


@rule("Pow")
def _power(compiler: Compiler, node: Operation) -> None:
    exponent = compiler.constant(node.inputs[1])
    if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0:
        compiler.kernels.add("square")
        shape = compiler.shape(node.outputs[0])
        operand = spread(compiler.value(node.inputs[0]), shape)
        compiler.give(node.outputs[0], Expression("square({})", (operand,), shape))
        return
    broadcast(compiler, node, "powf({}, {})")


@rule("Gelu")
def _gelu(compiler: Compiler, node: Operation) -> None:
    if node.attributes.get("approximate", b"none") != b"none":
        raise UnsupportedError("an operator Gelu must be the exact one to become C. Export another activation.")
    compiler.kernels.add("gelu")
    broadcast(compiler, node, "gelu({})")


@rule("Softplus")
def _softplus(compiler: Compiler, node: Operation) -> None:
    compiler.kernels.add("softplus")
    broadcast(compiler, node, "softplus({})")


@rule("CumSum")
def _running_sum(compiler: Compiler, node: Operation) -> None:
    """Along one axis: every slice is the one before it and what comes in."""
    shape = compiler.shape(node.outputs[0])
    axis = int(compiler.needed(node, 1, "axis").item()) % len(shape)
    if node.attributes.get("exclusive") or node.attributes.get("reverse"):
        raise UnsupportedError("an operator CumSum must add up from the first number on to become C.")
    value = compiler.stored(compiler.value(node.inputs[0]))
    buffer = compiler.new(int(np.prod(shape)))
    cells = buffer.cells.reshape(shape)
    for step in range(shape[axis]):
        here, before = ((*(slice(None),) * axis, slice(at, at + 1)) for at in (step, step - 1))
        piece = View(value.buffer, value.cells[here])
        target = View(buffer, cells[here])
        last = View(buffer, cells[before])
        compiler.assign(target, Expression("({} + {})", (last, piece), piece.shape) if step else piece)
    compiler.give(node.outputs[0], View(buffer, cells))


@rule("Clip")
def _clip(compiler: Compiler, node: Operation) -> None:
    formula = {1: "{}", 2: "fmaxf({}, {})", 3: "fminf(fmaxf({}, {}), {})"}[len([name for name in node.inputs if name])]
    broadcast(compiler, node, "fminf({}, {})" if node.inputs[1:2] == ("",) else formula)


@rule("Identity", "Dropout")
def _same(compiler: Compiler, node: Operation) -> None:
    compiler.move(node._replace(inputs=node.inputs[:1]), lambda cells: cells)


@rule("Cast")
def _cast(compiler: Compiler, node: Operation) -> None:
    if node.attributes.get("to") != 1:
        raise UnsupportedError("an operator Cast must give float32 to become C. Export another architecture.")
    _same(compiler, node)


@rule("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def _reshape(compiler: Compiler, node: Operation) -> None:
    shape = compiler.shape(node.outputs[0])
    compiler.move(node, lambda cells: cells.reshape(shape))


@rule("Expand")
def _expand(compiler: Compiler, node: Operation) -> None:
    shape = compiler.shape(node.outputs[0])
    compiler.move(node, lambda cells: np.broadcast_to(cells, shape))


@rule("Transpose")
def _transpose(compiler: Compiler, node: Operation) -> None:
    axes = node.attributes.get("perm")
    compiler.move(node, lambda cells: cells.transpose(axes))  # type: ignore[call-overload]


@rule("Slice")
def _slice(compiler: Compiler, node: Operation) -> None:
    starts, ends = (compiler.needed(node, position, "bounds").tolist() for position in (1, 2))
    axes = compiler.needed(node, 3, "axes").tolist() if node.inputs[3:4] not in ((), ("",)) else range(len(starts))
    steps = compiler.needed(node, 4, "steps").tolist() if node.inputs[4:5] not in ((), ("",)) else [1] * len(starts)
    where = [slice(None)] * len(compiler.shape(node.inputs[0]))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = compiler.shape(node.inputs[0])[axis]
        where[axis] = slice(start, None if step < 0 and end < -size else end, step)
    compiler.move(node, lambda cells: cells[tuple(where)])


@rule("Split")
def _split(compiler: Compiler, node: Operation) -> None:
    axis = int(str(node.attributes.get("axis", 0))) % len(compiler.shape(node.inputs[0]))
    start = 0
    for name in node.outputs:
        size = compiler.shape(name)[axis]
        where = [slice(None)] * len(compiler.shape(name))
        where[axis] = slice(start, start + size)
        compiler.move(node._replace(outputs=(name,)), functools.partial(_cut, where=tuple(where)))
        start += size


def _cut(cells: np.ndarray, where: tuple[slice, ...]) -> np.ndarray:
    return cells[where]


@rule("Gather")
def _gather(compiler: Compiler, node: Operation) -> None:
    axis = int(str(node.attributes.get("axis", 0))) % len(compiler.shape(node.inputs[0]))
    places = compiler.needed(node, 1, "places")
    steps = np.diff(places.reshape(-1)) if places.size > 1 else np.array([1])
    size = compiler.shape(node.inputs[0])[axis]
    if places.ndim == 0:
        compiler.move(node, lambda cells: cells[(slice(None),) * axis + (int(places),)])
    elif places.ndim == 1 and (steps == steps[0]).all() and steps[0] > 0:
        first = int(places[0]) % size
        stop = first + int(steps[0]) * (places.size - 1) + 1
        where = (*(slice(None),) * axis, slice(first, stop, int(steps[0])))
        compiler.move(node, lambda cells: cells[where])
    else:
        indices = places.reshape(-1) % size
        parts = [(slice(None),) * axis + (slice(int(index), int(index) + 1),) for index in indices]
        _join(compiler, node, [(node.inputs[0], part) for part in parts], axis, places.size)


@rule("Concat")
def _concat(compiler: Compiler, node: Operation) -> None:
    axis = int(str(node.attributes["axis"])) % len(compiler.shape(node.outputs[0]))
    _join(compiler, node, [(name, (slice(None),)) for name in node.inputs], axis, None)


@rule("Tile")
def _tile(compiler: Compiler, node: Operation) -> None:
    repeats = compiler.needed(node, 1, "repeats").tolist()
    shape = compiler.shape(node.inputs[0])
    doubled = tuple(size for pair in zip(repeats, shape, strict=True) for size in pair)
    spaced = tuple(size for pair in zip([1] * len(shape), shape, strict=True) for size in pair)
    out = compiler.shape(node.outputs[0])

    def tiled(cells: np.ndarray) -> np.ndarray:
        return np.broadcast_to(cells.reshape(spaced), doubled).reshape(out)

    value = compiler.stored(compiler.value(node.inputs[0]))
    moved = value.moved(tiled)
    if moved is None:
        spread_view = value.moved(lambda cells: np.broadcast_to(cells.reshape(spaced), doubled))
        assert spread_view is not None  # axes of one and repeats need no copy
        copy = compiler.whole_of(spread_view)
        moved = View(copy.buffer, copy.cells.reshape(out))
    compiler.give(node.outputs[0], moved)


def _join(
    compiler: Compiler, node: Operation, parts: list[tuple[str, tuple[slice, ...]]], axis: int, size: int | None
) -> None:
    """Parts one after the other along an axis."""
    final = compiler.shape(node.outputs[0])
    first = compiler.shape(parts[0][0])
    shape = final if size is None else (*first[:axis], size, *first[axis + 1 :])
    buffer = compiler.new(int(np.prod(shape)))
    cells = buffer.cells.reshape(shape)
    start = 0
    for name, where in parts:
        piece = compiler.value(name).moved(functools.partial(_cut, where=where))
        assert piece is not None  # a slice never needs a copy
        width = piece.shape[axis]
        target = cells[(slice(None),) * axis + (slice(start, start + width),)]
        compiler.assign(View(buffer, target), piece)
        start += width
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(final)))


@rule("Pad")
def _pad(compiler: Compiler, node: Operation) -> None:
    shape = compiler.shape(node.inputs[0])
    pads = [int(value) for value in compiler.needed(node, 1, "pads")]
    axes = list(range(len(shape)))
    if len(node.inputs) > 3 and node.inputs[3]:
        axes = [int(axis) % len(shape) for axis in compiler.needed(node, 3, "axes")]
    mode = node.attributes.get("mode", b"constant")
    out = compiler.shape(node.outputs[0])
    buffer = compiler.new(int(np.prod(out)))
    cells = buffer.cells.reshape(out)
    value = compiler.stored(compiler.value(node.inputs[0]))
    changed = [index for index, axis in enumerate(axes) if pads[index] or pads[index + len(axes)]]
    if mode not in (b"constant", b"edge") or len(changed) != 1 or min(pads) < 0:
        raise UnsupportedError("an operator Pad must pad one axis with a number or its edge to become C.")
    axis, before = axes[changed[0]], pads[changed[0]]
    lead = (slice(None),) * axis
    size = shape[axis]
    fill = compiler.value(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else Number("0.0f", ())
    for start, stop, edge in ((0, before, 0), (before, before + size, None), (before + size, out[axis], size - 1)):
        target = cells[(*lead, slice(start, stop))]
        if target.size == 0:
            continue
        if edge is None:
            source = value
        elif mode == b"constant":
            source = spread(fill, target.shape)  # type: ignore[assignment]
        else:
            source = spread(View(value.buffer, value.cells[(*lead, slice(edge, edge + 1))]), target.shape)  # type: ignore[assignment]
        compiler.assign(View(buffer, target), source)
    compiler.give(node.outputs[0], View(buffer, cells))


@rule("ReduceMean", "ReduceSum")
def _reduce(compiler: Compiler, node: Operation) -> None:
    value = compiler.value(node.inputs[0])
    rank = len(value.shape)
    if len(node.inputs) > 1 and node.inputs[1]:
        axes = {int(axis) % rank for axis in compiler.needed(node, 1, "axes")}
    else:
        axes = {int(axis) % rank for axis in node.attributes.get("axes", range(rank))}  # type: ignore[attr-defined]
    compiler.reduce(node.outputs[0], value, axes, node.operator == "ReduceMean")


@rule("AveragePool")
def _average(compiler: Compiler, node: Operation) -> None:
    """A mean over windows along the last axis, without padding."""
    kernel, strides = node.attributes["kernel_shape"], node.attributes.get("strides", [1])
    pads = node.attributes.get("pads", [0, 0])
    if len(kernel) != 1 or any(pads) or node.attributes.get("ceil_mode"):  # type: ignore[arg-type]
        raise UnsupportedError("an operator AveragePool must have one axis and no padding to become C.")
    view = compiler.stored(compiler.value(node.inputs[0]))
    cells = np.lib.stride_tricks.sliding_window_view(view.cells, kernel[0], axis=-1)[..., :: strides[0], :]  # type: ignore[index]
    compiler.reduce(node.outputs[0], View(view.buffer, cells), {cells.ndim - 1}, True)


@rule("QuantizeLinear")
def _round(compiler: Compiler, node: Operation) -> None:
    """Static INT8: on a grid that is the same for every window; the integers are held as floats."""
    scale, zero = compiler.needed(node, 1, "scales"), compiler.needed(node, 2, "zero points")
    if scale.size != 1 or zero.dtype not in (np.int8, np.uint8):
        raise UnsupportedError("an operator QuantizeLinear must have one scale and 8 bits to become C.")
    compiler.kernels.add("rounded")
    limits = np.iinfo(zero.dtype)
    numbers = ", ".join(number(float(value)) for value in (scale.item(), zero.item(), limits.min, limits.max))
    broadcast(compiler, node._replace(inputs=node.inputs[:1]), f"rounded({{}}, {numbers})")


@rule("DequantizeLinear")
def _unround(compiler: Compiler, node: Operation) -> None:
    scale, zero = compiler.needed(node, 1, "scales"), compiler.needed(node, 2, "zero points")
    if scale.size != 1:
        raise UnsupportedError("an operator DequantizeLinear must have one scale to become C.")
    formula = f"(({{}} - {number(float(zero.item()))}) * {number(scale.item())})"
    broadcast(compiler, node._replace(inputs=node.inputs[:1]), formula)
