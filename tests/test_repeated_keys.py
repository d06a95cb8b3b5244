"""Keys that stand twice are refused by one rule, in specs and in artifacts, however many keys there are."""

from __future__ import annotations

import pytest

from tsdistill.errors import ConfigError
from tsdistill.formats import FormatError, parse_json
from tsdistill.spec.reading import parse_json as parse_spec

TEXT = '{"a": {"b": 1, "c": 2, "b": 3}}'


def test_both_readers_name_the_key() -> None:
    with pytest.raises(FormatError, match="the key 'b' stands in it twice"):
        parse_json(TEXT)
    with pytest.raises(ConfigError, match=r"`b` must stand once in Recipe, got it twice\. Leave one out"):
        parse_spec(TEXT, "Recipe")
    assert parse_json('{"a": {"b": 1}, "b": 2}') == parse_spec('{"a": {"b": 1}, "b": 2}', "Recipe")


def test_the_last_of_many_keys_is_seen() -> None:
    """Counting each name anew took the square of their number."""
    many = ", ".join(f'"k{number}": 0' for number in range(90_000))
    with pytest.raises(FormatError, match="the key 'k89999' stands in it twice"):
        parse_json(f'{{{many}, "k89999": 1}}')
