"""The panel: one or many series with the same channels, checked once and never changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from tsdistill.data.reading_options import ReadingRecord
from tsdistill.data.repair import FILLS, Fill, count_up, cut_back, fill_in, spread_out
from tsdistill.data.split import Split, in_zone
from tsdistill.errors import DataError, ShapeError, listed, must
from tsdistill.tables.columns import Table, read_table
from tsdistill.tables.dates import DateForm
from tsdistill.tables.daylight import localise, zone_of, zone_text
from tsdistill.tables.frequency import periods_of
from tsdistill.tables.offsets import offset_text
from tsdistill.tables.roles import ID, TIME
from tsdistill.tables.rows import of_item, several
from tsdistill.tables.stamps import Timing, examine, frequency_problem
from tsdistill.tables.whole import lost_digits

ALONE = "series"
"""Identifier of the only item of a wide frame."""


@dataclass(frozen=True, eq=False)
class Item:
    """One series: its identifier, its time stamps and its values.

    Args:
        unique_id: Name of the series within its panel.
        ds: Time stamps (time,), regular and rising, in the zone they were given in; None when the data has none.
        values: Raw values (time, channel), float64, finite, read-only.
        marks: (time, channel): 0 where a value was observed, 1 where it was missing and 2 where the whole row was; None
            when nothing was filled.
    """

    unique_id: str
    ds: pd.DatetimeIndex | None
    values: np.ndarray
    marks: np.ndarray | None = None

    def __post_init__(self) -> None:
        given = np.asarray(self.values)
        values = given.astype(np.float64, copy=False).view()
        if values.ndim != 2 or (self.ds is not None and len(self.ds) != len(values)):
            rule = f"have shape ({'time' if self.ds is None else f'{len(self.ds)} stamps'}, channel)"
            raise ShapeError(must("values", rule, values.shape, "Give one row per time step"))
        for cells, numbers in zip(given.T, values.T, strict=True) if given.dtype.kind not in "fb" else ():
            if lost := lost_digits(cells, numbers):
                raise DataError(f"`values` holds {lost}. Subtract a constant while they are whole numbers.")
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Panel:
    """One or many series (items) of their own lengths, each with the same channels; checked once, never changed.

    Use `Panel.from_frame`, `read_csv`, `read_parquet` or `read_sql` to make one: they check the data and list every
    problem. Use the constructor only for arrays that are known to be clean.

    Args:
        items: The series, each with values (time, channel) in raw units.
        channels: Names of the value columns, in the order of the values' last axis.
        frequency: Step width as a pandas offset alias (`"h"`, `"15min"`, `"D"`, `"MS"`), or None when not known.
        split: Borders that belong to the data set itself; a `Task` uses them unless it is given another split.
        name: What the data set is called in reports.
        notes: What was done to the data, such as how many cells were filled; empty when it is unchanged.
        named: Whether the items have names of their own; None: all but a single item called "series" do.
        reading: How the table was read that it was made of; models keep it, to read newer ones alike.

    Raises:
        DataError: no items, a repeated identifier, or values that are not finite.
        ShapeError: an item's values do not have one column per channel.

    Example:
        >>> import numpy as np
        >>> panel = Panel((Item("a", None, np.zeros((50, 2))),), channels=("x", "y"), frequency="h")
        >>> panel.n_rows, panel.periods
        (50, (24, 168))
    """

    items: tuple[Item, ...]
    channels: tuple[str, ...]
    frequency: str | None = None
    split: Split | None = None
    name: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    named: bool | None = None
    reading: ReadingRecord | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        object.__setattr__(self, "channels", tuple(self.channels))
        if self.named is None:
            object.__setattr__(self, "named", len(self.items) > 1 or any(i.unique_id != ALONE for i in self.items))
        wrong = [item for item in self.items if item.values.shape[1] != len(self.channels)]
        if wrong:
            rule = f"have one column for each of the {len(self.channels)} channels"
            raise ShapeError(must(f"values of {wrong[0].unique_id}", rule, wrong[0].values.shape, "Name every column"))
        problems = [f"Item {item.unique_id!r} holds NaN or infinite values. Use Panel.from_frame(..., fill=...)."
                    for item in self.items if not np.isfinite(item.values).all()]  # fmt: skip
        if not self.items:
            problems.append(must("items", "hold at least one series", (), "Give some data"))
        if len({item.unique_id for item in self.items}) < len(self.items):
            problems.append("`items` must have different identifiers. Rename the repeated ones.")
        if problems:
            raise DataError(listed(problems, "the panel"))

    @classmethod
    def from_frame(
        cls,
        df: pd.DataFrame,
        *,
        time: str | None = "ds",
        id: str | None = None,
        target: Hashable | Sequence[Hashable] | None = None,
        frequency: str | pd.DateOffset | None = None,
        fill: Fill | None = None,
        time_zone: str | dt.tzinfo | None = None,
        day_first: bool | None = None,
        time_format: str | None = None,
        name: str | None = None,
        split: Split | None = None,
    ) -> Self:
        """Check a data frame and make a panel of it; every problem comes in one error.

        A wide frame (no identifier column) is one item and every column but the time stamps is a channel. A long frame
        (identifiers in `id`, or a column `unique_id`) is many items; its channel is `y` if there is such a column, else
        every other column. Steps are counted on the UTC time line, or on the local clock for steps of whole days.

        Args:
            df: Rows sorted by time within each item; items may alternate.
            time: Column or index level of time stamps; an index of stamps serves as well. None: rows have no stamps,
                each is a step.
            id: Column or index level of item identifiers of a long frame.
            target: Value column or columns; see above for the default. Labels that are no text become it: 3 is "3".
            frequency: Step width as a pandas offset or its alias; by default the commonest step. Business days of your
                own are `pd.offsets.CustomBusinessDay(...)`, or "C(Mon Tue Wed Thu Fri Sat; 2024-12-25)" as text.
            fill: How to fill gaps and NaN, which are refused otherwise: "interpolate" (linear in time, the ends held; a
                filled value knows the next observed one), "forward" (the last observed value) or "zero". `notes`
                counts the filled cells and rows; infinite values are never filled.
            time_zone: Zone of stamps that carry none (an hour that stands twice in autumn is resolved by order), or
                zone to show the others in.
            day_first: Whether 01/02/2024 is the first of February; None refuses dates that can be read both ways.
            time_format: How stamps are written, such as "%d.%m.%Y %H:%M"; or "s", "ms", "us" or "ns" for numbers that
                count from 1970.
            name: What the data set is called in reports.
            split: Borders that belong to the data set.

        Returns:
            A panel; `notes` is empty unless something was filled or a column left out. Row numbers (`Unnamed: 0`) are
            left out, and so are numbers that label the items of a long frame, unless `target` names them.

        Raises:
            DataError: the frame is empty or has no value columns; columns are unknown or repeated; stamps are missing,
                unreadable, repeated, unsorted, irregular or jump with daylight saving; values are missing (without
                `fill`), infinite or no numbers; there is nothing to fill from; or an argument is unknown.

        Example:
            >>> import pandas as pd
            >>> stamps = pd.date_range("2024-01-01", periods=4, freq="h", tz="UTC")
            >>> df = pd.DataFrame({"ds": stamps, "load": [1.0, None, 3.0, 4.0]})
            >>> panel = Panel.from_frame(df, fill="interpolate")
            >>> panel.items[0].values.ravel().tolist(), panel.notes["n_filled"]
            ([1.0, 2.0, 3.0, 4.0], 1)
        """
        problems: list[str] = []
        if fill is not None and fill not in FILLS:
            problems.append(must("fill", f"be one of {', '.join(FILLS)} or None", fill, "Pick one of them"))
        zone = zone_of(time_zone, problems)
        step = offset_text(frequency, problems)
        dates = DateForm(day_first, time_format)
        dates.check(problems)
        table = read_table(df, time, id, target, fill is not None, problems, dates)
        rows = table.rows
        timing = Timing(None, {})
        if rows.ds is not None and len(rows.ds) and time is not None:
            n_before = len(problems)
            rows = localise(rows, zone, time, problems) if zone is not None else rows
            # Stamps read in the wrong zone show gaps and repeats that the data does not have.
            if len(problems) == n_before:
                timing = examine(rows, time, step, fill is not None, problems)
        elif time is None:
            _check_alias(step, problems)
            if time_zone is not None:
                problems.append(must("time_zone", "be None without stamps", time_zone, "Name their column with time="))
        if problems:
            raise DataError(listed(problems, name or "the data"))
        items = _items(replace(table, rows=rows), timing, fill, problems)
        if problems:
            raise DataError(listed(problems, name or "the data"))
        marks = [item.marks for item in items if item.marks is not None]
        notes = count_up(marks, table.channels, fill) if marks and fill is not None else {}
        if timing.daylight_saving:
            notes["daylight_saving"] = timing.daylight_saving
        if table.left_out:
            notes["left_out"] = table.left_out
        reading = ReadingRecord(
            time=time,
            id=id,
            frequency=step,
            fill=fill,
            time_zone=None if time_zone is None else zone_text(time_zone),
            day_first=table.day_first,
            time_format=time_format,
            left_out=(*table.left_out, *table.unused),
        )
        step = timing.grid.frequency if timing.grid is not None else step
        named = table.rows.names != ("",)
        return cls(tuple(items), table.channels, step, split, name, notes, named, reading)

    @property
    def periods(self) -> tuple[int, ...]:
        """Seasonal periods in steps, shortest first, such as (24, 168) for hourly data; (1,) when none is known."""
        return periods_of(self.frequency)

    @property
    def n_rows(self) -> int:
        """Rows of all items together."""
        return sum(len(item) for item in self.items)

    def to_frame(self) -> pd.DataFrame:
        """The data as a frame that `from_frame` reads back: `ds` and channels, and `unique_id` if items are named.

        Where a channel is called `ds` or `unique_id` itself, the stamps or the identifiers are levels of the index.
        """
        frame = pd.DataFrame(np.concatenate([item.values for item in self.items]), columns=list(self.channels))
        lengths = [len(item) for item in self.items]
        keys: dict[str, Any] = {}
        if self.named or ID in self.channels:
            names = np.array([item.unique_id for item in self.items], dtype=object)
            keys[ID] = pd.Series(np.repeat(names, lengths), dtype="str")
        stamps = [item.ds for item in self.items if item.ds is not None]
        if stamps:
            keys[TIME] = stamps[0].append(stamps[1:]) if len(stamps) > 1 else stamps[0]
        levels = [pd.Index(key, name=name) for name, key in keys.items() if name in self.channels]
        for position, (name, key) in enumerate((n, k) for n, k in keys.items() if n not in self.channels):
            frame.insert(position, name, key)
        if len(levels) > 1:
            frame.index = pd.MultiIndex.from_arrays(levels)
        elif levels:
            frame.index = levels[0]
        return frame

    def until(self, stamp: str | dt.datetime | pd.Timestamp) -> Panel:
        """The panel as it was known at some time: rows up to and including a stamp, and nothing from later.

        Values that were interpolated towards an observation after the stamp are held at the last one before it. Items
        that start later are left out, and counted in `notes["n_items_left_out"]`.

        Args:
            stamp: A time; without a zone it is read on the panel's own clock.

        Raises:
            DataError: the panel has no time stamps, or no rows up to the stamp; or the stamp cannot be read.

        Example:
            >>> stamps = pd.date_range("2024-01-01", periods=4, freq="h")
            >>> panel = Panel.from_frame(pd.DataFrame({"ds": stamps, "load": [1.0, 2.0, 3.0, 4.0]}))
            >>> panel.until("2024-01-01 02:00").n_rows
            3
        """
        when = pd.to_datetime(stamp, errors="coerce")
        if not isinstance(when, pd.Timestamp):
            raise DataError(must("stamp", "be a time", stamp, "Write 2013-10-01 14:00"))
        fill = self.notes.get("fill")
        items = []
        problems = []
        for item in self.items:
            if item.ds is None:
                raise DataError("`until` needs time stamps; this panel has none. Give them with time=.")
            cut = int(item.ds.searchsorted(in_zone(when, item.ds), side="right"))
            values = item.values[:cut]
            marks = None
            if item.marks is not None and fill is not None:
                values, marks, unfillable = cut_back(values, item.marks[:cut], fill)
                problems += [
                    f"Channel {self.channels[channel]!r} of item {item.unique_id!r} has no value up to {when}. Take a "
                    "later stamp, or leave it out."
                    for channel in unfillable
                ]
            if len(values):
                items.append(Item(item.unique_id, item.ds[: len(values)], values, marks))
        if not items:
            problems.append(must("stamp", "not lie before all data", str(when), "Take a later one"))
        if problems:
            raise DataError(listed(problems, "the panel"))
        kept_marks = [item.marks for item in items if item.marks is not None]
        counts = ("fill", "n_gaps", "n_inserted", "n_filled", "n_filled_per_channel")
        notes = {key: value for key, value in self.notes.items() if key not in counts}
        notes |= count_up(kept_marks, self.channels, fill) if kept_marks and fill is not None else {}
        if len(items) < len(self.items):
            notes["n_items_left_out"] = len(self.items) - len(items)
        return Panel(
            tuple(items), self.channels, self.frequency, self.split, self.name, notes, self.named, self.reading
        )

    def __repr__(self) -> str:
        stamped = [item.ds for item in self.items if item.ds is not None]
        span = f", {min(ds[0] for ds in stamped)} to {max(ds[-1] for ds in stamped)}" if stamped else ""
        step = f" every {self.frequency}" if self.frequency else ""
        counts = f"{len(self.items)} item(s) x {len(self.channels)} channel(s), {self.n_rows:,} rows{step}{span}"
        notes = f"; notes: {dict(self.notes)}" if self.notes else ""
        return f"<Panel {self.name or 'unnamed'}: {counts}{notes}>"


def _items(table: Table, timing: Timing, fill: Fill | None, problems: list[str]) -> list[Item]:
    """Items of checked rows, with gaps and NaN filled on request."""
    rows = table.rows
    items = []
    for number, name in enumerate(rows.names):
        ds = None if rows.ds is None else rows.ds[rows.of(number)]
        values = table.values[rows.of(number)]
        position = timing.positions.get(number)
        marks = None
        if fill is not None:
            n_inserted = 0 if position is None else int(position[-1] - position[0]) + 1 - len(position)
            if n_inserted > len(values):
                problems.append(
                    f"{of_item(name)}{several(n_inserted, 'row')} would have to be inserted between {len(values):,}. "
                    "A stamp is wrong, or `frequency` is finer than the data."
                )
                continue
            values, marks = spread_out(values, position)
        if position is not None and ds is not None and timing.grid is not None:
            ds = timing.grid.stamps(ds, position)
        if marks is not None and fill is not None:
            when = np.arange(len(values)) if ds is None else ds.asi8 - ds.asi8[0]
            cells = "its first rows" if fill == "forward" else "the others"
            problems += [
                f"{of_item(name)}column `{table.channels[channel]}` has no value to fill {cells} from. Leave it out "
                "with target=, cut its start, or pass another fill=."
                for channel in fill_in(values, marks, when, fill)
            ]
        items.append(Item(name or ALONE, ds, values, marks))
    return items


def _check_alias(frequency: str | None, problems: list[str]) -> None:
    try:
        periods_of(frequency)
    except ValueError as error:
        problems.append(frequency_problem(frequency, error))
