"""Layers with weights: products of matrices, recurrent layers, convolutions and normalisation."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tsdistill.edge.cells import Buffer, Expression, View, spread
from tsdistill.edge.compiler import Compiler, number, rule
from tsdistill.edge.static_graph import Operation
from tsdistill.errors import UnsupportedError


class Quantized(NamedTuple):
    """A value in 8 bits with where its scale and zero point stand."""

    numbers: View
    scale: Buffer
    zero: Buffer


class Matrix(NamedTuple):
    """Weights of a layer, (depth, width): in float, or in 8 bits with a scale for each output."""

    weights: np.ndarray
    scale: np.ndarray | None = None


def in_eight_bits(weights: np.ndarray) -> Matrix:
    """Weights (depth, width) that came from integers as integers again; as they are where the grid is another."""
    reach = np.abs(weights).max(axis=0)
    scale = np.where(reach > 0, reach / np.float32(127), np.float32(1)).astype(np.float32)
    integers = np.rint(weights / scale)
    if np.abs(weights - integers * scale).max() > 1e-5 * reach.max():
        return Matrix(weights)
    return Matrix(integers.astype(np.int8), scale)


def product(
    compiler: Compiler, x: View, matrix: Matrix, bias: np.ndarray | None, to: str, *, add: bool, offset: str = ""
) -> tuple[str, list[View]]:
    """A call that multiplies rows (row, depth) of floats by a matrix, and the tables it reads."""
    rows, depth = x.shape
    compiler.n_products += rows * depth * matrix.weights.shape[1]
    row, step = x.cells.strides
    start = f"{compiler.text(x)}{offset}, {row if rows > 1 else 0}, {step if depth > 1 else 1}"
    sizes = f"{rows}, {depth}, {matrix.weights.shape[1]}"
    added = compiler.table(bias) if bias is not None and bias.any() else None
    bias_text = compiler.text(added) if added else "0"
    tables = [added] if added else []
    if matrix.scale is None:
        compiler.kernels.add("dense")
        table = compiler.table(matrix.weights)
        return f"dense({start}, {sizes}, {compiler.text(table)}, {bias_text}, {to}, {int(add)});", [table, *tables]
    compiler.kernels.add("dense_w8")
    table, scale = compiler.table(matrix.weights.T), compiler.table(matrix.scale)
    call = f"dense_w8({start}, {sizes}, {compiler.text(table)}, {compiler.text(scale)}, {bias_text}, {to}, {int(add)});"
    return call, [table, scale, *tables]


def integer_product(
    compiler: Compiler,
    x: str,
    scale: str,
    zero: str,
    rows: int,
    matrix: Matrix,
    bias: np.ndarray | None,
    to: str,
    add: bool,
) -> str:
    """A call that multiplies rows in 8 bits by a matrix in 8 bits."""
    compiler.kernels.add("dense_i8")
    depth, width = matrix.weights.shape
    compiler.n_products += rows * depth * width
    assert matrix.scale is not None  # integers have scales
    weights = compiler.table(matrix.weights.T)
    scales = compiler.table(np.broadcast_to(matrix.scale, width))
    totals = compiler.table(matrix.weights.astype(np.int32).sum(axis=0, dtype=np.int32))
    bias_text = compiler.text(compiler.table(bias)) if bias is not None and bias.any() else "0"
    tables = ", ".join(compiler.text(table) for table in (weights, scales, totals))
    return f"dense_i8({x}, {scale}, {zero}, {rows}, {depth}, {width}, {tables}, {bias_text}, {to}, {int(add)});"


def quantize(compiler: Compiler, view: View) -> Quantized:
    """A statement that rounds a value to 8 bits over its range."""
    compiler.kernels.add("quantize")
    if not view.cells.flags.c_contiguous:
        view = compiler.whole_of(view)
    numbers, scale = compiler.new(view.cells.size, 1), compiler.new(1)
    zero = compiler.new(1)
    compiler.integers.append(f"zero_{zero.name}")
    compiler.add(
        f"quantize({compiler.text(view)}, {view.cells.size}, @{numbers.name}@, @{scale.name}@, &zero_{zero.name});",
        reads=[view],
        writes=[numbers, scale],
    )
    return Quantized(View(numbers, numbers.cells.reshape(view.shape)), scale, zero)


@rule("DynamicQuantizeLinear")
def _quantize(compiler: Compiler, node: Operation) -> None:
    rounded = quantize(compiler, compiler.stored(compiler.value(node.inputs[0])))
    compiler.quantized[node.outputs[0]] = rounded
    compiler.values[node.outputs[0]] = rounded.numbers
    compiler.values[node.outputs[1]] = View(rounded.scale, rounded.scale.cells.reshape(()))


@rule("MatMulInteger")
def _integer_matmul(compiler: Compiler, node: Operation) -> None:
    """The sums alone, in float: what the scales are is multiplied by the graph."""
    name = node.inputs[0]
    weights = compiler.needed(node, 1, "weights")
    zeros = compiler.constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] else None
    if (
        name not in compiler.quantized
        or weights.ndim not in (2, 3)
        or weights.dtype != np.int8
        or (zeros is not None and zeros.any())
    ):
        raise UnsupportedError(
            "an operator MatMulInteger must multiply rounded activations by symmetric matrices to become C. Quantize "
            "with weight_bits=7 or 8."
        )
    zero = compiler.quantized[name].zero
    value = compiler.values[name]
    assert isinstance(value, View)  # rounded numbers lie in memory
    shape = compiler.shape(node.outputs[0])
    buffer = compiler.new(math.prod(shape))
    matrices = weights.reshape(-1, *weights.shape[-2:])  # one, or one for every channel
    rows, (depth, width) = math.prod(shape[:-1]) // len(matrices), matrices.shape[1:]
    if len(matrices) > 1 and shape[-3] * shape[-2] != math.prod(shape[:-1]):
        raise UnsupportedError("an operator MatMulInteger with a matrix per channel must take one window to become C.")
    for channel, matrix in enumerate(matrices):
        call = integer_product(
            compiler,
            f"{compiler.text(value)} + {channel * rows * depth}" if channel else compiler.text(value),
            "1.0f",
            f"zero_{zero.name}",
            rows,
            Matrix(matrix, np.ones(1, dtype=np.float32)),
            None,
            f"@{buffer.name}@ + {channel * rows * width}" if channel else f"@{buffer.name}@",
            False,
        )
        compiler.add(call, reads=[value], writes=[buffer])
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(shape)))


@rule("MatMul")
def _matmul(compiler: Compiler, node: Operation) -> None:
    weights = compiler.constant(node.inputs[1])
    if weights is None:
        _product_of_two(compiler, node)
        return
    shape = compiler.shape(node.outputs[0])
    x = compiler.stored(compiler.value(node.inputs[0]))
    is_coarse = node.inputs[1] in compiler.graph.coarse
    buffer = compiler.new(math.prod(shape))
    if weights.ndim == 2:
        rows = x.moved(lambda cells: cells.reshape(-1, cells.shape[-1]))
        if rows is None:
            copy = compiler.whole_of(x)
            rows = View(copy.buffer, copy.cells.reshape(-1, x.shape[-1]))
        matrix = in_eight_bits(weights) if is_coarse else Matrix(weights)
        call, _ = product(compiler, rows, matrix, None, f"@{buffer.name}@", add=False)
        compiler.add(call, reads=[rows], writes=[buffer])
    else:
        cells = np.broadcast_to(x.cells, (*shape[:-2], *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        if not np.may_share_memory(cells, x.buffer.cells):
            x = compiler.whole_of(x)
            cells = np.broadcast_to(x.cells, (*shape[:-2], *x.shape[-2:])).reshape(-1, *x.shape[-2:])
        matrices = np.broadcast_to(weights, (*shape[:-2], *weights.shape[-2:])).reshape(-1, *weights.shape[-2:])
        for place, (rows_of, one) in enumerate(zip(cells, matrices, strict=True)):
            start = place * shape[-2] * shape[-1]
            matrix = in_eight_bits(one) if is_coarse else Matrix(one)
            call, _ = product(compiler, View(x.buffer, rows_of), matrix, None, f"@{buffer.name}@ + {start}", add=False)
            compiler.add(call, reads=[x], writes=[buffer])
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(shape)))


def _product_of_two(compiler: Compiler, node: Operation) -> None:
    """Two matrices that both depend on the window: a sum over an axis that both are spread to."""
    left, right = (compiler.stored(compiler.value(name)) for name in node.inputs[:2])
    shape = compiler.shape(node.outputs[0])
    full = (*shape[:-2], shape[-2], shape[-1], left.shape[-1])
    first = spread(View(left.buffer, left.cells[..., :, None, :]), full)
    second = spread(View(right.buffer, right.cells.swapaxes(-1, -2)[..., None, :, :]), full)
    compiler.n_products += math.prod(full)
    compiler.reduce(node.outputs[0], Expression("({} * {})", (first, second), full), {len(full) - 1}, False)


@rule("Gemm")
def _gemm(compiler: Compiler, node: Operation) -> None:
    weights = compiler.needed(node, 1, "weights")
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    if any(node.attributes.get(name, value) != value for name, value in plain.items()):
        raise UnsupportedError("an operator Gemm must have no factors and no transposed input to become C.")
    weights = weights.T if node.attributes.get("transB") else weights
    shape = compiler.shape(node.outputs[0])
    bias = compiler.needed(node, 2, "biases") if len(node.inputs) > 2 and node.inputs[2] else None
    bias = None if bias is None else np.broadcast_to(bias.reshape(-1), shape[-1:])
    matrix = in_eight_bits(weights) if node.inputs[1] in compiler.graph.coarse else Matrix(weights)
    x = compiler.stored(compiler.value(node.inputs[0]))
    buffer = compiler.new(math.prod(shape))
    call, _ = product(compiler, x, matrix, bias, f"@{buffer.name}@", add=False)
    compiler.add(call, reads=[x], writes=[buffer])
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(shape)))


@rule("LayerNormalization")
def _layer_norm(compiler: Compiler, node: Operation) -> None:
    x = compiler.whole(node.inputs[0])
    if int(str(node.attributes.get("axis", -1))) % len(x.shape) != len(x.shape) - 1:
        raise UnsupportedError("an operator LayerNormalization must work along the last axis to become C.")
    gain = compiler.text(compiler.table(compiler.needed(node, 1, "weights")))
    bias = compiler.text(compiler.table(compiler.needed(node, 2, "biases"))) if len(node.inputs) > 2 else "0"
    epsilon = number(float(str(node.attributes.get("epsilon", 1e-5))))
    _by_row(compiler, node, x, "layer_norm", f"{gain}, {bias}, {epsilon}, ")


@rule("Softmax")
def _softmax(compiler: Compiler, node: Operation) -> None:
    x = compiler.whole(node.inputs[0])
    if int(str(node.attributes.get("axis", -1))) % len(x.shape) != len(x.shape) - 1:
        raise UnsupportedError("an operator Softmax must work along the last axis to become C.")
    _by_row(compiler, node, x, "softmax", "")


def _by_row(compiler: Compiler, node: Operation, x: View, kernel: str, more: str) -> None:
    compiler.kernels.add(kernel)
    buffer = compiler.new(x.cells.size)
    width = x.shape[-1]
    call = f"{kernel}({compiler.text(x)}, {x.cells.size // width}, {width}, {more}@{buffer.name}@);"
    compiler.add(call, reads=[x], writes=[buffer])
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(x.shape)))


@rule("Conv")
def _conv(compiler: Compiler, node: Operation) -> None:
    weights = compiler.needed(node, 1, "weights")
    x = compiler.whole(node.inputs[0])
    if weights.ndim != 3 or node.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise UnsupportedError("an operator Conv must have one axis and fixed padding to become C.")
    batch, channels, steps = x.shape
    out, depth, taps = weights.shape
    _, _, out_steps = compiler.shape(node.outputs[0])
    numbers = {"pads": [0, 0], "strides": [1], "dilations": [1], **node.attributes}
    pad, stride, dilation = (numbers[name][0] for name in ("pads", "strides", "dilations"))  # type: ignore[index]
    matrix = Matrix(weights.reshape(out, -1).T)
    if node.inputs[1] in compiler.graph.coarse:
        matrix = in_eight_bits(matrix.weights)
    kernel = "conv" if matrix.scale is None else "conv_w8"
    compiler.kernels.add(kernel)
    table = compiler.text(compiler.table(matrix.weights.T))
    scale = "0" if matrix.scale is None else compiler.text(compiler.table(matrix.scale))
    bias = compiler.text(compiler.table(compiler.needed(node, 2, "biases"))) if len(node.inputs) > 2 else "0"
    buffer = compiler.new(batch * out * out_steps)
    compiler.n_products += batch * out * out_steps * depth * taps
    call = (
        f"{kernel}({compiler.text(x)} + n * {channels * steps}, {steps}, {channels // depth}, {depth}, {out}, {taps}, "
        f"{table}, {scale}, {bias}, {pad}, {stride}, {dilation}, {out_steps}, @{buffer.name}@ + n * {out * out_steps});"
    )
    compiler.add(f"for (int n = 0; n < {batch}; ++n) {{", f"    {call}", "}", reads=[x], writes=[buffer])
    compiler.give(node.outputs[0], View(buffer, buffer.cells.reshape(batch, out, out_steps)))
