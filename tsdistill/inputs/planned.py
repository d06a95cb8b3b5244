"""Values that are known ahead: found by their stamps, whatever type these have; by position only without any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tsdistill.errors import DataError, listed, must
from tsdistill.inputs.arrays import SignatureLike
from tsdistill.inputs.history import History, find_roles, form_of, planned_columns, recorded
from tsdistill.tables.columns import bounds_of, items_of, numbers_of
from tsdistill.tables.daylight import localise, zone_of
from tsdistill.tables.roles import Layout, text_of
from tsdistill.tables.rows import SERVED, Rows, capped, rows_of
from tsdistill.tables.stamps import parse


def planned_values(planned: pd.DataFrame, history: History, signature: SignatureLike) -> np.ndarray:
    """Planned values of the horizon, (item, horizon, column) float64.

    Raises:
        DataError: columns, stamps or values are missing, unreadable or repeated; all of it is listed.
    """
    columns = planned_columns(signature)
    layout = Layout(planned)
    lacking = [name for name in columns if name not in layout.positions]
    problems = [f"column {name!r} stands in it twice. Keep one." for name in layout.duplicates]
    if lacking:
        problems.append(f"`future` must have the columns {', '.join(columns)}, got none called {', '.join(lacking)}.")
    if problems:
        raise DataError(listed(problems, "`future`"))
    n_items, horizon = len(history.rows.names), signature.horizon
    time, id, _ = find_roles(layout, _Names(history, signature), columns, problems)
    id = id if history.id is not None else None
    names, code = items_of(id, problems, len(planned))
    number = pd.Index(history.rows.names).get_indexer(pd.Index(names)) if id is not None else np.zeros(1, dtype=int)
    owner = number[code] if id is not None else np.zeros(len(planned), dtype=int)
    wanted = np.repeat(np.arange(n_items), horizon) if id is not None else np.zeros(n_items * horizon, dtype=int)
    place: np.ndarray | None
    if time is None or history.ahead is None:
        place = _by_position(owner, n_items if id is not None else 1, history, horizon, problems)
        if place is not None and id is None:
            place = np.tile(place, n_items)
    else:
        called = "the index" if time.name is None else text_of(time.name)
        stamps = parse(time.cells, called, problems, form_of(signature))
        zone = zone_of(recorded(signature, "time_zone"), problems)
        if stamps is not None and zone is not None and not problems:
            stamps = _in_zone(stamps, code, names, zone, called, problems)
        place = None
        if stamps is not None and not problems:
            place = _by_stamp(owner, stamps, wanted, history, horizon, called, problems)
    if problems or place is None:
        raise DataError(listed(problems, "`future`"))
    part = planned.iloc[:, [layout.positions[name] for name in columns]].iloc[place]
    values = numbers_of(part, columns, False, lambda rows: rows_of(place[rows]), problems, SERVED)
    if problems:
        raise DataError(listed([f"`future`: {problem[0].lower()}{problem[1:]}" for problem in problems], "`future`"))
    return values.reshape(n_items, horizon, len(columns))


class _Names:
    """A signature whose stamps and identifiers are called as those of the history are."""

    def __init__(self, history: History, signature: SignatureLike) -> None:
        self.signature = signature
        self.reading = _Reading(
            *(
                None if place is None or place.name is None else text_of(place.name)
                for place in (history.time, history.id)
            )
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.signature, name)


class _Reading:
    left_out = ()

    def __init__(self, time: str | None, id: str | None) -> None:
        self.time, self.id = time, id


def _by_position(
    owner: np.ndarray, n_items: int, history: History, horizon: int, problems: list[str]
) -> np.ndarray | None:
    """Rows in the order they stand in, as many for each item as there are steps ahead."""
    counts = np.bincount(owner[owner >= 0], minlength=n_items)
    remedy = "Give the planned values of the horizon, or stamps to find them by"
    wrong = np.flatnonzero(counts != horizon)
    problems += [
        must("future", f"hold {horizon} rows for {history.label(number)}", int(counts[number]), remedy)
        for number in wrong[:5]
    ]
    if len(wrong) > 5:
        problems.append(f"... and {len(wrong) - 5:,} more items.")
    rows = np.flatnonzero(owner >= 0)
    return None if len(wrong) else rows[np.argsort(owner[rows], kind="stable")]


def _by_stamp(
    owner: np.ndarray,
    stamps: pd.DatetimeIndex,
    wanted: np.ndarray,
    history: History,
    horizon: int,
    called: str,
    problems: list[str],
) -> np.ndarray | None:
    """The row of each step of each item; other rows do not matter, nor does the order."""
    ahead = history.ahead
    assert ahead is not None
    if (stamps.tz is None) != (ahead.tz is None):
        held, given = ("with a zone", "without") if ahead.tz is not None else ("without a zone", "with one")
        problems.append(
            f"`{called}` of `future` must hold stamps {held}, as those of `x` are, got stamps {given}. Convert them, "
            "for example with Series.dt.tz_localize."
        )
        return None
    keys, asked = (pd.MultiIndex.from_arrays([items, _plain(ds)]) for items, ds in ((owner, stamps), (wanted, ahead)))
    here = np.flatnonzero(keys.isin(asked))
    twice = keys[here].duplicated()
    lacking = ~asked.isin(keys)
    lines = []
    repeated = keys[here][twice]
    for number in range(len(history.rows.names)) if lacking.any() or twice.any() else ():
        steps = slice(number * horizon, (number + 1) * horizon)
        absent = ahead[steps][lacking[steps]]
        again = bool(asked[steps].isin(repeated).any())
        if len(absent) or again:
            problem = f"{len(absent)} of them missing, the first {absent[0]}" if len(absent) else "some of them twice"
            lines.append(
                f"`future` must hold the {horizon} steps after {history.label(number)} once each, got {problem}"
            )
    if lines:
        problems += capped(lines, "items without their plans", "Give them.")
        return None
    return here[keys[here].get_indexer(asked)]


def _plain(ds: pd.DatetimeIndex) -> pd.DatetimeIndex:
    """The same moments on the UTC time line in microseconds, or nanoseconds that need them."""
    utc = ds if ds.tz is None else ds.tz_convert("UTC").tz_localize(None)
    if utc.unit == "ns" and not (utc.asi8 % 1000).any():
        return utc.as_unit("us")
    return utc


def _in_zone(
    stamps: pd.DatetimeIndex, code: np.ndarray, names: tuple[str, ...], zone: Any, called: str, problems: list[str]
) -> pd.DatetimeIndex:
    """Stamps in the zone of the training data, in the order they are given in."""
    order = np.argsort(code, kind="stable")
    rows = localise(Rows(names, bounds_of(code, len(names)), order, stamps[order]), zone, called, problems)
    assert rows.ds is not None
    return rows.ds[np.argsort(order, kind="stable")]
