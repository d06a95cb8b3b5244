"""Filling what is missing, only on request, and counting every cell and row that was filled."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

Fill = Literal["interpolate", "forward", "zero"]
FILLS: tuple[Fill, ...] = ("interpolate", "forward", "zero")

OBSERVED, FILLED, INSERTED = 0, 1, 2
"""Marks of a cell: as given, missing in a given row, or of a row that was not given at all."""


def spread_out(values: np.ndarray, position: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows at their step numbers with NaN between them, and the marks of all cells (None when all were observed)."""
    if position is None:
        missing = np.isnan(values)
        return values, missing.astype(np.uint8) if missing.any() else None
    spread = np.full((int(position[-1] - position[0]) + 1, values.shape[1]), np.nan)
    spread[position - position[0]] = values
    marks = np.full(spread.shape, INSERTED, dtype=np.uint8)
    marks[position - position[0]] = np.isnan(values)
    return spread, marks


def fill_in(values: np.ndarray, marks: np.ndarray, when: np.ndarray, fill: Fill) -> list[int]:
    """Fill the marked cells of (time, channel) in place; returns the channels that have no value to fill from."""
    unfillable = []
    for channel in np.flatnonzero(marks.any(axis=0)):
        column = values[:, channel]
        missing = marks[:, channel] != OBSERVED
        known = np.flatnonzero(~missing)
        if fill == "zero":
            column[missing] = 0.0
        elif not len(known) or (fill == "forward" and known[0] > 0):
            unfillable.append(int(channel))
        elif fill == "forward":
            column[missing] = column[known[np.searchsorted(known, np.flatnonzero(missing)) - 1]]
        else:
            column[missing] = np.interp(when[missing], when[known], column[known])
    return unfillable


def cut_back(values: np.ndarray, marks: np.ndarray, fill: Fill) -> tuple[np.ndarray, np.ndarray | None, list[int]]:
    """Values cut after some row, as if there were no later ones: interpolation must not use what comes next.

    Returns the values, their marks, and the channels that hold no observed value any more.
    """
    given = np.flatnonzero((marks != INSERTED).all(axis=1))
    n_rows = int(given[-1]) + 1 if len(given) else 0
    values, marks = values[:n_rows].copy(), marks[:n_rows]
    held, unfillable = holds(values, marks, n_rows) if fill == "interpolate" else ([], [])
    for hold in held:
        values[hold.first : hold.last, hold.channel] = hold.value
    return values, marks if marks.any() else None, unfillable


class Hold(NamedTuple):
    """Rows `first` to `last` (exclusive) of a channel, held at the last observation before a border."""

    channel: int
    first: int
    last: int
    value: float


def holds(values: np.ndarray, marks: np.ndarray, border: int) -> tuple[list[Hold], list[int]]:
    """What was interpolated across a border and is held at the last observation before it; unfillable channels."""
    held = []
    unfillable = []
    for channel in np.flatnonzero(marks[max(border - 1, 0) : border].any(axis=0)).tolist():
        known = np.flatnonzero(marks[:border, channel] == OBSERVED)
        if not len(known):
            unfillable.append(channel)
        else:
            held.append(Hold(channel, int(known[-1]) + 1, border, float(values[known[-1], channel])))
    return held, unfillable


def count_up(marks: list[np.ndarray], channels: tuple[str, ...], fill: Fill) -> dict[str, Any]:
    """What was filled: rows inserted, the gaps they closed, and cells filled in rows that were given."""
    inserted = [(mark == INSERTED).all(axis=1) for mark in marks]
    filled = sum((mark == FILLED).sum(axis=0) for mark in marks)
    per_channel = {channel: int(n) for channel, n in zip(channels, np.atleast_1d(filled), strict=False) if n}
    return {
        "fill": fill,
        "n_gaps": sum(int((np.diff(rows.astype(np.int8), prepend=0) == 1).sum()) for rows in inserted),
        "n_inserted": sum(int(rows.sum()) for rows in inserted),
        "n_filled": sum(per_channel.values()),
        "n_filled_per_channel": per_channel,
    }
