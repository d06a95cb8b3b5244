"""Raw input for forecasting, checked, and the forecast given back in the form the input had: arrays or pandas frames.

Shared by every object that predicts, trainable or deployed. numpy only; pandas is touched when the caller hands over a
frame, and has then loaded it already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tsdistill.errors import DataError, ShapeError, listed, must, nearest

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 64
"""Most windows run at once: bounds memory, and with dynamic INT8 the number of batch mates."""


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


def predict_raw(
    x: np.ndarray | pd.DataFrame, signature: SignatureLike, predict_array: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray | pd.DataFrame:
    """Check raw input, forecast it, and give the forecast back in the form the input had.

    Arrays are (batch, context, channel) or (context, channel) and give float32 (batch, horizon, channel) or (horizon,
    channel). A wide frame has the channels as columns and its stamps as index, as column `ds` or as its only other
    column of stamps; a long frame has a column `unique_id` too and gives one forecast per item. The result is a frame
    of the `horizon` steps after the last stamp, in the same time zone. More steps than `context` are allowed: the last
    are used.

    Args:
        x: Raw values.
        signature: Steps, channels and frequency.
        predict_array: Float32 contexts (batch, context, channel) to forecasts (batch, horizon, channel), raw units.

    Returns:
        Forecasts in raw units: an array for an array, a frame for a frame.

    Raises:
        ShapeError: Too few steps, or not the channels there should be.
        DataError: Values that are no finite numbers, unknown columns, or stamps that do not step by the frequency.
    """
    if hasattr(x, "columns"):
        return _predict_frame(x, signature, predict_array)
    values = _numbers(x, signature)
    forecast = _in_chunks(values if values.ndim == 3 else values[None], signature, predict_array)
    return forecast if values.ndim == 3 else forecast[0]


def _in_chunks(
    context: np.ndarray, signature: SignatureLike, predict_array: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    context = np.ascontiguousarray(context[:, -signature.context :])
    if len(context) == 0:
        return np.empty((0, signature.horizon, len(signature.channels)), dtype=np.float32)
    return np.concatenate([predict_array(context[row : row + CHUNK]) for row in range(0, len(context), CHUNK)])


def _numbers(x: Any, signature: SignatureLike) -> np.ndarray:
    """A checked float32 array of 2 or 3 axes."""
    shape = f"([batch,] {signature.context} or more, {len(signature.channels)})"
    try:
        values = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ShapeError(f"`x` must be an array of shape {shape}, got a {type(x).__name__}: {error}.") from None
    if values.dtype.kind not in "fiu":
        raise DataError(must("x", "hold real numbers", str(values.dtype), "Convert it with astype(float)"))
    if values.ndim not in (2, 3) or values.shape[-1] != len(signature.channels) or values.shape[-2] < signature.context:
        raise ShapeError(
            f"`x` must have shape {shape}, got {values.shape}. Axes are batch, time, channel; the channels are "
            f"{', '.join(signature.channels)}."
        )
    with np.errstate(over="ignore"):
        values = values[..., -signature.context :, :].astype(np.float32)
    bad = ~np.isfinite(values)
    if bad.any():
        counts = bad.sum(axis=tuple(range(values.ndim - 1)))
        named = [f"{name} ({count})" for name, count in zip(signature.channels, counts, strict=True) if count]
        raise DataError(
            f"`x` must hold finite numbers, got {bad.sum()} that are not, in the channels {', '.join(named)}. Fill the "
            "gaps first, for example with frame.interpolate()."
        )
    return values


def _predict_frame(
    frame: Any, signature: SignatureLike, predict_array: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            must("x", "be an array or a pandas frame", type(frame).__name__, "Convert it with .to_pandas()")
        )
    stamps = _check_columns(frame, signature)
    if "unique_id" not in frame.columns or "unique_id" in signature.channels:
        values, future = _item(frame, stamps, signature, "x")
        return _as_frame(_in_chunks(values[None], signature, predict_array)[0], future, stamps, signature)
    if frame["unique_id"].isna().any():
        raise DataError("`unique_id` must name an item in every row, got empty cells. Fill or drop these rows.")
    items, problems = {}, []
    for name, rows in frame.groupby("unique_id", sort=False):
        try:
            items[name] = _item(rows, stamps, signature, f"item {name!r}")
        except (ShapeError, DataError) as error:
            problems.append(str(error))
    if problems or not items:
        raise DataError(listed(problems or ["`x` must hold at least one item, got an empty frame."], "the frame"))
    forecasts = _in_chunks(np.stack([values for values, _ in items.values()]), signature, predict_array)
    parts = []
    for (name, (_, future)), forecast in zip(items.items(), forecasts, strict=True):
        part = _as_frame(forecast, future, stamps, signature)
        part.insert(0, "unique_id", name)
        parts.append(part)
    return pd.concat(parts, ignore_index=stamps is not None)


def _check_columns(frame: pd.DataFrame, signature: SignatureLike) -> str | None:
    """Name of the column of stamps, None when they are in the index; problems with columns come in one error."""
    from pandas.api import types

    names = [str(name) for name in frame.columns]
    problems = [
        f"column {name!r} stands in the frame twice. Keep one."
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    missing = [name for name in signature.channels if name not in names]
    problems += [f"column {name!r} is missing. {nearest(name, names) if names else ''}".rstrip() for name in missing]
    others = [name for name in names if name not in signature.channels and name != "unique_id"]
    times = [name for name in others if name == "ds"] or [
        name for name in others if types.is_datetime64_any_dtype(frame[name].dtype)
    ]
    if len(times) > 1:
        problems.append(
            f"there are {len(times)} columns of stamps: {', '.join(times)}. Keep one, or rename it to `ds`."
        )
    unknown = [name for name in others if name not in times]
    known = (*signature.channels, "ds", "unique_id")
    problems += [f"column {name!r} is unknown. {nearest(name, known)} Drop it if it is not needed." for name in unknown]
    texts = [name for name in signature.channels if name in names and not types.is_numeric_dtype(frame.dtypes[name])]
    problems += [f"column {name!r} must hold numbers, got {frame.dtypes[name]}. Use pd.to_numeric." for name in texts]
    if problems:
        raise DataError(listed(problems, "the frame"))
    return times[0] if times else None


def _item(rows: pd.DataFrame, time: str | None, signature: SignatureLike, label: str) -> tuple[np.ndarray, pd.Index]:
    """Checked values of the last `context` rows, and the index of the `horizon` steps after them."""
    if len(rows) < signature.context:
        raise ShapeError(
            f"`x` must hold at least context = {signature.context} steps, got {len(rows)} in {label}. "
            "Give a longer history."
        )
    future = _future(rows, time, signature, label)
    recent = rows[list(signature.channels)].iloc[-signature.context :]
    try:
        return _numbers(recent.to_numpy(dtype=np.float64, na_value=np.nan), signature), future
    except DataError as error:
        raise DataError(f"In {label}: {error}") from None


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


def _as_frame(forecast: np.ndarray, future: pd.Index, time: str | None, signature: SignatureLike) -> pd.DataFrame:
    import pandas as pd

    result = pd.DataFrame(forecast, index=future, columns=list(signature.channels))
    return result.rename_axis(index=time).reset_index() if time is not None else result
