"""Forecast errors as sums and counts, so that a metric never depends on how the windows were batched.

Every function takes arrays with the axes window, step, channel, and gives a `Total`: what was summed and how many
entries went into it. Totals of two batches add up to the total of both; a mean is taken once, at the end. All sums are
float64.

A metric can be split by naming the axes to keep: `mse(forecast, target, by="step")` is the error curve over the
horizon.
"""

from __future__ import annotations

from tsdistill.metrics.point import mae, mase, mse, naive_scale, rmsse, smape
from tsdistill.metrics.quantile import coverage, crossing_rate, wql
from tsdistill.metrics.totals import AXES, Axis, By, Total

__all__ = [
    "AXES",
    "Axis",
    "By",
    "Total",
    "coverage",
    "crossing_rate",
    "mae",
    "mase",
    "mse",
    "naive_scale",
    "rmsse",
    "smape",
    "wql",
]
