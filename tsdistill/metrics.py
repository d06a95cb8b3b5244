"""Forecast errors as sums and counts, so that a metric never depends on how the windows were batched.

Every function takes arrays with the axes window, step, channel, and gives a `Total`: what was summed and how many
entries went into it. Totals of two batches add up to the total of both; a mean is taken once, at the end. All sums are
float64.

A metric can be split by naming the axes to keep: `mse(forecast, target, by="step")` is the error curve over the
horizon.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tsdistill.errors import ConfigError, ShapeError, must

Axis = Literal["window", "step", "channel"]
AXES: tuple[Axis, ...] = ("window", "step", "channel")
By = Axis | Iterable[Axis]


@dataclass(frozen=True, eq=False)
class Total:
    """A sum and the number of entries in it: the part of a metric that two batches can add.

    Use `mean` when all batches are added; never average means. `float(total)` is the mean of a total that was not
    split.

    Args:
        sum: Summed entries, a number or an array over the axes kept.
        count: How many entries (or which weight) stand behind each sum, of the same shape.

    Example:
        >>> first, second = mse([[[1.0]]], [[[3.0]]]), mse([[[0.0]], [[0.0]]], [[[1.0]], [[0.0]]])
        >>> (first + second).mean
        1.6666666666666667
    """

    sum: Any
    count: Any

    def __add__(self, other: Total) -> Total:
        if not isinstance(other, Total):
            return NotImplemented
        return Total(self.sum + other.sum, self.count + other.count)

    def __radd__(self, other: object) -> Total:
        # Lets the built-in sum() add totals: it starts from 0.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def mean(self) -> Any:
        """Sum over count; NaN where nothing was counted."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.true_divide(self.sum, self.count)
        return float(mean) if np.ndim(mean) == 0 else mean

    def __float__(self) -> float:
        if np.ndim(self.sum):
            raise ShapeError(
                f"`float(total)` needs an unsplit total, got sums of shape {np.shape(self.sum)}. Use `.mean`."
            )
        return float(self.mean)


