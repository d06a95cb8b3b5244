"""Where the numbers of a value lie: buffers, views of them, and expressions that are computed when they are read.

A view is held as a numpy array of single bytes over memory that stands for the buffer, so that numpy itself finds the
strides that a transposition, a slice or a reshape leads to, and says when one needs a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Move = Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class Buffer:
    """Room for `size` numbers; `name` is how C calls it."""

    name: str
    size: int
    width: int = 4
    cells: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.cells = np.zeros(self.size, dtype=np.int8)

    @property
    def n_words(self) -> int:
        """Its size in words of four bytes."""
        return -(-self.size * self.width // 4)


class View(NamedTuple):
    """Numbers of a buffer in some order."""

    buffer: Buffer
    cells: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return self.cells.shape

    @property
    def offset(self) -> int:
        """Place of its first number in the buffer."""
        address: int = self.cells.__array_interface__["data"][0]
        start: int = self.buffer.cells.__array_interface__["data"][0]
        return address - start

    @property
    def is_whole(self) -> bool:
        """Whether it is the buffer in its own order."""
        return self.offset == 0 and self.cells.size == self.buffer.size and self.cells.flags.c_contiguous

    def moved(self, move: Move) -> View | None:
        """The same numbers in another order, None where that needs a copy."""
        cells = move(self.cells)
        return View(self.buffer, cells) if cells.size == 0 or np.may_share_memory(cells, self.buffer.cells) else None


class Number(NamedTuple):
    """A number that stands in the code."""

    text: str
    shape: tuple[int, ...]

    def moved(self, move: Move) -> Number:
        """The same number wherever it is moved to."""
        return Number(self.text, move(np.broadcast_to(np.int8(0), self.shape)).shape)


class Expression(NamedTuple):
    """A formula of C with a place for each operand, all of which have its shape."""

    formula: str
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]

    def moved(self, move: Move) -> Expression | None:
        """The same formula over operands in another order."""
        operands = [operand.moved(move) for operand in self.operands]
        if any(operand is None for operand in operands):
            return None
        moved = tuple(operand for operand in operands if operand is not None)
        return Expression(self.formula, moved, moved[0].shape)


Operand = View | Number | Expression


def spread(operand: Operand, shape: tuple[int, ...]) -> Operand:
    """An operand repeated to a shape, without a copy."""
    moved = operand.moved(lambda cells: np.broadcast_to(cells, shape))
    assert moved is not None  # repeating never needs a copy
    return moved


def views_of(operand: Operand) -> Iterator[View]:
    """The views that an operand reads."""
    if isinstance(operand, View):
        yield operand
    elif isinstance(operand, Expression):
        for part in operand.operands:
            yield from views_of(part)


def loops(shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Fewest nested loops that walk all arrays of a shape: the sizes, and each array's strides."""
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if sizes and all(step[-1] == stride[axis] * size for step, stride in zip(steps, strides, strict=True)):
            sizes[-1] *= size
            for step, stride in zip(steps, strides, strict=True):
                step[-1] = stride[axis]
            continue
        sizes.append(size)
        for step, stride in zip(steps, strides, strict=True):
            step.append(stride[axis])
    return sizes, steps


def place(offset: int, steps: Sequence[int], first: int = 0) -> str:
    """An index in C: `96 + i * 7 + j`."""
    parts = [str(offset)] if offset else []
    for name, step in zip("ijklmnpq"[first:], steps, strict=False):
        if step:
            parts.append(name if step == 1 else f"{name} * {step}")
    return " + ".join(parts) or "0"
