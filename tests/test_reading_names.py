"""Columns by any name, and stamps and identifiers wherever they stand: through a panel, to a frame and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.frames import hours, wide
from tsdistill.data import Panel
from tsdistill.errors import DataError

N = 17


def numbered(columns: Any) -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(N, len(columns)))
    return pd.DataFrame(values, index=hours(N), columns=columns)


def several(**names: Any) -> pd.DataFrame:
    """Two items of one channel, one below the other."""
    frames = [wide(hours(N), channels=("y",)).assign(unique_id=name) for name in (7, 5)]
    return pd.concat(frames, ignore_index=True).rename(columns=names)


PAIRS = pd.MultiIndex.from_product([["a", "b"], [1, 2]])
READ: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any], list[str], list[str]]] = {
    "numbers": (lambda: numbered(range(3)), {}, ["0", "1", "2"], ["series"]),
    "pairs": (lambda: numbered(PAIRS[:2]), {}, ["('a', 1)", "('a', 2)"], ["series"]),
    "pairs and stamps": (
        lambda: numbered(PAIRS[:1]).rename_axis(index="ds").reset_index(),
        {},
        ["('a', 1)"],
        ["series"],
    ),
    "one number asked for": (lambda: numbered(range(3)), {"target": 1}, ["1"], ["series"]),
    "one pair asked for": (lambda: numbered(PAIRS), {"target": ("b", 1)}, ["('b', 1)"], ["series"]),
    "a value called ds": (lambda: numbered(["ds", "b"]), {}, ["ds", "b"], ["series"]),
    "a value called ds beside a date": (
        lambda: numbered(["ds", "b"]).rename_axis(index="date").reset_index(),
        {"time": "date"},
        ["ds", "b"],
        ["series"],
    ),
    "a value called unique_id": (
        lambda: numbered(["unique_id", "b"]),
        {"target": ["unique_id", "b"]},
        ["unique_id", "b"],
        ["series"],
    ),
    "values called both": (
        lambda: numbered(["ds", "unique_id"]),
        {"target": ["ds", "unique_id"]},
        ["ds", "unique_id"],
        ["series"],
    ),
    "an item called series": (lambda: wide(hours(N)).assign(unique_id="series"), {}, ["a", "b", "c"], ["series"]),
    "names in the index": (lambda: several().set_index("unique_id"), {}, ["y"], ["7", "5"]),
    "both in the index": (lambda: several().set_index(["unique_id", "ds"]), {}, ["y"], ["7", "5"]),
    "both, otherwise called": (
        lambda: several(unique_id="station", ds="at").set_index(["at", "station"]),
        {},
        ["y"],
        ["7", "5"],
    ),
    "both, without names": (
        lambda: several().set_index(["unique_id", "ds"]).rename_axis([None, None]),
        {},
        ["y"],
        ["7", "5"],
    ),
    "both twice": (lambda: several().set_index(["unique_id", "ds"], drop=False), {}, ["y"], ["7", "5"]),
    "dates as text in the index": (
        lambda: numbered(["a"]).set_axis(hours(N).astype(str)),
        {},
        ["a"],
        ["series"],
    ),
    "days in the index": (
        lambda: numbered(["a"]).set_axis(pd.Index(hours(N, step="D").date)),
        {},
        ["a"],
        ["series"],
    ),
    "a level by name": (
        lambda: several(unique_id="station", ds="at").set_index(["station", "at"]),
        {"time": "at", "id": "station"},
        ["y"],
        ["7", "5"],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_any_shape_is_read_and_comes_back(case: str) -> None:
    make, options, channels, items = READ[case]
    panel = Panel.from_frame(make(), **options)
    assert list(panel.channels) == channels
    assert [item.unique_id for item in panel.items] == items
    assert all(item.ds is not None and len(item) == N for item in panel.items)
    again = Panel.from_frame(panel.to_frame())
    assert (again.channels, again.frequency) == (panel.channels, panel.frequency)
    for item, same in zip(panel.items, again.items, strict=True):
        assert item.unique_id == same.unique_id
        assert item.ds is not None
        assert item.ds.equals(same.ds)
        np.testing.assert_array_equal(item.values, same.values)


def test_only_items_with_names_get_a_column_of_them() -> None:
    assert "unique_id" not in Panel.from_frame(wide()).to_frame()
    named = Panel.from_frame(wide().assign(unique_id="series"))
    assert named.to_frame()["unique_id"].eq("series").all()
    assert "unique_id" in named.until("2024-01-02").to_frame()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: numbered([1, "1"]), "different names, got 1 more than once"),
        (lambda: several().set_index("unique_id").rename_axis(None), "more than once.*id="),
        (lambda: several(ds="at").set_index("at"), r"`time` must name a column|more than once"),
    ],
)
def test_what_has_no_single_reading_is_refused(make: Callable[[], pd.DataFrame], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Panel.from_frame(make().drop(columns="unique_id", errors="ignore"))
