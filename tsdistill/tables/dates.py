"""Time stamps read from whatever a table holds: one reading, or a problem that names the argument which settles it."""

from __future__ import annotations

import datetime as dt
import itertools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from tsdistill.tables.numbers import as_numbers, missing_in
from tsdistill.tables.patterns import n_read, order_of, patterns_of, strict

UNITS = ("s", "ms", "us", "ns")
FEW = 1000
"""Texts that are read one by one, whether they repeat or not."""

YEARS = (1800, 2200)
"""Years that numbers and years of two digits may mean; a `time_format` may give others."""

EPOCH = (315_532_800, 4_102_444_800)
"""Seconds from 1970 that are told apart from dates written without separators: 1980 to 2100."""

_DIGITS = {
    4: ("%Y",),
    6: ("%Y%m", "%y%m%d", "%d%m%y", "%m%d%y"),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    10: ("%Y%m%d%H",),
    12: ("%Y%m%d%H%M",),
    14: ("%Y%m%d%H%M%S",),
}
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE]\+?\d+)?")
_ZONED = re.compile(r":\d\d(?:\.\d+)? ?(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$")
_QUARTER = re.compile(r"(?P<year>\d{4})[- ]?Q(?P<n>[1-4])|Q(?P<n2>[1-4])[-/ ]?(?P<year2>\d{4})", re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d\d)(?:-?([1-7]))?")


@dataclass(frozen=True)
class DateForm:
    """How dates are written, as far as it is known.

    Args:
        day_first: Whether 01/02/2024 is the first of February.
        time_format: A strftime pattern, or a unit of numbers from 1970.
    """

    day_first: bool | None = None
    time_format: str | None = None

    def check(self, problems: list[str]) -> None:
        """Report arguments of another type, and patterns without a year."""
        if not isinstance(self.day_first, bool | None):
            problems.append(f"`day_first` must be True, False or None, got day_first={self.day_first!r}.")
        pattern = self.time_format
        if pattern is not None and not (isinstance(pattern, str) and (pattern in UNITS or "%" in pattern)):
            problems.append(
                f"`time_format` must be a pattern or one of {', '.join(UNITS)}, got time_format={pattern!r}. "
                'Write "%d.%m.%Y %H:%M" or the like.'
            )


class Stamps(NamedTuple):
    """What was read: NaT where a cell holds no date; None when no cell can; and whether days stood first."""

    ds: pd.DatetimeIndex | None
    day_first: bool | None = None


class _Guess(NamedTuple):
    pattern: str
    ds: pd.DatetimeIndex

    @property
    def day_first(self) -> bool | None:
        """None where no order of two numbers is at stake."""
        return order_of(self.pattern)


def read(column: Any, name: str, form: DateForm, problems: list[str]) -> Stamps:
    """Time stamps of a column or an index; what can be read in several ways is a problem.

    Args:
        column: Stamps, periods, dates, texts or numbers.
        name: What messages call it.
        form: What is known of how they are written.
        problems: Where problems are added.
    """
    column = _plain(pd.Series(column).reset_index(drop=True))
    if types.is_datetime64_any_dtype(column.dtype):
        return Stamps(pd.DatetimeIndex(column))
    if isinstance(column.dtype, pd.PeriodDtype):
        return Stamps(pd.PeriodIndex(column).to_timestamp())
    if types.is_string_dtype(column.dtype) and (repeated := _repeated(column)) is not None:
        distinct, code = repeated
        few, day_first = read(distinct, name, form, problems)
        # Without a stamp where there is no cell.
        full = None if few is None else pd.DatetimeIndex(few.append(pd.DatetimeIndex([pd.NaT], tz=few.tz))[code])
        return Stamps(full, day_first)
    missing = missing_in(column)
    if types.is_bool_dtype(column.dtype) or not types.is_numeric_dtype(column.dtype):
        texts = _texts(column, missing, name, problems)
        if texts is None:
            return Stamps(None)
        if isinstance(texts, pd.DatetimeIndex):
            return Stamps(texts)
        stamps = _of_texts(texts, missing, name, form, problems)
    else:
        stamps = _of_numbers(column, missing, name, form, problems)
    return stamps


