"""Time stamps: steps and the seasons they imply, time zones, and clocks that are put forward and back."""

from __future__ import annotations

import pandas as pd
import pytest

from tests.frames import berlin, hours, wide
from tests.typed import known
from tsdistill.data import Panel
from tsdistill.errors import DataError
from tsdistill.tables.frequency import periods_of

STEPS = {
    "h": (24, 168), "15min": (96, 672), "10min": (144,), "30min": (48, 336), "2h": (12, 84), "min": (1440,),
    "30s": (2, 120), "D": (7,), "W-TUE": (52,), "MS": (12,), "ME": (12,), "QS-FEB": (4,), "QE-DEC": (4,),
    "YS-MAR": (1,), "B": (5,), "14D": (26,), "3D": (1,), "250ms": (240,),
}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_steps_are_found_and_imply_seasons(step: str) -> None:
    panel = Panel.from_frame(wide(hours(step=step)))
    assert panel.frequency == step
    assert panel.periods == STEPS[step]


def test_no_step_implies_no_season() -> None:
    assert periods_of(None) == (1,)
    assert Panel.from_frame(wide(hours(1))).frequency is None


def test_a_given_step_is_named_like_a_found_one() -> None:
    assert Panel.from_frame(wide(), frequency="60min").frequency == "h"
    assert Panel.from_frame(wide(hours(step="W-TUE")), frequency="W").frequency == "W-TUE"
    assert Panel.from_frame(wide(hours(step="MS")), frequency="MS").frequency == "MS"
    with pytest.raises(DataError, match="W-MON"):
        Panel.from_frame(wide(hours(step="W-TUE")), frequency="W-MON")


@pytest.mark.parametrize("step", ["MS", "B", "QE-DEC", "D", "h"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_inserted_stamps_are_those_that_were_missing(step: str, zone: str | None) -> None:
    whole = wide(hours(301, zone=zone, step=step))
    panel = Panel.from_frame(whole.drop(index=[7, 8, 23, 90, 297]), fill="zero")
    assert (known(panel.items[0].ds) == pd.DatetimeIndex(whole["ds"])).all()
    assert panel.frequency == step
    assert (panel.notes["n_inserted"], panel.notes["n_gaps"]) == (5, 4)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_time_zones_are_kept(zone: str) -> None:
    panel = Panel.from_frame(wide(hours(24 * 320, zone=zone)))
    assert str(known(panel.items[0].ds).tz) == zone
    assert str(panel.to_frame()["ds"].dt.tz) == zone
    assert str(known(panel.until("2024-02-01").items[0].ds)[-1]) == str(pd.Timestamp("2024-02-01", tz=zone))


@pytest.mark.parametrize("step", ["h", "30min", "15min"])
def test_local_clocks_are_read_in_their_place(step: str) -> None:
    per_hour = {"h": 1, "30min": 2, "15min": 4}[step]
    panel = Panel.from_frame(wide(berlin(step, per_hour * 24 * 320)), time_zone="Europe/Berlin")
    expected = pd.date_range("2024-01-01", periods=per_hour * 24 * 320, freq=step, tz="Europe/Berlin")
    assert (known(panel.items[0].ds) == expected).all()
    assert panel.frequency == step


def test_local_clocks_are_read_item_by_item() -> None:
    df = pd.concat([wide(berlin()).assign(unique_id=name) for name in "uv"]).sort_index(kind="stable")
    panel = Panel.from_frame(df, time_zone="Europe/Berlin")
    for item in panel.items:
        assert (known(item.ds).tz_convert("UTC").to_series().diff()[1:] == pd.Timedelta("1h")).all()


def test_stamps_with_a_zone_are_shown_in_another() -> None:
    panel = Panel.from_frame(wide(hours(zone="UTC")), time_zone="Asia/Tokyo")
    assert str(known(panel.items[0].ds)[0]) == "2024-01-01 09:00:00+09:00"


def test_days_of_23_and_25_hours_are_regular_steps() -> None:
    days = hours(301, zone="Europe/Berlin", step="D")
    assert Panel.from_frame(wide(days)).frequency == "D"
    assert Panel.from_frame(wide(hours(301, zone="Europe/Berlin", step="24h"))).frequency == "24h"
    with pytest.raises(DataError, match="1 row missing"):
        Panel.from_frame(wide(days).drop(index=90))


def test_a_day_that_starts_at_one_is_a_day() -> None:
    days = hours(300, step="D").tz_localize("America/Santiago", nonexistent="shift_forward")
    assert Panel.from_frame(wide(days)).frequency == "D"
    filled = Panel.from_frame(wide(days).drop(index=[250, 251]), fill="zero")
    assert (known(filled.items[0].ds) == days).all()


def test_offsets_that_change_over_the_year_are_one_time_line() -> None:
    text = [str(stamp) for stamp in hours(24 * 320, zone="Europe/Berlin")]
    assert str(known(Panel.from_frame(wide(text)).items[0].ds).tz) == "UTC"
    panel = Panel.from_frame(wide(text), time_zone="Europe/Berlin")
    assert (known(panel.items[0].ds) == hours(24 * 320, zone="Europe/Berlin")).all()


def test_a_missing_spring_hour_is_filled_when_asked_and_told() -> None:
    df = wide(hours(24 * 60, start="2024-03-01")).drop(index=24 * 30 + 2)
    with pytest.raises(DataError, match="daylight saving"):
        Panel.from_frame(df)
    panel = Panel.from_frame(df, fill="interpolate")
    assert "2024-03-31 01:00:00 -> 2024-03-31 03:00:00" in panel.notes["daylight_saving"]
    with pytest.raises(DataError, match="1 row missing"):
        Panel.from_frame(df, time_zone="UTC")
