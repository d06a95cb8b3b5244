"""Values far from zero: what is subtracted from them in float64, so that float32 keeps the digits that move.

float32 has seven digits: near 1e9 its neighbours are 64 apart, and a series that moves by 10 there is flat. So whatever
casts raw values subtracts a level first, and whatever returns a forecast adds it: the offset of the signature, which
training chose for every channel and feature, and for a forecaster that standardises each window by itself the window's
last value. What is served subtracts the mean of every channel that is a few deviations away from zero.
numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

RESOLUTION = 5e-5
"""A step of float32 may be this share of what a channel moves by; where it is more, training subtracts the level."""

FAR = 4.0
"""A level is worth subtracting where values are this many times as large as they reach away from it."""

APART = 4.0
"""What is served subtracts a level where values are, on average, more than this many of their deviations from zero.

What float32 rounds off of values nearer to zero is below a millionth of a deviation, in and out of a graph: its steps
are 5e-7 of a deviation at 4 of them, and half a step is lost at most."""


def is_apart(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Where float32 rounds off a millionth of a deviation; deviations are above 0."""
    return np.asarray(np.abs(mean) > APART * deviation)


def is_far(largest: np.ndarray, reach: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Whether float32 loses digits of values that a level, subtracted first, would keep.

    Args:
        largest: Largest absolute value.
        reach: Largest distance of a value from the level.
        unit: What the values move by; above 0.
    """
    with np.errstate(over="ignore"):
        step = np.spacing(largest.astype(np.float32)).astype(np.float64)
    return np.asarray((step > RESOLUTION * unit) & (largest >= FAR * reach) & np.isfinite(step))


def own_levels(context: np.ndarray) -> np.ndarray:
    """Subtracted from contexts (window, step, channel) that a graph standardises one by one: (window, 1, channel).

    The last value of a channel far from zero, and 0 of the others. Differences to it are exact in float64, and the
    graph's own mean and deviation of a window do not change with it.
    """
    last = context[:, -1:].astype(np.float64)
    steps = context - last
    deviation = steps.std(axis=1, keepdims=True)
    apart = is_apart(last + steps.mean(axis=1, keepdims=True), np.where(deviation > 0, deviation, 1.0))
    return np.where(apart, last, 0.0)


def offset_of(signature: Any, name: str, n_columns: int) -> np.ndarray:
    """What the graph's input `name` lacks of raw values, (column,); zeros in signatures of earlier versions."""
    offset = getattr(signature, "offset" if name == "context" else f"{name}_offset", ())
    return np.asarray(offset, dtype=np.float64) if len(offset) else np.zeros(n_columns)


def centred(values: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Values less what is subtracted in float64, as contiguous float32."""
    if offset.any():
        values = values.astype(np.float64) - offset
    with np.errstate(over="ignore"):  # an offset that someone wrote into a manifest may be anything
        return np.ascontiguousarray(values, dtype=np.float32)


def levels_of_windows(context: np.ndarray, signature: Any) -> np.ndarray:
    """What is subtracted from raw contexts (window, step, channel) before a graph and added to its forecasts.

    (1, 1, channel) or (window, 1, channel).
    """
    offset = offset_of(signature, "context", context.shape[-1])[None, None]
    if getattr(signature, "normalisation", "scaler") == "window":
        return offset + own_levels(context - offset if offset.any() else context)
    return offset


def units_of(signature: Any) -> np.ndarray | None:
    """What channels, past covariates and future features moved by in training; None where a signature lacks it."""
    if getattr(signature, "normalisation", "scaler") == "window":
        return None
    names = ("scale", "past_scale", "future_scale")
    units = np.concatenate([np.asarray(getattr(signature, name, ()), dtype=np.float64) for name in names])
    return None if (units[: len(signature.channels)] == 1).all() else units
