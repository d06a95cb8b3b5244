"""Finding the columns of a frame and reading their values as numbers; every problem is reported."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from tsdistill.errors import must, nearest
from tsdistill.tables.dates import DateForm, Stamps
from tsdistill.tables.labels import labels, row_numbers
from tsdistill.tables.numbers import as_numbers, examples_of, kinds_of
from tsdistill.tables.roles import TIME, Layout, Place, text_of
from tsdistill.tables.rows import SHOWN, TRAINED, Advice, Rows, rows_of, several
from tsdistill.tables.stamps import read_stamps
from tsdistill.tables.whole import WHOLE, lost_digits

MAX_COLUMNS = 20_000
"""Columns of a frame; more are a table that lies on its side."""

LISTED = 20
"""Columns whose problems are listed one by one; after them the others are not looked at."""

MANY = 100
"""Columns of objects that are worth a look at all of them at once."""

Places = Callable[[np.ndarray], str]
"""Words where some rows of a frame are."""


@dataclass(frozen=True)
class Table:
    """A frame taken apart: rows item by item, values (row, channel) float64 that may hold NaN.

    Columns that are no series are left out, with the reason; `day_first` is what the stamps showed. `unused` are those
    that stand beside the ones that were asked for.
    """

    rows: Rows
    values: np.ndarray
    channels: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    day_first: bool | None = None
    unused: tuple[str, ...] = ()


def read_table(
    df: pd.DataFrame,
    time: str | None,
    id: str | None,
    target: Hashable | Iterable[Hashable] | None,
    filled: bool,
    problems: list[str],
    form: DateForm | None = None,
) -> Table:
    """Take a frame apart, in runs of items; NaN is a problem unless it will be filled."""
    if not isinstance(df, pd.DataFrame):
        remedy = "Make one with pandas.DataFrame(...)"
        problems.append(must("df", "be a pandas DataFrame", type(df).__name__, remedy))
        df = pd.DataFrame()
    elif not len(df):
        problems.append("The frame is empty: it has no rows. Give some data.")
    layout = Layout(df)
    time = None if time is None else text_of(time)
    id = None if id is None else text_of(id)
    if layout.duplicates:
        shown = ", ".join(layout.duplicates)
        problems.append(f"Columns must have different names, got {shown} more than once. Rename them.")
        return Table(Rows((), np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64)), np.empty((0, 0)), ())
    if len(layout.positions) > MAX_COLUMNS:
        problems.append(
            f"The frame has {len(layout.positions):,} columns, more than {MAX_COLUMNS:,}. Give a row per time step; "
            "many series stand best one below the other, with a column of identifiers."
        )
        return Table(Rows((), np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.int64)), np.empty((0, 0)), ())
    wanted = _wanted(target, df)
    stamped = None if time is None else layout.time(time)
    identified = layout.id(id, stamped, wanted or ())
    known = set(layout.positions) - {time, id}
    if id is not None and identified is None:
        problems.append(f"`id` must name a column of the frame, got id={id!r}. {nearest(id, known)}")
    if time is not None and stamped is None and len(layout.positions):
        remedy = f"{nearest(time, known)} Rows without time stamps: time=None"
        problems.append(f"`time` must name a column of the frame, got time={time!r}. {remedy}.")
    names, code = items_of(identified, problems, len(df))
    form = form or DateForm()
    stamps, day_first = (
        read_stamps(stamped.cells, time or TIME, form, problems) if stamped is not None else Stamps(None)
    )
    reserved = {text_of(place.name) for place in (stamped, identified) if place is not None and place.level is None}
    is_long = identified is not None
    left_out: dict[str, str] = {}
    if wanted is None and not (is_long and "y" in layout.positions):
        free = {name: position for name, position in layout.positions.items() if name not in reserved}
        left_out = row_numbers(df, free, problems)
    chosen = _targets(wanted, layout.positions, reserved | set(left_out), is_long, problems)
    part = df.iloc[:, [layout.positions[name] for name in chosen]]
    advice = TRAINED if not is_long else replace(TRAINED, names=None)
    values = numbers_of(part, chosen, filled, at_stamps(stamps), problems, advice, code)
    order = np.argsort(code, kind="stable")
    if not (order[1:] > order[:-1]).all():
        values = values[order]
        stamps = None if stamps is None else stamps[order]
    bounds = bounds_of(code, len(names))
    if wanted is None and is_long and not problems:
        whole = np.array([kind.kind in "iub" for kind in part.dtypes], dtype=bool)
        constant = labels(values, bounds, tuple(chosen), whole)
        values = values[:, [name not in constant for name in chosen]] if constant else values
        chosen = [name for name in chosen if name not in constant]
        left_out |= constant
    day_first = form.day_first if form.day_first is not None else day_first
    taken = {*chosen, *reserved, *left_out}
    unused = tuple(name for name in layout.positions if name not in taken)
    return Table(Rows(names, bounds, order, stamps), values, tuple(chosen), left_out, day_first, unused)


def items_of(place: Place | None, problems: list[str], n_rows: int) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of items in order of appearance, and for each row the number of its item; one unnamed item without any."""
    if place is None:
        return ("",), np.zeros(n_rows, dtype=np.int64)
    return _identifiers(place.cells, text_of(place.name) if place.name is not None else "the index", problems)


