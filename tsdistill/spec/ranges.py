"""What a field may be drawn from: ranges and choices, and those that stand beside a field as its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, model_validator

from tsdistill.errors import must
from tsdistill.spec.base import Spec


class Range(Spec):
    """Every number from `low` to `high`, both included; whole numbers where both ends are.

    Args:
        low: The smallest.
        high: The largest.
        log: Draw evenly in factors instead of in steps, for rates and widths.

    Example:
        >>> Range(1e-4, 1e-2, log=True).high
        0.01
    """

    low: int | float
    high: int | float
    log: bool = False

    def __init__(self, low: Any = None, high: Any = None, /, **values: Any) -> None:
        ends = {name: end for name, end in (("low", low), ("high", high)) if end is not None}
        super().__init__(**ends, **values)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(must("low", f"be at most high = {self.high:g}", self.low, "Swap them"))
        if self.log and self.low <= 0:
            raise ValueError(must("low", "be above 0 with log=true", self.low, "Raise it, or draw without log"))
        return self


Value = bool | int | float | str
"""What can be drawn: a number, a switch, or a word such as a kind."""


def _among(value: Any) -> Range | tuple[Value, ...]:
    """A range, choices or one value, with one sentence for everything else."""
    if isinstance(value, Range):
        return value
    if isinstance(value, dict):
        return Range(**value)
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    values = tuple("none" if value is None else value for value in values)
    alike = len({(type(value), value) for value in values if isinstance(value, Value)}) < len(values)
    if not values or alike or not all(isinstance(value, Value) for value in values):
        raise ValueError(f"It must be a value, several of them (each once) or a Range(low, high), got {value!r}.")
    return values


Among = Annotated[Range | tuple[Value, ...], BeforeValidator(_among)]
"""A range, some values to choose from, or one value."""


class Tuned:
    """The range that a search draws a field from by default; it stands beside the field.

    Args:
        among: A `Range`, or values to choose from.

    Example:
        >>> class Shape(Spec):
        ...     width: Annotated[int, Tuned(16, 32, 64)] = 32
        >>> default_ranges(Shape)
        {'width': (16, 32, 64)}
    """

    def __init__(self, *among: Any) -> None:
        self.among: Range | tuple[Value, ...] = _among(among[0] if len(among) == 1 else among)


@dataclass(frozen=True)
class Shorthand:
    """A word that sets several numbers of a spec at once, such as one width for every layer.

    A class lists its shorthands beside its fields and reads them in a validator; what is kept and written is the fields
    that they stand for.

    Args:
        read: The word's value in a spec.
        tuned: The range that a search draws it from by default.
    """

    read: Callable[[Any], Any]
    tuned: Tuned | None = None


def default_ranges(cls: type[Spec]) -> dict[str, Range | tuple[Value, ...]]:
    """The ranges that stand beside the fields and shorthands of a class, by name."""
    beside = {
        name: part.among
        for name, field in cls.model_fields.items()
        for part in field.metadata
        if isinstance(part, Tuned)
    }
    return {**beside, **{name: short.tuned.among for name, short in cls.shorthands.items() if short.tuned is not None}}
