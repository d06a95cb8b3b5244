"""Where the training part ends, where validation ends and where the test part ends."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from pydantic import model_validator

from tsdistill.errors import DataError, must
from tsdistill.spec import Spec

if TYPE_CHECKING:
    import pandas as pd


Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")


class Borders(NamedTuple):
    """Row numbers (exclusive ends) of the three parts of one item."""

    train: int
    validation: int
    test: int


class Split(Spec):
    """How each item is cut, in time order, into training, validation and test parts.

    Use `Split.fractions` for a new data set, `Split.rows` for a benchmark's published borders, `Split.last` for many
    series of unequal length, `Split.dates` when a calendar date matters. Make one with these, not with the constructor.

    Example:
        >>> Split.fractions(0.7, 0.1, 0.2).borders(100)
        Borders(train=70, validation=80, test=100)
        >>> Split.rows(8640, 2880, 2880).borders(17420)
        Borders(train=8640, validation=11520, test=14400)
        >>> Split.last(validation=48, test=48).borders(748)
        Borders(train=652, validation=700, test=748)
    """

    kind: Literal["fractions", "rows", "dates", "last"] = "fractions"
    train: float | None = None
    validation: float | None = None
    test: float | None = None
    validation_start: str | None = None
    test_start: str | None = None
    test_end: str | None = None

    @classmethod
    def fractions(cls, train: float, validation: float, test: float) -> Self:
        """Shares of each item's rows that sum to at most 1; the test share is counted from the end of the other two."""
        return cls(kind="fractions", train=train, validation=validation, test=test)

    @classmethod
    def rows(cls, train: int, validation: int, test: int) -> Self:
        """Numbers of rows; rows after the test part are not used."""
        return cls(kind="rows", train=train, validation=validation, test=test)

    @classmethod
    def last(cls, *, validation: int, test: int) -> Self:
        """Numbers of rows counted from each item's end; all rows before them are for training."""
        return cls(kind="last", validation=validation, test=test)

    @classmethod
    def dates(cls, validation_start: str, test_start: str, test_end: str | None = None) -> Self:
        """First stamp of validation, first stamp of test, and optionally the first stamp after the test part."""
        return cls(kind="dates", validation_start=validation_start, test_start=test_start, test_end=test_end)

    @property
    def by_dates(self) -> bool:
        """Whether items are cut at moments, so that one may have no rows in a part."""
        return self.kind == "dates"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "dates":
            self._check_dates()
            return self
        counted = self.kind != "fractions"
        last = self.kind == "last"
        rule = "be a whole number above 0" if counted else "be above 0"
        problems = []
        for name in ("validation", "test") if last else ("train", "validation", "test"):
            value = getattr(self, name)
            if value is None or value <= 0 or (counted and value != int(value)):
                problems.append(
                    must(name, rule, value, f"Give {'both' if last else 'all three'} parts of Split.{self.kind}")
                )
        if last and self.train is not None:
            problems.append(must("train", "be left out of Split.last", self.train, "All rows before the others train"))
        total = sum(getattr(self, name) or 0 for name in ("train", "validation", "test"))
        if self.kind == "fractions" and total > 1 + 1e-9:
            problems.append(must("train + validation + test", "be at most 1", round(total, 6), "Lower a share"))
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def _check_dates(self) -> None:
        stamps = []
        for name in ("validation_start", "test_start", "test_end"):
            value = getattr(self, name)
            if value is None and name == "test_end":
                continue
            try:
                stamps.append(dt.datetime.fromisoformat(value).replace(tzinfo=None))
            except (TypeError, ValueError):
                raise ValueError(must(name, "be an ISO date or stamp", value, "Write 2013-10-01 or the like")) from None
        if any(later <= earlier for earlier, later in itertools.pairwise(stamps)):
            raise ValueError(must("dates", "be in time order", [str(s) for s in stamps], "Sort them"))

    def borders(self, n_rows: int, ds: pd.DatetimeIndex | None = None) -> Borders:
        """Row borders of an item of `n_rows` rows with the stamps `ds` (needed by `Split.dates` only)."""
        if self.kind == "fractions":
            assert self.train is not None and self.validation is not None and self.test is not None
            whole = abs(self.train + self.validation + self.test - 1) < 1e-9
            train = int(n_rows * self.train)
            test = int(n_rows * self.test)
            validation = n_rows - train - test if whole else int(n_rows * self.validation)
            return Borders(train, train + validation, train + validation + test)
        if self.kind == "rows":
            assert self.train is not None and self.validation is not None and self.test is not None
            train, validation, test = int(self.train), int(self.validation), int(self.test)
            if train + validation + test > n_rows:
                rule = f"sum to at most the {n_rows} rows there are"
                raise DataError(must("split", rule, (train, validation, test), "Use fewer rows"))
            return Borders(train, train + validation, train + validation + test)
        if self.kind == "last":
            assert self.validation is not None and self.test is not None
            validation, test = int(self.validation), int(self.test)
            if validation + test >= n_rows:
                rule = f"leave some of the {n_rows} rows there are for training"
                raise DataError(must("split", rule, (validation, test), "Use fewer rows"))
            return Borders(n_rows - validation - test, n_rows - test, n_rows)
        if ds is None:
            raise DataError("Split.dates needs time stamps; this panel has none. Use another kind of split.")
        ends = [_row_of(ds, stamp) for stamp in (self.validation_start, self.test_start, self.test_end)]
        return Borders(*ends)


def spans(borders: Borders, context: int) -> list[tuple[Part, int, int]]:
    """First and last row (exclusive) that the windows of each part may touch."""
    return [
        ("train", 0, borders.train),
        ("validation", borders.train - context, borders.validation),
        ("test", borders.validation - context, borders.test),
    ]


def _row_of(ds: pd.DatetimeIndex, stamp: str | None) -> int:
    """Number of rows before a stamp; a stamp without a zone is read in the zone of the index."""
    import pandas as pd

    if stamp is None:
        return len(ds)
    return int(ds.searchsorted(in_zone(pd.Timestamp(stamp), ds), side="left"))


def in_zone(when: pd.Timestamp, ds: pd.DatetimeIndex) -> pd.Timestamp:
    """A stamp that can be compared with an index: on the index's clock when it has no zone itself."""
    if when.tzinfo is None and ds.tz is not None:
        try:
            return when.tz_localize(ds.tz)
        except ValueError:
            problem = f"{when} stands twice or never on clocks in {ds.tz}, which change for daylight saving"
            raise DataError(f"{problem}. Give the stamp with its offset, such as {when}+00:00.") from None
    if when.tzinfo is not None and ds.tz is None:
        return when.tz_convert("UTC").tz_localize(None)
    return when
