"""Errors of single-number forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdistill.errors import ConfigError, ShapeError, must
from tsdistill.metrics.totals import By, Total, axes_kept, masked, pair, total_of, yardstick


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
    forecast, target = pair(forecast, target)
    return total_of((forecast - target) ** 2, by, mask)


def mae(forecast: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Mean absolute error.

    mae = mean over windows, steps and channels of |forecast - target|

    Use it beside `mse`: it rewards the conditional median and is not dominated by a few large misses.

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
    forecast, target = pair(forecast, target)
    return total_of(np.abs(forecast - target), by, mask)


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
    forecast, target = pair(forecast, target)
    size = np.abs(forecast) + np.abs(target)
    ratio = np.divide(np.abs(forecast - target), size, out=np.zeros_like(size), where=size > 0)
    return total_of(200 * ratio, by, mask)


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
    forecast, target = pair(forecast, target)
    scale, known = yardstick(scale, forecast)
    return total_of(np.abs(forecast - target) / scale, by, known if mask is None else known & masked(mask, forecast))


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
    kept = axes_kept(by)
    if "step" in kept:
        raise ConfigError(must("by", 'be made of "window" and "channel"', by, "The root is taken over the steps"))
    forecast, target = pair(forecast, target)
    scale, known = yardstick(scale, forecast)
    squared = total_of(((forecast - target) / scale) ** 2, ("window", "channel"), mask)
    roots = np.sqrt(squared.mean)[:, None, :]
    return total_of(roots, kept, known[:, :1] & (squared.count > 0)[:, None, :])


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