def bounds_of(code: np.ndarray, n_items: int) -> np.ndarray:
    """First row of each item and the number of rows, once rows are ordered by item."""
    return np.concatenate([[0], np.cumsum(np.bincount(code, minlength=n_items))]).astype(np.int64)


def _identifiers(column: pd.Series | pd.Index, id: str, problems: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of items in order of appearance, and for each row the number of its item."""
    try:
        starts = _runs(column)
        code, identifiers = pd.factorize(column if starts is None else column.take(starts))
        code = code if starts is None else np.repeat(code, np.diff(starts, append=len(column)))
    except TypeError:
        kinds = sorted({type(cell).__name__ for cell in column})
        problems.append(f"`{id}` must hold names of items, got cells of type {', '.join(kinds)}. Make them all text.")
        return ("?",), np.zeros(len(column), dtype=int)
    if (code < 0).any():
        problems.append(f"`{id}` has no identifier in {rows_of(np.flatnonzero(code < 0))}. Name these rows' items.")
        code = np.where(code < 0, len(identifiers), code)
    names = tuple(map(str, identifiers.astype(object).tolist())) + (("?",) if (code == len(identifiers)).any() else ())
    if len(set(names)) < len(names):
        problems.append(f"`{id}` holds identifiers that read the same, such as 1 and '1'. Make them all text.")
    return names, code


def _runs(column: pd.Series | pd.Index) -> np.ndarray | None:
    """First rows of runs of equal text, which are fewer to tell apart than rows; None for other cells."""
    if not isinstance(column.dtype, pd.StringDtype) or len(column) < 2:
        return None
    values = column.array
    changed = pd.Series(values[1:] != values[:-1]).fillna(True).to_numpy(dtype=bool)
    return np.flatnonzero(np.concatenate([[True], changed]))


def _wanted(target: Hashable | Iterable[Hashable] | None, df: pd.DataFrame) -> list[str] | None:
    """Value columns that were asked for, by their text; a label that is no text, or a tuple, names one column."""
    if target is None:
        return None
    if isinstance(target, str) or not isinstance(target, Iterable) or (isinstance(target, tuple) and target in df):
        return [text_of(target)]
    return [text_of(name) for name in target]


def _targets(
    wanted: list[str] | None, columns: Iterable[str], reserved: set[str], long: bool, problems: list[str]
) -> list[str]:
    free = [name for name in columns if name not in reserved]
    usable = set(free)
    if wanted is None:
        chosen = ["y"] if long and "y" in free else free
        if not chosen and columns:
            problems.append("There are no value columns beside the time stamps. Give at least one.")
        return chosen
    if not wanted:
        problems.append(must("target", "name at least one value column", wanted, "Leave it out to take them all"))
    known = set(columns)
    unknown = [name for name in wanted if name not in known]
    problems += [f"`target` must name columns of the frame, got {name!r}. {nearest(name, free)}"
                 for name in unknown[:LISTED]]  # fmt: skip
    if len(unknown) > LISTED:
        problems.append(f"... and {len(unknown) - LISTED:,} more names of `target` are no columns.")
    problems += [f"`target` must name value columns, got {name!r}, which holds stamps or identifiers. Leave it out."
                 for name in wanted if name in reserved]  # fmt: skip
    if len(set(wanted)) < len(wanted):
        problems.append(must("target", "name each column once", wanted, "Remove the repeated names"))
    return list(dict.fromkeys(name for name in wanted if name in usable))


def numbers_of(
    part: pd.DataFrame,
    names: Sequence[str],
    filled: bool,
    places: Places,
    problems: list[str],
    advice: Advice = TRAINED,
    group: np.ndarray | None = None,
    units: Callable[[], np.ndarray | None] | None = None,
) -> np.ndarray:
    """Values of a frame's columns, called `names`, (row, channel) in C order, with NaN where there is none.

    `places` words where rows are. `group` is the number of each row's item, and `units` gives what each column moves
    by, if that is known: whole numbers may not lose digits of it.
    """
    if all(isinstance(kind, np.dtype) and kind.kind in "iufb" for kind in part.dtypes):
        values = np.array(part.to_numpy(dtype=np.float64), order="C", copy=True)
    elif (plain := _many_objects(part)) is not None:
        values = plain
    else:
        values = np.empty(part.shape)
        n_before = len(problems)
        for position, name in enumerate(names):
            if len(problems) - n_before >= LISTED:
                problems.append(f"... and {len(names) - position:,} more columns, which were not looked at.")
                return np.zeros(part.shape)
            values[:, position] = _column(part.iloc[:, position], name, places, problems, advice)
    # Both without a copy of the values, and without regard to NaN.
    reach = max(np.fmax.reduce(values, axis=None, initial=0.0), -np.fmin.reduce(values, axis=None, initial=0.0))
    if reach >= WHOLE:
        known = units() if units is not None else None
        for position, name in enumerate(names):
            unit = None if known is None else float(known[position])
            if lost := lost_digits(_cells(part.iloc[:, position]), values[:, position], group, unit):
                problems.append(f"Column `{name}` holds {lost}. Subtract a constant while they are whole numbers.")
    # One pass over everything; columns are looked at one by one only if something is wrong.
    if np.isfinite(values).all():
        return values
    n_before = len(problems)
    for position, column in enumerate(names):
        if len(problems) - n_before >= LISTED:
            problems.append(f"... and {len(names) - position:,} more columns, which were not looked at.")
            break
        infinite = np.flatnonzero(np.isinf(values[:, position]))
        if len(infinite):
            problems.append(
                f"Column `{column}` holds {several(len(infinite), 'infinite value')} in {places(infinite)}. "
                f"{advice.infinite}"
            )
        missing = np.flatnonzero(np.isnan(values[:, position]))
        if len(missing) and not filled:
            problems.append(
                f"Column `{column}` has {several(len(missing), 'missing value')} (NaN) of {len(part):,}, in "
                f"{places(missing)}. {advice.missing}"
            )
    return values


def _many_objects(part: pd.DataFrame) -> np.ndarray | None:
    """Numbers in many columns of objects at once, as each of them takes a while; None where something else is there."""
    if part.shape[1] < MANY or not all(isinstance(kind, np.dtype) and kind.kind in "iufO" for kind in part.dtypes):
        return None
    cells = part.to_numpy(dtype=object)
    if pd.api.types.infer_dtype(cells.ravel(), skipna=True) not in ("integer", "floating", "mixed-integer-float"):
        return None
    try:
        return np.array(cells, dtype=np.float64, order="C")
    except (TypeError, ValueError, OverflowError):  # pandas.NA, or a number beyond all floats
        return None


def _cells(column: pd.Series) -> np.ndarray:
    """Cells as they were given: an array of numbers, or objects."""
    kind = column.dtype
    return column.to_numpy() if isinstance(kind, np.dtype) else column.to_numpy(dtype=object)


def _column(column: pd.Series, name: str, places: Places, problems: list[str], advice: Advice) -> np.ndarray:
    """One column as float64; what is no number is a problem and reads as NaN."""
    kind = column.dtype
    if pd.api.types.is_datetime64_any_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind):
        problems.append(f"Column `{name}` holds times, not numbers. {advice.times}")
        return np.zeros(len(column))
    if pd.api.types.is_complex_dtype(kind):
        problems.append(f"Column `{name}` holds complex numbers. Take their parts. {advice.other}")
        return np.zeros(len(column))
    values, missing, wrong = as_numbers(column)
    if not wrong.any():
        return values
    values[wrong] = 0.0
    examples = examples_of(column, wrong, SHOWN)
    if int(wrong.sum()) == int((~missing).sum()):
        remedy = advice.other if advice.names is None else advice.names.format(name=name)
        problems.append(f"Column `{name}` holds {kinds_of(column, wrong)} and no numbers ({examples}). {remedy}")
    else:
        problems.append(
            f"Column `{name}` holds {several(int(wrong.sum()), 'value')} that cannot be read as numbers ({examples}) "
            f"in {places(np.flatnonzero(wrong))}. {advice.infinite}"
        )
    return values


def at_stamps(stamps: pd.DatetimeIndex | None) -> Places:
    """Words where rows of a frame are, with the first one's stamp."""

    def places(rows: np.ndarray) -> str:
        first = "" if stamps is None or pd.isna(stamps[rows[0]]) else f", first at {stamps[rows[0]]}"
        return rows_of(rows) + first

    return places
