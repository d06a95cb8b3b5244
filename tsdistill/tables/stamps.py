"""Reading and checking time stamps: parsing, order, duplicates, steps and gaps; every problem is reported.

The functions append to a list of problems and go on as far as they can, so that one error lists everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from tsdistill.tables import dates
from tsdistill.tables.daylight import unfold
from tsdistill.tables.frequency import StepGrid, inferred_grid, named_grid
from tsdistill.tables.numbers import missing_in, shown
from tsdistill.tables.offsets import calendar_of
from tsdistill.tables.rows import SHOWN, TRAINED, Advice, Rows, capped, of_item, rows_of, several, shown_stamps

FIRST = np.datetime64("0001-01-01")
LAST = np.datetime64("9999-12-31T23:59:59")


@dataclass(frozen=True)
class Timing:
    """What checking stamps gives: their grid, and step numbers of the items that have gaps."""

    grid: StepGrid | None
    positions: dict[int, np.ndarray]
    daylight_saving: str | None = None


def parse(
    column: pd.Series | pd.Index, time: str, problems: list[str], form: dates.DateForm | None = None
) -> pd.DatetimeIndex | None:
    """Time stamps of a column, NaT where there is none; None when the column cannot hold any."""
    return read_stamps(column, time, form or dates.DateForm(), problems).ds


def read_stamps(column: pd.Series | pd.Index, time: str, form: dates.DateForm, problems: list[str]) -> dates.Stamps:
    """Time stamps of a column written as `form` says, NaT where there is none, and whether days stood first in them."""
    n_before = len(problems)
    stamps, day_first = dates.read(column, time, form, problems)
    if stamps is None:
        return dates.Stamps(None)
    missing = missing_in(column)
    unread = np.asarray(stamps.isna()) & ~missing
    far = np.zeros(len(stamps), dtype=bool)
    if stamps.unit != "ns":
        clock = (stamps if stamps.tz is None else stamps.tz_convert("UTC").tz_localize(None)).to_numpy()
        far = (clock < FIRST.astype(clock.dtype)) | (clock > LAST.astype(clock.dtype))
    if missing.any():
        where = rows_of(np.flatnonzero(missing))
        problems.append(f"`{time}` has no time stamp in {where}. Drop these rows or date them.")
    if unread.any() and len(problems) - bool(missing.any()) == n_before:
        cells = np.asarray(column, dtype=object)[unread][:100]
        examples = ", ".join(repr(text) for text in list(dict.fromkeys(map(shown, cells)))[:SHOWN])
        written = f'as time_format="{form.time_format}" says' if form.time_format else "as 2013-10-01 14:00"
        other = "" if form.time_format else ", or pass time_format="
        problems.append(
            f"`{time}` holds {several(unread.sum(), 'time stamp')} that cannot be read: {examples} in "
            f"{rows_of(np.flatnonzero(unread))}. Write them {written}, all with a zone or all without{other}."
        )
    if far.any():
        where = rows_of(np.flatnonzero(far))
        problems.append(f"`{time}` holds stamps beyond the years 1 to 9999 in {where}. Correct them.")
        stamps = pd.DatetimeIndex(
            np.where(far, np.datetime64("NaT"), stamps.tz_localize(None).to_numpy()), tz=stamps.tz
        )
    return dates.Stamps(stamps if stamps.unit == "ns" else stamps.as_unit("us"), day_first)


def examine(
    rows: Rows,
    time: str,
    frequency: str | None,
    filled: bool,
    problems: list[str],
    *,
    anchored: bool | None = None,
    advice: Advice = TRAINED,
) -> Timing:
    """Check order, uniqueness and regularity of all items' stamps; gaps are a problem unless they will be filled.

    `anchored` is that of `named_grid`.
    """
    rows, undated = _dated(rows)
    rows, problem, note = unfold(rows, time, filled, advice)
    problems += [problem] if problem else []
    rows = in_order(rows, time, problems, advice)
    if undated:
        return Timing(None, {})
    assert rows.ds is not None
    try:
        grid = (
            named_grid(frequency, rows.ds, anchored=anchored)
            if frequency is not None
            else inferred_grid(rows.ds, rows.inside)
        )
    except ValueError as error:
        problems.append(frequency_problem(frequency, error))
        return Timing(None, {})
    if grid is None:
        return Timing(None, {}, note)
    position, on_grid = grid.positions(rows.ds, rows.bounds)
    steps = np.diff(position)
    code = rows.code
    off = np.unique(code[~on_grid])
    crowded = np.setdiff1d(code[1:][rows.inside & (steps < 1)], off)
    gappy = np.setdiff1d(code[1:][rows.inside & (steps > 1)], [*off, *crowded])
    irregular = []
    for number in np.union1d(off, crowded).tolist():
        ds, name, here = rows.ds[rows.of(number)], rows.names[number], on_grid[rows.of(number)]
        if here.all():
            irregular.append(f"{of_item(name)}several stamps fall on one step of {grid.frequency!r}")
        else:
            irregular.append(_irregular(name, ds, here, grid.frequency))
    positions = {number: position[rows.of(number)] for number in gappy.tolist()}
    gaps = [_gap(rows.names[number], rows.ds[rows.of(number)], np.diff(places)) for number, places in positions.items()]
    local = rows.ds[rows.of(0)]
    asked = advice is TRAINED and frequency is None and bool(irregular or (gaps and not filled))
    calendar = calendar_of(local.tz_localize(None)) if asked else None
    if irregular:
        inferred = inferred_grid(rows.ds, rows.inside) if frequency is not None else None
        most = f" (most steps are {inferred.frequency!r})" if inferred else ""
        if advice is TRAINED:
            named = f'pass frequency="{calendar}"' if calendar else "name the step by frequency="
            remedy = f"Resample first, or {f'leave out frequency={most}' if inferred else named}."
        else:
            remedy = f"Resample to the steps that the model was trained on{most}."
        problems += capped(irregular, "items with irregular steps", remedy)
    if gaps and not filled:
        days = f'If only these days count, pass frequency="{calendar}". ' if calendar else ""
        problems += capped(gaps, "items with gaps", days + advice.gaps)
    return Timing(grid, positions, note)


def frequency_problem(frequency: object, error: Exception) -> str:
    """What is wrong with a frequency that pandas does not know, with pandas' own suggestion."""
    suggestion = re.search(r"Did you mean (\w+)\?|use '(\w+)' instead", str(error))
    remedy = f"Did you mean {suggestion[1] or suggestion[2]!r}?" if suggestion else "Write h, 15min, D, MS or the like."
    return f"`frequency` must be a pandas offset alias, got frequency={frequency!r}. {remedy}"


