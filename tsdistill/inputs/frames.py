"""Forecasts of pandas frames: read as frames are for training, all items at once, and returned as they came.

Imported for frames only, when pandas is loaded already.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from tsdistill import clock
from tsdistill.errors import DataError, listed, must
from tsdistill.inputs.arrays import Known, Predict, SignatureLike, in_chunks, numbers, windows_of
from tsdistill.inputs.history import History, planned_columns, read_history, values_of
from tsdistill.inputs.planned import planned_values
from tsdistill.tables.roles import text_of


def predict_frame(
    frame: pd.DataFrame,
    signature: SignatureLike,
    predict: Predict,
    planned: Any,
    levels: tuple[float, ...],
    rolling: int | None,
) -> pd.DataFrame:
    """Forecasts of a frame; see `predict_raw`."""
    columns = planned_columns(signature)
    if (planned is None) == bool(columns) or not isinstance(planned, pd.DataFrame | None):
        wanted = f"be a frame of the horizon's {', '.join(columns)}" if columns else "be None without planned columns"
        raise DataError(must("future", wanted, type(planned).__name__, "They are known ahead, so give their values"))
    problems: list[str] = []
    history = read_history(frame, signature, rolling, problems)
    past, ahead = _inputs(history, signature, planned, problems)
    bounds = history.rows.bounds
    n_items = len(history.rows.names)
    if rolling is None:
        windows = {name: values.reshape(n_items, -1, values.shape[1]) for name, values in past.items()}
        if ahead is not None:
            windows["future"] = np.concatenate([windows["future"], ahead], axis=1)
        forecasts = in_chunks(windows, signature, predict, levels)
        counts = np.ones(n_items, dtype=np.int64)
    else:  # one by one: the windows of a long history overlap, and are only copied a chunk at a time
        parts = []
        for number in range(n_items):
            arrays = {name: values[bounds[number] : bounds[number + 1]] for name, values in past.items()}
            if ahead is not None:
                arrays["future"] = np.concatenate([arrays["future"], ahead[number]])
            parts.append(in_chunks(windows_of(arrays, signature, rolling), signature, predict, levels))
        forecasts = np.concatenate(parts)
        counts = np.array([len(part) for part in parts])
    return _as_frame(forecasts, counts, history, signature, levels, rolling)


def _inputs(
    history: History, signature: SignatureLike, planned: pd.DataFrame | None, problems: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Checked float arrays (row, column) of the history by name, and features (item, horizon, feature) if any."""
    is_timed = not problems
    columns = planned_columns(signature)
    raw = values_of(history, signature, problems)
    ahead_parts = []
    if planned is not None and is_timed:
        try:
            ahead_parts.append(numbers(planned_values(planned, history, signature), "future", columns, 1, whole=True))
        except DataError as error:
            problems.append(str(error))
    past_parts = []
    known = signature.covariates
    if known is not None and len(signature.future) > len(columns) and is_timed:
        if history.ahead is None or history.rows.ds is None:
            problems.append("the calendar features need time stamps. Give them as index or in a column `ds`.")
        else:
            past_parts.append(_calendar(history.rows.ds, known))
            features = _calendar(history.ahead, known)
            ahead_parts.insert(0, features.reshape(-1, signature.horizon, features.shape[1]))
    if problems:
        raise DataError(listed(problems, "the frame"))
    first, second = len(signature.channels), len(signature.channels) + len(signature.past)
    arrays = {"context": numbers(raw[:, :first], "x", signature.channels, 1, whole=True)}
    if signature.past:
        arrays["past"] = numbers(raw[:, first:second], "x", signature.past, 1, whole=True)
    if columns:
        past_parts.append(numbers(raw[:, second:], "x", columns, 1, whole=True))
    if not signature.future:
        return arrays, None
    arrays["future"] = np.concatenate(past_parts, axis=1)
    return arrays, np.concatenate(ahead_parts, axis=2)


def _calendar(stamps: pd.DatetimeIndex, known: Known) -> np.ndarray:
    """Calendar features of stamps, as their own clock shows them."""
    return clock.features(stamps.tz_localize(None).to_numpy(dtype="datetime64[ns]"), known.calendar, known.holidays)


