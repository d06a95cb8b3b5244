"""From the operators of a graph to statements of C."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tsdistill.edge.cells import Buffer, Expression, Move, Number, Operand, View, loops, place, spread, views_of
from tsdistill.edge.memory import Statement
from tsdistill.edge.static_graph import Operation, StaticGraph
from tsdistill.errors import UnsupportedError

Value = Operand
Rule = Callable[["Compiler", Operation], None]

RULES: dict[str, Rule] = {}
"""How each operator becomes C."""


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Make a function the rule of some operators."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return add


def number(value: float) -> str:
    """A float32 as C writes it."""
    text = repr(float(np.float32(value)))
    short = np.format_float_scientific(np.float32(value), unique=True, trim="0")
    text = min((short, text), key=len) if "e" in text or len(text) > len(short) else text
    return f"({text}f)" if value < 0 else f"{text}f"


class Compiler:
    """Collects the statements, tables and kernels that a graph needs."""

    def __init__(self, graph: StaticGraph, inputs: Mapping[str, int]) -> None:
        self.graph = graph
        self.statements: list[Statement] = []
        self.tables: dict[str, np.ndarray] = {}
        self.table_names: dict[tuple[str, bytes], str] = {}
        self.kernels: set[str] = set()
        self.n_products = 0
        self.users = Counter(name for node in graph.nodes for name in node.inputs)
        self.users.update(graph.outputs)
        self.readers = {name: node for node in graph.nodes for name in node.inputs}
        self.fixed = [Buffer(name, size) for name, size in inputs.items()]
        self.values: dict[str, Value] = {
            buffer.name: View(buffer, buffer.cells.reshape(graph.shapes[buffer.name])) for buffer in self.fixed
        }
        self.quantized: dict[str, Any] = {}
        self.integers: list[str] = []
        self.n_buffers = 0

    def compile(self) -> None:
        """Make the statements of the whole graph.

        Raises:
            UnsupportedError: Some operators have no form in C; all of them are named.
        """
        if missing := sorted({node.operator for node in self.graph.nodes} - RULES.keys()):
            raise UnsupportedError(
                f"the graph must consist of operators that have a form in C, got {', '.join(missing)}. Export another "
                "architecture or precision: linear models, MLPs, LSTMs, GRUs and TCNs have one."
            )
        for node in self.graph.nodes:
            RULES[node.operator](self, node)
        for name in self.graph.outputs:
            self._put_out(name)

    # ------------------------------------------------------------------------------------------------------- values
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of anything in the graph."""
        return self.graph.shapes[name]

    def constant(self, name: str) -> np.ndarray | None:
        """The numbers of what is the same for every window."""
        return self.graph.constants.get(name)

    def needed(self, node: Operation, position: int, what: str) -> np.ndarray:
        """A constant that a rule cannot do without."""
        array = self.constant(node.inputs[position])
        if array is None:
            raise UnsupportedError(
                f"an operator {node.operator} must have constant {what} to become C. Export another architecture."
            )
        return array

    def value(self, name: str) -> Value:
        """What a name stands for: constants of one number stand in the code, others in tables."""
        if name not in self.values:
            array = self.graph.constants[name]
            if array.size == 1:
                return Number(number(float(array.reshape(()))), array.shape)
            view = self.table(array)
            self.values[name] = View(view.buffer, view.cells.reshape(array.shape))
        return self.values[name]

    def table(self, array: np.ndarray) -> View:
        """A constant table; equal ones are stored once."""
        kind = {"i1": "int8_t", "i4": "int32_t"}.get(array.dtype.str[1:], "float")
        stored = np.ascontiguousarray(array if kind != "float" else array.astype(np.float32))
        key = (stored.dtype.str, stored.tobytes())
        name = self.table_names.setdefault(key, f"table_{len(self.tables) + 1}")
        if name not in self.tables:
            self.tables[name] = stored
        buffer = next((known for known in self.fixed if known.name == name), None)
        if buffer is None:
            buffer = Buffer(name, stored.size)
            self.fixed.append(buffer)
        return View(buffer, buffer.cells.reshape(stored.shape))

    def new(self, size: int, width: int = 4) -> Buffer:
        """A buffer in the working memory."""
        self.n_buffers += 1
        return Buffer(f"b{self.n_buffers}", size, width)

    def give(self, name: str, value: Value) -> None:
        """Bind a result; what several read, or fewer numbers than its reader makes, is computed at once."""
        if isinstance(value, Expression):
            reader = self.readers.get(name)
            grows = reader is None or math.prod(self.shape(reader.outputs[0])) > max(math.prod(value.shape), 1)
            reduces = reader is not None and reader.operator.startswith("Reduce")
            if self.users[name] != 1 or (grows and not reduces):
                value = self.stored(value)
        self.values[name] = value

    def stored(self, value: Value) -> View:
        """A value as numbers in memory."""
        if isinstance(value, View):
            return value
        buffer = self.new(math.prod(value.shape))
        view = View(buffer, buffer.cells.reshape(value.shape))
        self.assign(view, value)
        return view

    def whole(self, name: str) -> View:
        """A value as a buffer in its own order."""
        view = self.stored(self.value(name))
        if view.is_whole or (view.cells.flags.c_contiguous and view.buffer in self.fixed):
            return view
        if view.cells.flags.c_contiguous:
            return view
        buffer = self.new(view.cells.size)
        copy = View(buffer, buffer.cells.reshape(view.shape))
        self.assign(copy, view)
        return copy

    def text(self, view: View) -> str:
        """A pointer to the first number of a view."""
        return f"@{view.buffer.name}@" + (f" + {view.offset}" if view.offset else "")

    # --------------------------------------------------------------------------------------------------- statements
    def add(self, *lines: str, reads: list[View] | None = None, writes: list[Buffer], comment: str = "") -> None:
        """A statement."""
        buffers = tuple(view.buffer for view in reads or [])
        head = (f"/* {comment} */",) if comment else ()
        self.statements.append(Statement((*head, *lines), buffers, tuple(writes)))

    def assign(self, to: View, value: Value) -> None:
        """Nested loops that compute a value number by number."""
        views = list(views_of(value))
        sizes, steps = loops(to.shape, [view.cells.strides for view in (to, *views)])
        texts = [
            f"@{view.buffer.name}@[{place(view.offset, step)}]" for view, step in zip((to, *views), steps, strict=True)
        ]
        lines = [f"{'    ' * depth}{_loop('ijklmnpq'[depth], size)}" for depth, size in enumerate(sizes)]
        lines.append(f"{'    ' * len(sizes)}{texts[0]} = {_rendered(value, iter(texts[1:]))};")
        lines += [f"{'    ' * depth}}}" for depth in reversed(range(len(sizes)))]
        replaces = tuple(view.buffer for view in views if view.is_whole and view.cells.strides == to.cells.strides)
        alone = tuple(old for old in replaces if all(view.is_whole for view in views if view.buffer is old))
        self.statements.append(Statement(tuple(lines), tuple(view.buffer for view in views), (to.buffer,), alone))

    def reduce(self, name: str, value: Value, axes: set[int], mean: bool) -> None:
        """A sum or a mean along axes, which stay as axes of one."""
        shape = value.shape
        kept = [axis for axis in range(len(shape)) if axis not in axes]
        order = [*kept, *sorted(axes)]
        moved = value.moved(lambda cells: cells.transpose(order))
        assert moved is not None  # a transposition never needs a copy
        buffer = self.new(math.prod(shape[axis] for axis in kept))
        views = list(views_of(moved))
        n_kept = len(kept)
        outer, steps = loops(
            moved.shape[:n_kept],
            [buffer.cells.reshape(moved.shape[:n_kept]).strides, *(view.cells.strides[:n_kept] for view in views)],
        )
        inner, more = loops(moved.shape[n_kept:], [view.cells.strides[n_kept:] for view in views])
        texts = [
            f"@{view.buffer.name}@[{place(view.offset, [*step, *rest])}]"
            for view, step, rest in zip(views, steps[1:], more, strict=True)
        ]
        depth = len(outer)
        pad = "    "
        lines = [f"{pad * level}{_loop('ijklmnpq'[level], size)}" for level, size in enumerate(outer)]
        if not outer:
            lines, depth = ["{"], 1
            texts = [text.replace("[i", "[j") for text in texts]
        lines.append(f"{pad * depth}float sum = 0.0f;")
        for level, size in enumerate(inner):
            lines.append(f"{pad * (depth + level)}{_loop('ijklmnpq'[depth + level], size)}")
        lines.append(f"{pad * (depth + len(inner))}sum += {_rendered(moved, iter(texts))};")
        lines += [f"{pad * (depth + level)}}}" for level in reversed(range(len(inner)))]
        count = math.prod(shape[axis] for axis in axes)
        lines.append(f"{pad * depth}@{buffer.name}@[{place(0, steps[0])}] = sum{f' / {count}.0f' if mean else ''};")
        lines += [f"{pad * level}}}" for level in reversed(range(depth))]
        self.statements.append(Statement(tuple(lines), tuple(view.buffer for view in views), (buffer,)))
        self.give(name, View(buffer, buffer.cells.reshape(self.shape(name))))

    def move(self, node: Operation, move: Move) -> None:
        """Numbers in another order, without a copy where that can be."""
        value = self.value(node.inputs[0])
        moved = value.moved(move)
        if moved is None and isinstance(value, Expression):
            value = self.stored(value)
            moved = value.moved(move)
        if moved is None:
            moved = self.whole_of(value).moved(move)
        assert moved is not None  # what lies in its own order can be reshaped without a copy
        self.give(node.outputs[0], moved)

    def whole_of(self, value: Value) -> View:
        """A copy in the order of its axes."""
        buffer = self.new(math.prod(value.shape))
        view = View(buffer, buffer.cells.reshape(value.shape))
        self.assign(view, value)
        return view

    def _put_out(self, name: str) -> None:
        """Write a result of the graph to where the caller wants it."""
        value = self.value(name)
        target = Buffer(name, math.prod(self.shape(name)))
        self.fixed.append(target)
        self.assign(View(target, target.cells.reshape(self.shape(name))), value)


def _loop(index: str, size: int) -> str:
    return f"for (int {index} = 0; {index} < {size}; ++{index}) {{"


def _rendered(value: Value, texts: Iterator[str]) -> str:
    """The text of a value; its views take theirs from an iterator, in order."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, View):
        return next(texts)
    return value.formula.format(*(_rendered(part, texts) for part in value.operands))


def broadcast(compiler: Compiler, node: Operation, formula: str) -> None:
    """An operator that works number by number."""
    shape = compiler.shape(node.outputs[0])
    operands = tuple(spread(compiler.value(name), shape) for name in node.inputs if name)
    compiler.give(node.outputs[0], Expression(formula, operands, shape))
