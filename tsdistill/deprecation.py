"""Names and arguments of an earlier version: they work for one version more, with one warning each."""

from __future__ import annotations

import functools
import pkgutil
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_warned: set[str] = set()


def warn_once(key: str, message: str, *, stacklevel: int = 2) -> None:
    """Give a DeprecationWarning the first time that `key` is met in this process.

    Args:
        key: What is deprecated.
        message: What replaces it, and until when it works.
        stacklevel: Which caller the warning points at; 2 is the caller of the function that calls this.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     for _ in range(3):
        ...         warn_once("colour", "`colour` is called `shade` now.")
        >>> len(caught)
        1
    """
    if key in _warned:
        return
    # Counted afterwards: where warnings are errors, every use is one.
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)
    _warned.add(key)


def forget_warnings() -> None:
    """Let every deprecated name warn again; for tests."""
    _warned.clear()


def moved_name(package: str, name: str, aliases: Mapping[str, str]) -> Any:
    """What a package's old name stands for now, with a warning; for the `__getattr__` of that package.

    Args:
        package: Where the name used to be.
        name: The old name.
        aliases: Old names, each with its place: "tsdistill.errors.ConfigError".

    Raises:
        AttributeError: `name` is no old name either.
    """
    if name not in aliases:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    place = aliases[name]
    owner, _, attribute = place.rpartition(".")
    value = getattr(pkgutil.resolve_name(owner), attribute)
    message = f"`{package}.{name}` is `{place}` now. The old name works until version 0.3."
    warn_once(f"{package}.{name}", message, stacklevel=3)
    return value


def moved_names(package: str, aliases: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package with moved names and no other use for it takes as its `__getattr__`; see `moved_name`."""

    def moved(name: str) -> Any:
        return moved_name(package, name, aliases)

    return moved


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
            warn_once(
                f"{function.__module__}.{function.__qualname__}({old})",
                f"`{old}` of {function.__name__}() is called `{new}` now. Write {new}={kwargs[old]!r}. The old name "
                "works until version 0.3.",
            )
            values: dict[str, Any] = {new if name == old else name: value for name, value in kwargs.items()}
            return function(*args, **values)

        return accepting

    return decorate
