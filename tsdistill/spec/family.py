"""Families of specs: a field holds any member, `kind` names it, and users add members of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from tsdistill.errors import ConfigError, listed, must, nearest, shown
from tsdistill.spec.base import Member

M = TypeVar("M", bound=Member)
C = TypeVar("C", bound=type[Member])

_families: list[Family[Any]] = []


class Family(Generic[M]):
    """Specs of one sort, known by their `kind`: what a field may hold, what a file may name, what a search may draw.

    Use it as the annotation of a field, `model: Annotated[ModelConfig, MODELS]`: the field then takes a member, a
    mapping with its `kind`, or the bare word of a kind, which stands for the member with its defaults.

    Args:
        name: What a member is called in messages: "architecture", "loss".
        base: What every member inherits from. Its `contract_problems` lists what a class lacks to be a member.
        tag: The field that names a member.
        default: Kind of a mapping that names none.
        bare: Write a member whose fields are at their defaults as its kind alone.

    Example:
        >>> from tsdistill.losses import LOSSES
        >>> LOSSES.read({"kind": "temporal", "order": 2}).order
        2
        >>> LOSSES.read("tempral")
        Traceback (most recent call last):
        tsdistill.errors.ConfigError: `kind` must be that of a known loss, got kind='tempral'. ... `temporal`? One ...
    """

    def __init__(
        self,
        name: str,
        base: type[M],
        *,
        tag: str = "kind",
        default: str | None = None,
        bare: bool = False,
    ) -> None:
        self.name = name
        self.base = base
        self.tag = tag
        self.default = default
        self.bare = bare
        self._members: dict[str, type[M]] = {}
        self._own = frozenset[str]()
        _families.append(self)

    def include(self, *members: type[M]) -> None:
        """Add the package's own members; a family's door calls this once."""
        for member in members:
            self.register(member)
        self._own = frozenset(self._members)

    def __iter__(self) -> Iterator[type[M]]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, kind: object) -> bool:
        return isinstance(kind, str) and kind in self._members

    def __getitem__(self, kind: str) -> type[M]:
        return self._member(kind)

    def __repr__(self) -> str:
        return f"Family({self.name!r}, {', '.join(self._members)})"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Every member's kind, those of the package first."""
        return tuple(self._members)

    def kind_of(self, member: M | type[M]) -> str:
        """The word that names a member in files."""
        cls = member if isinstance(member, type) else type(member)
        return str(cls.model_fields[self.tag].default)

    def register(self, member: C) -> C:
        """Add a member, so that fields take it, files name it and searches draw it; also a decorator.

        Use it for a class of your own. A process that reads what you saved registers the class first, which importing
        its module does. A class that is defined again in an interactive session takes the place of the older one.

        Args:
            member: A subclass of `base` with a default for its `kind`.

        Returns:
            The class itself.

        Raises:
            ConfigError: it is no such class, breaks the family's contract, or its kind is another member's.
        """
        cls: Any = member
        if not isinstance(cls, type) or not issubclass(cls, self.base) or cls is self.base:
            rule, remedy = f"be a class that inherits from {self.base.__name__}", "Register the class, not an object"
            raise ConfigError(must(self.name, rule, member, remedy))
        field = cls.model_fields.get(self.tag)
        kind = None if field is None else field.default
        problems = []
        if not isinstance(kind, str) or not kind or "." in kind:
            remedy = f'Write {self.tag}: Literal["my-{self.name}"] = "my-{self.name}"'
            problems.append(must(f"{member.__name__}.{self.tag}", "have a word as its default", kind, remedy))
        problems += member.contract_problems()
        known = self._members.get(str(kind))
        if known is not None and known is not member and not _again(known, member):
            where = f"{known.__module__}.{known.__qualname__}"
            remedy = f"{where} has it already: choose another word"
            problems.append(must(f"{member.__name__}.{self.tag}", f"be its own {self.name}'s", kind, remedy))
        if problems:
            raise ConfigError(listed(problems, member.__name__))
        self._members[str(kind)] = cls
        return member

    def unregister(self, kind: str) -> None:
        """Forget a member that a user registered, so that a test leaves the family as it was.

        Raises:
            ConfigError: it is no member, or one of the package's own.
        """
        if self._member(kind) and kind in self._own:
            raise ConfigError(must("kind", "be of a member that was registered", kind, "Those of tsdistill stay"))
        del self._members[kind]

    def read(self, value: Any) -> M:
        """The member that a field's value stands for: itself, a mapping with its kind, or a kind alone.

        Raises:
            ConfigError: nothing of the family; the message lists every problem.
        """
        if isinstance(value, self.base):
            self._check_registered(value)
            return value
        if isinstance(value, str):
            return self._member(value)()
        if not isinstance(value, Mapping):
            raise ConfigError(must(self.name, f"be one of {', '.join(self.kinds)}", value, f"Name its {self.tag}"))
        kind = value.get(self.tag, self.default)
        if kind is None:
            raise ConfigError(
                f"`{self.name}` must say its `{self.tag}`, got {shown(dict(value))}. Known: {', '.join(self.kinds)}."
            )
        return self._member(kind).from_dict({**value, self.tag: kind})

    def write(self, member: M) -> dict[str, Any] | str:
        """What `read` gives the member for: plain data."""
        values = member.to_dict()
        return self.kind_of(member) if self.bare and set(values) == {self.tag} else values

    def examples(self) -> list[M]:
        """Members with settings that contract tests try, those of every class."""
        return [example for member in self for example in member.examples()]

    def _member(self, kind: object) -> type[M]:
        if not isinstance(kind, str) or kind not in self._members:
            hint = nearest(str(kind)[:99], self.kinds)
            remedy = f"{hint} One of your own is known once its module has registered it"
            raise ConfigError(must(self.tag, f"be that of a known {self.name}", kind, remedy))
        return self._members[kind]

    def _check_registered(self, member: M) -> None:
        if self._members.get(self.kind_of(member)) is not type(member):
            name = type(member).__name__
            raise ConfigError(
                f"`{self.name}` must be of a registered class, got a {name}. Register it first, so that what holds it "
                f"can be read again: decorate the class with its family's `register`."
            )

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )


def user_modules() -> tuple[str, ...]:
    """Modules outside of tsdistill that registered members: what a new process imports to know them too."""
    modules = {
        member.__module__: None
        for family in _families
        for member in family
        if not member.__module__.startswith("tsdistill.")
    }
    return tuple(name for name in modules if name in sys.modules)


def _again(known: type, member: type) -> bool:
    """Whether a class is the same one, defined again: a cell of a notebook that was run twice."""
    return (
        (known.__module__, known.__qualname__)
        == ("__main__", member.__qualname__)
        == (
            member.__module__,
            known.__qualname__,
        )
    )
