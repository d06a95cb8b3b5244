"""What pydantic finds wrong with a spec, in house style: address, rule, value and remedy; all problems at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tsdistill.errors import ConfigError, FieldPath, Problem, listed, nearest, shown

REMEDIES = {
    ("int_type", "str"): "Write the number without quotes",
    ("float_type", "str"): "Write the number without quotes",
    ("int_type", "bool"): "Write a number",
    ("float_type", "bool"): "Write a number",
    ("bool_type", "int"): "Write true or false",
    ("bool_type", "str"): "Write true or false, without quotes",
    ("string_type", "int"): "Put it in quotes",
}
"""What to do about a type, by the kind of error and the type that was given."""

UNION = frozenset({"int", "float", "str", "bool", "none"})
"""How pydantic calls alternatives, also bounded ones ("constrained-int"), which are no part of an address."""


def explained(error: ValidationError, cls: type[BaseModel]) -> ConfigError:
    """One error for everything that pydantic found, every problem with the address of its field."""
    problems: list[Problem] = []
    for item in error.errors(include_url=False):
        path = _path(item["loc"], cls)
        nested = getattr(item.get("ctx", {}).get("error"), "problems", ())
        if nested:
            problems += [Problem((*path, *inner.path), inner.sentence) for inner in nested]
        else:
            sentence = _sentence(item, path, cls)
            problems.append(Problem(path or _named(sentence, cls), sentence))
    return config_error(problems, cls.__name__)


def _named(sentence: str, cls: type[BaseModel]) -> FieldPath:
    """The field that a rule about a whole spec names first."""
    name = sentence[1:].partition("`")[0] if sentence.startswith("`") else ""
    return (name,) if name in cls.model_fields or name in getattr(cls, "shorthands", ()) else ()


def config_error(problems: Sequence[Problem], what: str) -> ConfigError:
    """A `ConfigError` that lists problems and keeps them, for the spec that holds the one they are in."""
    problems = tuple(dict.fromkeys(problems))
    return ConfigError(listed([str(problem) for problem in problems], what), problems)


def within(error: ConfigError, path: FieldPath, what: str) -> ConfigError:
    """The same error, its problems at a place inside of something larger."""
    problems = error.problems or (Problem((), str(error)),)
    return config_error([Problem((*path, *inner.path), inner.sentence) for inner in problems], what)


def _path(loc: tuple[int | str, ...], cls: type[BaseModel]) -> FieldPath:
    """A location of pydantic's without the names of union members, which stand between a field and its items."""
    path: list[str | int] = []
    for part in loc:
        alternative = part in UNION or str(part).startswith("constrained-")
        if isinstance(part, str) and path and (alternative or not re.fullmatch(r"\w[\w-]*", part)):
            continue
        path.append(part)
    return tuple(path)


def _sentence(item: ErrorDetails, path: FieldPath, cls: type[BaseModel]) -> str:
    name = named(path) or cls.__name__
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        known = [*cls.model_fields, *getattr(cls, "shorthands", ())]
        return f"`{name}` is not a field of {cls.__name__}. {nearest(name, known)}"
    if item["type"] == "missing":
        return f"`{name}` must be given: {cls.__name__} has no default for it."
    if item["type"] == "value_error":
        # Raised by our own validators, which already speak in house style.
        return message.removeprefix("Value error, ")
    message = re.sub(r"^\w+ should ", "", message)
    sentence = f"`{name}` must {message}, got {name}={without_password(shown(item['input']))}."
    remedy = REMEDIES.get((item["type"], type(item["input"]).__name__))
    return sentence if remedy is None else f"{sentence} {remedy}."


def named(path: FieldPath) -> str:
    """The last name of a place, with the number that follows it."""
    if path and isinstance(path[-1], int):
        return f"{next((part for part in reversed(path) if isinstance(part, str)), '')}[{path[-1]}]"
    return str(path[-1]) if path else ""


def without_password(text: str) -> str:
    """A value as it may be shown: what stands where addresses hold passwords is struck out."""
    text = re.sub(r"(://[^:/\s'\"]*:)[^\s'\"]*@", r"\1***@", text)
    text = re.sub(r"(://[^\s'\"?]*\?)[^\s'\"]+", r"\1***", text)
    return re.sub(r"(?i)(pass\w*|pwd|secret|token)(=|': ')[^&;\s'\"]+", r"\1\2***", text)
