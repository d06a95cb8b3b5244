"""Step widths: finding them in time stamps, laying a grid of steps over stamps, and the seasons they imply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

HOUR = 3_600
DAY = 24 * HOUR
WEEK = 7 * DAY
LONGEST_SECOND_PERIOD = 1_000
"""A week of more steps than this is left out of `periods`: hardly any context reaches back that far."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@dataclass(frozen=True)
class StepGrid:
    """The regular stamps that a series with some frequency may have.

    Args:
        frequency: pandas offset alias.
        seconds: Width of a step; None where it varies with the calendar (months, business days).
        wall: Steps are counted on the local clock, where a day may last 23 or 25 hours.
    """

    frequency: str
    seconds: float | None
    wall: bool

    def clock(self, ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """The stamps on the time line that steps are counted on, without a zone."""
        return _wall(ds) if self.wall else _utc(ds)

    def step(self, unit: str) -> int:
        """Width of a fixed step in a datetime unit (us or ns)."""
        assert self.seconds is not None
        return round(self.seconds * {"us": 1_000_000, "ns": 1_000_000_000}[unit])

    def regular(self, ds: pd.DatetimeIndex, inside: np.ndarray) -> bool:
        """Whether every pair of neighbours that `inside` marks is one fixed step apart (calendar steps: unknown)."""
        if self.seconds is None:
            return False
        return bool((np.diff(self.clock(ds).asi8)[inside] == self.step(ds.unit)).all())

    def positions(self, ds: pd.DatetimeIndex) -> tuple[np.ndarray, np.ndarray]:
        """For sorted stamps of one item: the number of each one's step, and whether it is exactly on it."""
        clock = self.clock(ds)
        if self.seconds is None:
            position = self._calendar(clock).get_indexer(clock)
            return position.astype(np.int64), position >= 0
        stamps = clock.asi8
        step = self.step(ds.unit)
        phase = self._phase(stamps, step)
        offset = (stamps - phase) % step
        # Where clocks go forward at midnight, that day starts at one o'clock and is still on the daily grid.
        late = round(step * HOUR / self.seconds)
        return (stamps - phase) // step, (offset == 0) | (self.wall & (offset == late))

    def stamps(self, ds: pd.DatetimeIndex, position: np.ndarray) -> pd.DatetimeIndex:
        """All stamps from the first to the last of `ds`, whose step numbers are `position`."""
        clock = self.clock(ds)
        if self.seconds is None:
            full = self._calendar(clock)
        else:
            step = self.step(ds.unit)
            grid = self._phase(clock.asi8, step) + step * np.arange(position[0], position[-1] + 1)
            full = pd.DatetimeIndex(grid.view(f"M8[{ds.unit}]"))
        if ds.tz is None:
            return full
        if not self.wall:
            return full.tz_localize("UTC").tz_convert(ds.tz)
        full = full.tz_localize(ds.tz, ambiguous=np.ones(len(full), dtype=bool), nonexistent="shift_forward")
        known = full.tz_convert("UTC").asi8.copy()
        known[position - position[0]] = ds.asi8
        return pd.DatetimeIndex(known.view(f"M8[{ds.unit}]")).tz_localize("UTC").tz_convert(ds.tz)

    def _calendar(self, clock: pd.DatetimeIndex) -> pd.DatetimeIndex:
        return pd.date_range(clock[0], clock[-1], freq=self.frequency, unit=clock.unit)

    @staticmethod
    def _phase(stamps: np.ndarray, step: int) -> int:
        return mode(stamps % step)


def named_grid(frequency: str, ds: pd.DatetimeIndex) -> StepGrid:
    """The grid of a frequency that a user named; raises ValueError with pandas' explanation."""
    offset: Any = to_offset(frequency)
    seconds = _seconds(offset)
    if seconds is not None and seconds < 1e-6:
        raise ValueError("Steps below a microsecond are not supported.")
    if seconds is None or (type(offset).__name__ == "Week" and "-" in frequency):
        return StepGrid(offset.freqstr, None, wall=True)
    wall = seconds % DAY == 0 and type(offset).__name__ in ("Day", "Week")
    return StepGrid(_alias(seconds, ds, wall), seconds, wall)


def inferred_grid(ds: pd.DatetimeIndex, inside: np.ndarray) -> StepGrid | None:
    """The grid that most steps lie on; None when no item has two rows. `ds` sorted and unique within items.

    `inside` marks the pairs of neighbours that belong to the same item.
    """
    per_second = {"us": 1_000_000, "ns": 1_000_000_000}[ds.unit]
    steps = np.diff(_utc(ds).asi8)[inside]
    if not len(steps):
        return None
    local = np.diff(_wall(ds).asi8)[inside]
    common = mode(steps)
    daily = mode(local)
    # Days of 23 and 25 hours are regular on the local clock only; a true 24 h rhythm only on the UTC time line.
    wall = daily % (DAY * per_second) == 0 and bool((local % daily == 0).all() or (steps % common != 0).any())
    common = daily if wall else common
    seconds = common / per_second
    if wall:
        calendar = _calendar(_wall(ds), seconds / DAY, uneven=bool((local != common).any()))
        if calendar:
            return StepGrid(calendar, None, wall=True)
    return StepGrid(_alias(seconds, ds, wall), seconds, wall)


def periods_of(frequency: str | None) -> tuple[int, ...]:
    """Seasonal periods in steps that a frequency suggests, shortest first; (1,) when it suggests none.

    Example:
        >>> periods_of("h"), periods_of("D"), periods_of("10min"), periods_of("MS")
        ((24, 168), (7,), (144,), (12,))
    """
    if frequency is None:
        return (1,)
    offset: Any = to_offset(frequency)
    seconds = _seconds(offset)
    if seconds is None:
        return _calendar_periods(offset)
    if seconds >= WEEK:
        spans: tuple[float, ...] = (52 * WEEK,)
    elif seconds >= DAY:
        spans = (WEEK,)
    elif seconds >= 60:
        spans = (DAY, WEEK)
    else:
        spans = (60, HOUR)
    counts = [span / seconds for span in spans]
    whole = [round(count) for count in counts if count > 1 and abs(count - round(count)) < 1e-9]
    return tuple(n for n in whole if n == whole[0] or n <= LONGEST_SECOND_PERIOD) or (1,)


def mode(values: np.ndarray) -> int:
    """The commonest value; the smallest of equally common ones."""
    unique, counts = np.unique(values, return_counts=True)
    return int(unique[counts.argmax()])


def _seconds(offset: Any) -> float | None:
    """Width of an offset in seconds, None when it depends on the calendar."""
    kind = type(offset).__name__
    if kind == "Week":
        return float(offset.n * WEEK)
    if kind == "Day":
        return float(offset.n * DAY)
    try:
        return float(offset.nanos) / 1e9
    except ValueError:
        return None


def _alias(seconds: float, ds: pd.DatetimeIndex, wall: bool) -> str:
    if wall and seconds == WEEK and len(ds):
        return f"W-{_DAYS[int(ds[0].weekday())]}"
    if wall and seconds % DAY == 0:
        days = round(seconds / DAY)
        return "D" if days == 1 else f"{days}D"
    offset: Any = to_offset(pd.Timedelta(seconds=seconds))
    return str(offset.freqstr)


def _calendar(local: pd.DatetimeIndex, days: float, *, uneven: bool) -> str | None:
    """Alias of a step that varies with the calendar, if all stamps agree with one."""
    if days == 1:
        return "B" if uneven and bool((local.day_of_week < 5).all()) else None
    if not (28 <= days <= 31 or 90 <= days <= 92 or 365 <= days <= 366):
        return None
    if bool(local.is_month_start.all()):
        kind = "S"
    elif bool(local.is_month_end.all()):
        kind = "E"
    else:
        return None
    if days <= 31:
        return f"M{kind}"
    months = np.unique(local.month.to_numpy() % 3 if days <= 92 else local.month.to_numpy())
    if len(months) > 1:
        return None
    if days > 92:
        return f"Y{kind}-{_MONTHS[int(months[0]) - 1]}"
    # Named after the first month that starts a quarter, or the last that ends one: January, or December.
    first = (int(months[0]) - 1) % 3
    return f"Q{kind}-{_MONTHS[first] if kind == 'S' or first < 2 else 'DEC'}"


def _calendar_periods(offset: Any) -> tuple[int, ...]:
    code = offset.freqstr.lstrip("0123456789").split("-")[0]
    per_year = {"B": 5, "C": 5, "W": 52}.get(code)
    if per_year is None:
        letters = code.removeprefix("B").removeprefix("C")[:1] if len(code) > 1 else code
        per_year = {"M": 12, "Q": 4, "Y": 1, "S": 24}.get(letters, 1)
    return (per_year // offset.n,) if per_year % offset.n == 0 and per_year > offset.n else (1,)


def _utc(ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return ds if ds.tz is None else ds.tz_convert("UTC").tz_localize(None)


def _wall(ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return ds if ds.tz is None else ds.tz_localize(None)
