"""Data frames that the tests of the data family start from: hours, a wide frame, a long one, local clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ROWS = 53


def hours(n: int = ROWS, start: str = "2024-01-01", zone: str | None = None, step: str = "h") -> pd.DatetimeIndex:
    return pd.date_range(start, periods=n, freq=step, tz=zone)


def wide(ds: Any = None, *, channels: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    ds = hours() if ds is None else ds
    values = np.random.default_rng(0).normal(size=(len(ds), len(channels)))
    return pd.DataFrame({"ds": ds, **dict(zip(channels, values.T, strict=True))})


def changed(column: str, row: int, value: object) -> pd.DataFrame:
    df = wide()
    if not isinstance(value, float):
        df[column] = df[column].astype(object)
    df.loc[row, column] = value  # type: ignore[call-overload]
    return df


def berlin(step: str = "h", n: int = 24 * 320) -> pd.DatetimeIndex:
    """A year on the clocks of Berlin, written down without a zone."""
    return pd.date_range("2024-01-01", periods=n, freq=step, tz="Europe/Berlin").tz_localize(None)


def long(n_items: int = 3) -> pd.DataFrame:
    frames = [wide(hours(11 + number), channels=("y",)).assign(unique_id=f"s{number}") for number in range(n_items)]
    return pd.concat(frames, ignore_index=True)
