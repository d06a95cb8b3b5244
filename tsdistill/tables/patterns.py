"""Patterns that dates in texts may follow, found by the shape of one of them."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd

_MONTH = r"[A-Za-z]{3,9}"
_SEPARATOR = r"[-/. ]"
_DATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (rf"(\d{{4}})({_SEPARATOR})\d\d?\2\d\d?", ("%Y{0}%m{0}%d",)),
    (rf"(\d\d?)({_SEPARATOR})\d\d?\2\d{{4}}", ("%d{0}%m{0}%Y", "%m{0}%d{0}%Y")),
    (rf"(\d\d?)({_SEPARATOR})\d\d?\2\d\d", ("%d{0}%m{0}%y", "%m{0}%d{0}%y", "%y{0}%m{0}%d")),
    (rf"(\d\d?)({_SEPARATOR})\d{{4}}", ("%m{0}%Y",)),
    (rf"(\d{{4}})({_SEPARATOR})\d\d?", ("%Y{0}%m",)),
    (rf"(\d\d?)({_SEPARATOR}){_MONTH}\2\d{{4}}", ("%d{0}{1}{0}%Y",)),
    (rf"(\d\d?)({_SEPARATOR}){_MONTH}\2\d\d", ("%d{0}{1}{0}%y",)),
    (rf"({_MONTH})({_SEPARATOR})\d\d?,? ?\2?\d{{4}}", ("{1}{0}%d{0}%Y", "{1}{0}%d,{0}%Y")),
    (rf"({_MONTH})({_SEPARATOR})\d{{4}}", ("{1}{0}%Y",)),
    (rf"({_MONTH})({_SEPARATOR})\d\d", ("{1}{0}%y",)),
    (rf"(\d{{4}})({_SEPARATOR}){_MONTH}", ("%Y{0}{1}",)),
    (rf"(\d\d)({_SEPARATOR}){_MONTH}", ("%y{0}{1}",)),
)
"""Shapes of dates, and how each may be read: {0} is the separator, {1} the name of a month, short or long."""

_TIME = re.compile(r"(?P<gap>[T ]|, ?) *(?P<hour>\d\d?)(?P<rest>(?::\d\d){0,2})(?P<part>\.\d+)?(?P<half> ?[AaPp][Mm])?"
                   r"(?P<zone> ?(?:Z|[+-]\d\d:?\d\d))?$")  # fmt: skip


def patterns_of(text: str) -> list[str]:
    """Patterns that a text may follow, the time of day included."""
    time = ""
    if (match := _TIME.search(text)) and (match["rest"] or match["half"]):
        colons = match["rest"].count(":")
        hour = "%I" if match["half"] else "%H"
        time = match["gap"] + hour + "".join([":%M", ":%S"][:colons]) + (".%f" if match["part"] else "")
        half = match["half"] or ""
        time += f"{' ' if half.startswith(' ') else ''}%p" if half else ""
        zone = match["zone"] or ""
        time += f"{' ' if zone.startswith(' ') else ''}%z" if zone else ""
        text = text[: match.start()]
    patterns = []
    for shape, readings in _DATES:
        if match := re.fullmatch(shape, text):
            patterns += [
                reading.format(match[2], month) + time
                for reading, month in itertools.product(readings, ("%b", "%B"))
                if "{1}" in reading or month == "%b"
            ]
    return patterns


def order_of(pattern: str) -> bool | None:
    """Whether the day stands before the month; None where no order of two numbers is at stake."""
    day, month = pattern.find("%d"), pattern.find("%m")
    return None if day < 0 or month < 0 or pattern.startswith("%Y") else day < month


def strict(texts: pd.Series, pattern: str) -> pd.DatetimeIndex:
    """Stamps of the texts that follow a pattern."""
    try:
        return pd.DatetimeIndex(pd.to_datetime(texts, format=pattern, errors="coerce", utc="%z" in pattern))
    except (ValueError, TypeError, OverflowError):
        return pd.DatetimeIndex([pd.NaT] * len(texts))


def n_read(stamps: pd.DatetimeIndex) -> int:
    """How many cells were read."""
    return len(stamps) - int(np.asarray(stamps.isna()).sum())
