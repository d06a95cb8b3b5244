"""Step widths as text that restores them: aliases of pandas, and business days of one's own."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.frequencies import to_offset

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

_CUSTOM = re.compile(r"(\d*)C\(([^;()]*)(?:;([^()]*))?\)", re.IGNORECASE)
"""Every n-th business day of one's own: 2C(Mon Tue Wed Thu Fri Sat; 2024-12-25 2024-12-26)."""


def offset_of(frequency: Any) -> Any:
    """The offset that a text names, an alias of pandas or custom business days.

    Raises:
        ValueError: it names none.

    Example:
        >>> offset_of("C(Mon Tue Wed Thu Fri Sat; 2024-12-25)").weekmask
        'Mon Tue Wed Thu Fri Sat'
    """
    custom = _CUSTOM.fullmatch(frequency.strip()) if isinstance(frequency, str) else None
    if custom is None:
        return to_offset(frequency)
    days = custom[2].replace(",", " ").title().split()
    if wrong := [day for day in days if day not in DAYS]:
        raise ValueError(f"{wrong[0]!r} is no day of the week: {', '.join(DAYS)}.")
    if not days:
        raise ValueError("Business days need at least one day of the week.")
    holidays = (custom[3] or "").replace(",", " ").split()
    return pd.offsets.CustomBusinessDay(
        n=int(custom[1] or 1), weekmask=" ".join(days), holidays=[np.datetime64(day, "D") for day in holidays]
    )


def text_of(offset: Any) -> str:
    """The text that `offset_of` makes the same offset of.

    Raises:
        ValueError: there is none, such as for an offset of hours of one's own; the message says what to do.

    Example:
        >>> text_of(pd.offsets.CustomBusinessDay(weekmask="Mon Tue Wed Thu Fri Sat"))
        'C(Mon Tue Wed Thu Fri Sat)'
    """
    if isinstance(offset, pd.Timedelta):
        offset = to_offset(offset)
    if type(offset) is not pd.offsets.CustomBusinessDay:
        text = str(offset.freqstr)
        try:
            same = to_offset(text) == offset
        except ValueError:
            same = False
        if not same:
            raise ValueError(
                f"{offset!r} has no name that would restore it. Resample to a step that has one, such as MS, h or "
                "C(Mon Tue Wed Thu Fri Sat), or pass time=None."
            )
        return text
    if getattr(offset, "offset", None):
        raise ValueError(f"{offset!r} has an offset of its own. Move the stamps to whole days.")
    open_days = [day for day, is_open in zip(DAYS, offset.calendar.weekmask, strict=True) if is_open]
    holidays = [str(day) for day in np.sort(np.asarray(offset.calendar.holidays))]
    return f"{'' if offset.n == 1 else offset.n}C({' '.join(open_days)}{'; ' * bool(holidays)}{' '.join(holidays)})"


def calendar_of(ds: pd.DatetimeIndex) -> str | None:
    """The text of a calendar that no step of one width is: twice a month, or some days of the week; None of another.

    Args:
        ds: Stamps of one series, sorted, without repetitions and without a zone.
    """
    if len(ds) < 4 or not (ds == ds.normalize()).all():
        return None
    days = np.unique(ds.day.to_numpy())
    starts = [f"SMS-{day}" for day in days[(days > 1) & (days < 28)]] if days[0] == 1 and len(days) == 2 else []
    for name in (*starts, *(f"SME-{day}" for day in days[:1] if day < 28 <= days[-1])):
        if pd.date_range(ds[0], ds[-1], freq=name).equals(ds):
            return name
    weekdays = np.unique(ds.day_of_week.to_numpy())
    is_daily = np.diff(ds.to_numpy()).min() == np.timedelta64(1, "D")
    if is_daily and len(weekdays) < 7 and ds[-1] - ds[0] >= pd.Timedelta(days=14):
        return f"C({' '.join(DAYS[day] for day in weekdays)})"
    return None


def offset_text(frequency: Any, problems: list[str]) -> str | None:
    """A frequency as text; an object that cannot be written is a problem."""
    if frequency is None or isinstance(frequency, str):
        return frequency
    try:
        offset = frequency if isinstance(frequency, pd.tseries.offsets.BaseOffset) else to_offset(frequency)
        if offset.n < 1:
            raise ValueError(f"{offset!r} goes back. Give a step forwards.")
        return text_of(offset)
    except (ValueError, TypeError, AttributeError) as error:
        problems.append(f"`frequency` must be a pandas offset that can be kept as text: {str(error).rstrip('.')}.")
        return None