def _as_frame(
    forecasts: np.ndarray,
    counts: np.ndarray,
    history: History,
    signature: SignatureLike,
    levels: tuple[float, ...],
    rolling: int | None,
) -> pd.DataFrame:
    """Forecasts (cutoff, horizon, channel), `counts` of each item, with the stamps and identifiers of the frame."""
    horizon = signature.horizon
    columns = list(signature.channels)
    if levels:
        columns = [f"{channel}-q{level:g}" for channel in columns for level in levels]
    item = np.repeat(np.arange(len(counts)), counts)
    # Where each forecast begins, counted in the steps of all items: the last of an item begins after its last row.
    later = np.cumsum(counts)[item] - 1 - np.arange(len(item))
    ends = history.rows.bounds[1:] + np.arange(len(counts)) * horizon
    firsts = ends[item] - later * (rolling or 1)
    if rolling is None and history.ahead is not None:  # the same, and nothing to look up among the rows before
        steps: pd.Index = history.ahead
        ahead = np.arange(len(steps))
    else:
        steps = _steps(history, horizon)
        ahead = (firsts[:, None] + np.arange(horizon)).ravel()
    keys: list[tuple[int | None, pd.Index | pd.Series]] = []
    if history.id is not None:
        rows = history.rows.row[history.rows.bounds[:-1]][np.repeat(item, horizon)]
        cells = history.id.cells
        taken = cells.iloc[rows] if isinstance(cells, pd.Series) else cells.take(rows)
        keys.append((history.id.level, taken))
    if history.time is not None:
        shown = steps if len(steps) == len(ahead) else steps.take(ahead)
        keys.append((history.time.level, _typed(shown, history).rename(history.time.name)))
    result = pd.DataFrame(forecasts.reshape(len(ahead), -1), columns=columns)
    if rolling is not None:
        result.insert(0, "cutoff", _typed(steps.take(np.repeat(firsts - 1, horizon)), history))
    in_columns = [key for level, key in keys if level is None]
    for position, key in enumerate(in_columns):
        result.insert(position, text_of(key.name), key.array)
    in_index = [pd.Index(key) for _, key in sorted((k for k in keys if k[0] is not None), key=lambda k: k[0] or 0)]
    if len(in_index) > 1:
        result.index = pd.MultiIndex.from_arrays(in_index)
    elif in_index:
        result.index = in_index[0]
    elif history.time is None:
        result.index = steps.take(ahead)
    return result


def _steps(history: History, horizon: int) -> pd.Index:
    """Stamps, or numbers, of each item's rows and of the steps after them, one item after the other."""
    rows = history.rows
    lengths = np.diff(rows.bounds)
    n_items = len(lengths)
    total = len(rows.row) + n_items * horizon
    places = np.arange(len(rows.row)) + np.repeat(np.arange(n_items) * horizon, lengths)
    if rows.ds is None or history.ahead is None:
        index = history.frame.index
        if history.id is None and isinstance(index, pd.RangeIndex):
            first = index.stop - len(rows.row) * index.step
            return pd.RangeIndex(first, index.stop + horizon * index.step, index.step)
        # Counted within each item, from its first row in the frame.
        ends = rows.bounds[1:] + np.arange(n_items) * horizon
        return pd.Index(np.arange(total) + np.repeat(history.lengths - ends, lengths + horizon))
    values = np.empty(total, dtype=np.int64)
    is_given = np.zeros(total, dtype=bool)
    is_given[places] = True
    values[is_given] = rows.ds.asi8
    values[~is_given] = history.ahead.asi8
    stamps = pd.DatetimeIndex(values.view(f"M8[{rows.ds.unit}]"))
    return stamps if rows.ds.tz is None else stamps.tz_localize("UTC").tz_convert(rows.ds.tz)


def _typed(stamps: pd.Index, history: History) -> pd.Index:
    """Stamps of the unit that the frame's have, periods for periods; numbers as they are."""
    if not isinstance(stamps, pd.DatetimeIndex) or history.time is None:
        return stamps
    kind: Any = history.time.cells.dtype
    if isinstance(kind, pd.PeriodDtype):
        return stamps.to_period(kind.freq.freqstr)
    unit: Any = (
        np.datetime_data(kind)[0] if isinstance(kind, np.dtype) and kind.kind == "M" else getattr(kind, "unit", None)
    )
    if unit in ("s", "ms") and (stamps.as_unit(unit) == stamps).all():
        return stamps.as_unit(unit)
    return stamps
