"""Raw input for forecasting, checked, and the forecast given back in the form the input had: arrays or pandas frames.

Shared by every object that predicts, trainable or deployed. numpy only; pandas is touched when the caller hands over a
frame, and has then loaded it already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tsdistill import clock
from tsdistill.errors import DataError, ShapeError, listed, must, nearest

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 64
"""Most windows run at once: bounds memory, and with dynamic INT8 the number of batch mates."""


class Known(Protocol):
    """What is known besides the channels; `tsdistill.data.covariates.Covariates` is one."""

    @property
    def calendar(self) -> Sequence[str]:
        """Cycles of the clock."""

    @property
    def holidays(self) -> Sequence[str]:
        """ISO dates."""

    @property
    def future(self) -> Sequence[str]:
        """Columns known ahead."""


class SignatureLike(Protocol):
    """What a forecaster takes and gives; `tsdistill.data.task.Signature` is one."""

    @property
    def context(self) -> int:
        """Past steps."""

    @property
    def horizon(self) -> int:
        """Future steps."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the value columns."""

    @property
    def frequency(self) -> str | None:
        """Step width as a pandas offset alias."""

    @property
    def future(self) -> tuple[str, ...]:
        """Features known for the horizon, calendar features first."""

    @property
    def past(self) -> tuple[str, ...]:
        """Columns known up to now only."""

    @property
    def covariates(self) -> Known | None:
        """How they are made; None without any."""


Predict = Callable[..., np.ndarray]
"""Forecasts of raw float32 arrays given by name: `context` and, where the signature has them, `future` and `past`."""


def predict_raw(
    x: np.ndarray | pd.DataFrame,
    signature: SignatureLike,
    predict: Predict,
    *,
    future: np.ndarray | pd.DataFrame | None = None,
    past: np.ndarray | None = None,
    levels: tuple[float, ...] = (),
) -> np.ndarray | pd.DataFrame:
    """Check raw input, forecast it, and give the forecast back in the form the input had.

    Arrays are (batch, context, channel) or (context, channel) and give float32 (batch, horizon, channel) or (horizon,
    channel). A wide frame has the channels as columns and its stamps as index, as column `ds` or as its only other
    column of stamps; a long frame has a column `unique_id` too and gives one forecast per item. The result is a frame
    of the `horizon` steps after the last stamp, in the same time zone. More steps than `context` are allowed: the last
    are used.

    Covariates: a frame brings its past and planned columns along, its calendar features are made from its stamps, and
    `future` is a frame with the planned columns of the horizon (by stamp, or `horizon` rows without stamps). With
    arrays, `future` is (batch, context + horizon, feature), every feature of `signature.future` in order, and `past`
    is (batch, context, feature).

    Args:
        x: Raw values.
        signature: Steps, channels, frequency and covariates.
        predict: What forecasts arrays, all in raw units.
        future: What is known of the horizon.
        past: Past covariates of an array.
        levels: Quantile levels when `predict` gives quantiles: arrays have one more axis, frames a column
            `channel-q0.1` for each.

    Returns:
        Forecasts in raw units: an array for an array, a frame for a frame.

    Raises:
        ShapeError: Too few steps, or not the channels there should be.
        DataError: Values that are no finite numbers, unknown columns, stamps that do not step by the frequency, or
            covariates that are missing or not asked for.
    """
    if hasattr(x, "columns"):
        return _predict_frame(x, signature, predict, future, levels)
    values = _numbers(x, "x", signature.channels, signature.context)
    alone = values.ndim == 2
    n_steps = signature.context + signature.horizon
    inputs = {"context": values[None] if alone else values}
    for name, given, features, steps in (
        ("future", future, signature.future, n_steps),
        ("past", past, signature.past, signature.context),
    ):
        if given is None and not features:
            continue
        if given is None or not features:
            wanted = f"([batch,] {steps}, {len(features)}): {', '.join(features)}" if features else "None"
            raise DataError(must(name, f"be {wanted}", None if given is None else "an array", "See the signature"))
        found = _numbers(given, name, features, steps)
        inputs[name] = found[None] if found.ndim == 2 else found
        if len(inputs[name]) != len(inputs["context"]):
            rule = f"have one entry for each of the {len(inputs['context'])} windows"
            raise ShapeError(must(name, rule, found.shape, "Give as many as contexts"))
    forecast = _in_chunks(inputs, signature, predict, levels)
    return forecast[0] if alone else forecast


def _in_chunks(
    inputs: dict[str, np.ndarray], signature: SignatureLike, predict: Predict, levels: tuple[float, ...]
) -> np.ndarray:
    inputs = {name: np.ascontiguousarray(values) for name, values in inputs.items()}
    n_windows = len(inputs["context"])
    if n_windows == 0:
        shape = (0, signature.horizon, len(signature.channels), *([len(levels)] if levels else []))
        return np.empty(shape, dtype=np.float32)
    return np.concatenate(
        [
            predict(**{name: values[row : row + CHUNK] for name, values in inputs.items()})
            for row in range(0, n_windows, CHUNK)
        ]
    )


