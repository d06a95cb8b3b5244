"""Every field of a spec has one address, dotted from the outside in: `student.losses.temporal.weight`.

A name leads to a field, a number (`losses[1]` or `losses.1`) to an item of a tuple, and a kind to the item of that kind
(`losses.temporal`) or, after a field that holds one member, to that member if it is of the kind (`model.lstm.width`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from tsdistill.errors import ConfigError, FieldPath, address_of, nearest, shown
from tsdistill.spec.reading import parse_toml

if TYPE_CHECKING:
    from tsdistill.spec.base import Spec
    from tsdistill.spec.family import Family

S = TypeVar("S", bound="Spec")

Change = tuple[FieldPath, Any]

LONGEST = 1000
"""Letters of an address."""

NUMBER = re.compile(r"[+-]?(\d{1,99}\.?\d{0,99}|\.\d{1,99})([eE][+-]?\d{1,3})?")
"""Numbers as Python writes them, of which TOML does not take all."""


class AbsentError(ConfigError):
    """An address leads nowhere in this spec as it is: the member is of another kind."""


def parsed(address: str) -> FieldPath:
    """An address as a path.

    Raises:
        ConfigError: it is no address.
    """
    short = isinstance(address, str) and len(address) <= LONGEST
    if not short or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[\d+\])*", address.strip()):
        raise ConfigError(
            f"An address must be names joined by dots, got {shown(address)}. Such as student.model.width."
        )
    parts = re.findall(r"[^.\[\]]+", address)
    return tuple(int(part) if part.isdecimal() else part for part in (part.strip() for part in parts))


def parse_assignment(text: str) -> tuple[str, Any]:
    """`ADDRESS=VALUE` as a shell gives it: the value is TOML where it can be read so, else plain text.

    Raises:
        ConfigError: there is no `=`.

    Example:
        >>> parse_assignment("student.model.width=32"), parse_assignment("pruning=none")
        (('student.model.width', 32), ('pruning', 'none'))
    """
    address, equals, written = text.partition("=")
    if not equals or not address.strip():
        raise ConfigError(f"--set must be ADDRESS=VALUE, got {shown(text)}. Such as --set student.model.width=32.")
    try:
        return address.strip(), parse_toml(f"value = {written}", address)["value"]
    except ConfigError:
        return address.strip(), _loosely(written.strip())


def _loosely(written: str) -> Any:
    """A text from a shell that is no TOML: True and .001 are what they look like, all else is text."""
    if written.lower() in ("true", "false"):
        return written.lower() == "true"
    return float(written) if NUMBER.fullmatch(written) else written


def assigned(spec: S, texts: Iterable[str]) -> S:
    """A spec with the values of `ADDRESS=VALUE` texts in place, each read as its field wants it.

    All of them together, so that a kind and the fields that it cannot do without may come in any order; of one address
    the last text counts.

    Raises:
        ConfigError: a text is no assignment, an address leads nowhere, or a field refuses its value.
    """
    texts = list(texts)
    values = dict(map(parse_assignment, texts))
    try:
        return spec.replace_at(values)
    except ConfigError as error:
        # A name of digits alone is text to a field that holds text.
        plain = {parse_assignment(text)[0]: text.partition("=")[2].strip() for text in texts}
        with contextlib.suppress(ConfigError):
            return spec.replace_at(plain)
        # What has to come first may be written first.
        for address, value in values.items():
            try:
                spec = _one_of(spec, address, (value, plain[address]))
            except ConfigError:
                raise error from None
        return spec


def _one_of(spec: S, address: str, values: Sequence[Any]) -> S:
    """The spec with the first of some values that its field takes."""
    *others, last = values
    for value in others:
        with contextlib.suppress(ConfigError):
            return spec.replace_at({address: value})
    return spec.replace_at({address: last})


def value_at(spec: Spec, address: str) -> Any:
    """The value that stands at an address.

    Raises:
        ConfigError: the address leads nowhere; the message suggests one that does.
    """
    return _walk(spec, parsed(address), ())


def _walk(value: Any, path: FieldPath, before: FieldPath, family: Family[Any] | None = None) -> Any:
    if not path:
        return value
    first, rest = path[0], path[1:]
    here = (*before, first)
    if hasattr(type(value), "model_fields"):
        if first in type(value).model_fields:
            name = str(first)
            return _walk(getattr(value, name), rest, here, family_of(type(value).model_fields[name]))
        if first in type(value).shorthands:
            return _walk(type(value).shorthands[str(first)].read(value), rest, here)
        if family is not None and first in family:
            if family.kind_of(value) != first:
                raise AbsentError(f"`{address_of(here)}` is for another {family.name} than {family.kind_of(value)!r}.")
            return _walk(value, rest, here)
    if isinstance(value, tuple | list):
        place = place_of(value, first, family, here)
        if place is None:
            raise AbsentError(f"`{address_of(before)}` holds no {first!r}.")
        return _walk(value[place], rest, here, family)
    if isinstance(value, Mapping) and first in value:
        return _walk(value[first], rest, here)
    raise unknown(value, path, before)


def changed(spec: Spec, changes: Sequence[Change], before: FieldPath = ()) -> Spec:
    """A spec with values put at addresses below it, checked like a new one; see `Spec.replace_at`."""
    cls = type(spec)
    own: dict[str, Any] = {}
    nested: dict[str, list[Change]] = {}
    for path, value in changes:
        name = str(path[0])
        if name not in cls.model_fields and name not in cls.shorthands:
            raise unknown(spec, path, before)
        if len(path) == 1:
            own[name] = value
        else:
            nested.setdefault(name, []).append((path[1:], value))
    values = spec.minimal()
    for name, inner in nested.items():
        if name not in cls.model_fields:
            raise unknown(spec, (name, *inner[0][0]), before)
        field = cls.model_fields[name]
        current = own.get(name, getattr(spec, name))
        own[name] = _changed_value(field, current, inner, (*before, name))
    # What is derived from a field that changes is derived anew; what was set stays.
    return rebuilt(cls, {**values, **own}, before)


def rebuilt(cls: type[Spec], values: Mapping[str, Any], before: FieldPath) -> Any:
    """A spec of some values; texts from a shell are read as what the field holds."""
    from tsdistill.spec.explaining import within

    try:
        return cls(**values)
    except ConfigError as error:
        raise within(error, before, address_of(before) or cls.__name__) from None


def _changed_value(field: Any, current: Any, changes: Sequence[Change], before: FieldPath) -> Any:
    """A field's value with changes inside of it."""
    from tsdistill.spec.base import Spec

    family = family_of(field)
    if isinstance(current, tuple | list):
        return _changed_items(current, changes, before, family)
    if isinstance(current, Mapping):
        return {**current, **{str(path[0]): value for path, value in changes}}
    if current is None:
        current = _fresh(field, family, changes, before)
        if current is None:
            return None
    if not isinstance(current, Spec):
        raise unknown(current, changes[0][0], before)
    if family is not None:
        return changed_member(family, current, changes, before)
    return _unless_absent(changed, current, changes, before)