def _dated(rows: Rows) -> tuple[Rows, bool]:
    """The rows that have a stamp, and whether some have none: these are reported already and leave no gaps."""
    assert rows.ds is not None
    if not rows.ds.hasnans:
        return rows, False
    dated = ~np.asarray(rows.ds.isna())
    bounds = np.concatenate([[0], np.cumsum(dated)])[rows.bounds]
    return replace(rows, ds=rows.ds[dated], row=rows.row[dated], bounds=bounds), True


def in_order(rows: Rows, time: str, problems: list[str], advice: Advice = TRAINED) -> Rows:
    """Report rows out of order and stamps that are repeated; go on without them."""
    ds = rows.ds
    assert ds is not None
    steps = np.diff(ds.asi8)
    inside = rows.inside
    if (steps[inside] > 0).all():
        return rows
    back = np.flatnonzero(inside & (steps < 0)) + 1
    order = np.arange(len(ds))
    if len(back):
        problems.append(
            f"`{time}` must rise, but goes back in {rows_of(rows.row[back])}, first from {ds[back[0] - 1]} to "
            f"{ds[back[0]]}. Sort the rows by item and time."
        )
        order = np.lexsort((ds.asi8, rows.code))
    ordered = ds[order]
    repeated = np.concatenate([[False], (np.diff(ordered.asi8) == 0) & inside])
    if repeated.any():
        names = {rows.names[code] for code in rows.code[repeated]} - {""}
        where = f" of item{'s' if len(names) > 1 else ''} {', '.join(sorted(names)[:SHOWN])}" if names else ""
        places = rows_of(np.sort(rows.row[order][repeated]))
        problems.append(
            f"`{time}` holds {several(repeated.sum(), 'stamp')} more than once{where}: "
            f"{shown_stamps(ordered[repeated].unique())} in {places}. {advice.repeated}"
        )
    bounds = np.concatenate([[0], np.cumsum(~repeated)])[rows.bounds]
    return replace(rows, ds=ordered[~repeated], row=rows.row[order][~repeated], bounds=bounds)


def _irregular(name: str, ds: pd.DatetimeIndex, on_grid: np.ndarray, frequency: str) -> str:
    off_grid = ds[~on_grid]
    count = f"{len(off_grid):,} of {several(len(ds), 'stamp')}"
    return f"{of_item(name)}{count} do not fall on steps of {frequency!r}: {shown_stamps(off_grid)}"


def _gap(name: str, ds: pd.DatetimeIndex, steps: np.ndarray) -> str:
    places = np.flatnonzero(steps > 1)
    count = f"{several((steps[places] - 1).sum(), 'row')} missing in {several(len(places), 'gap')}"
    return f"{of_item(name)}{count}, the first after {ds[places[0]]} ({several(steps[places[0]] - 1, 'row')})"
