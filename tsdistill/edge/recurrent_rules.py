"""LSTM and GRU layers, in float, with weights of 8 bits, and as ONNX Runtime's dynamic INT8 computes them."""

from __future__ import annotations

import numpy as np

from tsdistill.edge.cells import Buffer, View
from tsdistill.edge.compiler import Compiler, rule
from tsdistill.edge.layer_rules import Matrix, in_eight_bits, integer_product, product, quantize
from tsdistill.edge.static_graph import Operation
from tsdistill.errors import UnsupportedError

_DIRECTIONS = {b"forward": (False,), b"reverse": (True,), b"bidirectional": (False, True)}


@rule("LSTM", "GRU", "DynamicQuantizeLSTM")
def _recurrent(compiler: Compiler, node: Operation) -> None:
    _check(compiler, node)
    x = compiler.stored(compiler.value(node.inputs[0]))
    if x.cells.strides[2] != 1 and x.shape[2] > 1:
        x = compiler.whole_of(x)
    steps, rows, _ = x.shape
    ways = _DIRECTIONS[node.attributes.get("direction", b"forward")]  # type: ignore[index]
    hidden = int(str(node.attributes["hidden_size"]))
    only_last = _only_last_is_read(compiler, node, steps) and ways == (False,)
    out = compiler.new((1 if only_last else steps) * len(ways) * rows * hidden)
    finals = [compiler.new(rows * hidden) for _ in ways]
    for way, is_reverse in enumerate(ways):
        _one_way(compiler, node, x, out, finals[way], way, is_reverse, only_last)
    cells = out.cells.reshape(-1, len(ways), rows, hidden)
    if node.outputs[0]:
        whole = np.broadcast_to(cells, (steps, *cells.shape[1:])) if only_last else cells
        compiler.give(node.outputs[0], View(out, whole))
    if len(node.outputs) > 1 and node.outputs[1] and compiler.users[node.outputs[1]]:
        last = compiler.new(len(ways) * rows * hidden)
        for way, final in enumerate(finals):
            target = View(last, last.cells.reshape(len(ways), rows * hidden)[way])
            compiler.assign(target, View(final, final.cells))
        compiler.give(node.outputs[1], View(last, last.cells.reshape(len(ways), rows, hidden)))


def _check(compiler: Compiler, node: Operation) -> None:
    states = [name for name in node.inputs[4 : 8 if node.operator != "GRU" else 6] if name]
    odd = node.attributes.get("layout") or node.attributes.get("input_forget") or node.attributes.get("activations")
    is_other_gru = node.operator == "GRU" and not node.attributes.get("linear_before_reset")
    if odd or is_other_gru or any(compiler.needed(node, node.inputs.index(name), "states").any() for name in states):
        raise UnsupportedError(f"an operator {node.operator} must be the plain one, from a zero state, to become C.")


def _only_last_is_read(compiler: Compiler, node: Operation, steps: int) -> bool:
    """Whether nothing but the last step of the first output is ever read: then no other has to be kept."""
    name = node.outputs[0]
    axis = 0
    for _ in range(8):
        reader = compiler.readers.get(name)
        if compiler.users[name] != 1 or reader is None or reader.inputs[0] != name:
            return False
        if reader.operator == "Gather" and int(str(reader.attributes.get("axis", 0))) == axis:
            place = compiler.constant(reader.inputs[1])
            return place is not None and place.size == 1 and int(place.reshape(())) % steps == steps - 1
        if reader.operator == "Transpose":
            axis = list(reader.attributes["perm"]).index(axis)  # type: ignore[call-overload]
        elif reader.operator == "Squeeze" and compiler.shape(name)[1] == 1 and axis == 0:
            axis = 0
        else:
            return False
        name = reader.outputs[0]
    return False


def _matrices(compiler: Compiler, node: Operation, way: int) -> tuple[Matrix, Matrix]:
    """The weights of the input and of the hidden state, (depth, width)."""
    given, kept = (compiler.needed(node, position, "weights")[way] for position in (1, 2))
    if node.operator != "DynamicQuantizeLSTM":
        read = [Matrix(weights.T) for weights in (given, kept)]
        if node.inputs[1] in compiler.graph.coarse:
            read = [in_eight_bits(matrix.weights) for matrix in read]
        return read[0], read[1]
    scales = [np.asarray(compiler.needed(node, position, "scales")) for position in (8, 10)]
    zeros = [compiler.needed(node, position, "zero points") for position in (9, 11)]
    if any(zero.any() for zero in zeros) or given.dtype != np.int8:
        raise UnsupportedError(
            "an operator DynamicQuantizeLSTM must have symmetric weights to become C. Quantize again."
        )
    width = given.shape[-1]
    first, second = (np.broadcast_to(scale.reshape(len(zeros[0]), -1)[way], width) for scale in scales)
    return Matrix(given, first), Matrix(kept, second)


