"""Types that are meant: true is no number, "24" is no number, 1 is no switch, whatever a spec was read from."""

from __future__ import annotations

from typing import Any

from pydantic_core import core_schema

SCALARS = frozenset({"int", "float", "bool", "str"})

ASIDE = frozenset({"metadata", "serialization", "default", "config", "expected", "ref"})
"""Parts of a schema that hold no schemas of what is read."""


def strict(schema: Any) -> Any:
    """A schema of pydantic's whose numbers, switches and texts take their own type only, wherever they stand.

    Whole numbers may still stand where others are asked for, and a float that is whole for a whole number, as JSON does
    not tell the two apart; lists stand for tuples and tables for specs, which is why it is not `strict=True` for all.
    """
    return _strict(schema, in_union=False)


def _strict(schema: Any, *, in_union: bool) -> Any:
    if isinstance(schema, list):
        return [_strict(item, in_union=in_union) for item in schema]
    if isinstance(schema, tuple):  # a choice and its name
        return tuple(_strict(item, in_union=in_union) for item in schema)
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind in SCALARS:
        made = {**schema, "strict": True}
        # Among alternatives 3.0 is a float before it is a whole number.
        counts = kind == "int" and not in_union and not schema.get("strict")
        return core_schema.no_info_before_validator_function(whole, made) if counts else made
    inside = kind == "union"
    return {name: value if name in ASIDE else _strict(value, in_union=inside) for name, value in schema.items()}


def whole(value: Any) -> Any:
    """A float that is whole as a whole number; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
