"""Dates in every form that tables hold them: read where one reading is possible, refused with the argument else."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tsdistill.data import Panel
from tsdistill.errors import DataError
from tsdistill.tables.offsets import offset_of, text_of


def panel_of(cells: Any, **options: Any) -> Panel:
    df = pd.DataFrame({"ds": cells})
    return Panel.from_frame(df.assign(y=np.arange(len(df)) ** 2.0), **options)


def stamps_of(cells: Any, **options: Any) -> list[str]:
    ds = panel_of(cells, **options).items[0].ds
    assert ds is not None
    return [str(stamp) for stamp in ds]


MONTHS = ["2024-01-01 00:00:00", "2024-02-01 00:00:00", "2024-03-01 00:00:00"]
DAYS = ["2024-01-30 00:00:00", "2024-01-31 00:00:00", "2024-02-01 00:00:00"]
YEARS = ["2022-01-01 00:00:00", "2023-01-01 00:00:00", "2024-01-01 00:00:00"]
HOURS = ["2024-01-01 00:00:00+00:00", "2024-01-01 01:00:00+00:00", "2024-01-01 02:00:00+00:00"]
NOON = ["2024-01-31 11:00:00", "2024-01-31 12:00:00", "2024-01-31 13:00:00"]
SECONDS = 1_704_067_200 + 3600 * np.arange(3)

READ: dict[str, tuple[Any, list[str]]] = {
    "month and year": (["Jan-24", "Feb-24", "Mar-24"], MONTHS),
    "month and long year": (["Jan 2024", "Feb 2024", "Mar 2024"], MONTHS),
    "long months": (["January 2024", "February 2024", "March 2024"], MONTHS),
    "year and month": (["2024/01", "2024/02", "2024/03"], MONTHS),
    "month with a slash": (["01/2024", "02/2024", "03/2024"], MONTHS),
    "compact months": ([202401, 202402, 202403], MONTHS),
    "compact months as text": (["202401", "202402", "202403"], MONTHS),
    "months as periods": (pd.period_range("2024-01", periods=3, freq="M"), MONTHS),
    "objects that are periods": (np.array(pd.period_range("2024-01", periods=3, freq="M"), dtype=object), MONTHS),
    "compact days": ([20240130, 20240131, 20240201], DAYS),
    "compact days as text": (["20240130", "20240131", "20240201"], DAYS),
    "compact days as floats": ([20240130.0, 20240131.0, 20240201.0], DAYS),
    "compact days as decimals": ([decimal.Decimal(day) for day in (20240130, 20240131, 20240201)], DAYS),
    "days as periods": (pd.period_range("2024-01-30", periods=3, freq="D"), DAYS),
    "day first": (["30/01/2024", "31/01/2024", "01/02/2024"], DAYS),
    "month first": (["1/30/2024", "1/31/2024", "2/1/2024"], DAYS),
    "dots": (["30.01.2024", "31.01.2024", "01.02.2024"], DAYS),
    "month names": (["30-Jan-2024", "31-Jan-2024", "01-Feb-2024"], DAYS),
    "month names and short years": (["30-Jan-24", "31-Jan-24", "01-Feb-24"], DAYS),
    "names first": (["January 30, 2024", "January 31, 2024", "February 1, 2024"], DAYS),
    "categories": (pd.Categorical(["2024-01-30", "2024-01-31", "2024-02-01"]), DAYS),
    "dates of Python": ([dt.date(2024, 1, 30), dt.date(2024, 1, 31), dt.date(2024, 2, 1)], DAYS),
    "years": ([2022, 2023, 2024], YEARS),
    "years as text": (["2022", "2023", "2024"], YEARS),
    "quarters": (["2023Q4", "2024Q1", "2024Q2"], ["2023-10-01 00:00:00", "2024-01-01 00:00:00", "2024-04-01 00:00:00"]),
    "weeks": (["2024-W05", "2024-W06"], ["2024-01-29 00:00:00", "2024-02-05 00:00:00"]),
    "seconds": (SECONDS, HOURS),
    "milliseconds": (SECONDS * 1000, HOURS),
    "microseconds": (SECONDS * 1_000_000, HOURS),
    "nanoseconds": (SECONDS * 1_000_000_000, HOURS),
    "seconds as text": ([str(second) for second in SECONDS], HOURS),
    "nullable seconds": (pd.array(SECONDS, dtype="Int64"), HOURS),
    "half of a day": (["01/31/2024 11:00 AM", "01/31/2024 12:00 PM", "01/31/2024 01:00 PM"], NOON),
    "half of a day in ISO": (["2024-01-31 11:00 am", "2024-01-31 12:00 pm", "2024-01-31 1:00 pm"], NOON),
    "hours alone": (["1/31/2024 11 AM", "1/31/2024 12 PM", "1/31/2024 1 PM"], NOON),
}


@pytest.mark.parametrize("case", READ)
def test_dates_with_one_reading_are_read(case: str) -> None:
    cells, expected = READ[case]
    assert stamps_of(cells) == expected


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "day or month": (["01/02/2024", "02/02/2024"], {}, ["day_first=True if it is 2024-02-01", "day_first=False"]),
    "short years": (
        ["24-01-02", "24-01-03"],
        {},
        ["day_first=True if it is 2002-01-24", "2024-01-02"],
    ),
    "three readings": (
        ["02/01/03", "02/01/04"],
        {},
        ['time_format="%d/%m/%y" if it is 2003-01-02', '"%m/%d/%y"', '"%y/%m/%d"'],
    ),
    "months or days": (["Jan-01", "Jan-02", "Jan-03"], {}, ['time_format="%b-%y"']),
    "compact short years": ([240130, 240131], {}, ['time_format="%y%m%d" if it is 2024-01-30', '"%d%m%y"']),
    "compact months or days": ([200101, 200102], {}, ['time_format="%Y%m" if it is 2001-01-01', '"%y%m%d"']),
    "compact hours or seconds": ([2024013100, 2024013101], {}, ['"%Y%m%d%H" if it is 2024-01-31', '"s" if it is 2034']),
    "row numbers": ([0, 1, 2], {}, ["must hold time stamps", "time=None", "time_format="]),
    "day numbers of a workbook": ([45292, 45293], {}, ["must hold time stamps", "time_format="]),
    "half with a zone": (
        ["2024-01-01 00:00", "2024-01-01 01:00Z"],
        {},
        ["and others without", "time_zone="],
    ),
    "half with a zone, reversed": (["2024-01-01 00:00+01:00", "2024-01-01 01:00"], {}, ["others without"]),
    "half with a zone as objects": (
        [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02", tz="UTC")],
        {},
        ["with a zone and others without"],
    ),
    "half with a zone, other stamps": (["31/01/2024 00:00", "31/01/2024 01:00 +00:00"], {}, ["cannot be read"]),
    "truth": ([True, False], {}, ["must hold time stamps, got bool"]),
    "durations": (pd.to_timedelta([1, 2], unit="h"), {}, ["must hold time stamps, got timedelta"]),
    "times of day": ([dt.time(1), dt.time(2)], {}, ["cells with time"]),
    "lists": ([[1], [2]], {}, ["cells with list"]),
    "dicts": ([{}, {}], {}, ["cells with dict"]),
    "huge numbers": ([10**400, 1], {}, ["must hold time stamps"]),
    "signalling NaN": ([decimal.Decimal("sNaN"), decimal.Decimal(1)], {}, ["must hold time stamps"]),
    "far years": (np.array([98030, 98031], dtype="M8[Y]").astype("M8[s]"), {}, ["beyond the years 1 to 9999"]),
    "days that are none": (["30/02/2024", "31/03/2024"], {}, ["cannot be read: '30/02/2024'"]),
    "times without days": (["12:00", "13:00"], {}, ["cannot be read: '12:00'"]),
    "another order": (["13/01/2024", "14/01/2024"], {"day_first": False}, ["cannot be read: '13/01/2024'"]),
    "another pattern": (["2024-01-30"], {"time_format": "%d.%m.%Y"}, ['as time_format="%d.%m.%Y" says']),
    "no pattern": (["2024-01-30"], {"time_format": "iso"}, ["`time_format` must be a pattern or one of s, ms"]),
    "no order": (["2024-01-30"], {"day_first": "yes"}, ["`day_first` must be True, False or None"]),
    "units of text": (["soon"], {"time_format": "s"}, ["cannot be read: 'soon'"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_dates_with_several_readings_or_none_name_the_argument(case: str) -> None:
    cells, options, words = REFUSED[case]
    with pytest.raises(DataError) as caught:
        panel_of(cells, **options)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


GIVEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "day first": (["01/02/2024", "02/02/2024"], {"day_first": True}, "2024-02-01 00:00:00"),
    "month first": (["01/02/2024", "01/03/2024"], {"day_first": False}, "2024-01-02 00:00:00"),
    "short year first": (["24-01-02", "24-01-03"], {"day_first": False}, "2024-01-02 00:00:00"),
    "short years": (["24-01-02", "25-01-02"], {"time_format": "%y-%m-%d"}, "2024-01-02 00:00:00"),
    "compact": ([240130, 240131], {"time_format": "%y%m%d"}, "2024-01-30 00:00:00"),
    "seconds": ([0, 3600], {"time_format": "s"}, "1970-01-01 00:00:00+00:00"),
    "milliseconds as text": (["0", "3600000"], {"time_format": "ms"}, "1970-01-01 00:00:00+00:00"),
    "hours or seconds": ([2024013100, 2024013101], {"time_format": "%Y%m%d%H"}, "2024-01-31 00:00:00"),
    "a zone": (["01/02/2024 00:00 +0100", "01/02/2024 01:00 +0100"], {"time_format": "%d/%m/%Y %H:%M %z"},
               "2024-01-31 23:00:00+00:00"),
}  # fmt: skip


@pytest.mark.parametrize("case", GIVEN)
def test_the_argument_that_a_refusal_names_settles_it(case: str) -> None:
    cells, options, first = GIVEN[case]
    panel = panel_of(cells, **options)
    assert str(panel.items[0].ds[0]) == first  # type: ignore[index]
    assert panel.reading is not None
    assert {name: getattr(panel.reading, name) for name in options} == options


def test_an_order_that_the_data_shows_is_kept_for_newer_data() -> None:
    reading = panel_of(["30/01/2024", "31/01/2024", "01/02/2024"]).reading
    assert reading is not None
    assert reading.day_first is True
    assert stamps_of(["01/02/2024", "02/02/2024"], **reading.of_frames)[0] == "2024-02-01 00:00:00"


OFFSETS: dict[str, tuple[Any, str, tuple[int, ...]]] = {
    "twice a month": (pd.offsets.SemiMonthBegin(), "SMS-15", (24,)),
    "middle and end": (pd.offsets.SemiMonthEnd(), "SME-15", (24,)),
    "Monday to Saturday": (
        pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat"),
        "C(Mon Tue Wed Thu Fri Sat)",
        (6,),
    ),
    "with holidays": (
        pd.offsets.CustomBusinessDay(holidays=["2024-01-10", "2024-02-14"]),
        "C(Mon Tue Wed Thu Fri; 2024-01-10 2024-02-14)",
        (5,),
    ),
    "Sunday to Thursday": (
        pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu"),
        "C(Mon Tue Wed Thu Sun)",
        (5,),
    ),
    "days": (pd.offsets.Day(), "D", (7,)),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_offsets_are_kept_whole(case: str) -> None:
    offset, text, periods = OFFSETS[case]
    ds = pd.date_range("2024-01-01", periods=60, freq=offset)
    panel = panel_of(ds, frequency=offset)
    assert (panel.frequency, panel.periods) == (text, periods)
    again = panel_of(ds, frequency=text)
    assert again.frequency == text
    assert (pd.date_range(ds[0], periods=60, freq=offset_of(text)) == ds).all()
    assert text_of(offset_of(text)) == text
    gaps = panel_of(ds.delete([5, 17]), frequency=text, fill="interpolate")
    assert (gaps.items[0].ds == ds).all()  # type: ignore[union-attr]


NO_OFFSETS: dict[str, tuple[Any, list[str]]] = {
    "hours of one's own": (pd.offsets.BusinessHour(start="08:00"), ["`frequency`", "no name that would restore it"]),
    "months of a span": (pd.DateOffset(months=1), ["`frequency`", "MS"]),
    "backwards": (pd.offsets.Day(-1), ["`frequency`", "goes back"]),
    "a number": (5, ["`frequency`"]),
    "no such day": ("C(Mon Tux)", ["`frequency`", "Tux"]),
    "no day": ("C()", ["`frequency`"]),
    "no holiday": ("C(Mon Tue; soon)", ["`frequency`"]),
}


@pytest.mark.parametrize("case", NO_OFFSETS)
def test_offsets_that_text_cannot_keep_are_refused(case: str) -> None:
    frequency, words = NO_OFFSETS[case]
    with pytest.raises(DataError) as caught:
        panel_of(pd.date_range("2024-01-01", periods=9), frequency=frequency)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("offset", "advice"),
    [
        (pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat"), "C(Mon Tue Wed Thu Fri Sat)"),
        (pd.offsets.SemiMonthBegin(), "SMS"),
        (pd.offsets.SemiMonthEnd(), "SME"),
    ],
)
def test_calendars_that_are_not_inferred_are_named(offset: Any, advice: str) -> None:
    with pytest.raises(DataError, match="frequency=") as caught:
        panel_of(pd.date_range("2024-01-01", periods=60, freq=offset))
    assert f'frequency="{advice}' in str(caught.value), str(caught.value)
