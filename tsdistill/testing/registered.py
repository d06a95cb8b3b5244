"""Whether a class is a sound member of its family."""

from __future__ import annotations

from typing import Any

from tsdistill.errors import ConfigError
from tsdistill.spec import Family, Range, default_ranges
from tsdistill.testing.rules import ContractError, require


def check_member(family: Family[Any], cls: type[Any]) -> None:
    """A class is registered, its examples come back from files, and its fields accept the ranges beside them.

    Raises:
        ContractError: a rule is broken; the message says which.
    """
    require(isinstance(cls, type) and cls in set(family), f"{cls!r} is not a registered {family.name}")
    examples = cls.examples()
    require(len(examples) > 0, f"{cls.__name__}.examples() is empty")
    for example in examples:
        written = (
            cls.from_json(example.to_json()),
            cls.from_toml(example.to_toml()),
            family.read(family.write(example)),
        )
        require(all(back == example for back in written), f"{example} does not survive being written and read")
    for name, among in default_ranges(cls).items():
        for value in (among.low, among.high) if isinstance(among, Range) else among:
            if cls.left_out_at == (name, value):
                continue
            try:
                family.read(family.kind_of(cls)).replace_at({name: value})
            except ConfigError as error:
                raise ContractError(f"the range beside {cls.__name__}.{name} has a value it refuses: {error}") from None