def _numbers(x: Any, name: str, columns: Sequence[str], steps: int) -> np.ndarray:
    """A checked float32 array of 2 or 3 axes, its last `steps` steps."""
    shape = f"([batch,] {steps} or more, {len(columns)})"
    try:
        values = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ShapeError(f"`{name}` must be an array of shape {shape}, got a {type(x).__name__}: {error}.") from None
    if values.dtype.kind not in "fiu":
        raise DataError(must(name, "hold real numbers", str(values.dtype), "Convert it with astype(float)"))
    if values.ndim not in (2, 3) or values.shape[-1] != len(columns) or values.shape[-2] < steps:
        kind = "channels" if name == "x" else "features"
        raise ShapeError(
            f"`{name}` must have shape {shape}, got {values.shape}. Axes are batch, time, channel; the {kind} are "
            f"{', '.join(columns)}."
        )
    with np.errstate(over="ignore"):
        values = values[..., -steps:, :].astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        counts = bad.sum(axis=tuple(range(values.ndim - 1)))
        named = [f"{column} ({count})" for column, count in zip(columns, counts, strict=True) if count]
        raise DataError(
            f"`{name}` must hold finite numbers, got {bad.sum()} that are not, in the channels {', '.join(named)}. "
            "Fill the gaps first, for example with frame.interpolate()."
        )
    return values


def _predict_frame(
    frame: Any, signature: SignatureLike, predict: Predict, planned: Any, levels: tuple[float, ...]
) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            must("x", "be an array or a pandas frame", type(frame).__name__, "Convert it with .to_pandas()")
        )
    columns = _planned_columns(signature)
    if (planned is None) == bool(columns) or not isinstance(planned, pd.DataFrame | None):
        wanted = f"be a frame of the horizon's {', '.join(columns)}" if columns else "be None without planned columns"
        raise DataError(must("future", wanted, type(planned).__name__, "They are known ahead, so name their values"))
    stamps = _check_columns(frame, signature)
    if "unique_id" not in frame.columns or "unique_id" in signature.channels:
        inputs, index = _item(frame, stamps, signature, "x", planned)
        batch = {name: values[None] for name, values in inputs.items()}
        return _as_frame(_in_chunks(batch, signature, predict, levels)[0], index, stamps, signature, levels)
    if frame["unique_id"].isna().any():
        raise DataError("`unique_id` must name an item in every row, got empty cells. Fill or drop these rows.")
    items, problems = {}, []
    for name, rows in frame.groupby("unique_id", sort=False):
        mine = planned[planned["unique_id"] == name] if planned is not None and "unique_id" in planned else planned
        try:
            items[name] = _item(rows, stamps, signature, f"item {name!r}", mine)
        except (ShapeError, DataError) as error:
            problems.append(str(error))
    if problems or not items:
        raise DataError(listed(problems or ["`x` must hold at least one item, got an empty frame."], "the frame"))
    given = [inputs for inputs, _ in items.values()]
    stacked = {name: np.stack([inputs[name] for inputs in given]) for name in given[0]}
    forecasts = _in_chunks(stacked, signature, predict, levels)
    parts = []
    for (name, (_, index)), forecast in zip(items.items(), forecasts, strict=True):
        part = _as_frame(forecast, index, stamps, signature, levels)
        part.insert(0, "unique_id", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=stamps is not None)


def _planned_columns(signature: SignatureLike) -> tuple[str, ...]:
    return tuple(signature.covariates.future) if signature.covariates is not None else ()


def _check_columns(frame: pd.DataFrame, signature: SignatureLike) -> str | None:
    """Name of the column of stamps, None when they are in the index; problems with columns come in one error."""
    from pandas.api import types

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
    rows: pd.DataFrame, time: str | None, signature: SignatureLike, label: str, planned: pd.DataFrame | None
) -> tuple[dict[str, np.ndarray], pd.Index]:
    """Checked arrays of the last `context` rows by name, and the index of the `horizon` steps after them."""
    if len(rows) < signature.context:
        raise ShapeError(
            f"`x` must hold at least context = {signature.context} steps, got {len(rows)} in {label}. "
            "Give a longer history."
        )
    index = _future(rows, time, signature, label)
    recent = rows.iloc[-signature.context :]

    def numbers(table: pd.DataFrame, name: str, columns: Sequence[str]) -> np.ndarray:
        try:
            return _numbers(table[list(columns)].to_numpy(dtype=np.float64, na_value=np.nan), name, columns, len(table))
        except DataError as error:
            raise DataError(f"In {label}: {error}") from None

    inputs = {"context": numbers(recent, "x", signature.channels)}
    if signature.past:
        inputs["past"] = numbers(recent, "x", signature.past)
    if signature.future and signature.covariates is not None:
        parts, columns = [], _planned_columns(signature)
        if len(signature.future) > len(columns):
            parts.append(_calendar(recent.index if time is None else recent[time], index, signature.covariates, label))
        if planned is not None:
            ahead = _ahead(planned, time, index, columns, label)
            both = (numbers(recent, "x", columns), numbers(ahead, "future", columns))
            parts.append(np.concatenate(both))
        inputs["future"] = np.concatenate(parts, axis=1)
    return inputs, index


