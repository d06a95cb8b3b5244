"""What a user gives to be kept, as data that JSON can hold: converted where only one reading is possible."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import numbers
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any
from uuid import UUID

from tsdistill.errors import ConfigError, listed

LARGEST = 10_000
"""Entries of an array that are still kept."""

DEEPEST = 50
"""Levels of dictionaries and lists."""

DIGITS = 4000
"""Of a whole number, as text; Python refuses to read more."""


def plain_data(name: str, values: object) -> dict[str, Any]:
    """A mapping as plain data: text, numbers, booleans, None, and lists and dictionaries of them.

    Numbers of numpy and torch become Python's (those that are not finite are null once they are written); arrays become
    lists; paths, dates and identifiers their text, Decimal and Fraction numbers, members of an enum their value,
    dataclasses and specs dictionaries, sets sorted lists. Keys become text.

    Args:
        name: What the mapping is called, for the message.
        values: The mapping.

    Raises:
        ConfigError: it is no mapping, or holds what has no such form; all problems come in one error.

    Example:
        >>> import numpy as np
        >>> plain_data("metrics", {"mse": np.float64(0.25), "steps": np.arange(3), "best": True, 7: None})
        {'mse': 0.25, 'steps': [0, 1, 2], 'best': True, '7': None}
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"`{name}` must be a dictionary of names and numbers, got {_kind(values)}. Give it as {{name: number}}."
        )
    problems: list[str] = []
    plain: dict[str, Any] = _mapping(name, values, problems, 0)
    if problems:
        raise ConfigError(listed(problems, f"`{name}`"))
    return plain


def _plain(path: str, value: Any, problems: list[str], depth: int) -> Any:
    if depth > DEEPEST:
        problems.append(f"`{path}` must be at most {DEEPEST} levels deep, and goes on. Leave out what holds itself.")
        return None
    converted = _scalar(value)
    if converted is not _NONE:
        if isinstance(converted, int) and converted.bit_length() > 3 * DIGITS:
            problems.append(f"`{path}` must be a number of at most {DIGITS} digits. Give it as text.")
        if isinstance(converted, str) and not _writable(converted):
            problems.append(
                f"`{path}` must be text that UTF-8 can hold, got {converted!r}. Give it without surrogates."
            )
        return converted
    if isinstance(value, Mapping):
        return _mapping(path, value, problems, depth)
    if isinstance(value, list | tuple):
        return [_plain(f"{path}[{place}]", entry, problems, depth + 1) for place, entry in enumerate(value)]
    if isinstance(value, set | frozenset):
        entries = [_plain(path, entry, problems, depth + 1) for entry in value]
        return sorted(entries, key=lambda entry: (str(type(entry)), str(entry)))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _mapping(path, fields, problems, depth)
    for method in ("tolist", "to_dict", "model_dump"):
        if callable(convert := getattr(value, method, None)) and not isinstance(value, type):
            size = getattr(value, "size", 0)
            size = size if isinstance(size, int) else getattr(value, "numel", int)()
            if size > LARGEST:
                problems.append(
                    f"`{path}` must hold at most {LARGEST:,} numbers, got {size:,}. Keep it in a file of its own."
                )
                return None
            try:
                return _plain(path, convert(), problems, depth + 1)
            except Exception as error:
                problems.append(f"`{path}` cannot be read: {type(error).__name__}: {error}. Give plain numbers.")
                return None
    problems.append(
        f"`{path}` must be a number, a text, True, False, None, or a list or dictionary of them, got {_kind(value)}. "
        "Give its numbers, or leave it out."
    )
    return None


def _mapping(path: str, values: Mapping[Any, Any], problems: list[str], depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in values.items():
        name = _scalar(key)
        if name is _NONE or (isinstance(name, float) and not math.isfinite(name)):
            problems.append(f"Keys of `{path}` must be text or numbers, got {_kind(key)}. Name it by a text.")
            continue
        name = name if isinstance(name, str) else str(name)
        if name in plain:
            problems.append(f"Keys of `{path}` must differ as text, got {name!r} twice. Rename one of them.")
        if not _writable(name):
            problems.append(f"Keys of `{path}` must be text that UTF-8 can hold, got {name!r}. Rename it.")
            continue
        plain[name] = _plain(f"{path}[{name!r}]", value, problems, depth + 1)
    return plain


_NONE = object()
"""What has no parts is never this."""


def _scalar(value: Any) -> Any:
    """A value without parts as Python's own; `_NONE` for everything else."""
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    if value is None or isinstance(value, bool):
        return value
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, PurePath | UUID):
        return str(value)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    if type(value).__module__ == "numpy" and type(value).__name__ in ("datetime64", "timedelta64", "str_"):
        return None if str(value) == "NaT" else str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) or type(value).__name__ == "Decimal":
        return _real(value)
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):
        try:
            single = item()
        except Exception:  # a tensor without contents
            return _NONE
        return _NONE if type(single) is type(value) else _scalar(single)
    return _NONE


def _real(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except ValueError:  # a signalling NaN
        return math.nan


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    written = repr(value) if isinstance(value, bytes | str | complex | int | float | list) else ""
    return written if 0 < len(written) <= 60 else f"a {type(value).__name__}"
