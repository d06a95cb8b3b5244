"""Raw pandas frames for forecasting: columns and stamps checked, calendar features made, forecasts returned as a frame.

Imported for frames only, when pandas is loaded already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from pandas.tseries.frequencies import to_offset

from tsdistill import clock
from tsdistill.errors import DataError, ShapeError, listed, must, nearest
from tsdistill.inputs.arrays import Known, Predict, SignatureLike, in_chunks, numbers, windows_of


def predict_frame(
    frame: pd.DataFrame,
    signature: SignatureLike,
    predict: Predict,
    planned: Any,
    levels: tuple[float, ...],
    rolling: int | None,
) -> pd.DataFrame:
    """Forecasts of a frame; see `predict_raw`."""
    columns = _planned_columns(signature)
    if (planned is None) == bool(columns) or not isinstance(planned, pd.DataFrame | None):
        wanted = f"be a frame of the horizon's {', '.join(columns)}" if columns else "be None without planned columns"
        raise DataError(must("future", wanted, type(planned).__name__, "They are known ahead, so give their values"))
    time = _check_columns(frame, signature)

    def checked(rows: pd.DataFrame, label: str, planned: Any) -> tuple[dict[str, np.ndarray], pd.Index]:
        n_steps = signature.context if rolling is None else max(len(rows), signature.context)
        history, steps = _item(rows, time, signature, label, planned, n_steps)
        windows = windows_of(history, signature, rolling or 1)
        return windows, steps

    if "unique_id" not in frame.columns or "unique_id" in signature.channels:
        windows, steps = checked(frame, "x", planned)
        return _as_frame(in_chunks(windows, signature, predict, levels), steps, time, signature, levels, rolling)
    if frame["unique_id"].isna().any():
        raise DataError("`unique_id` must name an item in every row, got empty cells. Fill or drop these rows.")
    items = {}
    problems = []
    for name, rows in frame.groupby("unique_id", sort=False):
        item_planned = planned
        if planned is not None and "unique_id" in planned:
            item_planned = planned[planned["unique_id"] == name]
        try:
            items[name] = checked(rows, f"item {name!r}", item_planned)
        except (ShapeError, DataError) as error:
            problems.append(str(error))
    if problems or not items:
        raise DataError(listed(problems or ["`x` must hold at least one item, got an empty frame."], "the frame"))
    item_windows = [windows for windows, _ in items.values()]
    if rolling is None:
        together = {name: np.concatenate([windows[name] for windows in item_windows]) for name in item_windows[0]}
        forecasts = list(in_chunks(together, signature, predict, levels)[:, None])
    else:  # one by one: the windows of a long history overlap, and are only copied a chunk at a time
        forecasts = [in_chunks(windows, signature, predict, levels) for windows in item_windows]
    parts = []
    for (name, (_, steps)), forecast in zip(items.items(), forecasts, strict=True):
        part = _as_frame(forecast, steps, time, signature, levels, rolling)
        part.insert(0, "unique_id", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=time is not None)


def _planned_columns(signature: SignatureLike) -> tuple[str, ...]:
    return tuple(signature.covariates.future) if signature.covariates is not None else ()


def _check_columns(frame: pd.DataFrame, signature: SignatureLike) -> str | None:
    """Name of the column of stamps, None when they are in the index; problems with columns come in one error."""
    names = [str(name) for name in frame.columns]
    problems = [
        f"column {name!r} stands in the frame twice. Keep one."
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    wanted = (*signature.channels, *signature.past, *_planned_columns(signature))
    missing = [name for name in wanted if name not in names]
    problems += [f"column {name!r} is missing. {nearest(name, names) if names else ''}".rstrip() for name in missing]
    others = [name for name in names if name not in wanted and name != "unique_id"]
    times = [name for name in others if name == "ds"] or [
        name for name in others if types.is_datetime64_any_dtype(frame[name].dtype)
    ]
    if len(times) > 1:
        problems.append(
            f"there are {len(times)} columns of stamps: {', '.join(times)}. Keep one, or rename it to `ds`."
        )
    unknown = [name for name in others if name not in times]
    known = (*wanted, "ds", "unique_id")
    problems += [f"column {name!r} is unknown. {nearest(name, known)} Drop it if it is not needed." for name in unknown]
    texts = [name for name in wanted if name in names and not types.is_numeric_dtype(frame.dtypes[name])]
    problems += [f"column {name!r} must hold numbers, got {frame.dtypes[name]}. Use pd.to_numeric." for name in texts]
    if problems:
        raise DataError(listed(problems, "the frame"))
    return times[0] if times else None


def _item(
    rows: pd.DataFrame,
    time: str | None,
    signature: SignatureLike,
    label: str,
    planned: pd.DataFrame | None,
    n_steps: int,
) -> tuple[dict[str, np.ndarray], pd.Index]:
    """Checked arrays (time, column) of the last `n_steps` rows by name, and the index of these and of the horizon."""
    if len(rows) < n_steps:
        raise ShapeError(
            f"`x` must hold at least context = {signature.context} steps, got {len(rows)} in {label}. "
            "Give a longer history."
        )
    steps = _steps(rows, time, signature, label, n_steps)
    recent = rows.iloc[-n_steps:]

    def read(table: pd.DataFrame, name: str, columns: Sequence[str]) -> np.ndarray:
        try:
            return numbers(table[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan), name, columns, len(table))
        except DataError as error:
            raise DataError(f"In {label}: {error}") from None

    inputs = {"context": read(recent, "x", signature.channels)}
    if signature.past:
        inputs["past"] = read(recent, "x", signature.past)
    if signature.future and signature.covariates is not None:
        parts = []
        columns = _planned_columns(signature)
        if len(signature.future) > len(columns):
            parts.append(_calendar(steps, signature.covariates, label))
        if planned is not None:
            ahead = _ahead(planned, time, steps[n_steps:], columns, label)
            parts.append(np.concatenate((read(recent, "x", columns), read(ahead, "future", columns))))
        inputs["future"] = np.concatenate(parts, axis=1)
    return inputs, steps


def _calendar(steps: pd.Index, known: Known, label: str) -> np.ndarray:
    """Calendar features for context and horizon."""
    if not isinstance(steps, pd.DatetimeIndex):
        raise DataError(f"the calendar features of {label} need time stamps. Give them as index or in a column `ds`.")
    return clock.features(steps.tz_localize(None).to_numpy(dtype="datetime64[ns]"), known.calendar, known.holidays)


def _ahead(
    planned: pd.DataFrame, time: str | None, index: pd.Index, columns: Sequence[str], label: str
) -> pd.DataFrame:
    """The rows of planned values that belong to the horizon, in order."""
    if missing := [column for column in columns if column not in planned.columns]:
        raise DataError(f"`future` must have the columns {', '.join(columns)}, got none called {', '.join(missing)}.")
    if time is not None and time in planned.columns:
        planned = planned.set_index(time)
    if isinstance(planned.index, pd.DatetimeIndex):
        absent = index.difference(planned.index)
        if len(absent) or planned.index.has_duplicates:
            problem = f"{len(absent)} of them missing, the first {absent[0]}" if len(absent) else "some of them twice"
            raise DataError(f"`future` must hold the {len(index)} steps after {label} once each, got {problem}.")
        return planned.loc[index]
    if len(planned) != len(index):
        remedy = "Give the planned values of the horizon, or stamps to find them by"
        raise DataError(must("future", f"hold {len(index)} rows for {label}", len(planned), remedy))
    return planned


def _steps(rows: pd.DataFrame, time: str | None, signature: SignatureLike, label: str, n_steps: int) -> pd.Index:
    """Stamps, or numbers where there are none, of the last `n_steps` rows and of the horizon after them."""
    index = rows.index if time is None else pd.Index(rows[time])
    if time is None and not isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        end, step = (index.stop, index.step) if isinstance(index, pd.RangeIndex) else (len(rows), 1)
        return pd.RangeIndex(end - n_steps * step, end + signature.horizon * step, step)
    if isinstance(index, pd.PeriodIndex) or types.is_numeric_dtype(index.dtype):
        rule = f"hold time stamps in {label}"
        raise DataError(must(time or "index", rule, str(index.dtype), "Use pd.to_datetime or .to_timestamp()"))
    try:
        stamps = pd.DatetimeIndex(index[-n_steps:])
    except (ValueError, TypeError) as error:
        raise DataError(f"`{time}` must hold time stamps in {label}: {error}. Use pd.to_datetime.") from None
    frequency: Any = signature.frequency
    if frequency is None:
        # Trained on data without regular stamps: go on as the frame's own last step does.
        frequency = stamps[-1] - stamps[-2] if len(stamps) > 1 else None
        if frequency is None or not frequency > pd.Timedelta(0):
            raise DataError(f"the stamps of {label} must be sorted and regular to be continued. Pass an array instead.")
    try:
        to_offset(frequency)
    except ValueError as error:
        raise DataError(f"`frequency` of the model must be an offset of pandas, got {frequency!r}: {error}.") from None
    regular = pd.date_range(end=stamps[-1], periods=len(stamps), freq=frequency) if not stamps.hasnans else stamps[:0]
    if len(regular) != len(stamps) or not (regular == stamps).all():
        wrong = stamps[-1] if len(regular) != len(stamps) else stamps[np.flatnonzero(regular != stamps)[-1]]
        raise DataError(
            f"the last {len(stamps)} stamps of {label} must step by {frequency}, sorted and without gaps; the one "
            f"nearest the end that does not is {wrong}. Sort and fill the frame first."
        )
    future = pd.date_range(start=stamps[-1], periods=signature.horizon + 1, freq=frequency)[1:]
    # A frequency of its own would make the result unequal to the same stamps read from a file.
    return pd.DatetimeIndex(stamps.append(future), freq=None, name=index.name)  # type: ignore[arg-type]


def _as_frame(
    forecasts: np.ndarray,
    steps: pd.Index,
    time: str | None,
    signature: SignatureLike,
    levels: tuple[float, ...],
    rolling: int | None,
) -> pd.DataFrame:
    """Forecasts (cutoff, horizon, channel), the last of them of the last steps, one below the other."""
    columns = list(signature.channels)
    if levels:
        columns = [f"{channel}-q{level:g}" for channel in columns for level in levels]
    # Where each forecast begins, counted in the steps.
    firsts = len(steps) - signature.horizon - np.arange(len(forecasts))[::-1] * (rolling or 1)
    places = firsts[:, None] + np.arange(signature.horizon)
    result = pd.DataFrame(forecasts.reshape(places.size, -1), index=steps.take(places.ravel()), columns=columns)
    if rolling is not None:
        result.insert(0, "cutoff", steps.take(firsts - 1).repeat(signature.horizon))
    return result.rename_axis(index=time).reset_index() if time is not None else result