def _one_way(
    compiler: Compiler,
    node: Operation,
    x: View,
    out: Buffer,
    hidden: Buffer,
    way: int,
    is_reverse: bool,
    only_last: bool,
) -> None:
    steps, rows, depth = x.shape
    given, kept = _matrices(compiler, node, way)
    n, width = kept.weights.shape
    biases = np.zeros(2 * width, dtype=np.float32)
    if len(node.inputs) > 3 and node.inputs[3]:
        biases = compiler.needed(node, 3, "biases")[way]
    is_lstm = node.operator != "GRU"
    gates = compiler.new(rows * width)
    cell = compiler.new(rows * n if is_lstm else rows * width)
    compiler.kernels |= {"gates", "lstm_cell" if is_lstm else "gru_cell"}
    step = f"({steps - 1} - t)" if is_reverse else "t"
    h, g, c = (f"@{buffer.name}@" for buffer in (hidden, gates, cell))
    lines = []
    writes = [out, hidden, gates, cell]
    before = compiler.n_products
    if node.operator == "DynamicQuantizeLSTM":
        rounded = quantize(compiler, x if x.cells.flags.c_contiguous else compiler.whole_of(x))
        compiler.kernels.add("quantize")
        state, scale, zero = compiler.new(rows * n, 1), compiler.new(1), f"zero_{hidden.name}"
        compiler.integers.append(zero)
        writes += [state, scale]
        reads = [rounded.numbers, View(rounded.scale, rounded.scale.cells)]
        bias = (biases[:width] + biases[width:]).astype(np.float32)
        start = f"@{rounded.numbers.buffer.name}@ + {step} * {rows * depth}"
        lines = [
            integer_product(
                compiler, start, f"*@{rounded.scale.name}@", f"zero_{rounded.zero.name}", rows, given, bias, g, False
            ),
            f"quantize({h}, {rows * n}, @{state.name}@, @{scale.name}@, &{zero});",
            integer_product(compiler, f"@{state.name}@", f"*@{scale.name}@", zero, rows, kept, None, g, True),
        ]
    else:
        reads = [x]
        offset = f" + {step} * {x.cells.strides[0]}"
        bias = (biases[:width] + biases[width:]).astype(np.float32) if is_lstm else biases[:width]
        state_view = View(hidden, hidden.cells.reshape(rows, n))
        first, _ = product(compiler, View(x.buffer, x.cells[0]), given, bias, g, add=False, offset=offset)
        to, more = (g, None) if is_lstm else (c, biases[width:])
        second, _ = product(compiler, state_view, kept, more, to, add=is_lstm)
        lines = [first, second]
    compiler.n_products = before + (compiler.n_products - before) * steps
    if is_lstm:
        lines += [
            f"for (int n = 0; n < {rows}; ++n) {{",
            f"    lstm_cell({g} + n * {width}, {c} + n * {n}, {h} + n * {n}, {n});",
            "}",
        ]
    else:
        lines += [
            f"for (int n = 0; n < {rows}; ++n) {{",
            f"    gru_cell({g} + n * {width}, {c} + n * {width}, {h} + n * {n}, {n});",
            "}",
        ]
    if not only_last:
        n_ways = out.size // (steps * rows * n)
        target = f"@{out.name}@ + {step} * {n_ways * rows * n}" + (f" + {way * rows * n}" if way else "")
        lines.append(f"memcpy({target}, {h}, {rows * n} * sizeof(float));")
    clear = [f"memset({h}, 0, {rows * n} * sizeof(float));"]
    if is_lstm:
        clear.append(f"memset({c}, 0, {rows * n} * sizeof(float));")
    tail = [f"memcpy(@{out.name}@, {h}, {rows * n} * sizeof(float));"] if only_last else []
    compiler.add(
        *clear,
        f"for (int t = 0; t < {steps}; ++t) {{",
        *(f"    {line}" for line in lines),
        "}",
        *tail,
        reads=reads,
        writes=writes,
        comment=f"{node.operator}: {n} units, {steps} tokens{', backwards' * is_reverse}",
    )
