"""The clock: calendar features of local time, against plain sums over date and time fields, and steps of a cycle."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tsdistill import clock
from tsdistill.errors import ConfigError
from tsdistill.tables.frequency import periods_of

STAMPS = pd.DatetimeIndex(
    ["1969-12-28 23:59:59", "1970-01-01", "1970-01-05", "2023-12-31 18:30", "2024-02-29 06:00", "2024-12-31 23:45",
     "2100-03-01 12:00:00.000001"]
)  # fmt: skip


def fractions(stamp: pd.Timestamp) -> dict[str, float]:
    """What has gone by of the day, the week and the year, told by fields of the stamp."""
    day = (stamp.hour * 3600 + stamp.minute * 60 + stamp.second + stamp.microsecond / 1e6) / 86_400
    n_days = 366 if stamp.is_leap_year else 365
    week, year = (stamp.day_of_week + day) / 7, (stamp.day_of_year - 1 + day) / n_days
    return {"time-of-day": day, "time-of-week": week, "time-of-year": year}


@pytest.mark.parametrize("unit", ["ns", "us", "s"])
@pytest.mark.parametrize("entry", clock.CALENDAR)
def test_a_cycle_is_told_by_the_fields_of_the_stamp(entry: str, unit: str) -> None:
    values = clock.features(STAMPS.to_numpy(dtype=f"M8[{unit}]"), [entry])
    angles = [2 * math.pi * fractions(stamp.floor(unit))[entry] for stamp in STAMPS]
    expected = [[math.sin(angle), math.cos(angle)] for angle in angles]
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_features_stand_in_the_order_of_their_names() -> None:
    calendar, holidays = ("time-of-year", "time-of-day"), ("2024-02-29", "1970-01-01")
    together = clock.features(STAMPS.to_numpy(), calendar, holidays)
    assert clock.names(calendar, holidays) == (
        "time-of-year.sin", "time-of-year.cos", "time-of-day.sin", "time-of-day.cos", "holiday",
    )  # fmt: skip
    parts = [clock.features(STAMPS.to_numpy(), [entry]) for entry in calendar]
    np.testing.assert_array_equal(together, np.concatenate([*parts, together[:, -1:]], axis=1))
    assert together[:, -1].tolist() == [0, 1, 0, 0, 1, 0, 0]
    assert clock.features(STAMPS.to_numpy(), (), holidays).shape == (7, 1)
    assert clock.features(STAMPS.to_numpy()[:0], calendar).shape == (0, 4)


STEPS = {
    "time-of-day": {"h": 24, "15min": 96, "10min": 144, "30s": 2880, "7min": None, "D": None, "W": None, "25h": None},
    "time-of-week": {"h": 168, "15min": 672, "D": 7, "B": 5, "W-TUE": None, "2D": None, "12h": 14, "MS": None},
    "time-of-year": {"MS": 12, "ME": 12, "3MS": 4, "QS-JAN": 4, "YE-DEC": None, "h": None, "D": None, "ms": None},
}


@pytest.mark.parametrize(("entry", "frequency"), [(entry, key) for entry, row in STEPS.items() for key in row])
def test_a_cycle_has_whole_steps_or_none(entry: str, frequency: str) -> None:
    assert clock.steps(entry, frequency) == STEPS[entry][frequency]


@pytest.mark.parametrize("frequency", ["h", "15min", "30min", "2h", "D"])
def test_steps_of_cycles_are_the_periods_that_pandas_aliases_suggest(frequency: str) -> None:
    periods = {clock.steps(entry, frequency) for entry in ("time-of-day", "time-of-week")} - {None}
    assert periods == set(periods_of(frequency))


@pytest.mark.parametrize("frequency", [None, "", "often", "h-", "1.5h", "<DateOffset>"])
def test_an_unknown_frequency_has_no_steps(frequency: str | None) -> None:
    assert clock.steps("time-of-day", frequency) is None


def test_an_unknown_cycle_is_refused() -> None:
    for ask in (lambda: clock.steps("moon", "h"), lambda: clock.features(STAMPS.to_numpy(), ["moon"])):
        with pytest.raises(ConfigError, match=r"one of time-of-day, time-of-week, time-of-year, got calendar='moon'"):
            ask()
