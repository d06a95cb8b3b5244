"""Rows of several items one below the other, and the wording of their problems."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SHOWN = 3
"""Examples shown of each problem."""


@dataclass(frozen=True)
class Advice:
    """What messages recommend: the arguments of whoever reads the frame."""

    gaps: str = 'Pass fill="interpolate", "forward" or "zero" to insert the rows, or give them.'
    missing: str = 'Pass fill="interpolate", "forward" or "zero", or leave the column out with target=.'
    infinite: str = "Replace them with numbers, or with NaN and pass fill=."
    times: str = "Leave it out with target=, or name it with time=."
    other: str = "Leave it out with target=."
    names: str | None = "If it names the series, pass id={name!r}; otherwise leave it out with target=."
    zones: str = (
        'Name the place with time_zone="Europe/Berlin" or the like, which tells both rounds of the hour apart by their '
        'order, or give stamps in UTC. If they are in UTC already, say so: time_zone="UTC".'
    )
    repeated: str = "Keep one row per item and stamp; if the rows belong to several series, name their column with id=."


TRAINED = Advice()
SERVED = Advice(
    gaps="Give the rows, or fill them: td.Panel.from_frame(..., fill=...).to_frame().",
    missing="Replace them with numbers, for example by frame.interpolate().",
    infinite="Replace them with numbers.",
    times="Give the numbers that the model was trained on.",
    other="Give the numbers that the model was trained on.",
    names=None,
    zones='Give stamps with their zone, such as frame["ds"].dt.tz_localize("Europe/Berlin", ambiguous="infer").',
    repeated="Keep one row per item and stamp; name the items in a column called `unique_id`.",
)


@dataclass(frozen=True)
class Rows:
    """Rows of all items one below the other, each item's in one run.

    Args:
        names: Identifiers of the items.
        bounds: First row of each item and the number of rows, (item + 1,).
        row: For each row, where it stood in the frame.
        ds: Time stamps, or None.
    """

    names: tuple[str, ...]
    bounds: np.ndarray
    row: np.ndarray
    ds: pd.DatetimeIndex | None = None

    @functools.cached_property
    def code(self) -> np.ndarray:
        """Number of the item of each row."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.bounds))

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """For each pair of neighbours, whether both belong to the same item."""
        same = np.ones(max(len(self.row) - 1, 0), dtype=bool)
        borders = self.bounds[1:-1] - 1
        same[borders[(borders >= 0) & (borders < len(same))]] = False
        return same

    def of(self, number: int) -> slice:
        """Rows of one item."""
        return slice(int(self.bounds[number]), int(self.bounds[number + 1]))


def several(n: int, noun: str) -> str:
    """'1 row', '2,310 rows'."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def rows_of(rows: np.ndarray) -> str:
    """'row 5' or '7 rows (counted from 0: 5, 9, 11, ...)'."""
    if len(rows) == 1:
        return f"row {rows[0]} (counted from 0)"
    more = ", ..." if len(rows) > SHOWN else ""
    return f"{len(rows):,} rows (counted from 0: {', '.join(str(row) for row in rows[:SHOWN])}{more})"


def shown_stamps(stamps: Sequence[object] | pd.DatetimeIndex) -> str:
    """The first few stamps, and that there are more."""
    return ", ".join(str(stamp) for stamp in stamps[:SHOWN]) + (", ..." if len(stamps) > SHOWN else "")


def of_item(name: str) -> str:
    """Names the item a problem belongs to; nothing when there is only one, unnamed."""
    return f"item {name!r}: " if name else ""


def capped(lines: list[str], what: str, remedy: str, limit: int = 5) -> list[str]:
    """At most `limit` problems of a kind, the rest counted, each with what to do."""
    kept = [f"{line[0].upper()}{line[1:]}. {remedy}" for line in lines[:limit]]
    return kept + ([f"... and {len(lines) - limit:,} more {what}."] if len(lines) > limit else [])
