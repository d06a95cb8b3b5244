"""Step widths: finding them in time stamps, laying a grid of steps over stamps, and the seasons they imply."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

from tsdistill.tables.offsets import offset_of, text_of

HOUR = 3_600
DAY = 24 * HOUR
WEEK = 7 * DAY
LONGEST_SECOND_PERIOD = 1_000
"""A week of more steps than this is left out of `periods`: hardly any context reaches back that far."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_PER_SECOND = {"us": 1_000_000, "ns": 1_000_000_000}
_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


_MONTHS_EACH = {
    "MonthBegin": 1, "MonthEnd": 1, "QuarterBegin": 3, "QuarterEnd": 3, "YearBegin": 12, "YearEnd": 12,
}  # fmt: skip
"""Months in a step of offsets that are counted by months and begin or end with one."""


@dataclass(frozen=True)
class StepGrid:
    """The regular stamps that series with some frequency may have, each item from where it begins.

    Args:
        frequency: pandas offset alias.
        seconds: Width of a step; None where it varies with the calendar (months, business days).
        wall: Steps are counted on the local clock, where a day may last 23 or 25 hours.
        anchored: The month in the alias (`QS-FEB`) binds all items; otherwise each has its own.
    """

    frequency: str
    seconds: float | None
    wall: bool
    anchored: bool = True

    def clock(self, ds: pd.DatetimeIndex, bounds: np.ndarray) -> pd.DatetimeIndex:
        """The stamps on the time line that steps are counted on, without a zone; `bounds` are those of the items.

        Where clocks go forward at midnight, that day starts at one o'clock and counts as if it did not.
        """
        if not self.wall:
            return _utc(ds)
        local = _wall(ds)
        unit = _PER_SECOND[ds.unit]
        times = local.asi8 % (DAY * unit)
        usual = _usual(times, bounds)
        late = times - usual == HOUR * unit
        if not late.any() or (self.seconds is None and "Hour" in type(self._offset).__name__):
            return local
        return pd.DatetimeIndex((local.asi8 - late * HOUR * unit).view(f"M8[{ds.unit}]"))

    def step(self, unit: str) -> int:
        """Width of a fixed step in a datetime unit (us or ns)."""
        assert self.seconds is not None
        return round(self.seconds * _PER_SECOND[unit])

    def positions(self, ds: pd.DatetimeIndex, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each stamp's step, counted within its item, and whether it is exactly on it.

        `ds` is sorted within items, whose rows begin at `bounds`.
        """
        clock = self.clock(ds, bounds)
        if self.seconds is not None:
            step = self.step(ds.unit)
            since = clock.asi8 - _usual(clock.asi8 % step, bounds)
            position = since // step
            return position, since == position * step
        offset = self._offset
        times = clock.asi8 % (DAY * _PER_SECOND[ds.unit])
        on_time = times == _usual(times, bounds)
        kind = type(offset).__name__
        if kind in _MONTHS_EACH:
            months = clock.year.to_numpy(np.int64) * 12 + clock.month.to_numpy(np.int64) - 1
            width = offset.n * _MONTHS_EACH[kind]
            anchor = (_anchor(offset) - 1) % width if self.anchored and width == _MONTHS_EACH[kind] else None
            phase = _usual(months % width, bounds) if anchor is None else anchor % width
            on_day = np.asarray(clock.is_month_end if kind.endswith("End") else clock.day == 1)
            return (months - phase) // width, on_time & on_day & ((months - phase) % width == 0)
        if offset.freqstr == "B":
            days = clock.to_numpy().astype("M8[D]")
            return np.busday_count("1970-01-01", days), on_time & np.is_busday(days)
        position = np.full(len(clock), -1, dtype=np.int64)
        for first, last in itertools.pairwise(bounds):
            if first < last:
                position[first:last] = self._calendar(clock[first], clock[last - 1]).get_indexer(clock[first:last])
        return position, position >= 0

    def stamps(self, ds: pd.DatetimeIndex, position: np.ndarray) -> pd.DatetimeIndex:
        """All stamps of one item from the first to the last of `ds`, whose step numbers are `position`."""
        clock = self.clock(ds, np.array([0, len(ds)]))
        if self.seconds is None:
            full = self._calendar(clock[0], clock[-1])
        else:
            grid = clock.asi8[0] + self.step(ds.unit) * np.arange(position[-1] - position[0] + 1)
            full = pd.DatetimeIndex(grid.view(f"M8[{ds.unit}]"))
        if ds.tz is None:
            return full
        known = self._shown(full, ds).tz_convert("UTC").asi8.copy()
        known[position - position[0]] = ds.asi8
        return pd.DatetimeIndex(known.view(f"M8[{ds.unit}]")).tz_localize("UTC").tz_convert(ds.tz)

    def ahead(self, ds: pd.DatetimeIndex, bounds: np.ndarray, n: int) -> pd.DatetimeIndex:
        """The `n` steps after the last stamp of each item, one item after the other."""
        last = self.clock(ds, bounds)[bounds[1:] - 1]
        if self.seconds is not None:
            steps = last.asi8[:, None] + self.step(ds.unit) * np.arange(1, n + 1)
        else:
            ends, number = np.unique(last.asi8, return_inverse=True)
            starts = pd.DatetimeIndex(ends.view(f"M8[{ds.unit}]"))
            after = [pd.date_range(start, periods=n + 1, freq=self._of(start), unit=ds.unit) for start in starts]
            steps = np.stack([stamps.asi8[1:] for stamps in after])[number]
        return self._shown(pd.DatetimeIndex(steps.ravel().view(f"M8[{ds.unit}]")), ds)

    @property
    def _offset(self) -> Any:
        return offset_of(self.frequency)

    def _of(self, stamp: pd.Timestamp) -> Any:
        """The offset of the item that has a stamp."""
        return self._offset if self.anchored else _anchored_at(self._offset, stamp)

    def _calendar(self, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
        return pd.date_range(first, last, freq=self._of(first), unit=first.unit)

    def _shown(self, full: pd.DatetimeIndex, ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """Stamps of `clock` in the zone of `ds`."""
        if ds.tz is None:
            return full
        if not self.wall:
            return full.tz_localize("UTC").tz_convert(ds.tz)
        return full.tz_localize(ds.tz, ambiguous=np.ones(len(full), dtype=bool), nonexistent="shift_forward")


def named_grid(frequency: str, ds: pd.DatetimeIndex, *, anchored: bool | None = None) -> StepGrid:
    """The grid of a frequency that a user named; raises ValueError with pandas' explanation.

    The weekday or month in its name binds if one was written; `anchored` says otherwise.
    """
    offset: Any = offset_of(frequency)
    anchored = "-" in frequency if anchored is None else anchored
    seconds = _seconds(offset)
    if seconds is not None and seconds < 1e-6:
        raise ValueError("Steps below a microsecond are not supported.")
    if seconds is None and not anchored and len(ds):
        return StepGrid(text_of(_anchored_at(offset, ds[0])), None, wall=True, anchored=False)
    if seconds is None or (type(offset).__name__ == "Week" and anchored):
        return StepGrid(text_of(offset), None, wall=True)
    wall = seconds % DAY == 0 and type(offset).__name__ in ("Day", "Week")
    return StepGrid(_alias(seconds, ds, wall), seconds, wall)


def inferred_grid(ds: pd.DatetimeIndex, inside: np.ndarray) -> StepGrid | None:
    """The grid that most steps lie on; None when no item has two rows. `ds` sorted and unique within items.

    `inside` marks the pairs of neighbours that belong to the same item.
    """
    per_second = _PER_SECOND[ds.unit]
    steps = np.diff(_utc(ds).asi8)[inside]
    if not len(steps):
        return None
    local = np.diff(_wall(ds).asi8)[inside]
    common = mode(steps)
    daily = mode(local)
    # Days of 23 and 25 hours are regular on the local clock only; a true 24 h rhythm only on the UTC time line.
    wall = daily % (DAY * per_second) == 0 and bool(
        (local % daily == 0).all() or (steps % common != 0).any() or _at_midnight(ds)
    )
    common = daily if wall else common
    seconds = common / per_second
    if wall:
        calendar = _calendar(_wall(ds), seconds / DAY, inside, uneven=bool((local != common).any()))
        if calendar:
            return StepGrid(calendar, None, wall=True, anchored=False)
    return StepGrid(_alias(seconds, ds, wall), seconds, wall)


def _at_midnight(ds: pd.DatetimeIndex) -> bool:
    """Whether every stamp is the first moment of its day, some of them at one as clocks go forward at midnight."""
    if ds.tz is None:
        return False
    days = ds.tz_localize(None).normalize()
    firsts = days.tz_localize(ds.tz, ambiguous=np.ones(len(days), dtype=bool), nonexistent="shift_forward")
    return bool((firsts.asi8 == ds.asi8).all())


def periods_of(frequency: str | None) -> tuple[int, ...]:
    """Seasonal periods in steps that a frequency suggests, shortest first; (1,) when it suggests none.

    Example:
        >>> periods_of("h"), periods_of("D"), periods_of("10min"), periods_of("MS")
        ((24, 168), (7,), (144,), (12,))
    """
    if frequency is None:
        return (1,)
    offset: Any = offset_of(frequency)
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


def _usual(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """For each row the value that most rows of its item have: their lower median, which late days do not move."""
    lengths = np.diff(bounds)
    firsts = values[np.minimum(bounds[:-1], len(values) - 1)] if len(values) else values[:0].repeat(len(lengths))
    usual = np.repeat(firsts, lengths)
    if (values == usual).all():
        return usual
    code = np.repeat(np.arange(len(lengths)), lengths)
    ordered = values[np.lexsort((values, code))]
    middle = np.minimum(bounds[:-1] + np.maximum(lengths - 1, 0) // 2, len(values) - 1)
    return np.repeat(ordered[middle], lengths)


def _anchor(offset: Any) -> int:
    """The month that an offset's name binds it to; 1 where it names none."""
    return int(getattr(offset, "startingMonth", getattr(offset, "month", 1)))


def _anchored_at(offset: Any, stamp: pd.Timestamp) -> Any:
    """The same offset, of quarters or years that begin or end in the month of a stamp."""
    kind = type(offset).__name__
    if kind in ("YearBegin", "YearEnd"):
        return type(offset)(offset.n, month=stamp.month)
    if kind in ("QuarterBegin", "QuarterEnd"):
        first = (stamp.month - 1) % 3 + 1
        return type(offset)(offset.n, startingMonth=12 if first == 3 and kind == "QuarterEnd" else first)
    return offset


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


def _calendar(local: pd.DatetimeIndex, days: float, inside: np.ndarray, *, uneven: bool) -> str | None:
    """Alias of a step that varies with the calendar, if all stamps agree with one: that of the first item."""
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
    months = local.month.to_numpy() % 3 if days <= 92 else local.month.to_numpy()
    if (np.diff(months)[inside] != 0).any():
        return None
    if days > 92:
        return f"Y{kind}-{_MONTHS[int(months[0]) - 1]}"
    # Named after the first month that starts a quarter, or the last that ends one: January, or December.
    first = (int(months[0]) - 1) % 3
    return f"Q{kind}-{_MONTHS[first] if kind == 'S' or first < 2 else 'DEC'}"


def _calendar_periods(offset: Any) -> tuple[int, ...]:
    code = offset.freqstr.lstrip("0123456789").split("-")[0]
    n_open = sum(offset.calendar.weekmask) if code == "C" else 5
    per_year = {"B": 5, "C": n_open, "W": 52}.get(code)
    if per_year is None:
        letters = code.removeprefix("B").removeprefix("C")[:1] if len(code) > 1 else code
        per_year = {"M": 12, "Q": 4, "Y": 1, "S": 24}.get(letters, 1)
    return (per_year // offset.n,) if per_year % offset.n == 0 and per_year > offset.n else (1,)


def _utc(ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return ds if ds.tz is None else ds.tz_convert("UTC").tz_localize(None)


def _wall(ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return ds if ds.tz is None else ds.tz_localize(None)
