"""Calendar features of local time stamps, and the number of steps in a cycle.

numpy and the standard library only: the torch-free runtime makes the same features as the training did.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tsdistill.errors import ConfigError, must

CALENDAR = ("time-of-day", "time-of-week", "time-of-year")
"""Cycles that features can be made of."""

HOLIDAY = "holiday"
"""Name of the one feature that all holidays give."""

_NS = 10**9
_DAY = 24 * 3_600 * _NS
_WIDTHS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": _NS, "min": 60 * _NS, "h": 3_600 * _NS, "D": _DAY, "W": 7 * _DAY}
"""Width of a step in nanoseconds by pandas offset alias."""

_CYCLES = {"time-of-day": _DAY, "time-of-week": 7 * _DAY}
_ALIAS = re.compile(r"(\d*)([A-Za-z]+)(?:-[A-Z]{3})?")


def names(calendar: Sequence[str], holidays: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the features that `features` gives, in order.

    Example:
        >>> names(["time-of-day"], ["2024-12-25"])
        ('time-of-day.sin', 'time-of-day.cos', 'holiday')
    """
    waves = (f"{entry}.{wave}" for entry in calendar for wave in ("sin", "cos"))
    return (*waves, HOLIDAY) if len(holidays) else tuple(waves)


def features(local_stamps: np.ndarray, calendar: Sequence[str], holidays: Sequence[str] = ()) -> np.ndarray:
    """Features of time stamps as a local clock shows them.

    Each cycle gives sin(2 pi f) and cos(2 pi f), where f in [0, 1) is the share of the day, of the week (from Monday)
    or of the year (of 365 or 366 days) that has passed, so that both ends of a cycle meet. Holidays give one column
    of 0 and 1.

    Args:
        local_stamps: (time,), datetime64 of any unit, without a zone.
        calendar: Some of "time-of-day", "time-of-week", "time-of-year".
        holidays: ISO dates on the same clock.

    Returns:
        (time, feature), float32, in the order of `names`.

    Raises:
        ConfigError: A cycle is unknown.

    Example:
        >>> stamps = np.array(["2024-12-25T00:00", "2024-12-26T06:00"], dtype="M8[ns]")
        >>> features(stamps, ["time-of-day"], ["2024-12-25"]).round(3).tolist()
        [[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """
    stamps = np.asarray(local_stamps)
    columns = np.empty((len(stamps), len(names(calendar, holidays))), dtype=np.float32)
    for number, entry in enumerate(calendar):
        angle = 2 * np.pi * _fraction(stamps, entry)
        columns[:, 2 * number] = np.sin(angle)
        columns[:, 2 * number + 1] = np.cos(angle)
    if len(holidays):
        columns[:, -1] = np.isin(stamps.astype("M8[D]"), np.array(list(holidays), dtype="M8[D]"))
    return columns


def steps(entry: str, frequency: str | None) -> int | None:
    """How many steps a cycle has; None when they are not a whole number of at least two, or the frequency is unknown.

    A year is a whole number of months or quarters, and of nothing shorter.

    Args:
        entry: "time-of-day", "time-of-week" or "time-of-year".
        frequency: Step width as a pandas offset alias, such as "h", "15min" or "MS".

    Raises:
        ConfigError: The cycle is unknown.

    Example:
        >>> steps("time-of-day", "15min"), steps("time-of-week", "h"), steps("time-of-year", "MS")
        (96, 168, 12)
        >>> steps("time-of-day", "D") is None
        True
    """
    _check(entry)
    parsed = _ALIAS.fullmatch(frequency or "")
    if parsed is None:
        return None
    multiple = int(parsed[1] or 1)
    unit = parsed[2]
    if entry == "time-of-year":
        cycle = {"M": 12, "Q": 4}.get(unit[:1] if unit[1:] in ("S", "E") else "", 0)
        width = multiple
    elif unit == "B":
        cycle = 5 if entry == "time-of-week" else 0
        width = multiple
    else:
        cycle = _CYCLES[entry]
        width = multiple * _WIDTHS.get(unit, 0)
    return cycle // width if width and cycle % width == 0 and cycle // width > 1 else None


def _fraction(stamps: np.ndarray, entry: str) -> np.ndarray:
    """Share of the cycle that has passed at each stamp, (time,)."""
    _check(entry)
    day = stamps.astype("M8[D]")
    if entry == "time-of-day":
        return np.asarray((stamps - day) / np.timedelta64(1, "D"))
    if entry == "time-of-week":
        monday = day - (day - np.datetime64("1970-01-05", "D")) % np.timedelta64(7, "D")
        return np.asarray((stamps - monday) / np.timedelta64(7, "D"))
    year = stamps.astype("M8[Y]")
    first, end = year.astype("M8[D]"), (year + 1).astype("M8[D]")
    return np.asarray((stamps - first) / (end - first))


def _check(entry: str) -> None:
    if entry not in CALENDAR:
        raise ConfigError(must("calendar", f"be one of {', '.join(CALENDAR)}", entry, "Pick one of them"))
