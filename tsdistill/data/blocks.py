"""A series read block by block: statistics and scaling without a second copy of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tsdistill.data.repair import Hold
from tsdistill.inputs.levels import FAR, is_far

BLOCK_BYTES = 1 << 22
"""Raw values read at once: bounds memory, changes nothing else."""

NOISE = 32
"""Steps of float64 at a column's level: what moves by no more is constant but for rounding errors."""

LARGE = 1e6
"""From this level on a small movement is measured from the level, and not taken for rounding errors by its share."""

WHOLE = 2.0**53
"""From here on float64 does not hold every whole number."""

CROWDED = 2.0**47
"""From here on `NOISE` steps of float64 are half a unit and more: what moves by less is no rounding error."""


class Fit(NamedTuple):
    """How columns are scaled: scaled = (raw - offset - mean) / scale, each (column,); the offset is 0 near zero."""

    offset: np.ndarray
    mean: np.ndarray
    scale: np.ndarray


def blocks(
    values: np.ndarray, holds: Iterable[Hold], columns: list[int], begin: int, end: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The rows `begin` to `end` of some columns, as (first row, float64 block), with held values put in."""
    n_rows = max(BLOCK_BYTES // (8 * values.shape[1]), 1)
    all_columns = columns == list(range(values.shape[1]))
    for first in range(begin, end, n_rows):
        last = min(first + n_rows, end)
        block = values[first:last]
        overlapping = [hold for hold in holds if hold.first < last and hold.last > first]
        if overlapping:
            block = block.copy()
            for hold in overlapping:
                block[max(hold.first - first, 0) : hold.last - first, hold.channel] = hold.value
        yield first, block if all_columns else block[:, columns]


def moments(read: Callable[[], Iterable[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (channel,) of blocks that are read twice: first for the mean, then for deviations from it.

    The scale is the standard deviation, and 1 for a constant channel, which is only centred: its spread is zero or
    a rounding error of its mean.

    Source: T. Chan, G. Golub and R. LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician
    37(3), 1983, the corrected two-pass algorithm, for the variance over n. Differs from the source:
    the second pass corrects the mean too.
    """
    n_rows = 0
    total = largest = np.float64(0.0)
    for block in read():
        n_rows += len(block)
        total = total + block.sum(axis=0)
        largest = np.maximum(largest, np.abs(block).max(axis=0))
    mean = np.asarray(total / n_rows)
    squares = np.zeros_like(mean)
    drift = np.zeros_like(mean)
    for block in read():
        deviation = block - mean
        drift += deviation.sum(axis=0)
        squares += np.einsum("rc,rc->c", deviation, deviation)
    spread = np.sqrt(np.maximum(squares - drift**2 / n_rows, 0.0) / n_rows)
    return mean + drift / n_rows, np.where(spread <= 1e-12 * largest, 1.0, spread)


def fit(read: Callable[[], Iterable[np.ndarray]]) -> tuple[Fit, np.ndarray]:
    """The scaling of blocks that are read several times, and which columns move too little for float64 to show it.

    A column far from zero is measured from its mean, which becomes its offset: the differences are exact, so that
    float64 keeps what moves in it, and float32 keeps what is left. `moments` alone scales all others.
    """
    mean, scale = moments(read)
    plain = Fit(np.zeros_like(mean), mean, scale)
    lost = np.zeros(mean.shape, dtype=bool)
    # Whatever is far from zero is more than this many deviations away; other data is not read again.
    if not (np.abs(mean) > 3 * scale).any():
        return plain, lost
    low = np.full(mean.shape, np.inf)
    high = -low
    for block in read():
        low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
    largest = np.maximum(np.abs(low), np.abs(high))
    reach = np.maximum(high - mean, mean - low)
    apart = largest >= FAR * reach
    if not apart.any():
        return plain, lost
    offset = np.where(apart, mean, 0.0)
    own_mean, own_scale = moments(lambda: (block - offset for block in read()))
    step = np.spacing(largest)
    still = own_scale <= NOISE * step
    unit = np.where(largest < LARGE, scale, np.where(still, 1.0, own_scale))
    lost = apart & still & ((largest >= WHOLE) | ((largest >= CROWDED) & (high > low)))
    far = apart & is_far(largest, reach, unit)
    return Fit(np.where(far, offset, 0.0), np.where(far, own_mean, mean), np.where(far, unit, scale)), lost


def is_flag(read: Callable[[], Iterable[np.ndarray]]) -> np.ndarray:
    """Which columns hold only 0 and 1, (column,)."""
    flags: np.ndarray | None = None
    for block in read():
        binary = ((block == 0) | (block == 1)).all(axis=0)
        flags = binary if flags is None else flags & binary
    assert flags is not None  # no part of a task is empty
    return flags
