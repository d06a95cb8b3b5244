"""Filling: only as asked, every cell counted, and nothing known of later when a panel is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.frames import changed, hours, long, wide
from tsdistill.data import Panel
from tsdistill.errors import DataError


def holed() -> pd.DataFrame:
    """Hours 0 to 9 with 4 and 5 not given, and NaN at 0 and 7 in `a` and at 9 in `b`."""
    df = pd.DataFrame({"ds": hours(10), "a": np.arange(10.0) ** 2, "b": np.arange(10.0)})
    df.loc[[0, 7], "a"] = np.nan
    df.loc[9, "b"] = np.nan
    return df.drop(index=[4, 5])


FILLED = {
    "interpolate": ([1, 1, 4, 9, 18, 27, 36, 50, 64, 81], [0, 1, 2, 3, 4, 5, 6, 7, 8, 8]),
    "zero": ([0, 1, 4, 9, 0, 0, 36, 0, 64, 81], [0, 1, 2, 3, 0, 0, 6, 7, 8, 0]),
}


@pytest.mark.parametrize("fill", FILLED)
def test_holes_are_filled_only_as_asked_and_counted(fill: Any) -> None:
    panel = Panel.from_frame(holed(), fill=fill)
    np.testing.assert_allclose(panel.items[0].values.T, FILLED[fill])
    counts = {"n_filled": 3, "n_filled_per_channel": {"a": 2, "b": 1}, "n_inserted": 2, "n_gaps": 1, "fill": fill}
    assert panel.notes == counts
    marks = panel.items[0].marks
    assert marks is not None
    assert marks.T.tolist() == [[1, 0, 0, 0, 2, 2, 0, 1, 0, 0], [0, 0, 0, 0, 2, 2, 0, 0, 0, 1]]


def test_forward_repeats_the_last_observed_value() -> None:
    panel = Panel.from_frame(holed().iloc[1:], fill="forward")
    np.testing.assert_array_equal(panel.items[0].values[:, 0], [1, 4, 9, 9, 9, 36, 36, 64, 81])


def test_interpolation_is_linear_in_time_not_in_rows() -> None:
    months = wide(hours(5, step="MS"), channels=("a",))
    months["a"] = [0.0, np.nan, 60.0, 0.0, 0.0]
    assert Panel.from_frame(months, fill="interpolate").items[0].values[1, 0] == pytest.approx(31.0)


def test_counts_add_up_over_items() -> None:
    df = long().drop(index=[5, 15, 16])
    df.loc[[7, 20], "y"] = np.nan
    panel = Panel.from_frame(df, fill="interpolate")
    assert (panel.notes["n_inserted"], panel.notes["n_gaps"], panel.notes["n_filled"]) == (3, 2, 2)
    assert panel.items[2].marks is None
    assert [len(item) for item in panel.items] == [11, 12, 13]


def test_nothing_to_fill_leaves_no_notes() -> None:
    assert Panel.from_frame(wide(), fill="interpolate").notes == {}


@pytest.mark.parametrize("fill", ["interpolate", "zero"])
@pytest.mark.parametrize("last", range(1, 10))
def test_until_is_what_would_have_been_read_that_day(fill: Any, last: int) -> None:
    stamp = hours(10)[last]
    cut = Panel.from_frame(holed(), fill=fill).until(stamp)
    then = Panel.from_frame(holed().query("ds <= @stamp"), frequency="h", fill=fill)
    pd.testing.assert_frame_equal(cut.to_frame(), then.to_frame())
    assert cut.notes == then.notes


def test_until_leaves_out_items_that_start_later() -> None:
    df = long()
    df.loc[df["unique_id"] == "s1", "ds"] += pd.Timedelta("10D")
    panel = Panel.from_frame(df).until("2024-01-01 04:00")
    assert [(item.unique_id, len(item)) for item in panel.items] == [("s0", 5), ("s2", 5)]
    assert panel.notes["n_items_left_out"] == 1


def test_until_refuses_what_it_cannot_do() -> None:
    panel = Panel.from_frame(wide(hours(400, start="2024-10-20", zone="Europe/Berlin")))
    for stamp, words in (("2023", "before all data"), ("soon", "be a time"), ("2024-10-27 02:30", "stands twice")):
        with pytest.raises(DataError, match=words):
            panel.until(stamp)
    stamps = panel.until("2024-10-27 00:30+00:00").items[0].ds
    assert stamps is not None
    assert stamps[-1] == pd.Timestamp("2024-10-27 00:00", tz="UTC")
    late = changed("b", 0, np.nan)
    with pytest.raises(DataError, match=r"'b'.*no value up to"):
        Panel.from_frame(late, fill="interpolate").until("2024-01-01 00:00")
