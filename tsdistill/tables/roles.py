"""Where a frame keeps its stamps and its identifiers: in columns or in levels of its index."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

TIME, ID = "ds", "unique_id"
"""What the columns of stamps and of identifiers are called by default."""


def text_of(label: Hashable) -> str:
    """What a column is called everywhere: text as it is, a number or a tuple as Python writes it.

    Empty levels at the end of a tuple, which pandas adds when an index becomes a column, are left out.

    Example:
        >>> text_of("load"), text_of(3), text_of(("load", "north")), text_of(("ds", ""))
        ('load', '3', "('load', 'north')", 'ds')
    """
    if not isinstance(label, tuple):
        return str(label)
    parts = [part.item() if isinstance(part, np.generic) else part for part in label]
    while len(parts) > 1 and parts[-1] == "":
        parts.pop()
    return str(tuple(parts)) if len(parts) > 1 else text_of(parts[0])


@dataclass(frozen=True)
class Place:
    """A column of a frame or a level of its index.

    Args:
        cells: What stands there, one for each row.
        name: The label of the column, or of the level.
        level: Number of the level; None for a column.
    """

    cells: pd.Series | pd.Index
    name: Hashable
    level: int | None = None


class Layout:
    """Columns of a frame by their text, and where stamps and identifiers stand.

    Attributes:
        positions: For each column its position, by its text.
        duplicates: Texts that several columns have.
    """

    def __init__(self, df: pd.DataFrame) -> None:
        self.df = df
        names = [text_of(label) for label in df.columns]
        self.positions = {name: position for position, name in enumerate(names)}
        self.duplicates = sorted(set(pd.Index(names)[pd.Index(names).duplicated()])) if names else []

    def column(self, name: str) -> Place:
        """The column with a text."""
        position = self.positions[name]
        return Place(self.df.iloc[:, position], self.df.columns[position])

    def level(self, number: int) -> Place:
        """A level of the index."""
        return Place(self.df.index.get_level_values(number), self.df.index.names[number], number)

    def named(self, name: str) -> Place | None:
        """The column with a name, else the level; the level where the column holds other numbers, as values do."""
        column = self.column(name) if name in self.positions else None
        levels = [n for n, label in enumerate(self.df.index.names) if label is not None and text_of(label) == name]
        if not levels:
            return column
        level = self.level(levels[0])
        if column is None:
            return level
        return level if types.is_numeric_dtype(column.cells.dtype) and not _same(column.cells, level.cells) else column

    def time(self, name: str) -> Place | None:
        """Where the stamps stand that are called `name`; of the default name, an index of stamps serves as well."""
        place = self.named(name)
        if name != TIME or not (place is None or (place.level is None and _counts(place.cells))):
            return place
        levels = [self.level(number) for number in range(self.df.index.nlevels)]
        stamped = [level for level in levels if holds_stamps(level.cells)]
        if not stamped:
            stamped = [level for level in levels if level.name is None and reads_as_stamps(level.cells)]
        return stamped[0] if len(stamped) == 1 else place

    def id(self, name: str | None, time: Place | None, values: Iterable[str] = ()) -> Place | None:
        """Where the identifiers stand; without a name in `unique_id`, or in the level beside the stamps.

        `values` names columns that hold values, whatever they are called.
        """
        if name is not None:
            return self.named(name)
        place = self.named(ID)
        if place is not None and not (place.level is None and ID in values):
            return place
        if time is not None and time.level is not None and self.df.index.nlevels == 2:
            return self.level(1 - time.level)
        return None


def holds_stamps(cells: pd.Series | pd.Index) -> bool:
    """Whether the type of cells is one of stamps, dates or periods."""
    kind: Any = cells.dtype
    arrow_date = isinstance(kind, pd.ArrowDtype) and str(kind).startswith("date")
    return types.is_datetime64_any_dtype(kind) or isinstance(kind, pd.PeriodDtype) or arrow_date


def reads_as_stamps(cells: pd.Series | pd.Index) -> bool:
    """Whether all cells are dates, or ISO dates written with separators, and there is at least one."""
    if not len(cells) or types.is_numeric_dtype(cells.dtype) or types.is_bool_dtype(cells.dtype):
        return False
    values = pd.Series(cells).reset_index(drop=True)
    try:
        if not values.astype(str).str.contains(r"^\d{4}-\d\d").all():
            return False
        return bool(pd.to_datetime(values, errors="coerce", format="ISO8601", utc=True).notna().all())
    except (ValueError, TypeError, OverflowError):
        return False


def _counts(cells: pd.Series | pd.Index) -> bool:
    return types.is_numeric_dtype(cells.dtype)


def _same(column: pd.Series | pd.Index, level: pd.Series | pd.Index) -> bool:
    return bool(np.array_equal(column.astype(object).to_numpy(), level.astype(object).to_numpy()))
