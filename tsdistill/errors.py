"""The errors tsdistill raises: one sentence that states the rule, the value it got and what to do.

Every error is a `TsdistillError` and also the built-in error a caller would expect, so that `except ValueError`
works for someone who has never read this page.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

FieldPath = tuple[str | int, ...]
"""Where a field stands in a spec: names of fields, and places in tuples from 0."""


class Problem(NamedTuple):
    """What is wrong with one field of a spec.

    Args:
        path: The field's place; empty for a rule about several fields of the outermost spec.
        sentence: Rule, value and remedy.
    """

    path: FieldPath
    sentence: str

    def __str__(self) -> str:
        """The sentence; a field inside of other specs is named by its address first."""
        place = address_of(self.path)
        plain = not place or self.sentence.startswith(f"`{place}`")
        return self.sentence if plain else f"In {place}: {self.sentence}"


class TsdistillError(Exception):
    """Base of every error raised on purpose by tsdistill."""


class ConfigError(TsdistillError, ValueError):
    """A spec holds a value that its rules forbid; the message lists every problem.

    Args:
        message: For people.
        problems: The same one by one, where a spec's fields were at fault.
    """

    def __init__(self, message: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ShapeError(TsdistillError, ValueError):
    """An array or a tensor does not have the shape that was asked for."""


class DataError(TsdistillError, ValueError):
    """A table or a series cannot be used as it is; the message lists every problem."""


class ArtifactError(TsdistillError, OSError):
    """A saved model is missing, damaged, tampered with or of a newer schema."""


class UnsupportedError(TsdistillError, NotImplementedError):
    """What was asked for does not exist for this object; the message names what does."""


class OrderError(TsdistillError, RuntimeError):
    """Two steps were taken in an order that cannot work; the message says how to swap them."""


class DivergenceError(TsdistillError, ArithmeticError):
    """Training met a loss or a gradient that is not finite; the message names step, term and learning rate."""


def address_of(path: FieldPath) -> str:
    """A place as it is written: `student.losses[1].weight`.

    Example:
        >>> address_of(("student", "losses", 1, "weight"))
        'student.losses[1].weight'
    """
    written = ""
    for part in path:
        written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else part
    return written


def must(name: str, rule: str, value: object, remedy: str) -> str:
    """The one sentence of house style: `name` must <rule>, got name=<value>. <remedy>."""
    return f"`{name}` must {rule}, got {name}={value!r}. {remedy.rstrip('.')}."


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean `x`?' when a known name is close, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names)}."


def listed(problems: list[str], what: str) -> str:
    """One message for all problems of one object."""
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} problems in {what}:\n" + "\n".join(f"  - {problem}" for problem in problems)