def mse(forecast: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Mean squared error.

    mse = mean over windows, steps and channels of (forecast - target)^2

    The literature's main number on scaled data, where channels weigh alike; on raw data the channel with the largest
    unit decides. It rewards the conditional mean and punishes rare large misses.

    Args:
        forecast: (window, step, channel), in the unit of `target`.
        target: (window, step, channel).
        by: Axes to keep: "window", "step", "channel" or several of them. Nothing: one number.
        mask: (window, step, channel), True where an entry counts. None: all count.

    Returns:
        A `Total` in squared units of the target.

    Raises:
        ShapeError: The arrays do not share one shape of three axes.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> mse([[[1.0], [2.0]]], [[[3.0], [2.0]]]).mean
        2.0
    """
    forecast, target = _pair(forecast, target)
    return _total((forecast - target) ** 2, by, mask)


def mae(forecast: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Mean absolute error.

    mae = mean over windows, steps and channels of |forecast - target|

    Use it beside `mse`: it rewards the conditional median and is not ruled by a few large misses.

    Args:
        forecast: (window, step, channel), in the unit of `target`.
        target: (window, step, channel).
        by: Axes to keep, see `mse`.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` in units of the target.

    Raises:
        ShapeError: The arrays do not share one shape of three axes.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> mae([[[1.0], [2.0]]], [[[3.0], [2.0]]], by="step").mean
        array([2., 0.])
    """
    forecast, target = _pair(forecast, target)
    return _total(np.abs(forecast - target), by, mask)


def smape(forecast: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Symmetric mean absolute percentage error, in percent from 0 to 200.

    smape = 200 * mean of |forecast - target| / (|forecast| + |target|), an entry of 0 / 0 counting as 0

    Use it on raw, positive data of very different sizes (M4). Do not use it on scaled data or on data around zero,
    where it jumps to 200 for any miss.

    Args:
        forecast: (window, step, channel), raw units.
        target: (window, step, channel), raw units.
        by: Axes to keep, see `mse`.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` in percent.

    Raises:
        ShapeError: The arrays do not share one shape of three axes.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> smape([[[1.0], [0.0]]], [[[3.0], [0.0]]]).mean
        50.0

    Source:
        S. Makridakis, E. Spiliotis, V. Assimakopoulos, "The M4 Competition: 100,000 time series and 61 forecasting
        methods", International Journal of Forecasting 36(1), 2020, section 2.3.
    """
    forecast, target = _pair(forecast, target)
    size = np.abs(forecast) + np.abs(target)
    ratio = np.divide(np.abs(forecast - target), size, out=np.zeros_like(size), where=size > 0)
    return _total(200 * ratio, by, mask)


def mase(forecast: Any, target: Any, scale: Any, *, by: By = (), mask: Any = None) -> Total:
    """Mean absolute scaled error: below 1 is better than the seasonal naive forecast was in training.

    mase = mean of |forecast - target| / scale, scale = mean over training steps t of |y[t] - y[t - period]|

    Use it to average over series of different sizes. The scale comes from the training part alone (`naive_scale`).

    Args:
        forecast: (window, step, channel), in the unit of `target`.
        target: (window, step, channel).
        scale: In the unit of the target, of a shape that broadcasts to (window, channel): one per channel, or one per
            window and channel when windows come from several items. Entries that are not above 0 (a series that never
            moved in training) have no scaled error: they are left out of sum and count.
        by: Axes to keep, see `mse`.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` without unit.

    Raises:
        ShapeError: The arrays do not share one shape of three axes, or `scale` does not broadcast.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> mase([[[1.0], [2.0]]], [[[3.0], [2.0]]], scale=[4.0]).mean
        0.25

    Source:
        R. J. Hyndman, A. B. Koehler, "Another look at measures of forecast accuracy", International Journal of
        Forecasting 22(4), 2006, section 3.
    """
    forecast, target = _pair(forecast, target)
    scale, known = _scale(scale, forecast)
    return _total(np.abs(forecast - target) / scale, by, known if mask is None else known & _mask(mask, forecast))


def rmsse(forecast: Any, target: Any, scale: Any, *, by: By = (), mask: Any = None) -> Total:
    """Root mean squared scaled error of each window and channel, averaged (the M5 score, unweighted).

    rmsse = mean over windows and channels of sqrt(mean over steps of (forecast - target)^2 / scale^2)

    Use it where the mean, not the median, is wanted of series of different sizes. The root is taken per window and
    channel, so it cannot be split by step.

    Args:
        forecast: (window, step, channel), in the unit of `target`.
        target: (window, step, channel).
        scale: Root mean squared seasonal difference of the training part (`naive_scale(..., squared=True)`), of a shape
            that broadcasts to (window, channel); entries that are not above 0 are left out.
        by: Axes to keep: "window", "channel" or both.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` without unit.

    Raises:
        ShapeError: The arrays do not share one shape of three axes, or `scale` does not broadcast.
        ConfigError: `by` names an unknown axis or "step".

    Example:
        >>> rmsse([[[1.0], [2.0]]], [[[3.0], [2.0]]], scale=[2.0]).mean
        0.7071067811865476

    Source:
        S. Makridakis, E. Spiliotis, V. Assimakopoulos, "M5 accuracy competition: Results, findings, and conclusions",
        International Journal of Forecasting 38(4), 2022, section 2.4.
    """
    kept = _kept(by)
    if "step" in kept:
        raise ConfigError(must("by", 'be made of "window" and "channel"', by, "The root is taken over the steps"))
    forecast, target = _pair(forecast, target)
    scale, known = _scale(scale, forecast)
    squared = _total(((forecast - target) / scale) ** 2, ("window", "channel"), mask)
    roots = np.sqrt(squared.mean)[:, None, :]
    return _total(roots, kept, known[:, :1] & (squared.count > 0)[:, None, :])


def wql(forecast: Any, target: Any, levels: Any, *, by: By = (), mask: Any = None) -> Total:
    """Weighted quantile loss: summed pinball loss relative to the summed size of the targets.

    wql = mean over levels q of 2 * sum of max(q * (y - f), (q - 1) * (y - f)) / sum of |y|

    Use it for quantile forecasts on raw data. The `count` of the total is the summed |target|.

    Args:
        forecast: (window, step, channel, quantile), raw units.
        target: (window, step, channel), raw units.
        levels: (quantile,), each between 0 and 1.
        by: Axes to keep, see `mse`.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` without unit.

    Raises:
        ShapeError: The arrays do not fit together.
        ConfigError: A level is not between 0 and 1, or `by` names an unknown axis.

    Example:
        >>> wql([[[[1.0, 4.0]]]], [[[2.0]]], levels=[0.5, 0.9]).mean
        0.35

    Source:
        Y. Park, D. Maddix, F.-X. Aubet, K. Kan, J. Gasthaus, Y. Wang, "Learning Quantile Functions without Quantile
        Crossing for Distribution-free Time Series Forecasting", AISTATS 2022, section 5 (mean over levels).
    """
    levels = np.asarray(levels, dtype=np.float64)
    forecast, target = np.asarray(forecast, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if target.ndim != 3 or forecast.shape != (*target.shape, *levels.shape) or levels.ndim != 1:
        raise ShapeError(
            "`forecast` must have shape (window, step, channel, quantile) to a target (window, step, channel) and "
            f"levels (quantile,), got {forecast.shape}, {target.shape} and {levels.shape}. "
            "Put the quantiles on the last axis."
        )
    if not ((levels > 0) & (levels < 1)).all():
        raise ConfigError(must("levels", "lie between 0 and 1", levels.tolist(), "Give shares, not percent"))
    miss = target[..., None] - forecast
    pinball = 2 * np.maximum(levels * miss, (levels - 1) * miss).mean(axis=-1)
    return Total(_total(pinball, by, mask).sum, _total(np.abs(target), by, mask).sum)


def coverage(lower: Any, upper: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Share of targets that lie in their forecast interval, borders included.

    Compare it with the nominal share: above is too wide, below too narrow. It says nothing about the width itself.

    Args:
        lower: (window, step, channel), in the unit of `target`.
        upper: (window, step, channel).
        target: (window, step, channel).
        by: Axes to keep, see `mse`.
        mask: True where an entry counts, see `mse`.

    Returns:
        A `Total` between 0 and 1.

    Raises:
        ShapeError: The arrays do not share one shape of three axes.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> coverage([[[0.0], [0.0]]], [[[1.0], [1.0]]], [[[0.5], [2.0]]]).mean
        0.5
    """
    lower, target = _pair(lower, target, names=("lower", "target"))
    upper, target = _pair(upper, target, names=("upper", "target"))
    return _total(((lower <= target) & (target <= upper)).astype(np.float64), by, mask)


def crossing_rate(forecast: Any, *, by: By = (), mask: Any = None) -> Total:
    """Share of neighbouring quantiles that cross: those of the higher level lying below those of the lower one.

    Above 0 a forecast contradicts itself. Quantiles that touch do not cross.

    Args:
        forecast: (window, step, channel, quantile), levels rising along the last axis, at least two.
        by: Axes to keep, see `mse`.
        mask: (window, step, channel), True where an entry counts, see `mse`.

    Returns:
        A `Total` between 0 and 1.

    Raises:
        ShapeError: `forecast` does not have four axes, or fewer than two quantiles.
        ConfigError: `by` names an unknown axis.

    Example:
        >>> crossing_rate([[[[1.0, 2.0, 1.5]]]]).mean
        0.5
    """
    forecast = np.asarray(forecast, dtype=np.float64)
    if forecast.ndim != 4 or forecast.shape[-1] < 2:
        raise ShapeError(
            "`forecast` must have shape (window, step, channel, quantile) with at least 2 quantiles, got "
            f"{forecast.shape}. Put the quantiles on the last axis."
        )
    return _total((forecast[..., 1:] < forecast[..., :-1]).mean(axis=-1), by, mask)


def naive_scale(series: Any, period: int = 1, *, squared: bool = False) -> np.ndarray:
    """How far a training series moves within a season: the yardstick of `mase` and `rmsse`.

    scale = mean over t of |y[t] - y[t - period]|, or with `squared` the root of the mean square

    Args:
        series: (time, channel), the training part only, in the unit the forecasts will have.
        period: Steps of a season; 1 for series without one.
        squared: True for the scale of `rmsse`.

    Returns:
        (channel,), NaN when the series is not longer than the period.

    Raises:
        ShapeError: `series` does not have two axes.
        ConfigError: `period` is below 1.

    Example:
        >>> naive_scale([[1.0], [2.0], [4.0]])
        array([1.5])
    """
    series = np.asarray(series, dtype=np.float64)
    if series.ndim != 2:
        raise ShapeError(f"`series` must have shape (time, channel), got {series.shape}. Pass one item at a time.")
    if period < 1:
        raise ConfigError(must("period", "be at least 1", period, "Use 1 for series without a season"))
    if len(series) <= period:
        return np.full(series.shape[1], np.nan)
    moves = np.abs(series[period:] - series[:-period])
    return np.sqrt((moves**2).mean(axis=0)) if squared else moves.mean(axis=0)


def _pair(first: Any, second: Any, names: tuple[str, str] = ("forecast", "target")) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 of one shape with three axes."""
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 3 or first.shape != second.shape:
        raise ShapeError(
            f"`{names[0]}` and `{names[1]}` must have one shape (window, step, channel), got {first.shape} and "
            f"{second.shape}. Pass both as windows; nothing is broadcast."
        )
    return first, second


def _kept(by: By) -> tuple[Axis, ...]:
    kept = (by,) if isinstance(by, str) else tuple(by)
    if unknown := [name for name in kept if name not in AXES]:
        raise ConfigError(must("by", f"be made of {', '.join(AXES)}", unknown[0], "Name the axes to keep"))
    return kept


def _mask(mask: Any, like: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != like.shape:
        raise ShapeError(f"`mask` must have the target's shape {like.shape}, got {mask.shape}. Mark every entry.")
    return mask


def _scale(scale: Any, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale as (window, 1, channel), 1 where it is unusable, and where it is usable in full shape."""
    shape = (like.shape[0], like.shape[2])
    try:
        scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), shape)[:, None, :]
    except ValueError:
        raise ShapeError(
            f"`scale` must broadcast to (window, channel) = {shape}, got {np.shape(scale)}. Give one per channel."
        ) from None
    known = scale > 0
    return np.where(known, scale, 1.0), np.broadcast_to(known, like.shape)


def _total(values: np.ndarray, by: By, mask: Any) -> Total:
    """Sum over the axes that are not kept, entries outside the mask left out (even when they are not finite)."""
    kept = _kept(by)
    gone = tuple(position for position, name in enumerate(AXES) if name not in kept)
    if mask is None:
        count = np.full([size for position, size in enumerate(values.shape) if position not in gone], 1, dtype=np.int64)
        summed = values.sum(axis=gone)
        count = count * int(np.prod([values.shape[position] for position in gone], dtype=np.int64))
    else:
        mask = _mask(mask, values)
        summed, count = np.where(mask, values, 0.0).sum(axis=gone), mask.sum(axis=gone)
    return Total(summed, count) if kept else Total(float(summed), int(count))
