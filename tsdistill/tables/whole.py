"""Whole numbers beyond 2^53: float64 does not hold every one of them, and rounds without a word. numpy only."""

from __future__ import annotations

import decimal
from fractions import Fraction
from typing import Any

import numpy as np

WHOLE = 2.0**53
"""From here on float64 does not hold every whole number."""

LOST = 1e-6
"""Of what a column moves by, what may be rounded off in silence."""


def lost_digits(
    cells: np.ndarray, values: np.ndarray, group: np.ndarray | None = None, unit: float | None = None
) -> str | None:
    """What float64 makes of whole numbers that it does not hold, in words; None where nothing that matters is lost.

    Args:
        cells: One column as it was given, (row,): whole numbers of any type, Decimal or text.
        values: The same as float64.
        group: Number of the item that each row belongs to, (row,); each moves by itself. None: all alike.
        unit: What the column moves by, where that is known; None: the deviation of the values, of each item.
    """
    if cells.dtype.kind == "f" or not (np.abs(values) >= WHOLE).any():
        return None
    error = np.zeros(len(values))
    large = np.flatnonzero((np.abs(values) >= WHOLE) & np.isfinite(values))
    error[large] = _errors(cells[large], values[large])
    if not error.any():
        return None
    spread = np.full(len(values), unit) if unit is not None else _deviations(values, group)
    # A constant has no digits that move, so that one that labels an item is no loss.
    moving = (spread > 0) | (_deviations(error, group) > 0)
    lost = np.flatnonzero((np.abs(error) > LOST * spread) & moving)
    if not len(lost):
        return None
    row = lost[0]
    return (
        f"whole numbers beyond 2^53 = {int(WHOLE):,}, of which float64 loses digits that matter: {cells[row]} becomes "
        f"{int(values[row])}, where values move by {spread[row]:.3g}"
    )


def _errors(cells: np.ndarray, values: np.ndarray) -> np.ndarray:
    """By how much each value is too small."""
    if cells.dtype.kind in "iu":
        largest = np.iinfo(cells.dtype).max
        # A float that rounds up to 2^63 is beyond the type.
        back = np.where(values < float(largest), values, 0.0).astype(cells.dtype)
        back = np.where(values < float(largest), back, cells.dtype.type(largest))
        return np.where(cells > back, (cells - back).astype(np.float64), -(back - cells).astype(np.float64))
    return np.array([_error(cell, value) for cell, value in zip(cells, values, strict=True)], dtype=np.float64)


def _error(cell: Any, value: float) -> float:
    """The same of one cell; 0 of what was a float before."""
    if isinstance(cell, float | np.floating):
        return 0.0
    try:
        exact = Fraction(int(cell)) if isinstance(cell, int | np.integer) else Fraction(decimal.Decimal(str(cell)))
    except (ValueError, OverflowError, ArithmeticError):
        return 0.0
    return float(exact - Fraction(value))


def _deviations(values: np.ndarray, group: np.ndarray | None) -> np.ndarray:
    """The standard deviation of the values of each row's item, (row,)."""
    values = np.where(np.isfinite(values), values, 0.0)
    group = np.zeros(len(values), dtype=np.int64) if group is None else group
    counts = np.bincount(group)
    apart = values - (np.bincount(group, values) / counts)[group]
    return np.asarray(np.sqrt(np.bincount(group, apart**2) / counts)[group])
