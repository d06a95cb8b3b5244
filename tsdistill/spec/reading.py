"""Text and plain values on their way into a spec: every file, parser and library gives the same Python types."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsdistill.errors import ConfigError, FieldPath, shown
from tsdistill.formats import read_regular
from tsdistill.formats.texts import RepeatedKeyError, no_repeats
from tsdistill.spec.limits import LARGEST, MAX_NESTING

MAX_BYTES = 1 << 20
"""Of a recipe, a job or a space, all of which people write."""

MAX_PARTS = 16
"""Names in a dotted key of TOML, whose reader takes time by the square of their number."""

_PART = r"(?:[\w-]++|\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')"
_LONG_KEY = re.compile(rf"(?<![\w.-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_PARTS}}}")


def read_text(path: Path) -> str:
    """A small text file; what is no file, such as a pipe that would never end, is refused.

    Raises:
        ConfigError: it is not there, no regular file, too large or no text.
    """
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {path}: {error}. Give the path of a .toml or .json file.") from None


def parse_json(text: str, what: str) -> Any:
    """JSON as plain data; a key that stands twice is refused, because readers disagree which one counts.

    Raises:
        ConfigError: it is none, nested too deep, or has a number too long to read.
    """
    try:
        return json.loads(text, object_pairs_hook=no_repeats)
    except RepeatedKeyError as error:
        name = shown(error.key)[1:-1]
        raise ConfigError(f"`{name}` must stand once in {what}, got it twice. Leave one out.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} must be valid JSON: {_reason(error)}.") from None


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """TOML as plain data.

    Raises:
        ConfigError: it is none, nested too deep, or has a number too long to read.
    """
    if _LONG_KEY.search(text):
        raise ConfigError(f"{what} must be valid TOML: a key has more than {MAX_PARTS} parts.")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what} must be valid TOML: {_reason(error)}.") from None


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"tables and lists may be nested {MAX_NESTING} deep at most"
    reason = str(error).rstrip(".")
    return "a number has more digits than can be read" if "integer string conversion" in reason else reason


class RefusedError(ValueError):
    """A value that no field takes.

    Args:
        path: Where it stands.
        rule: What it must be, and what it is.
    """

    def __init__(self, path: FieldPath, rule: str) -> None:
        super().__init__(rule)
        self.path, self.rule = path, rule


def plain(value: Any, path: FieldPath = ()) -> Any:
    """A value as a parser of JSON would give it: numpy's numbers are numbers, dates are text, sets have an order.

    Raises:
        RefusedError: it is nested too deep, or a whole number too large for anything.
    """
    kind = type(value)
    if kind is str or kind is float or kind is bool or value is None:
        return value
    if kind is int:
        if not -LARGEST <= value < LARGEST:
            raise RefusedError(path, f"be a number below 2**63, got {shown(value)}")
        return value
    if len(path) > MAX_NESTING:
        raise RefusedError(path[:1], f"be nested {MAX_NESTING} deep at most, got more")
    if isinstance(value, Mapping):
        return {name: plain(item, (*path, str(name))) for name, item in value.items()}
    if kind is list or kind is tuple:
        return kind([plain(item, (*path, place)) for place, item in enumerate(value)])
    if isinstance(value, set | frozenset):
        # The order of a set of texts differs from one process to the next.
        with contextlib.suppress(TypeError):
            return plain(sorted(value), path)
        raise RefusedError(path, "be a list, which has an order, got a set")
    if isinstance(value, dt.date):
        return value.isoformat()
    if hasattr(value, "ndim") and hasattr(value, "tolist"):
        return plain(value.tolist(), path)
    return value