def changed_member(family: Family[Any], current: Any, changes: Sequence[Change], before: FieldPath) -> Any:
    """A member of a family with changes inside of it; a change of its kind comes first."""
    kinds = [value for path, value in changes if path == (family.tag,)]
    if kinds and kinds[-1] != family.kind_of(current):
        current = _exchanged(family, current, kinds[-1], changes, before)
    inner: list[Change] = []
    for path, value in changes:
        if path == (family.tag,):
            continue
        name = path[0]
        if name in family and name not in type(current).model_fields:
            if name != family.kind_of(current):
                raise AbsentError(
                    f"`{address_of((*before, *path))}` is for another {family.name} than the one there, "
                    f"{family.kind_of(current)!r}. Set {address_of(before)}.{family.tag} as well."
                )
            path = path[1:]
            if not path:
                current = family.read(value)
                continue
        inner.append((path, value))
    return _unless_absent(changed, current, inner, before) if inner else current


def _exchanged(family: Family[Any], current: Any, kind: str, changes: Sequence[Change], before: FieldPath) -> Any:
    """A member of another kind, made with those of its fields that are set in the same step."""
    from tsdistill.spec.explaining import within

    try:
        cls = family[kind]
    except ConfigError as error:
        raise within(error, (*before, family.tag), address_of(before)) from None
    own = {str(path[0]): value for path, value in changes if len(path) == 1 and path[0] in cls.model_fields}
    try:
        return current.exchanged(cls, **{name: value for name, value in own.items() if name != family.tag})
    except ConfigError as error:
        raise within(error, before, address_of(before)) from None


