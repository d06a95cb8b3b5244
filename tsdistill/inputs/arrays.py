"""Raw arrays for forecasting: checked, cut into windows, run in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from tsdistill.errors import ConfigError, DataError, ShapeError, must
from tsdistill.inputs.levels import centred, levels_of_windows, offset_of, units_of
from tsdistill.tables.whole import WHOLE, lost_digits

CHUNK = 64
"""Most windows run at once: bounds memory, and with dynamic INT8 how many windows share a batch."""


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
"""Forecasts of float32 arrays given by name: `context` and, where the signature has them, `future` and `past`.

Both sides are raw units less the signature's offsets; see `tsdistill.inputs.levels`."""


def check_rolling(rolling: int | None) -> None:
    """ConfigError unless this is None or a count of steps."""
    if rolling is not None and (not isinstance(rolling, int) or isinstance(rolling, bool) or rolling < 1):
        remedy = "It is the number of steps between one forecast and the next"
        raise ConfigError(must("rolling", "be a whole number of at least 1, or None", rolling, remedy))


def predict_arrays(
    x: Any,
    signature: SignatureLike,
    predict: Predict,
    future: Any,
    past: Any,
    levels: tuple[float, ...],
    rolling: int | None,
) -> np.ndarray:
    """Forecasts of arrays; see `predict_raw`."""
    values = numbers(x, "x", signature.channels, signature.context, whole=rolling is not None, signature=signature)
    if rolling is not None and values.ndim != 2:
        rule = "be one history (time, channel) where forecasts are rolling"
        raise ShapeError(must("x", rule, values.shape, "Forecast the items one by one"))
    single = values.ndim == 2
    given_steps = values.shape[-2]
    inputs = {"context": values[None] if single else values}
    for name, given, features, steps in (
        ("future", future, signature.future, given_steps + signature.horizon),
        ("past", past, signature.past, given_steps),
    ):
        if given is None and not features:
            continue
        if given is None or not features:
            wanted = f"([batch,] {steps}, {len(features)}): {', '.join(features)}" if features else "None"
            raise DataError(must(name, f"be {wanted}", None if given is None else "an array", "See the signature"))
        checked = numbers(given, name, features, steps)
        inputs[name] = checked[None] if checked.ndim == 2 else checked
        if len(inputs[name]) != len(inputs["context"]):
            rule = f"have one entry for each of the {len(inputs['context'])} windows"
            raise ShapeError(must(name, rule, checked.shape, "Give as many as contexts"))
    if rolling is not None:
        history = {name: values[0] for name, values in inputs.items()}
        return in_chunks(windows_of(history, signature, rolling), signature, predict, levels)
    forecast = in_chunks(inputs, signature, predict, levels)
    return forecast[0] if single else forecast


def windows_of(history: dict[str, np.ndarray], signature: SignatureLike, rolling: int) -> dict[str, np.ndarray]:
    """Views (window, step, column) of one history's arrays (time, column): every `rolling`-th, ending with the last."""
    horizon = signature.horizon
    first = (len(history["context"]) - signature.context) % rolling
    steps = {"context": signature.context, "past": signature.context, "future": signature.context + horizon}
    return {
        name: np.lib.stride_tricks.sliding_window_view(values, steps[name], axis=0)[first::rolling].swapaxes(1, 2)
        for name, values in history.items()
    }


def in_chunks(
    inputs: dict[str, np.ndarray], signature: SignatureLike, predict: Predict, levels: tuple[float, ...]
) -> np.ndarray:
    """Forecasts of windows (window, step, column), at most `CHUNK` at once: the one place where raw values are cast.

    They are float32, but float64 where a level was subtracted from contexts that are not float32 themselves.
    """
    n_windows = len(inputs["context"])
    if n_windows == 0:
        shape = (0, signature.horizon, len(signature.channels), *([len(levels)] if levels else []))
        return np.empty(shape, dtype=np.float32)
    parts = [
        _forecast({name: values[row : row + CHUNK] for name, values in inputs.items()}, signature, predict)
        for row in range(0, n_windows, CHUNK)
    ]
    return np.concatenate(parts)


def _forecast(inputs: dict[str, np.ndarray], signature: SignatureLike, predict: Predict) -> np.ndarray:
    """Forecasts of a few windows of raw values."""
    context = inputs["context"]
    level = levels_of_windows(context, signature)
    offsets = {name: offset_of(signature, name, values.shape[-1]) for name, values in inputs.items()}
    forecast = predict(
        **{name: centred(values, {**offsets, "context": level}[name]) for name, values in inputs.items()}
    )
    if not level.any():
        return forecast
    with np.errstate(over="ignore", invalid="ignore"):
        raised = forecast + (level if forecast.ndim == 3 else level[..., None])
    return raised.astype(np.float32) if context.dtype == np.float32 else raised


def numbers(
    x: Any,
    name: str,
    columns: Sequence[str],
    steps: int,
    *,
    whole: bool = False,
    signature: SignatureLike | None = None,
) -> np.ndarray:
    """A checked float array of 2 or 3 axes: its last `steps` steps, or all of them if `whole`.

    float64, or float32 where it is given so: float32 would lose digits of values far from zero. Whole numbers beyond
    what float64 holds may not lose digits of what channels move by, which a signature tells.
    """
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
    values = values if whole else values[..., -steps:, :]
    _check_whole(values, name, columns, signature)
    values = values.astype(np.float32 if values.dtype in (np.float16, np.float32) else np.float64, copy=False)
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(values.astype(np.float32, copy=False))
    if bad.any():
        counts = bad.sum(axis=tuple(range(values.ndim - 1)))
        named = [f"{column} ({count})" for column, count in zip(columns, counts, strict=True) if count]
        raise DataError(
            f"`{name}` must hold finite numbers, got {bad.sum()} that are not, in the channels {', '.join(named)}. "
            "Fill the gaps first, for example with frame.interpolate()."
        )
    return values


def _check_whole(values: np.ndarray, name: str, columns: Sequence[str], signature: SignatureLike | None) -> None:
    """DataError where whole numbers lose digits that matter, each window by itself."""
    if values.dtype.kind not in "iu" or not values.size or max(-float(values.min()), float(values.max())) < WHOLE:
        return
    units = None if signature is None else units_of(signature)
    rows = values.reshape(-1, values.shape[-1])
    window = np.repeat(np.arange(len(rows) // values.shape[-2]), values.shape[-2])
    for place, column in enumerate(columns):
        unit = None if units is None else float(units[place])
        if lost := lost_digits(rows[:, place], rows[:, place].astype(np.float64), window, unit):
            raise DataError(
                f"`{name}`, column {column!r}, holds {lost}. Subtract a constant while they are whole numbers."
            )
