"""The gate for data: what is checked, how strictly, and what was seen, in words and numbers."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from tsdistill.data import Panel
from tsdistill.data.panel import Item
from tsdistill.errors import check_type, must, printable
from tsdistill.quality.profile import DataProfile
from tsdistill.spec import Spec

Rule = Literal["warn", "stop", "off"]

CHECKS = ("columns", "timing", "freshness", "future", "vanished", "rewritten", "filled", "stuck", "spikes", "jumps",
          "season", "drift")  # fmt: skip


def span(text: str) -> pd.Timedelta:
    """A time span as people write it, such as "36h" or "2d"."""
    return pd.Timedelta(re.sub(r"(?<=\d)\s*d$", "D", text.strip()))


class DataGate(Spec):
    """What is asked of data before anything is trained on it; each check may `stop` the job, `warn`, or be `off`.

    The rows are those after the newest one of the profile, compared with what is usual for the series itself: a week is
    unusual when it lies outside of all weeks of the profile by half their range.

    Args:
        columns: The same ones; in another order they are put right.
        timing: The same step width and time zone.
        freshness: The newest row is at most `max_age` old.
        future: No row is dated later than now.
        vanished: Rows of the profile are still there, and the data does not end before it.
        rewritten: The history says what it said, by digests of blocks; a few late corrections are only told.
        filled: Share of filled cells.
        stuck: Runs of one value, and of zeros.
        spikes: Values, and steps from one row to the next, far outside the range of the profile.
        jumps: Level, step width and roughness of whole windows; scale, sign and swapped channels are named.
        season: The seasonal profile, moved or gone.
        drift: The distribution, by population stability index and Kolmogorov-Smirnov.
        max_age: Such as "36h" or "2d"; None asks for nothing.
        max_vanished: Share of the profile's rows that may be gone.
        max_rewritten: Share of a channel's blocks that may differ.
        max_filled: Share of new cells of a channel that may be filled.
        max_stuck: Times the longest run of the profile that a run may last; a season it may in any case.
        max_spike: Ranges of the profile that a value may lie outside of it.
        tolerance: Ranges of usual windows that a window may lie outside of them.
        max_psi: Population stability index, from which a distribution has drifted.

    Raises:
        ConfigError: a field breaks its rule.

    Example:
        >>> DataGate(drift="off", max_age="36h").stuck
        'stop'
    """

    columns: Rule = "stop"
    timing: Rule = "stop"
    freshness: Rule = "stop"
    future: Rule = "stop"
    vanished: Rule = "stop"
    rewritten: Rule = "stop"
    filled: Rule = "stop"
    stuck: Rule = "stop"
    spikes: Rule = "stop"
    jumps: Rule = "stop"
    season: Rule = "stop"
    drift: Rule = "warn"
    max_age: str | None = None
    max_vanished: float = Field(default=0.1, ge=0, le=1)
    max_rewritten: float = Field(default=0.3, ge=0, le=1)
    max_filled: float = Field(default=0.3, ge=0, le=1)
    max_stuck: float = Field(default=2.0, ge=1)
    max_spike: float = Field(default=1.0, gt=0)
    tolerance: float = Field(default=0.5, gt=0)
    max_psi: float = Field(default=0.25, gt=0)

    @field_validator("max_age")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        try:
            sound = value is None or span(value) > pd.Timedelta(0)
        except ValueError:
            sound = False
        if not sound:
            raise ValueError(must("max_age", "be a time span above 0", value, 'Write "36h" or "2d"'))
        return value

    def rule(self, check: str) -> Rule:
        """What a check does."""
        rule: Rule = getattr(self, check)
        return rule


class Finding(Spec):
    """One thing that is wrong with data, or strange.

    Args:
        check: Which check it is of.
        rule: "stop" or "warn".
        words: What is the matter, in words and numbers.
        series: Of which channel (and item); None for the whole table.
        value: The number that broke a limit.
        limit: The limit.
    """

    check: str
    rule: Literal["warn", "stop"]
    words: str
    series: str | None = None
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        return printable(self.words)


@dataclass(frozen=True)
class DataReport:
    """What `check_data` saw.

    Args:
        findings: Stops first.
        n_new: Rows after the newest one of the profile.
    """

    findings: tuple[Finding, ...] = ()
    n_new: int = 0

    @property
    def passed(self) -> bool:
        """Nothing stops a job."""
        return not self.stops

    @property
    def stops(self) -> tuple[Finding, ...]:
        """Findings that stop a job."""
        return tuple(finding for finding in self.findings if finding.rule == "stop")

    def __str__(self) -> str:
        head = "The data passed." if self.passed else f"The data is refused, for {len(self.stops)} reason(s)."
        return "\n".join([head, *(f"{finding.rule}: {finding}" for finding in self.findings)])


class Fresh(NamedTuple):
    """What every check looks at.

    Args:
        panel: The data.
        profile: What it is compared with.
        gate: The rules.
        now: The time it is asked for.
        first: Row of each item where what is new begins.
        is_first: Nothing is served yet: the profile is of the same data's older rows.
        as_of: It was cut at a time that was asked for.
    """

    panel: Panel
    profile: DataProfile
    gate: DataGate
    now: pd.Timestamp
    first: tuple[int, ...]
    is_first: bool
    as_of: bool

    def named(self, item: Item, channel: int) -> str:
        """A series for messages."""
        name = f"`{self.panel.channels[channel]}`"
        return f"{name} of {item.unique_id}" if self.panel.named else name

    def profiled(self) -> Iterator[tuple[int, Item, int, Any]]:
        """Position and item, channel and profile of every series that has one."""
        places = {name: number for number, name in enumerate(self.profile.items)}
        for number, item in enumerate(self.panel.items):
            place = places.get(item.unique_id)
            if place is not None and place < len(self.profile.series):
                for channel, series in enumerate(self.profile.series[place]):
                    yield number, item, channel, series


Check = Callable[[Fresh], Iterator[tuple[str, dict[str, Any]]]]


def check_data(
    panel: Panel,
    profile: DataProfile,
    gate: DataGate | None = None,
    *,
    now: dt.datetime | pd.Timestamp | None = None,
    as_of: bool = False,
    is_first: bool = False,
) -> DataReport:
    """Compare fresh data with the profile of data that is known to be sound.

    A check calibrates itself on the series: how far its own windows lie apart, how long its runs last. Use it before
    training, or before forecasting, on data that nobody looks at.

    Args:
        panel: The data, history included.
        profile: Of the data that the served model was trained on; see `profile_of`.
        gate: What is checked; by default everything, of which drift only warns.
        now: What freshness is measured from; by default the clock.
        as_of: The data was cut at `now` on purpose, so that it may end before the profile does.
        is_first: The profile is of older rows of the same data; then unusual windows only warn.

    Returns:
        The findings; `passed` is whether training may begin.

    Raises:
        ConfigError: an argument is of another kind.

    Example:
        >>> import tsdistill as td
        >>> panel = td.datasets.load("nyc-weather")
        >>> check_data(panel, td.quality.profile_of(panel.until("2013-12-20"))).passed
        True

    Source:
        B. Yurdakul, "Statistical Properties of Population Stability Index", 2018 (drift). G. V. Bayley,
        J. M. Hammersley, "The 'Effective' Number of Independent Observations in an Autocorrelated Time Series",
        Supplement to the Journal of the Royal Statistical Society 8(2), 1946 (what Kolmogorov-Smirnov is corrected by).
    """
    from tsdistill.quality import checks

    check_type("panel", panel, Panel, "Make one with td.read_csv(...)")
    check_type("profile", profile, DataProfile, "Make one with td.quality.profile_of(panel)")
    gate = DataGate() if gate is None else gate
    when = pd.Timestamp.now(tz="UTC") if now is None else pd.Timestamp(now)
    when = when.tz_localize("UTC") if when.tzinfo is None else when.tz_convert("UTC")
    if set(panel.channels) == set(profile.channels):
        panel = reordered(panel, profile.channels)
    fresh = Fresh(panel, profile, gate, when, first_rows(panel, profile), is_first, as_of)
    findings: list[Finding] = []
    for name, check in checks.ALL.items():
        rule = gate.rule(name)
        if rule == "off" or (findings and findings[0].check == "columns" and name not in ("timing", "future")):
            continue
        softer = is_first and name in ("jumps", "season", "drift", "vanished", "rewritten")
        for words, details in check(fresh):
            minor = details.pop("minor", False)
            findings.append(
                Finding(
                    check=name, rule="warn" if minor or softer or rule == "warn" else "stop", words=words, **details
                )
            )
    findings.sort(key=lambda finding: finding.rule)  # stop before warn
    n_new = sum(len(item) - first for item, first in zip(panel.items, fresh.first, strict=True))
    return DataReport(tuple(findings), n_new)


def first_rows(panel: Panel, profile: DataProfile) -> tuple[int, ...]:
    """Row of each item after the newest one of the profile."""
    if profile.until is None or any(item.ds is None for item in panel.items):
        return tuple(min(len(item), profile.n_rows) for item in panel.items)
    until = pd.Timestamp(profile.until)
    rows = []
    for item in panel.items:
        assert item.ds is not None
        zone = item.ds.tz
        if zone is None:
            stamp = until if until.tzinfo is None else until.tz_convert("UTC").tz_localize(None)
        else:
            stamp = until.tz_localize("UTC") if until.tzinfo is None else until
        rows.append(int(item.ds.searchsorted(stamp, side="right")))
    return tuple(rows)


def reordered(panel: Panel, channels: tuple[str, ...]) -> Panel:
    """The same panel with its channels in another order; itself when they are in that order."""
    if panel.channels == channels:
        return panel
    order = [panel.channels.index(name) for name in channels]
    items = tuple(
        replace(item, values=item.values[:, order], marks=None if item.marks is None else item.marks[:, order])
        for item in panel.items
    )
    return replace(panel, items=items, channels=channels)


class SuspectRows(NamedTuple):
    """Of one item: rows with a filled cell, rows with a stuck or spiked one, (row,) each."""

    filled: np.ndarray
    broken: np.ndarray

    @classmethod
    def none(cls, n_rows: int) -> Self:
        """No row is suspect."""
        return cls(np.zeros(n_rows, dtype=bool), np.zeros(n_rows, dtype=bool))


def suspect_rows(panel: Panel, profile: DataProfile, gate: DataGate | None = None) -> list[SuspectRows]:
    """Rows of each item that are no truth to judge by: filled, stuck or spiked in some channel.

    Args:
        panel: The data; its channels in the profile's order.
        profile: What is usual.
        gate: Limits of runs and spikes.
    """
    from tsdistill.quality.checks import stuck_rows, wild_rows

    gate = DataGate() if gate is None else gate
    fresh = Fresh(panel, profile, gate, pd.Timestamp.now(tz="UTC"), (0,) * len(panel.items), False, False)
    suspects = [SuspectRows.none(len(item)) for item in panel.items]
    for item, rows in zip(panel.items, suspects, strict=True):
        if item.marks is not None and gate.filled != "off":
            rows.filled[:] = (item.marks > 0).any(axis=1)
    for number, item, channel, series in fresh.profiled():
        values = item.values[:, channel]
        rows = suspects[number]
        if gate.spikes != "off":
            rows.broken[:] |= wild_rows(values, series, gate)
        if gate.stuck != "off":
            rows.broken[:] |= stuck_rows(values, series, fresh)
    return suspects
