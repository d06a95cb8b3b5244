"""Narrowing: the package promises one of several types, and a test knows which one it must be."""

from __future__ import annotations

from typing import TypeVar

Value = TypeVar("Value")


def known(value: Value | None) -> Value:
    """The value, which must be there."""
    assert value is not None
    return value


def instance_of(kind: type[Value], value: object) -> Value:
    """The value, which must be of this class."""
    assert isinstance(value, kind), type(value)
    return value
