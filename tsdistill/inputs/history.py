"""A frame that is served: read by the code that reads frames for training, and cut to what a forecast needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsdistill.errors import DataError, ShapeError, listed, nearest
from tsdistill.inputs.arrays import SignatureLike
from tsdistill.inputs.levels import units_of
from tsdistill.tables.columns import bounds_of, items_of, numbers_of
from tsdistill.tables.dates import DateForm
from tsdistill.tables.daylight import localise, zone_of
from tsdistill.tables.roles import ID, TIME, Layout, Place, holds_stamps, reads_as_stamps, text_of
from tsdistill.tables.rows import SERVED, Rows, capped, rows_of
from tsdistill.tables.stamps import examine, in_order, parse

ROW_NUMBERS = re.compile(r"Unnamed: \d+")
"""What pandas calls the column of row numbers that `to_csv` wrote."""


@dataclass(frozen=True)
class History:
    """Rows of all items one below the other, each cut to what its forecasts need.

    Args:
        frame: The frame.
        time: Where its stamps stand, if anywhere.
        id: Where its identifiers stand, if anywhere.
        rows: Items, and for each row its place in the frame and its stamp.
        lengths: How many rows of each item the frame holds.
        ahead: The stamps of the horizon, one item after the other; None without stamps.
    """

    frame: pd.DataFrame
    time: Place | None
    id: Place | None
    rows: Rows
    lengths: np.ndarray
    ahead: pd.DatetimeIndex | None

    def label(self, number: int) -> str:
        """What messages call an item."""
        return label_of(self.rows.names[number])


def label_of(name: str) -> str:
    """What messages call an item."""
    return f"item {name!r}" if name else "x"


def planned_columns(signature: SignatureLike) -> tuple[str, ...]:
    """Columns that are known ahead."""
    return tuple(signature.covariates.future) if signature.covariates is not None else ()


def recorded(signature: SignatureLike, field: str) -> Any:
    """How the training data was read, if the model keeps it."""
    return getattr(getattr(signature, "reading", None), field, None)


def form_of(signature: SignatureLike) -> DateForm:
    """How dates were written in the training data, as far as the model keeps it."""
    return DateForm(recorded(signature, "day_first"), recorded(signature, "time_format"))


def read_history(frame: pd.DataFrame, signature: SignatureLike, rolling: int | None, problems: list[str]) -> History:
    """Find and check stamps, items and steps; problems are listed as far as one can go on.

    Raises:
        DataError: columns are missing, unknown or repeated, or there are no rows.
        ShapeError: the only item has too few rows.
    """
    time, id = _roles(Layout(frame), signature, problems)
    if problems:
        raise DataError(listed(problems, "the frame"))
    if not len(frame):
        raise DataError("`x` must hold at least one item, got an empty frame. Give the steps before the forecast.")
    names, code = items_of(id, problems, len(frame))
    called = _called(time)
    stamps = None if time is None else parse(time.cells, called, problems, form_of(signature))
    in_runs = bool((code[1:] >= code[:-1]).all())
    order = np.arange(len(code)) if in_runs else np.argsort(code, kind="stable")
    stamps = stamps if stamps is None or in_runs else stamps[order]
    rows = Rows(names, bounds_of(code, len(names)), order, stamps)
    is_sound = not problems
    if rows.ds is not None and is_sound:
        if zone := zone_of(recorded(signature, "time_zone"), problems):
            rows = localise(rows, zone, called, problems)
        _check_order(rows, called, problems)
        is_sound = not problems
    rows, lengths, short = _cut(rows, signature.context, rolling is not None)
    if short and id is None:
        raise ShapeError(f"{short[0]}. Give a longer history.")
    problems += capped(short, "items that are too short", "Leave them out, or give a longer history.")
    ahead = None
    if rows.ds is not None and len(rows.row) and is_sound:
        # A frequency that was named in training binds the items that are served, as it bound those of training.
        anchored = None if recorded(signature, "frequency") else False
        ahead = _ahead(rows, signature.frequency, anchored, signature.horizon, called, problems)
    return History(frame, time, id, rows, lengths, ahead)


def values_of(history: History, signature: SignatureLike, problems: list[str]) -> np.ndarray:
    """Numbers of the history's rows, (row, column) float64: channels, past and planned columns.

    What is no number is a problem.
    """
    columns = [*signature.channels, *signature.past, *planned_columns(signature)]
    layout = Layout(history.frame)
    # Columns first: rows of the identifiers need not be taken.
    part = history.frame.iloc[:, [layout.positions[name] for name in columns]].iloc[history.rows.row]
    group = history.rows.code
    return numbers_of(part, columns, False, places_in(history.rows), problems, SERVED, group, lambda: _units(signature))


def _units(signature: SignatureLike) -> np.ndarray | None:
    """What channels, past and planned columns moved by in training."""
    units = units_of(signature)
    n_first, n_calendar = len(signature.channels) + len(signature.past), len(signature.future)
    n_calendar -= len(planned_columns(signature))
    return None if units is None else np.delete(units, slice(n_first, n_first + n_calendar))


def places_in(rows: Rows) -> Callable[[np.ndarray], str]:
    """Words where rows are in the frame they are from, with the first one's stamp and the items."""

    def places(numbers: np.ndarray) -> str:
        first = "" if rows.ds is None else f", first at {rows.ds[numbers[0]]}"
        items = list(dict.fromkeys(rows.names[code] for code in rows.code[numbers]))
        more = f" and {len(items) - 3:,} more" if len(items) > 3 else ""
        of = f", of item{'s' * (len(items) > 1)} {', '.join(map(repr, items[:3]))}{more}" if items != [""] else ""
        return rows_of(rows.row[numbers]) + first + of

    return places


