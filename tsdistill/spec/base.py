"""The base of every spec: frozen, checked when made, equal by value, and the same after a trip through JSON or TOML.

A spec is data. Whatever can be asked of tsdistill (a model's shape, a loss, a whole recipe) is one, so that a search
can propose it, a job can replay it and a manifest can hold it. This module imports neither torch nor pandas.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from tsdistill.errors import ConfigError, Problem
from tsdistill.plain import plain_data
from tsdistill.spec.explaining import config_error, explained, named
from tsdistill.spec.limits import Seed
from tsdistill.spec.reading import RefusedError, parse_json, parse_toml, plain, read_text
from tsdistill.spec.strict import strict

if TYPE_CHECKING:
    from tsdistill.spec.ranges import Shorthand

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

    shorthands: ClassVar[Mapping[str, Shorthand]] = {}
    """Words that set several numbers at once, by name; a validator of the class reads them."""

    left_out_at: ClassVar[tuple[str, float] | None] = None
    """A field, and the value at which the whole spec is left out of what holds it: a loss of weight 0."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, ser_json_inf_nan="constants"
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**_plain(values, type(self).__name__))
        except ValidationError as error:
            raise explained(error, type(self)) from None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return strict(handler(source))

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        """Undo `_write_none`."""
        if not isinstance(values, dict):
            return values
        none = {name for name, value in values.items() if isinstance(value, str) and value == NONE}
        return {name: None if name in none and cls._reads_none(name) else value for name, value in values.items()}

    @model_serializer(mode="wrap")
    def _write_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a None that is the default; write any other as "none", because TOML has no null."""
        written = handler(self)
        return {
            name: NONE if value is None else value
            for name, value in written.items()
            if (value is not None or self._may_be_none(name)) and not self._is_left_out(name)
        }

    @classmethod
    def _reads_none(cls, name: str) -> bool:
        """Whether the word stands for None: wherever None is allowed and a text is not."""
        field = cls.model_fields.get(name)
        kinds = get_args(field.annotation) if field is not None else ()
        return type(None) in kinds and str not in kinds

    def _is_left_out(self, name: str) -> bool:
        return name in self.late and getattr(self, name) == type(self).model_fields[name].default

    @classmethod
    def _may_be_none(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return field is not None and field.default is not None and type(None) in get_args(field.annotation)

    def replace(self, **values: Any) -> Self:
        """A copy with some fields changed, checked like a new one; fields that were derived stay as they are."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **values})

    def replace_at(self, values: Mapping[str, Any]) -> Self:
        """A copy with values at their addresses, checked like a new one.

        Numbers that were derived from one that changes are derived anew. A kind that changes keeps what both kinds have
        (see `exchanged`); an item that is not there yet is added, and one whose weight becomes 0, or that is set to
        None, is left out.

        Args:
            values: By address from here: `{"student.model.width": 32, "pruning": None}`.

        Raises:
            ConfigError: an address leads nowhere, or a field refuses its value; the message names the address.

        Example:
            >>> from tsdistill.recipe import default_recipe
            >>> recipe = default_recipe().replace_at({"student.model.kind": "mlp", "student.model.width": 32})
            >>> recipe.student.model.hidden
            (64, 64)
            >>> default_recipe().replace_at({"student.model.widht": 32})
            Traceback (most recent call last):
            tsdistill.errors.ConfigError: `student.model.widht` is not an address of this LSTMConfig. Did you mean ...
        """
        from tsdistill.spec import addresses

        replaced = addresses.changed(self, [(addresses.parsed(address), value) for address, value in values.items()])
        assert isinstance(replaced, type(self))  # only what lies inside can be left out
        return replaced

    def value_at(self, address: str) -> Any:
        """What stands at an address, such as "student.model.width".

        Raises:
            ConfigError: the address leads nowhere.
        """
        from tsdistill.spec import addresses

        return addresses.value_at(self, address)

    def minimal(self) -> dict[str, Any]:
        """The fields that have to be given for the same spec: those that are neither at their default nor derived."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        for name in type(self).model_fields:
            fewer = {other: value for other, value in values.items() if other != name}
            try:
                if type(self)(**fewer) == self:
                    values = fewer
            except ConfigError:
                continue
        return values

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
        return cls.from_dict(_table(parse_json(text, cls.__name__), cls))

    def to_toml(self) -> str:
        """The spec as TOML with its schema version."""
        return tomli_w.dumps({"schema_version": SCHEMA_VERSION, **self.to_dict()})

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Rebuild from `to_toml()`."""
        return cls.from_dict(parse_toml(text, cls.__name__))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a `.toml` or `.json` file; a problem names the file."""
        path = Path(path)
        text = read_text(path)
        try:
            return cls.from_json(text) if path.suffix.lower() == ".json" else cls.from_toml(text)
        except ConfigError as error:
            raise ConfigError(f"In {path}: {error}") from None

    @property
    def digest(self) -> str:
        """Sixteen hex digits that name this spec's class and values."""
        return digest_of({"class": type(self).__name__, **self.to_dict()})


class Member(Spec):
    """Base of the specs that make up a `Family`: models, losses, criteria, ways to quantize.

    A subclass gives its `kind` a default, the word that names it in files.
    """

    def exchanged(self, cls: type[Spec], **values: Any) -> Any:
        """A spec of another class of the same family that keeps what was set here and both classes have.

        Args:
            cls: The other class.
            values: Fields of the other class that are set in the same step.
        """
        kept = {name: value for name, value in self.minimal().items() if name in cls.model_fields}
        return cls(**{**kept, **values})

    @classmethod
    def contract_problems(cls) -> list[str]:
        """What a class lacks to be a member of its family; empty where it keeps the contract."""
        return []

    @classmethod
    def examples(cls) -> tuple[Self, ...]:
        """Specs of this class with settings worth a test; contract checks try every one of them."""
        return (cls(),)


class LineageStep(Spec):
    """One step of how a forecaster came to be: what was done, with which spec, seed, data and result.

    Args:
        verb: The function that made it: train, shrink, distill, prune, export, quantize, choose.
        spec: The specs it was called with, as plain data.
        seed: The seed of the step, where it draws random numbers.
        data: Fingerprint of the training and validation windows it saw; never of the test part.
        metrics: What the step measured on training and validation windows.
        versions: Package versions that can change numbers.
        machine: The processor's name and the threads that torch computed with.
    """

    late: ClassVar[frozenset[str]] = frozenset({"machine"})

    verb: str
    spec: dict[str, Any] = {}
    seed: Seed | None = None
    data: str | None = None
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, Any] = {}

    @field_validator("spec", "metrics", mode="before")
    @classmethod
    def _as_written(cls, values: Any, info: ValidationInfo) -> Any:
        """A step is written to files, so that it holds what files can hold."""
        return plain_data(str(info.field_name), values)


def digest_of(values: Any) -> str:
    """Sixteen hex digits of the canonical JSON of plain data."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Every field's value as plain data; all that is too large or too deep in one error."""
    read: dict[str, Any] = {}
    problems = []
    for name, value in values.items():
        try:
            read[name] = plain(value, (name,))
        except RefusedError as error:
            problems.append(Problem(error.path, f"`{named(error.path)}` must {error.rule}."))
    if problems:
        raise config_error(problems, what)
    return read


def _table(values: Any, cls: type) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{cls.__name__} must be a JSON object, got {type(values).__name__}.")
    return values
