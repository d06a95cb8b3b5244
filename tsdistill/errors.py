"""The errors tsdistill raises: one sentence that states the rule, the value it got and what to do.

Every error is a `TsdistillError` and also the built-in error a caller would expect, so that `except ValueError`
works for someone who has never read this page.
"""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FieldPath = tuple[str | int, ...]
"""Where a field stands in a spec: names of fields, and places in tuples from 0."""


LONGEST_VALUE = 60
"""Letters of a value of the wrong type that an error shows; of a longer one it names the type."""


MOST_LISTED = 50
"""Problems that one error lists."""

LONGEST_SHOWN = 400
"""Letters of any other value that an error shows."""

_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
"""What acts on a terminal instead of being seen in it: control characters (escape codes, line breaks), marks that turn
the direction of writing, separators, signs without width, halves of characters. The joiners that Persian and Indian
scripts are written with are none of these."""

_LISTED = re.compile(r"\d+ problems in [^\n]*:\n")
"""How a message begins that has several lines; see `listed`."""


def printable(text: object) -> str:
    r"""A text in one line as a terminal or a log may show it: what would act is written as Python writes it.

    Use it wherever a message repeats a name that comes from a file, a table or a person. The message of every
    `TsdistillError` has been through it.

    Example:
        >>> print(printable("load\x1b[31m\nerror: none"))
        load\x1b[31m\nerror: none
    """
    return _UNSEEN.sub(lambda sign: sign.group().encode("unicode_escape").decode(), str(text))


def printable_lines(text: object) -> str:
    """`printable` for a text whose line breaks are its own, such as a table."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


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
    """Base of every error raised on purpose by tsdistill; its message can be printed, whatever names are in it."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(_message(text) if isinstance(text, str) else text for text in args))


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


class BusyError(OrderError):
    """Another process holds what is needed; the same call works once that one has ended."""


class DivergenceError(TsdistillError, ArithmeticError):
    """Training met a loss or a gradient that is not finite, or left weights that are not; the message names them."""


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
    return f"`{name}` must {rule}, got {name}={shown(value)}. {remedy.rstrip('.')}."


def shown(value: object) -> str:
    """A value as an error shows it: its beginning where it is long, its type where it cannot be written.

    Example:
        >>> shown("width"), shown([7] * 1000)[-9:]
        ("'width'", '7, 7, ...')
    """
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number with more digits than Python writes
        kind = type(value).__name__
        return f"{article(kind)} {kind} too long to show"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN].rstrip()} ..."


def check_type(
    name: str, value: object, kinds: type | tuple[type, ...], remedy: str, *, optional: bool = False
) -> None:
    """ConfigError when an argument of a verb is of another type than the verb works with.

    Args:
        name: Of the argument.
        value: What was passed.
        kinds: Its class, or several that will do.
        remedy: What to pass.
        optional: Whether None will do, too.

    Example:
        >>> check_type("epochs", "many", int, "Pass a number")
        Traceback (most recent call last):
        tsdistill.errors.ConfigError: `epochs` must be an int, got epochs='many'. Pass a number.
    """
    if isinstance(value, kinds) or (optional and value is None):
        return
    names = [kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,))]
    rule = " or ".join(f"{article(name_)} {name_}" for name_ in names)
    short = value is None or isinstance(value, bool | int | float | str | dict | list | tuple)
    kind = type(value).__name__
    written = f"{name}={value!r}" if short and len(repr(value)) <= LONGEST_VALUE else f"{article(kind)} {kind}"
    raise ConfigError(f"`{name}` must be {rule}, got {written}. {remedy.rstrip('.')}.")


def article(noun: str) -> str:
    """'an' before a vowel, else 'a'."""
    return "an" if noun[:1] in "AEIOaeio" else "a"


def optional_path(name: str, value: str | Path | None) -> Path | None:
    """A path argument of a verb, given as text or as a `Path`; None stays None.

    Raises:
        ConfigError: it is something else.
    """
    check_type(name, value, (str, Path), "Pass the path as text or as a pathlib.Path", optional=True)
    return None if value is None else Path(value)


MOST_NAMES = 200
"""Known names that a message lists, or that a misspelt one is compared with."""


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean `x`?' when a known name is close, else the list of known names."""
    names = sorted(known)
    alike = names
    if len(names) > MOST_NAMES:  # comparing takes time, and of thousands the likely ones begin alike
        alike = [other for other in names if other[:2] == name[:2] and abs(len(other) - len(name)) <= 2][:MOST_NAMES]
    # Comparing takes the square of the length, and known names are short.
    close = difflib.get_close_matches(name, alike, n=1, cutoff=0.6) if len(name) <= LONGEST_VALUE * 2 else []
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names[:MOST_NAMES])}{more}."


def _message(text: str) -> str:
    """A message in one line, but for one that lists problems: a line for each of them."""
    return "\n  - ".join(map(printable, text.split("\n  - "))) if _LISTED.search(text) else printable(text)


def listed(problems: list[str], what: str) -> str:
    """One message for all problems of one object."""
    if len(problems) == 1:
        return _message(problems[0])
    left = len(problems) - MOST_LISTED
    lines = [*map(_message, problems[:MOST_LISTED]), *([f"and {left} more"] if left > 0 else [])]
    return f"{len(problems)} problems in {printable(what)}:\n" + "\n".join(f"  - {line}" for line in lines)


_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|not enough memory|out of memory|can't allocate memory|cannot allocate memory|bad_alloc"
    r"|bad allocation|failed to allocate|unable to allocate|can't start new thread",
    re.IGNORECASE,
)


def lack_of_memory(error: BaseException) -> str | None:
    """What says that memory ran out, of this error and those behind it; None when nothing does.

    Each library says it in words and classes of its own.
    """
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        by_kind = isinstance(link, MemoryError) or (isinstance(link, OSError) and link.errno == errno.ENOMEM)
        if by_kind or _NO_MEMORY.search(str(link)):
            return (str(link).strip().splitlines() or [type(link).__name__])[0].rstrip(".")[:200]
        link = link.__cause__ or link.__context__
    return None