def _repeated(column: pd.Series) -> tuple[pd.Series, np.ndarray] | None:
    """Different cells and the number of each row's, -1 where it is empty, if most stand there several times.

    Many items have the same stamps, and a text is read as a date more slowly than it is recognised.
    """
    if len(column) < FEW:
        return None
    try:
        code, distinct = pd.factorize(column)
    except TypeError:
        return None
    # Some rules look at whether there are more than two.
    return (pd.Series(distinct), code) if 2 < len(distinct) <= len(column) // 2 else None


def _plain(column: pd.Series) -> pd.Series:
    """The same values in a type of numpy's or pandas' own; text, and what has no such type, as objects."""
    dtype: Any = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _plain(column.astype(dtype.categories.dtype))
    arrow: Any = dtype if isinstance(dtype, pd.ArrowDtype) else None
    if arrow is not None:
        if dtype.kind in "iuf":
            return column.convert_dtypes(dtype_backend="numpy_nullable")
        naive = dtype.kind == "M" and getattr(arrow.pyarrow_dtype, "tz", None) is None
        return column.astype(arrow.numpy_dtype) if naive else _plain(column.astype(object))
    if types.is_object_dtype(dtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        if inferred == "period":
            return pd.Series(pd.PeriodIndex(column))
        if inferred in ("integer", "floating", "decimal", "mixed-integer-float"):
            return _as_whole(column)
    return column


def _as_whole(column: pd.Series) -> pd.Series:
    """Objects that are numbers, as whole ones where all of them are."""
    try:
        return column.astype("int64")
    except (TypeError, ValueError, OverflowError):
        return pd.Series(as_numbers(column).values)


def _texts(
    column: pd.Series, missing: np.ndarray, name: str, problems: list[str]
) -> pd.Series | pd.DatetimeIndex | None:
    """Cells as text without blanks around them, or stamps where all cells are some; None when a cell is neither."""
    if types.is_timedelta64_dtype(column.dtype) or types.is_bool_dtype(column.dtype):
        problems.append(f"`{name}` must hold time stamps, got {column.dtype}. Name the column that dates the rows.")
        return None
    if not types.is_object_dtype(column.dtype):
        return column.astype(object).where(~missing).str.strip()
    cells = column[~missing]
    kinds = set(map(type, cells))
    others = [kind for kind in kinds if not issubclass(kind, (str, dt.date, np.datetime64))]
    if others:
        rule = "text and numbers" if any(issubclass(kind, str) for kind in kinds) else others[0].__name__
        problems.append(f"`{name}` must hold time stamps, got cells with {rule}. Convert them with pd.to_datetime.")
        return None
    if any(issubclass(kind, str) for kind in kinds):
        return column.where(missing, column.astype(str).str.strip())
    zoned = {getattr(cell, "tzinfo", None) is not None for cell in cells}
    if len(zoned) > 1:
        problems.append(_half_zoned(name))
        return None
    return _converted(column)


def _half_zoned(name: str) -> str:
    return (
        f"`{name}` holds time stamps with a zone and others without. Give all of them one, or none and name it by "
        "time_zone=."
    )


def _of_numbers(column: pd.Series, missing: np.ndarray, name: str, form: DateForm, problems: list[str]) -> Stamps:
    numbers = column[~missing]
    exact = types.is_integer_dtype(column.dtype)
    values = numbers.to_numpy(dtype=np.int64 if exact and not types.is_unsigned_integer_dtype(column.dtype) else float)
    finite = bool(np.isfinite(values).all()) and len(values) > 0
    if form.time_format in UNITS and finite:
        return Stamps(_counted(values, missing, str(form.time_format)))
    whole = finite and bool((values == np.floor(values)).all())
    if form.time_format is not None and whole:
        texts = pd.Series(values.astype(np.int64).astype(str), index=numbers.index).reindex(column.index)
        return Stamps(strict(texts, form.time_format))
    guesses: list[tuple[str, pd.DatetimeIndex]] = []
    if whole and values.min() >= 0:
        guesses += _compact(values.astype(np.int64), missing)
    for power, unit in enumerate(UNITS):
        low, high = (bound * 1000**power for bound in EPOCH)
        if finite and low <= values.min() and values.max() <= high:
            guesses.append((unit, _counted(values, missing, unit)))
    if len(guesses) == 1:
        return Stamps(guesses[0][1])
    if not guesses:
        problems.append(
            f"`{name}` must hold time stamps, got {column.dtype} numbers. If they count from 1970, pass "
            'time_format="s", "ms", "us" or "ns"; if they are dates, a pattern such as time_format="%Y%m%d"; for rows '
            "without stamps, time=None."
        )
        return Stamps(None)
    problems.append(_ambiguous(name, str(values[0]), [(f'time_format="{way}"', ds) for way, ds in guesses], ~missing))
    return Stamps(guesses[0][1])


def _compact(values: np.ndarray, missing: np.ndarray) -> list[tuple[str, pd.DatetimeIndex]]:
    """Readings of whole numbers as dates without separators, such as 20240131, that hold for all of them."""
    n_digits = len(str(int(values.max())))
    if n_digits != len(str(int(values.min()))):
        return []
    texts = pd.Series(np.full(len(missing), None, dtype=object))
    texts[~missing] = values.astype(str).astype(object)
    return [(guess.pattern, guess.ds) for guess in _fitting(texts, _DIGITS.get(n_digits, ()), int((~missing).sum()))]


def _counted(values: np.ndarray, missing: np.ndarray, unit: str) -> pd.DatetimeIndex:
    """Numbers that count from 1970, in UTC; what lies beyond the calendar reads as no date."""
    stamps = pd.to_datetime(pd.Series(values), unit=unit, utc=True, errors="coerce")  # type: ignore[call-overload]
    full = pd.Series(pd.NaT, index=range(len(missing)), dtype=stamps.dtype)
    full[~missing] = stamps.to_numpy()
    return pd.DatetimeIndex(full)


def _of_texts(texts: pd.Series, missing: np.ndarray, name: str, form: DateForm, problems: list[str]) -> Stamps:
    """Texts as stamps: ISO stamps, else the one pattern that reads all of them."""
    given = texts[~missing]
    if not len(given):
        return Stamps(pd.DatetimeIndex([pd.NaT] * len(texts)))
    first = str(given.iloc[0])
    if form.time_format in UNITS or (
        form.time_format is None and re.fullmatch(r"[+-]?\d+(\.\d*)?([eE]\+?\d+)?", first)
    ):
        numbers = pd.to_numeric(given, errors="coerce")
        if numbers.notna().all() and not (first.startswith("0") and form.time_format is None):
            return _of_numbers(numbers.reindex(texts.index), missing, name, form, problems)
    if form.time_format is not None:
        return Stamps(strict(texts, form.time_format))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns when it guesses; what cannot be read is reported
        iso = _converted(texts, format="ISO8601")
        if n_read(iso) == len(given):
            if iso.tz is not None and given.str.contains(_ZONED).nunique() > 1:
                problems.append(_half_zoned(name))
            return Stamps(iso)
        for special in (_quarters, _weeks):
            stamps = special(texts)
            if n_read(stamps) == len(given):
                return Stamps(stamps)
        patterns = patterns_of(first)
        guesses = _fitting(texts, patterns, len(given))
        if form.day_first is not None:
            guesses = [guess for guess in guesses if guess.day_first in (form.day_first, None)]
            patterns = [pattern for pattern in patterns if order_of(pattern) in (form.day_first, None)]
        if not guesses:
            # Where an order was given, pandas would take the other one for single dates.
            guesses = _different(_guessed(texts, form)) if form.day_first is None or not patterns_of(first) else []
            partial = [_Guess(pattern, strict(texts, pattern)) for pattern in patterns] if not guesses else []
            best = max([_Guess("", iso), *guesses, *partial], key=lambda guess: n_read(guess.ds))
            if best.ds is iso or n_read(best.ds) < len(given):
                return Stamps(best.ds)
            guesses = [guess for guess in guesses if n_read(guess.ds) == len(given)]
    guess = guesses[0]
    yearless = "%d" not in guess.pattern and guess.pattern.endswith("%y") and len(given) > 2
    if len(guesses) == 1 and yearless and guess.ds.month.nunique() == 1:
        problems.append(
            f"`{name}` can be read as months or as days, such as {first!r}. Pass time_format={_quoted(guess.pattern)} "
            "if it is a month and a year; days need a year."
        )
    if len(guesses) > 1:
        by_order = [guess for guess in guesses if guess.day_first is not None]
        if len(guesses) == 2 and {guess.day_first for guess in by_order} == {True, False}:
            ways = [
                (f"day_first={guess.day_first}", guess.ds) for guess in sorted(guesses, key=lambda g: not g.day_first)
            ]
        else:
            ways = [(f"time_format={_quoted(guess.pattern)}", guess.ds) for guess in guesses]
        unclear = np.logical_or.reduce(
            [np.asarray(guess.ds != other.ds) for guess, other in itertools.pairwise(guesses)]
        )
        place = int((unclear & ~missing).argmax())
        problems.append(_ambiguous(name, str(texts.iloc[place]), ways, np.arange(len(texts)) == place))
    return Stamps(guess.ds, guess.day_first)


def _ambiguous(name: str, example: str, ways: list[tuple[str, pd.DatetimeIndex]], where: np.ndarray) -> str:
    """What can be read in several ways, and the argument for each of them."""
    first = ", or ".join(f"{argument} if it is {ds[where][0]:%Y-%m-%d}" for argument, ds in ways)
    order = "with the day or the month first" if ways[0][0].startswith("day_first") else "in several ways"
    return f"`{name}` can be read {order}, such as {example!r}. Pass {first}; or write ISO stamps (2013-10-01)."


def _quoted(pattern: str) -> str:
    return f'"{pattern}"'


def _fitting(texts: pd.Series, patterns: Iterable[str], n_given: int) -> list[_Guess]:
    """The patterns that read all texts as dates of likely years; different patterns with one result count once."""
    guesses = []
    for pattern in patterns:
        if n_given > 1000 and n_read(strict(texts.iloc[:1000], pattern)) < int(texts.iloc[:1000].notna().sum()):
            continue
        stamps = strict(texts, pattern)
        if n_read(stamps) == n_given and YEARS[0] <= stamps.year.min() and stamps.year.max() <= YEARS[1]:
            guesses.append(_Guess(pattern, stamps))
    return _different(guesses)


def _different(guesses: list[_Guess]) -> list[_Guess]:
    kept: list[_Guess] = []
    for guess in guesses:
        if not any(guess.ds.equals(other.ds) for other in kept):
            kept.append(guess)
    return kept


def _guessed(texts: pd.Series, form: DateForm) -> list[_Guess]:
    """What pandas makes of texts that all hold a year of four digits: without one it takes any."""
    if not texts.dropna().str.contains(r"(?<!\d)\d{4}(?!\d)").all():
        return []
    orders = (False, True) if form.day_first is None else (form.day_first,)
    guesses = [_Guess("%d-%m-%Y" if order else "%m-%d-%Y", _converted(texts, dayfirst=order)) for order in orders]
    if len(guesses) == 2 and guesses[0].ds.equals(guesses[1].ds):
        guesses = [_Guess("", guesses[0].ds)]
    return [guess for guess in guesses if not guess.ds.tz or not texts.dropna().str.contains(_ZONED).nunique() > 1]


def _quarters(texts: pd.Series) -> pd.DatetimeIndex:
    """First days of quarters such as 2024Q1."""
    if not _QUARTER.fullmatch(str(texts.dropna().iloc[0])):
        return pd.DatetimeIndex([pd.NaT] * len(texts))
    parts = texts.str.extract(f"^(?:{_QUARTER.pattern})$", flags=re.IGNORECASE)
    year, quarter = parts["year"].fillna(parts["year2"]), parts["n"].fillna(parts["n2"])
    months = (pd.to_numeric(quarter) * 3 - 2).astype("Int64").astype("string")
    return strict((year + "-" + months).astype(object), "%Y-%m")


def _weeks(texts: pd.Series) -> pd.DatetimeIndex:
    """Mondays, or days, of ISO weeks such as 2024-W05."""
    if not _WEEK.fullmatch(str(texts.dropna().iloc[0])):
        return pd.DatetimeIndex([pd.NaT] * len(texts))
    parts = texts.str.extract(f"^{_WEEK.pattern}$")
    return strict(parts[0] + "-" + parts[1] + "-" + parts[2].fillna("1"), "%G-%V-%u")


def _converted(column: pd.Series, **options: object) -> pd.DatetimeIndex:
    try:
        return pd.DatetimeIndex(pd.to_datetime(column, errors="coerce", **options))  # type: ignore[call-overload]
    except ValueError:
        # Offsets that change over the year: one time line for all of them.
        return pd.DatetimeIndex(pd.to_datetime(column, errors="coerce", utc=True, **options))  # type: ignore[call-overload]
