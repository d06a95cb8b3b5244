"""Inputs of a forecaster besides the series themselves: calendar, holidays, planned values, other measurements."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Literal, Self

from pydantic import field_validator, model_validator

from tsdistill import clock
from tsdistill.errors import listed, must, nearest
from tsdistill.spec import Spec

if TYPE_CHECKING:
    from tsdistill.data.panel import Panel


class Covariates(Spec):
    """Inputs that are not forecast: what is known for the horizon, and what is known up to now only.

    Columns named here are no longer channels of the task. Calendar features are made from the panel's time stamps, on
    their local clock; each cycle gives a sine and a cosine. Planned and past columns are scaled like channels, but
    those that hold only 0 and 1 in training are left as they are.

    Args:
        calendar: Some of "time-of-day", "time-of-week", "time-of-year".
        holidays: ISO dates on the local clock; together they give one feature of 0 and 1. Name those of the years to
            be forecast as well: a day that is not named is no holiday.
        future: Columns whose values are known ahead, such as prices, plans or weather forecasts.
        past: Columns whose values are known only up to now.

    Raises:
        ConfigError: Nothing is named, a column is named twice or has the name of a calendar feature, or a holiday is
            no date.

    Example:
        >>> from pandas.tseries.holiday import USFederalHolidayCalendar
        >>> days = USFederalHolidayCalendar().holidays("2013-01-01", "2014-12-31").strftime("%Y-%m-%d")
        >>> known = Covariates(calendar=("time-of-day", "time-of-week"), holidays=tuple(days), past=("pressure",))
        >>> known.known_ahead[-3:], known.holidays[0]
        (('time-of-week.sin', 'time-of-week.cos', 'holiday'), '2013-01-01')
    """

    calendar: tuple[Literal["time-of-day", "time-of-week", "time-of-year"], ...] = ()
    holidays: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    @property
    def known_ahead(self) -> tuple[str, ...]:
        """Names of all features known for the horizon, in order: calendar, holiday, planned columns."""
        return (*clock.names(self.calendar, self.holidays), *self.future)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the panel that are used: planned ones, then past ones."""
        return self.future + self.past

    @field_validator("holidays")
    @classmethod
    def _dates(cls, holidays: tuple[str, ...]) -> tuple[str, ...]:
        """The dates once each, in order and written alike, so that equal calendars are equal."""
        dates = set()
        wrong = []
        for day in holidays:
            try:
                dates.add(dt.date.fromisoformat(day).isoformat())
            except ValueError:
                wrong.append(day)
        if wrong:
            raise ValueError(must("holidays", "be ISO dates", wrong, "Write 2013-12-25; a day has no time"))
        return tuple(sorted(dates))

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if not (self.calendar or self.holidays or self.columns):
            remedy = 'Name a column, or write calendar=("time-of-day",)'
            problems.append(must("covariates", "name at least one of calendar, holidays, future, past", "none", remedy))
        for field in ("calendar", "future", "past"):
            entries = getattr(self, field)
            if len(set(entries)) < len(entries):
                problems.append(must(field, "name each entry once", entries, "Leave out the repeated ones"))
        if both := sorted({*self.future} & {*self.past}):
            rule = "not be named in future as well"
            problems.append(must("past", rule, both, "A column is known ahead, or it is not: name it once"))
        if alike := sorted({*clock.names(self.calendar, self.holidays)} & {*self.columns}):
            problems.append(must("columns", "not be called like a calendar feature", alike, "Rename them in the data"))
        if problems:
            raise ValueError(listed(problems, "Covariates"))
        return self


def misfits(covariates: Covariates, panel: Panel) -> list[str]:
    """Why a panel cannot give these covariates; empty when it can."""
    left_out = panel.notes.get("left_out", {})
    problems = [
        must(
            f"covariates.{side}",
            "name a column of the panel",
            name,
            f"{nearest(name, panel.channels)}"
            if name not in left_out
            else f"It was left out, as {left_out[name]}. Name it by target= when the data is read",
        )
        for side in ("future", "past")
        for name in getattr(covariates, side)
        if name not in panel.channels
    ]
    unstamped = any(item.ds is None for item in panel.items)
    problems += [
        must(f"covariates.{side}", "be empty for a panel without time stamps", getattr(covariates, side), "Name them "
        "with time= when you read the data, or leave this out")
        for side in ("calendar", "holidays")
        if unstamped and getattr(covariates, side)
    ]  # fmt: skip
    if {*panel.channels} <= {*covariates.columns}:
        remedy = "Leave a column out of them: it is what is forecast"
        problems.append(must("covariates", "leave at least one channel", list(covariates.columns), remedy))
    return problems
