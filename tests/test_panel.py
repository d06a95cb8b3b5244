"""Panels: what is refused and in which words, what is accepted, and the way back to a frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.frames import ROWS, berlin, changed, hours, long, wide
from tests.typed import known
from tsdistill.data import Item, Panel, Split
from tsdistill.errors import DataError, ShapeError

REFUSED: dict[str, tuple[Callable[[], pd.DataFrame], dict[str, Any], list[str]]] = {
    "empty frame": (pd.DataFrame, {}, ["no rows"]),
    "no rows": (lambda: wide().iloc[:0], {}, ["no rows"]),
    "no frame": (lambda: [1, 2], {}, ["`df` must be a pandas DataFrame", "list"]),  # type: ignore[return-value,dict-item]
    "no value columns": (lambda: wide()[["ds"]], {}, ["no value columns"]),
    "missing stamp": (lambda: changed("ds", 7, None), {}, ["no time stamp in row 7"]),
    "unreadable stamp": (lambda: changed("ds", 7, "soon"), {}, ["cannot be read: 'soon'", "row 7"]),
    "numbers for stamps": (lambda: wide().assign(ds=range(ROWS)), {}, ["must hold time stamps", "int64", "time=None"]),
    "day or month first": (
        lambda: wide(["01/02/2024", "02/02/2024", "03/02/2024"]),
        {},
        ["day or the month first", "01/02/2024"],
    ),
    "unsorted": (lambda: wide().iloc[[0, 1, 3, 2, *range(4, ROWS)]], {}, ["must rise", "row 3", "Sort"]),
    "duplicate": (lambda: pd.concat([wide(), wide().iloc[[-1]]]), {}, ["1 stamp more than once", "row 53", "id="]),
    "irregular": (
        lambda: changed("ds", 7, pd.Timestamp("2024-01-01 07:13")).assign(ds=lambda d: pd.to_datetime(d["ds"])),
        {},
        ["1 of 53 stamps do not fall on steps of 'h'", "07:13"],
    ),
    "gap": (lambda: wide().drop(index=[7, 8, 19]), {}, ["3 rows missing in 2 gaps", "06:00:00 (2 rows)", "fill="]),
    "gap in months": (lambda: wide(hours(step="MS")).drop(index=7), {}, ["1 row missing in 1 gap", "2024-07-01"]),
    "step is coarser": (wide, {"frequency": "D"}, ["steps of 'D'", "most steps are 'h'"]),
    "step is finer": (wide, {"frequency": "15min"}, ["156 rows missing"]),
    "step is much finer": (wide, {"frequency": "15min", "fill": "zero"}, ["156 rows would have to be inserted"]),
    "old alias": (wide, {"frequency": "H"}, ["`frequency`", "Did you mean 'h'?"]),
    "old alias without stamps": (
        lambda: wide().drop(columns="ds"),
        {"frequency": "M", "time": None},
        ["`frequency`", "'ME'"],
    ),
    "NaN": (
        lambda: changed("b", 7, np.nan),
        {},
        ["Column `b` has 1 missing value", "row 7", "2024-01-01 07:00", "fill="],
    ),
    "infinite": (lambda: changed("b", 7, -np.inf), {"fill": "zero"}, ["Column `b` holds 1 infinite value", "row 7"]),
    "text cell": (
        lambda: changed("b", 7, "n/a"),
        {"fill": "zero"},
        ["Column `b`", "cannot be read as numbers ('n/a')"],
    ),
    "text column": (lambda: wide().assign(b="EWR"), {}, ["Column `b` holds text", "'EWR'", "id='b'"]),
    "times for values": (lambda: wide().assign(b=hours()), {}, ["Column `b` holds times"]),
    "complex values": (lambda: wide().assign(b=1j), {}, ["Column `b` holds complex numbers"]),
    "unknown target": (lambda: wide(channels=("load",)), {"target": "laod"}, ["'laod'", "Did you mean `load`?"]),
    "target is time": (wide, {"target": ["ds", "a"]}, ["'ds', which holds stamps"]),
    "no target": (wide, {"target": []}, ["name at least one value column"]),
    "target twice": (wide, {"target": ["a", "a"]}, ["name each column once"]),
    "unknown time": (lambda: wide().rename(columns={"ds": "date"}), {"time": "dat"}, ["time='dat'", "`date`?"]),
    "unknown id": (wide, {"id": "unique"}, ["`id` must name a column", "id='unique'"]),
    "missing id": (lambda: long().assign(unique_id=["s0"] * 35 + [None]), {}, ["no identifier in row 35"]),  # type: ignore[list-item]
    "ids that read alike": (
        lambda: wide().assign(unique_id=pd.Series([1] * 30 + ["1"] * 23, dtype=object)),
        {},
        ["read the same"],
    ),
    "columns named alike": (lambda: wide().rename(columns={"b": "a"}), {}, ["different names", "a more than once"]),
    "unknown fill": (wide, {"fill": "mean"}, ["`fill` must be one of interpolate, forward, zero", "'mean'"]),
    "zone without stamps": (wide, {"time": None, "target": "a", "time_zone": "UTC"}, ["be None without stamps"]),
    "unknown zone": (wide, {"time_zone": "Mars/Base"}, ["`time_zone` must be an IANA name", "Mars/Base"]),
    "nothing to fill from": (
        lambda: wide().assign(b=np.nan),
        {"fill": "interpolate"},
        ["`b` has no value to fill the others"],
    ),
    "nothing to go forward from": (
        lambda: changed("b", 0, np.nan),
        {"fill": "forward"},
        ["`b` has no value", "first rows"],
    ),
    "gap in one item": (lambda: long().drop(index=15), {}, ["Item 's1': 1 row missing"]),
    "gaps in many items": (
        lambda: long(13).drop(index=[11 * i + i * (i - 1) // 2 + 5 for i in range(13)]),
        {},
        ["Item 's0'", "Item 's4'", "and 8 more items with gaps"],
    ),
    "local clocks": (
        lambda: wide(berlin()),
        {},
        [
            "daylight saving",
            "2024-03-31 01:00:00 -> 2024-03-31 03:00:00",
            "2024-10-27 02:00",
            'time_zone="Europe/Berlin"',
        ],
    ),
    "local clocks and a gap": (
        lambda: wide(berlin("30min", 48 * 320)).drop(index=[501]),
        {"fill": "forward"},
        ["daylight saving", "2 spring or autumn nights"],
    ),
    "clocks of another place": (
        lambda: wide(berlin()),
        {"time_zone": "America/New_York"},
        ["no clock in America/New_York showed", "2024-03-10 02:00"],
    ),
    "one round of a repeated hour": (
        lambda: wide(hours(start="2024-10-26")),
        {"time_zone": "Europe/Berlin"},
        ["clocks in Europe/Berlin showed twice", "2024-10-27 02:00"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_clear_words(case: str) -> None:
    make, options, words = REFUSED[case]
    with pytest.raises(DataError) as caught:
        Panel.from_frame(make(), **options)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, str(caught.value)


def test_one_error_lists_every_problem() -> None:
    df = wide()
    df["ds"] = df["ds"].astype(object)
    df.loc[3, "ds"], df.loc[5, "ds"], df.loc[9, "ds"] = None, "never", df.loc[8, "ds"]  # type: ignore[assignment, index]
    df["b"] = df["b"].astype(object)
    df.loc[11, "a"], df.loc[13, "a"], df.loc[17, "b"] = np.inf, np.nan, "x"
    with pytest.raises(DataError) as caught:
        Panel.from_frame(df, target=["a", "b", "d"], time_zone="Nowhere")
    text = str(caught.value)
    words = [
        "8 problems",
        "no time stamp",
        "'never'",
        "more than once",
        "infinite",
        "missing value",
        "'x'",
        "'d'",
        "Nowhere",
    ]
    assert [word for word in words if word not in text] == []


def test_a_true_gap_is_told_beside_daylight_saving() -> None:
    with pytest.raises(DataError) as caught:
        Panel.from_frame(wide(berlin()).drop(index=[500, 501]))
    assert "2 problems" in str(caught.value)
    assert "2 rows missing in 1 gap" in str(caught.value)


def test_a_wide_frame_is_one_item_with_every_column_a_channel() -> None:
    df = wide()
    panel = Panel.from_frame(df, name="toy", split=Split.rows(30, 10, 13))
    assert (len(panel.items), panel.channels, panel.frequency, panel.name) == (1, ("a", "b", "c"), "h", "toy")
    assert panel.split == Split.rows(30, 10, 13)
    assert panel.notes == {}
    np.testing.assert_array_equal(panel.items[0].values, df[["a", "b", "c"]].to_numpy())
    pd.testing.assert_index_equal(known(panel.items[0].ds), pd.DatetimeIndex(df["ds"]), check_names=False)


def test_targets_choose_and_order_channels() -> None:
    panel = Panel.from_frame(wide().assign(label="text"), target=["c", "a"])
    assert panel.channels == ("c", "a")
    np.testing.assert_array_equal(panel.items[0].values, wide()[["c", "a"]].to_numpy())


def test_an_index_of_stamps_serves_as_time() -> None:
    one, other = Panel.from_frame(wide()), Panel.from_frame(wide().set_index("ds"))
    renamed = Panel.from_frame(wide().set_index("ds").rename_axis("date"), time="date")
    for panel in (other, renamed):
        pd.testing.assert_frame_equal(one.to_frame(), panel.to_frame())


def test_rows_without_stamps_are_steps_in_order() -> None:
    panel = Panel.from_frame(wide().drop(columns="ds"), time=None, frequency="15min")
    assert panel.items[0].ds is None
    assert panel.periods == (96, 672)
    with pytest.raises(DataError, match="needs time stamps"):
        panel.until("2024-01-01")


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_long_frame_is_many_items_however_its_rows_alternate(shuffle: bool) -> None:
    df = long().sort_values("ds", kind="stable") if shuffle else long()
    panel = Panel.from_frame(df.assign(remark="text"))
    assert [item.unique_id for item in panel.items] == ["s0", "s1", "s2"]
    assert [len(item) for item in panel.items] == [11, 12, 13]
    assert panel.channels == ("y",)
    for item in panel.items:
        np.testing.assert_array_equal(item.values[:, 0], long().query("unique_id == @item.unique_id")["y"])


def test_identifiers_may_have_any_column_and_many_channels() -> None:
    df = pd.concat([wide().assign(station=number) for number in (7, 5)])
    panel = Panel.from_frame(df, id="station")
    assert [item.unique_id for item in panel.items] == ["7", "5"]
    assert panel.channels == ("a", "b", "c")


@pytest.mark.parametrize(
    "df", [wide(), wide(hours(zone="Europe/Berlin")), long(), long(1)], ids=["wide", "zone", "long", "one named"]
)
def test_to_frame_and_back_is_the_same(df: pd.DataFrame) -> None:
    panel = Panel.from_frame(df)
    again = Panel.from_frame(panel.to_frame())
    assert [item.unique_id for item in again.items] == [item.unique_id for item in panel.items]
    pd.testing.assert_frame_equal(again.to_frame(), panel.to_frame())


def test_numbers_of_any_type_become_floats() -> None:
    df = wide().assign(a=range(ROWS), b=pd.array([1, 2] * 26 + [3], dtype="Int64"), c=[True, False] * 26 + [True])
    assert Panel.from_frame(df).items[0].values[-1].tolist() == [52.0, 3.0, 1.0]
    assert Panel.from_frame(wide().assign(a="1.5")).items[0].values[0, 0] == 1.5


def test_values_cannot_be_changed_through_panel_or_frame() -> None:
    df = wide()
    panel = Panel.from_frame(df)
    before = panel.items[0].values.copy()
    df.iloc[:, 1:] = 0.0
    np.testing.assert_array_equal(panel.items[0].values, before)
    with pytest.raises(ValueError, match="read-only"):
        panel.items[0].values[0, 0] = 1.0
    copy = panel.to_frame()
    copy.iloc[:, 1:] = 0.0
    np.testing.assert_array_equal(panel.items[0].values, before)


def test_a_panel_of_arrays_is_checked_too() -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        Panel((Item("a", None, np.full((5, 2), np.nan)),), ("x", "y"))
    with pytest.raises(DataError, match="different identifiers"):
        Panel((Item("a", None, np.zeros((5, 1))), Item("a", None, np.zeros((5, 1)))), ("x",))
    with pytest.raises(DataError, match="at least one series"):
        Panel((), ("x",))
    with pytest.raises(ShapeError, match="1 channels"):
        Panel((Item("a", None, np.zeros((5, 2))),), ("x",))
    with pytest.raises(ShapeError, match="29 stamps"):
        Item("a", hours(29), np.zeros((5, 2)))


def test_the_description_names_what_matters() -> None:
    text = repr(Panel.from_frame(wide().drop(index=7), fill="zero", name="toy"))
    assert all(word in text for word in ("toy", "3 channel", "53 rows", "every h", "2024-01-01", "'n_inserted': 1"))