def _called(time: Place | None) -> str:
    return TIME if time is None else "the index" if time.name is None else text_of(time.name)


def _roles(layout: Layout, signature: SignatureLike, problems: list[str]) -> tuple[Place | None, Place | None]:
    """Where stamps and identifiers stand; problems with columns are listed."""
    planned = planned_columns(signature)
    wanted = (*signature.channels, *signature.past, *planned)
    problems += [f"column {name!r} stands in the frame twice. Keep one." for name in layout.duplicates]
    missing = [name for name in wanted if name not in layout.positions]
    problems += [
        f"column {name!r} is missing. {nearest(name, layout.positions) if layout.positions else ''}".rstrip()
        for name in missing
    ]
    time, id, others = find_roles(layout, signature, wanted, problems)
    known = (*wanted, TIME, ID)
    problems += [f"column {name!r} is unknown. {nearest(name, known)} Drop it if it is not needed." for name in others]
    return time, id


def find_roles(
    layout: Layout, signature: SignatureLike, wanted: Iterable[str], problems: list[str]
) -> tuple[Place | None, Place | None, list[str]]:
    """Where stamps and identifiers stand, by the names used in training or the usual ones, and what else there is.

    Stamps may also be the only column of them among those that are not wanted, or the only one that reads as such.
    """
    wanted = set(wanted)

    def role(place: Place | None) -> Place | None:
        return None if place is not None and place.level is None and text_of(place.name) in wanted else place

    trained = [recorded(signature, field) for field in ("time", "id")]
    time = role(layout.time(trained[0])) if trained[0] else None
    time = time or role(layout.time(TIME))
    id = role(layout.id(trained[1], time, wanted)) if trained[1] else None
    id = id or role(layout.id(None, time, wanted))
    taken = {text_of(place.name) for place in (time, id) if place is not None and place.level is None}
    ignored = {*(recorded(signature, "left_out") or ())}
    others = [name for name in layout.positions if name not in wanted and name not in taken and name not in ignored]
    if time is None:
        stamped = [name for name in others if holds_stamps(layout.column(name).cells)]
        if len(stamped) > 1:
            shown = ", ".join(stamped)
            problems.append(f"there are {len(stamped)} columns of stamps: {shown}. Keep one, or rename it to `{TIME}`.")
            others = [name for name in others if name not in stamped]
        elif not stamped:
            stamped = [name for name in others if reads_as_stamps(layout.column(name).cells)]
        if len(stamped) == 1:
            time = layout.column(stamped[0])
            others.remove(stamped[0])
    # A long frame is trained on its column `y` alone, whatever else it holds.
    if id is not None and wanted == {"y"}:
        others = []
    return time, id, [name for name in others if not ROW_NUMBERS.fullmatch(name)]


