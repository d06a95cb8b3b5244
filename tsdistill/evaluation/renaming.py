"""Arguments that had another name in an earlier version: the old one still works for a while, with a warning."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def renamed_argument(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take the keyword argument `new` under its `old` name too, with a DeprecationWarning.

    Example:
        >>> @renamed_argument("colour", "shade")
        ... def paint(shade: str) -> str:
        ...     return shade
        >>> paint(shade="red")
        'red'
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def accepting(*args: P.args, **kwargs: P.kwargs) -> R:
            if old not in kwargs:
                return function(*args, **kwargs)
            if new in kwargs:
                raise TypeError(f"{function.__name__}() got both `{old}` and `{new}`, which are the same. Use `{new}`.")
            warnings.warn(
                f"`{old}` of {function.__name__}() is called `{new}` now, and goes with the next version. "
                f"Write {new}={kwargs[old]!r}.",
                DeprecationWarning,
                stacklevel=2,
            )
            given: dict[str, Any] = {new if name == old else name: value for name, value in kwargs.items()}
            return function(*args, **given)

        return accepting

    return decorate
