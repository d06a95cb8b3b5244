"""The base of every spec: frozen, checked when made, equal by value, and the same after a trip through JSON or TOML.

A spec is data. Whatever can be asked of tsdistill (a model's shape, a loss, a whole recipe) is one, so that a search
can propose it, a job can replay it and a manifest can hold it. This module imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from tsdistill.errors import ConfigError, listed, nearest

SCHEMA_VERSION = 1
"""Version of the written form of specs; a reader refuses a newer one."""


NONE = "none"
"""How a None is written where None is not the default."""


class Spec(BaseModel):
    """Frozen, keyword-only, validated data with a digest; every problem comes in one `ConfigError`.

    Use it as the base of anything a user may configure. Two specs are equal when their values are.

    Example:
        >>> class Cut(Spec):
        ...     ratio: float = 0.5
        >>> Cut(ratio=0.25) == Cut.from_json(Cut(ratio=0.25).to_json())
        True
        >>> Cut(ratoi=0.25)
        Traceback (most recent call last):
        tsdistill.errors.ConfigError: `ratoi` is not a field of Cut. Did you mean `ratio`?
    """

    late: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later and are left out of what is written while they are at their default, so that the files and
    digests of what does not use them are what they were."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, ser_json_inf_nan="constants"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_explain(error, type(self))) from None

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """Undo `_write_none`."""
        if not isinstance(values, dict):
            return values
        said = {name for name, value in values.items() if isinstance(value, str) and value == NONE}
        return {name: None if name in said and cls._reads_none(name) else value for name, value in values.items()}

    @model_serializer(mode="wrap")
    def _write_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a None that is the default; write any other as "none", because TOML has no null."""
        written = handler(self)
        return {
            name: NONE if value is None else value
            for name, value in written.items()
            if (value is not None or self._may_be_none(name)) and not self._says_nothing(name)
        }

    @classmethod
    def _reads_none(cls, name: str) -> bool:
        """Whether the word stands for None: wherever None is allowed and a text is not."""
        field = cls.model_fields.get(name)
        kinds = get_args(field.annotation) if field is not None else ()
        return type(None) in kinds and str not in kinds

    def _says_nothing(self, name: str) -> bool:
        return name in self.late and getattr(self, name) == type(self).model_fields[name].default

    @classmethod
    def _may_be_none(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return field is not None and field.default is not None and type(None) in get_args(field.annotation)

    def replace(self, **values: Any) -> Self:
        """A copy with some fields changed, checked like a new one; fields that were derived stay as they are."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **values})

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON types that TOML can hold as well."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict()`; an unknown or newer `schema_version` is refused."""
        values = dict(values)
        version = values.pop("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= SCHEMA_VERSION:
            raise ConfigError(
                f"`schema_version` must be a whole number up to {SCHEMA_VERSION}, got schema_version={version!r}. "
                "Update tsdistill to read what a newer one wrote."
            )
        return cls(**values)

    def to_json(self) -> str:
        """The spec as JSON with its schema version."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **self.to_dict()}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Rebuild from `to_json()`."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{cls.__name__} must be valid JSON: {error}.") from None
        return cls.from_dict(_table(values, cls))

    def to_toml(self) -> str:
        """The spec as TOML with its schema version."""
        return tomli_w.dumps({"schema_version": SCHEMA_VERSION, **self.to_dict()})

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Rebuild from `to_toml()`."""
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{cls.__name__} must be valid TOML: {error}.") from None
        return cls.from_dict(values)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a `.toml` or `.json` file; a problem names the file."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read {path}: {error}. Give the path of a .toml or .json file.") from None
        try:
            return cls.from_json(text) if path.suffix == ".json" else cls.from_toml(text)
        except ConfigError as error:
            raise ConfigError(f"In {path}: {error}") from None

    @property
    def digest(self) -> str:
        """Sixteen hex digits that name this spec's class and values."""
        return digest_of({"class": type(self).__name__, **self.to_dict()})


class LineageStep(Spec):
    """One step of how a forecaster came to be: what was done, with which spec, seed, data and result.

    Args:
        verb: The function that made it: train, shrink, distill, prune, export, quantize.
        spec: The specs it was called with, as plain data.
        seed: The seed of the step, where it draws random numbers.
        data: Fingerprint of the training and validation windows it saw; never of the test part.
        metrics: What the step measured on training and validation windows.
        versions: Package versions that can change numbers.
    """

    verb: str
    spec: dict[str, Any] = {}
    seed: int | None = None
    data: str | None = None
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}


def digest_of(values: Any) -> str:
    """Sixteen hex digits of the canonical JSON of plain data."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _table(values: Any, cls: type) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{cls.__name__} must be a JSON object, got {type(values).__name__}.")
    return values


def _explain(error: ValidationError, cls: type[BaseModel]) -> str:
    """Pydantic's findings in house style: rule, value, remedy; all of them."""
    problems: list[str] = []
    for item in error.errors(include_url=False):
        sentence = _sentence(item, cls)
        # A spec inside this one has listed its own problems: its bullets join ours, each with the place they are in.
        _, _, bullets = sentence.partition(":\n  - ")
        place = ".".join(str(part) for part in item["loc"])
        nested = bullets.split("\n  - ") if bullets else [sentence]
        problems += [f"In `{place}`: {each}" if item["type"] == "value_error" and place else each for each in nested]
    return listed(problems, cls.__name__)


def _sentence(item: ErrorDetails, cls: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    message = item["msg"]
    if item["type"] == "extra_forbidden":
        known = _fields_at(cls, item["loc"][:-1])
        return f"`{name}` is not a field of {cls.__name__}. {nearest(str(item['loc'][-1]), known)}"
    if item["type"] == "union_tag_invalid":
        context = item.get("ctx", {})
        known = [tag.strip(" '") for tag in str(context.get("expected_tags", "")).split(",")]
        tag = context.get("tag")
        return f"`{name}.kind` must be a known kind, got kind={tag!r}. {nearest(str(tag), known)}"
    if item["type"] == "union_tag_not_found":
        return f"`{name}` must say its `kind`, got {name}={_without_password(repr(item['input']))}."
    if item["type"] == "missing":
        return f"`{name}` must be given: {cls.__name__} has no default for it."
    if item["type"] == "value_error":
        # Raised by our own validators, which already speak in house style.
        return message.removeprefix("Value error, ")
    message = re.sub(r"^\w+ should ", "", message)
    return f"`{name}` must {message}, got {name}={_without_password(repr(item['input']))}."


def _without_password(text: str) -> str:
    """A value as it may be shown: what stands where addresses hold passwords is struck out."""
    text = re.sub(r"(://[^:/\s'\"]*:)[^\s'\"]*@", r"\1***@", text)
    return re.sub(r"(?i)(pass\w*|pwd|secret|token)(=|': ')[^&;\s'\"]+", r"\1\2***", text)


def _fields_at(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Field names of the model that an error location points into."""
    known: list[str] = list(cls.model_fields)
    model: Any = cls
    for part in loc:
        field = getattr(model, "model_fields", {}).get(part)
        candidates = [field.annotation] if field else []
        candidates += list(getattr(field.annotation, "__args__", ())) if field else []
        nested = [candidate for candidate in candidates if hasattr(candidate, "model_fields")]
        if nested:
            model, known = nested[0], [name for candidate in nested for name in candidate.model_fields]
    return known
