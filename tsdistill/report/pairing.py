"""Rows that were scored on some windows only, compared with fully scored rows on the same windows."""

from __future__ import annotations

import numpy as np

from tsdistill.evaluation import LossComparison, Scores, compare_losses


def spread(n_windows: int, n_chosen: int) -> np.ndarray | None:
    """Positions of some windows, evenly spread; None where they are all."""
    if n_chosen >= n_windows:
        return None
    return ((np.arange(n_chosen) + 0.5) * n_windows / n_chosen).astype(np.int64)


def paired(whole: Scores, some: Scores, positions: np.ndarray | None, horizon: int) -> LossComparison:
    """Losses on all windows, less those of a row scored at `positions` only (None: on all windows as well)."""
    if positions is None:
        return compare_losses(whole.window_losses, some.window_losses, horizon=horizon, times=whole.times)
    reach = overlap(whole.times, positions, horizon)
    return compare_losses(
        whole.window_losses[positions], some.window_losses, horizon=reach, times=whole.times[positions]
    )


def overlap(times: np.ndarray, positions: np.ndarray, horizon: int) -> int:
    """How many of the chosen windows begin within one horizon: the horizon, counted in the chosen windows, for a test.

    Example:
        >>> overlap(np.arange(100), np.array([5, 15, 25, 35]), 24)
        3
    """
    place = np.unique(times, return_inverse=True)[1]
    chosen = np.unique(place[positions])
    return int((np.searchsorted(chosen, chosen + horizon) - np.arange(len(chosen))).max())