def _calendar(recent: Any, index: pd.Index, known: Known, label: str) -> np.ndarray:
    """Features of the clock for context and horizon."""
    import pandas as pd

    if not isinstance(index, pd.DatetimeIndex):
        raise DataError(f"the calendar features of {label} need time stamps. Give them as index or in a column `ds`.")
    stamps = pd.DatetimeIndex([*pd.DatetimeIndex(recent), *index])
    return clock.features(stamps.tz_localize(None).to_numpy(dtype="datetime64[ns]"), known.calendar, known.holidays)


def _ahead(
    planned: pd.DataFrame, time: str | None, index: pd.Index, columns: Sequence[str], label: str
) -> pd.DataFrame:
    """The rows of planned values that belong to the horizon, in order."""
    import pandas as pd

    if missing := [column for column in columns if column not in planned.columns]:
        raise DataError(f"`future` must have the columns {', '.join(columns)}, got none called {', '.join(missing)}.")
    if time is not None and time in planned.columns:
        planned = planned.set_index(time)
    if isinstance(planned.index, pd.DatetimeIndex):
        absent = index.difference(planned.index)
        if len(absent) or planned.index.has_duplicates:
            found = f"{len(absent)} of them missing, the first {absent[0]}" if len(absent) else "some of them twice"
            raise DataError(f"`future` must hold the {len(index)} steps after {label} once each, got {found}.")
        return planned.loc[index]
    if len(planned) != len(index):
        remedy = "Give the planned values of the horizon, or stamps to find them by"
        raise DataError(must("future", f"hold {len(index)} rows for {label}", len(planned), remedy))
    return planned


def _future(rows: pd.DataFrame, time: str | None, signature: SignatureLike, label: str) -> pd.Index:
    import pandas as pd

    index = rows.index if time is None else pd.Index(rows[time])
    if time is None and not isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
        if isinstance(index, pd.RangeIndex):
            return pd.RangeIndex(index.stop, index.stop + signature.horizon * index.step, index.step)
        return pd.RangeIndex(len(rows), len(rows) + signature.horizon)
    if isinstance(index, pd.PeriodIndex) or pd.api.types.is_numeric_dtype(index.dtype):
        rule = f"hold time stamps in {label}"
        raise DataError(must(time or "index", rule, str(index.dtype), "Use pd.to_datetime or .to_timestamp()"))
    try:
        stamps = pd.DatetimeIndex(index[-signature.context :])
    except (ValueError, TypeError) as error:
        raise DataError(f"`{time}` must hold time stamps in {label}: {error}. Use pd.to_datetime.") from None
    frequency: Any = signature.frequency
    if frequency is None:
        # Trained on data without regular stamps: go on as the frame's own last step does.
        frequency = stamps[-1] - stamps[-2] if len(stamps) > 1 else None
        if frequency is None or not frequency > pd.Timedelta(0):
            raise DataError(f"the stamps of {label} must be sorted and regular to be continued. Pass an array instead.")
    regular = pd.date_range(end=stamps[-1], periods=len(stamps), freq=frequency) if not stamps.hasnans else stamps[:0]
    if len(regular) != len(stamps) or not (regular == stamps).all():
        wrong = stamps[-1] if len(regular) != len(stamps) else stamps[np.flatnonzero(regular != stamps)[-1]]
        raise DataError(
            f"the last {len(stamps)} stamps of {label} must step by {frequency}, sorted and without gaps; the one "
            f"nearest the end that does not is {wrong}. Sort and fill the frame first."
        )
    future = pd.date_range(start=stamps[-1], periods=signature.horizon + 1, freq=frequency)[1:]
    # A frequency of its own would make the result unequal to the same stamps read from a file.
    return pd.DatetimeIndex(future, freq=None, name=index.name)  # type: ignore[arg-type]


def _as_frame(
    forecast: np.ndarray, index: pd.Index, time: str | None, signature: SignatureLike, levels: tuple[float, ...]
) -> pd.DataFrame:
    import pandas as pd

    columns = list(signature.channels)
    if levels:
        columns = [f"{channel}-q{level:g}" for channel in columns for level in levels]
        forecast = forecast.reshape(len(forecast), -1)
    result = pd.DataFrame(forecast, index=index, columns=columns)
    return result.rename_axis(index=time).reset_index() if time is not None else result
