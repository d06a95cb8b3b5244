"""What an address leads to, read from classes: whether a kind has a field before there is a member of it."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from tsdistill.errors import ConfigError, FieldPath, address_of, nearest
from tsdistill.spec.addresses import AbsentError, family_of, parsed, place_of, unknown
from tsdistill.spec.base import Spec


class Target(NamedTuple):
    """What an address leads to: a field, or a shorthand, of a class.

    Args:
        cls: The class that has it.
        name: The field's or the shorthand's name; None where the address means a whole member of a family.
        is_whole: Whether only whole numbers go there.
    """

    cls: type[Spec]
    name: str | None
    is_whole: bool


def target(spec: Spec, address: str) -> Target:
    """What an address leads to in a spec as it is now, whether or not something stands there yet.

    Raises:
        AbsentError: it is for a member of another kind than the one that is there.
        ConfigError: no member of any kind has such a field; the message suggests one that does.
    """
    return _target(type(spec), spec, parsed(address), ())


def _target(cls: type[Spec], value: Spec | None, path: FieldPath, before: FieldPath) -> Target:
    name, rest = str(path[0]), path[1:]
    if name in cls.shorthands and not rest:
        return Target(cls, name, True)
    if name not in cls.model_fields:
        raise unknown(value, path, before) if value is not None else _unknown_in(cls, path, before)
    field = cls.model_fields[name]
    here = (*before, name)
    if not rest:
        return Target(cls, name, not _allows_fractions(field.annotation))
    family = family_of(field)
    inside = getattr(value, name, None)
    if family is None:
        nested = [part for part in (field.annotation, *get_args(field.annotation)) if hasattr(part, "model_fields")]
        if not nested:
            raise unknown(inside, rest, here)
        return _target(nested[0], inside, rest, here)
    first, deeper = rest[0], rest[1:]
    if isinstance(inside, tuple):
        place = place_of(inside, first, family, (*here, first))
        item = None if place is None else inside[place]
        member = family[str(first)] if item is None else type(item)
        return _target(member, item, deeper, (*here, first)) if deeper else Target(member, None, False)
    if first == family.tag:
        return Target(family.base, family.tag, False)
    if inside is not None and (first in type(inside).model_fields or first in type(inside).shorthands):
        return _target(type(inside), inside, rest, here)
    if first in family:
        leads_to = _target(family[str(first)], None, deeper, (*here, first)) if deeper else None
        if inside is None or family.kind_of(inside) != first:
            raise AbsentError(f"`{address_of((*before, *path))}` is for another {family.name} than the one there.")
        return leads_to or Target(type(inside), None, False)
    if any(first in member.model_fields or first in member.shorthands for member in family):
        raise AbsentError(f"`{address_of((*before, *path))}` is a field of another {family.name} than the one there.")
    known = {address_of((*here, field)) for member in family for field in (*member.model_fields, *member.shorthands)}
    there = address_of((*before, *path))
    raise ConfigError(f"`{there}` is not an address: no {family.name} has such a field. {nearest(there, known)}")


def _unknown_in(cls: type[Spec], path: FieldPath, before: FieldPath) -> ConfigError:
    here = address_of((*before, *path))
    known = [address_of((*before, name)) for name in (*cls.model_fields, *cls.shorthands)]
    return ConfigError(f"`{here}` is not an address: {nearest(here, known)}")


def _allows_fractions(annotation: Any) -> bool:
    return annotation is float or any(_allows_fractions(part) for part in get_args(annotation))