def _check_order(rows: Rows, called: str, problems: list[str]) -> None:
    """Rows out of order anywhere are a problem, as the last rows would not be the newest."""
    assert rows.ds is not None
    if (np.diff(rows.ds.asi8)[rows.inside] < 0).any():
        in_order(rows, called, problems, SERVED)


def _cut(rows: Rows, context: int, whole: bool) -> tuple[Rows, np.ndarray, list[str]]:
    """The last `context` rows of each item, or all of them; how many each has; and what is too short, left out."""
    lengths = np.diff(rows.bounds)
    enough = np.flatnonzero(lengths >= context)
    short = [
        f"`x` must hold at least context = {context} steps, got {lengths[number]} in {label_of(rows.names[number])}"
        for number in np.flatnonzero(lengths < context)
    ]
    return _picked(rows, enough, None if whole else context), lengths[enough], short


def _picked(rows: Rows, items: np.ndarray, last: int | None = None) -> Rows:
    """Some of the items, or the last rows of each."""
    lengths = np.diff(rows.bounds)[items]
    kept = lengths if last is None else np.minimum(lengths, last)
    bounds = np.concatenate([[0], np.cumsum(kept)])
    take = np.arange(bounds[-1]) + np.repeat(rows.bounds[1:][items] - bounds[1:], kept)
    names = tuple(rows.names[number] for number in items)
    return Rows(names, bounds, rows.row[take], None if rows.ds is None else rows.ds[take])


def _ahead(
    rows: Rows, frequency: str | None, anchored: bool | None, horizon: int, called: str, problems: list[str]
) -> pd.DatetimeIndex | None:
    """The stamps of the horizon, one item after the other; what does not step regularly is a problem.

    Items of a model without a frequency go on as their own steps do, each group of equal steps by itself.
    """
    assert rows.ds is not None
    if frequency is not None or len(rows.row) < 2:
        return _continued(rows, frequency, anchored, horizon, called, problems)
    ends = rows.bounds[1:] - 1
    steps = rows.ds.asi8[ends] - rows.ds.asi8[np.maximum(ends - 1, rows.bounds[:-1])]
    values = np.empty((len(ends), horizon), dtype=np.int64)
    n_before = len(problems)
    for step in np.unique(steps):
        items = np.flatnonzero(steps == step)
        ahead = _continued(_picked(rows, items), None, anchored, horizon, called, problems)
        if ahead is not None:
            values[items] = ahead.asi8.reshape(-1, horizon)
    if len(problems) > n_before:
        return None
    stamps = pd.DatetimeIndex(values.ravel().view(f"M8[{rows.ds.unit}]"))
    return stamps if rows.ds.tz is None else stamps.tz_localize("UTC").tz_convert(rows.ds.tz)


def _continued(
    rows: Rows, frequency: str | None, anchored: bool | None, horizon: int, called: str, problems: list[str]
) -> pd.DatetimeIndex | None:
    assert rows.ds is not None
    n_before = len(problems)
    timing = examine(rows, called, frequency, False, problems, anchored=anchored, advice=SERVED)
    if len(problems) == n_before and timing.grid is None:
        problems.append(f"`{called}` must hold several stamps of an item to be continued. Pass an array instead.")
    if timing.grid is None or len(problems) > n_before:
        return None
    return timing.grid.ahead(rows.ds, rows.bounds, horizon)
