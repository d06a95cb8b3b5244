"""Errors of quantile forecasts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdistill.errors import ConfigError, ShapeError, must
from tsdistill.metrics.totals import By, Total, pair, total_of


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
    forecast = np.asarray(forecast, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if target.ndim != 3 or forecast.shape != (*target.shape, *levels.shape) or levels.ndim != 1:
        raise ShapeError(
            "`forecast` must have shape (window, step, channel, quantile) to a target (window, step, channel) and "
            f"levels (quantile,), got {forecast.shape}, {target.shape} and {levels.shape}. "
            "Put the quantiles on the last axis."
        )
    if not ((levels > 0) & (levels < 1)).all():
        raise ConfigError(must("levels", "lie between 0 and 1", levels.tolist(), "Give shares, not percent"))
    error = target[..., None] - forecast
    pinball = 2 * np.maximum(levels * error, (levels - 1) * error).mean(axis=-1)
    return Total(total_of(pinball, by, mask).sum, total_of(np.abs(target), by, mask).sum)


def coverage(lower: Any, upper: Any, target: Any, *, by: By = (), mask: Any = None) -> Total:
    """Share of targets that lie in their forecast interval, borders included.

    Compare it with the nominal share: above is too wide, below too narrow. It does not measure the width itself.

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
    lower, target = pair(lower, target, names=("lower", "target"))
    upper, target = pair(upper, target, names=("upper", "target"))
    return total_of(((lower <= target) & (target <= upper)).astype(np.float64), by, mask)


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
    return total_of((forecast[..., 1:] < forecast[..., :-1]).mean(axis=-1), by, mask)
