"""Sums and counts, and the checks that every metric shares."""

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
        count: Number of entries (or their weight) in each sum, of the same shape.

    Example:
        >>> from tsdistill.metrics import mse
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


def pair(first: Any, second: Any, names: tuple[str, str] = ("forecast", "target")) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 of one shape with three axes."""
    first = np.asarray(first, dtype=np.float64)
    second = np.asarray(second, dtype=np.float64)
    if first.ndim != 3 or first.shape != second.shape:
        raise ShapeError(
            f"`{names[0]}` and `{names[1]}` must have one shape (window, step, channel), got {first.shape} and "
            f"{second.shape}. Pass both as windows; nothing is broadcast."
        )
    return first, second


def axes_kept(by: By) -> tuple[Axis, ...]:
    """The axes that a metric is split by, checked."""
    kept = (by,) if isinstance(by, str) else tuple(by)
    if unknown := [name for name in kept if name not in AXES]:
        raise ConfigError(must("by", f"be made of {', '.join(AXES)}", unknown[0], "Name the axes to keep"))
    return kept


def masked(mask: Any, like: np.ndarray) -> np.ndarray:
    """A mask, checked to have the shape of the values."""
    mask = np.asarray(mask, dtype=bool)
    if mask.shape != like.shape:
        raise ShapeError(f"`mask` must have the target's shape {like.shape}, got {mask.shape}. Mark every entry.")
    return mask


def yardstick(scale: Any, like: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale as (window, 1, channel), 1 where it is unusable, and where it is usable in full shape."""
    shape = (like.shape[0], like.shape[2])
    try:
        scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), shape)[:, None, :]
    except ValueError:
        raise ShapeError(
            f"`scale` must broadcast to (window, channel) = {shape}, got {np.shape(scale)}. Give one per channel."
        ) from None
    usable = scale > 0
    return np.where(usable, scale, 1.0), np.broadcast_to(usable, like.shape)


def total_of(values: np.ndarray, by: By, mask: Any) -> Total:
    """Sum over the axes that are not kept, entries outside the mask left out (even when they are not finite)."""
    kept = axes_kept(by)
    summed_axes = tuple(position for position, name in enumerate(AXES) if name not in kept)
    if mask is None:
        count = np.full(
            [size for position, size in enumerate(values.shape) if position not in summed_axes], 1, dtype=np.int64
        )
        summed = values.sum(axis=summed_axes)
        count = count * int(np.prod([values.shape[position] for position in summed_axes], dtype=np.int64))
    else:
        mask = masked(mask, values)
        summed = np.where(mask, values, 0.0).sum(axis=summed_axes)
        count = mask.sum(axis=summed_axes)
    return Total(summed, count) if kept else Total(float(summed), int(count))
