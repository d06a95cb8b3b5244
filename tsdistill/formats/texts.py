"""JSON, read strictly."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from tsdistill.formats.errors import FormatError

MAX_DIGITS = 1000
MAX_VALUES = 10**6

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: bytes | str, *, constants: bool = False) -> dict[str, Any]:
    """Strict JSON object: no NaN, no repeated keys, no text that cannot be written, no endless numbers.

    Args:
        text: The file's content.
        constants: Whether NaN, Infinity and -Infinity are let through, as Python writes them.

    Raises:
        FormatError: The text is anything else; also a ValueError.
    """
    values = parse_json_value(text, constants=constants)
    if not isinstance(values, dict):
        raise FormatError(f"it must hold a JSON object, got {type(values).__name__}")
    return values


def parse_json_value(text: bytes | str, *, constants: bool = False) -> Any:
    """The same of any JSON value."""
    hooks: dict[str, Any] = {"parse_int": _whole, "object_pairs_hook": no_repeats}
    if not constants:
        hooks |= {"parse_constant": _no_constant, "parse_float": _number}
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        if text.count(",") > MAX_VALUES:
            raise FormatError(f"it holds more than {MAX_VALUES} values")
        values = json.loads(text, **hooks)
        if _SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode("utf-8")  # halves of pairs cannot be written
    except FormatError:
        raise
    except RecursionError:
        raise FormatError("it is nested too deeply") from None
    except UnicodeError:
        raise FormatError("it holds bytes that are not UTF-8") from None
    except ValueError as error:
        raise FormatError(f"it is not JSON: {error}") from None
    return values


class RepeatedKeyError(FormatError):
    """A key of a JSON object stands in it twice; readers disagree which one counts."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:80]!r} stands in it twice")
        self.key = key


def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads(object_pairs_hook=)`; RepeatedKeyError where a key stands twice."""
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise RepeatedKeyError(name)
        values[name] = value
    return values


def _no_constant(name: str) -> None:
    raise FormatError(f"it holds {name}, which is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise FormatError(f"it holds a whole number of {len(digits)} digits, more than the {MAX_DIGITS} allowed")
    return int(digits)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise FormatError(f"it holds {text[:80]}, which no float can hold")
    return number


def is_count(value: object, least: int = 0) -> bool:
    """Whether this is a whole number of at least `least` (True and False are not numbers)."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
