"""Statistics of consecutive windows of a series: what is usual for them is measured on the series itself."""

from __future__ import annotations

import numpy as np
import pandas as pd

STATISTICS = ("level", "step", "roughness", "season")
"""Median; log of the mean step; the same less the log of the spread; correlation with the seasonal profile."""

SMALLEST = 0.02
"""Added to spreads before their logarithm, in robust deviations of the series: a flat window has no logarithm."""


def window_lengths(periods: tuple[int, ...]) -> tuple[int, int]:
    """Steps of the short and the long window: a season of at least 8 steps, and seven of them."""
    season = periods[0] if periods else 1
    short = season if season >= 8 else season * -(-8 // season)
    return short, 7 * short


def phases(ds: pd.DatetimeIndex | None, n_rows: int, period: int) -> np.ndarray:
    """Place of each row in its season, (row,); it depends on the stamp alone, not on where the data begins."""
    if period <= 1:
        return np.zeros(n_rows, dtype=np.int64)
    if ds is None or n_rows < 2:
        return np.arange(n_rows) % period
    stamps = ds.as_unit("ns").asi8
    step = int(np.median(np.diff(stamps)))
    if step >= 28 * 86_400 * 10**9:
        return (ds.year.to_numpy() * 12 + ds.month.to_numpy()) % period
    return np.rint(stamps / step).astype(np.int64) % period


def statistics(
    values: np.ndarray, length: int, scale: float, place: np.ndarray, season: np.ndarray | None
) -> np.ndarray:
    """Of windows of some length that end where the series ends, oldest first: (window, statistic).

    Args:
        values: The series (row,).
        length: Steps of a window.
        scale: Robust deviation of the trusted series.
        place: Place of each row in its season (row,).
        season: Seasonal profile by place; None where there is no marked one.
    """
    n_windows = len(values) // length
    if not n_windows:
        return np.empty((0, len(STATISTICS)))
    cut = values[len(values) - n_windows * length :].reshape(n_windows, length)
    level = np.median(cut, axis=1) / scale
    step = np.log(np.abs(np.diff(cut, axis=1)).mean(axis=1) + SMALLEST * scale)
    spread = np.log(cut.std(axis=1) + SMALLEST * scale)
    fit = np.zeros(n_windows)
    if season is not None:
        usual = season[place[len(values) - n_windows * length :]].reshape(n_windows, length)
        fit = correlations(cut, usual)
    return np.stack([level, step, step - spread, fit], axis=1)


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation of rows; 0 where one of them is constant."""
    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    size = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), size, out=np.zeros_like(size), where=size > 0)


def runs(values: np.ndarray) -> np.ndarray:
    """How long the run of equal values is that each row belongs to, (row,)."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[begins, len(values)])
    return np.repeat(lengths, lengths)