def _changed_items(
    items: Sequence[Any], changes: Sequence[Change], before: FieldPath, family: Family[Any] | None
) -> tuple[Any, ...]:
    """A tuple with changes inside of its items; an item that is left out is gone, one that is asked for is added."""
    held: list[Any] = list(items)
    grouped: dict[str | int, list[Change]] = {}
    for path, value in changes:
        grouped.setdefault(path[0], []).append((path[1:], value))
    for first, inner in grouped.items():
        place = place_of(held, first, family, (*before, first))
        whole = [value for path, value in inner if not path]
        deeper = [(path, value) for path, value in inner if path]
        if place is None:
            assert family is not None  # `_place` refuses what no family knows
            held.append(None)
            place = len(held) - 1
        if whole:
            held[place] = None if whole[-1] in (None, "none") else whole[-1]
            if family is not None and isinstance(held[place], Mapping):
                held[place] = family.read({family.tag: first, **held[place]})
        if deeper:
            current = held[place]
            if current is None and family is not None:
                if _leaves_out(family[str(first)], deeper):
                    continue
                current = family[str(first)]()
            if family is not None:
                held[place] = changed_member(family, current, deeper, (*before, first))
            elif hasattr(type(current), "model_fields"):
                held[place] = changed(current, deeper, (*before, first))
            else:
                raise unknown(current, deeper[0][0], (*before, first))
    return tuple(item for item in held if item is not None)


def place_of(items: Sequence[Any], first: str | int, family: Family[Any] | None, here: FieldPath) -> int | None:
    """Which item a part of an address means; None for a kind that is not among them yet."""
    if isinstance(first, int):
        if first >= len(items):
            raise ConfigError(
                f"`{address_of(here)}` is not there: there are {len(items)} items. They are counted from 0."
            )
        return first
    if family is None or first not in family:
        known = family.kinds if family is not None else [f"[{place}]" for place in range(len(items))]
        raise ConfigError(f"`{address_of(here)}` is not an address: {nearest(str(first), known)}")
    places = [place for place, item in enumerate(items) if item is not None and family.kind_of(item) == first]
    if len(places) > 1:
        number = address_of((*here[:-1], places[0]))
        raise ConfigError(f"`{address_of(here)}` means {len(places)} items. Name one by its number, {number}.")
    return places[0] if places else None


def _fresh(field: Any, family: Family[Any] | None, changes: Sequence[Change], before: FieldPath) -> Any:
    """What is changed where there was nothing: a spec of the field's class with its defaults."""
    if family is not None:
        kinds = [value for path, value in changes if path == (family.tag,)]
        kinds += [path[0] for path, _ in changes if path[0] in family]
        kind = kinds[0] if kinds else family.default
        if kind is None:
            raise ConfigError(f"`{address_of(before)}` is none. Set {address_of(before)}.{family.tag} first.")
        return family[str(kind)]()
    classes = [cls for cls in get_args(field.annotation) if hasattr(cls, "model_fields")]
    if not classes:
        raise unknown(None, changes[0][0], before)
    if _leaves_out(classes[0], changes):
        return None
    return rebuilt(classes[0], {}, before)


def _unless_absent(change: Any, current: Spec, changes: Sequence[Change], before: FieldPath) -> Any:
    """The changed spec; None where a field is set to the value at which the spec is left out."""
    return None if _leaves_out(type(current), changes) else change(current, changes, before)


def _leaves_out(cls: type[Spec], changes: Sequence[Change]) -> bool:
    if cls.left_out_at is None:
        return False
    name, nothing = cls.left_out_at
    return any(path == (name,) and value == nothing and not isinstance(value, bool | str) for path, value in changes)


def family_of(field: Any) -> Family[Any] | None:
    """The family whose members a field holds: one, perhaps none, or a tuple of them."""
    from tsdistill.spec.family import Family

    waiting = [*field.metadata, field.annotation]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Family):
            return part
        waiting += [*getattr(part, "__metadata__", ()), *get_args(part)]
    return None


def addresses_of(spec: Any, before: FieldPath = ()) -> Iterator[FieldPath]:
    """The path of every field, and of those of specs inside."""
    for name in (*type(spec).model_fields, *type(spec).shorthands):
        yield (*before, name)
        value = getattr(spec, name, None)
        family = family_of(type(spec).model_fields[name]) if name in type(spec).model_fields else None
        items = value if isinstance(value, tuple) else (value,)
        for place, item in enumerate(items):
            if hasattr(type(item), "model_fields"):
                inner = (*before, name)
                if isinstance(value, tuple):
                    inner = (*inner, place if family is None else family.kind_of(item))
                yield from addresses_of(item, inner)


def unknown(value: Any, path: FieldPath, before: FieldPath) -> ConfigError:
    """The error for an address that leads nowhere, with the nearest one that leads somewhere."""
    here = address_of((*before, *path))
    if not hasattr(type(value), "model_fields"):
        return ConfigError(f"`{here}` is not an address: {address_of(before)} has no fields of its own. Stop there.")
    known = [address_of((*before, *inner)) for inner in addresses_of(value)]
    siblings = [address for address in known if address.count(".") == len(before)]
    hint = nearest(here, known)
    return ConfigError(
        f"`{here}` is not an address of this {type(value).__name__}. "
        f"{hint if hint.startswith('Did') else nearest(here, siblings)}"
    )
