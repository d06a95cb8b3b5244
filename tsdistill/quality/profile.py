"""A compact profile of trusted data: what the data of a later day is compared with."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
from pydantic import Field

from tsdistill.data import Panel
from tsdistill.data.panel import Item
from tsdistill.quality.windows import phases, runs, statistics, window_lengths
from tsdistill.spec import Spec

PROBABILITIES = (0.0, *np.round(np.linspace(0.025, 0.975, 39), 3).tolist(), 1.0)
"""Of the quantiles that are kept."""

MAX_SERIES = 2000
"""Series with a profile of their own; of the others the digests are kept."""

MAX_NUMBERS = 300_000
"""Of all series together: a manifest may not hold more than a few of them."""

MAX_DIGESTS = 20_000
MAX_BLOCKS = 64
MIN_WINDOWS = 8
"""Fewer say nothing of what is usual."""

LAG = 2
"""A jump is the change over this many windows: whatever begins inside of one is whole in the next."""

MARKED_SEASON = 0.5
"""Correlation of a series with its seasonal profile from which its season is checked."""


class Usual(Spec):
    """Of windows of one length: by statistic its range, and the largest change over `LAG` windows.

    Args:
        length: Steps of a window.
        low: Smallest of each statistic.
        high: Largest.
        jump: Largest change.
    """

    length: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    jump: tuple[float, ...]


class SeriesProfile(Spec):
    """What is usual for one channel of one item.

    Args:
        quantiles: At `PROBABILITIES`, of observed values.
        scale: Robust deviation: that of the middle half if there is one, else the standard deviation.
        largest_step: Largest change from one row to the next.
        longest_run: Longest run of one value that is not zero.
        longest_zeros: Longest run of zeros.
        share_filled: Of all values.
        correlation_time: Rows that count as one independent value, from the autocorrelations.
        season: Mean by place in the season, in order; empty where the season is not marked.
        windows: What is usual for short and long windows; empty where there are too few.
    """

    quantiles: tuple[float, ...]
    scale: float
    largest_step: float
    longest_run: int
    longest_zeros: int
    share_filled: float
    correlation_time: float
    season: tuple[float, ...] = ()
    windows: tuple[Usual, ...] = ()


class HistoryBlock(Spec):
    """Consecutive rows of an item: where they begin, how many are observed, and a digest of each channel.

    Args:
        begins: First stamp, in nanoseconds of UTC.
        ends: Last stamp.
        n_observed: Rows that were given.
        digests: Of each channel's values.
    """

    begins: int
    ends: int
    n_observed: int
    digests: tuple[str, ...]


class DataProfile(Spec):
    """What fresh data is compared with; made by `profile_of`, kept in artifacts as JSON.

    Args:
        channels: Names of the value columns, in order.
        frequency: Step width.
        zone: Of the stamps; None when they have none.
        until: Newest stamp, as ISO text.
        n_rows: Rows of all items.
        items: Names of the items, in order, of those that have blocks.
        blocks: By item.
        series: By item and channel, as far as `MAX_SERIES` goes.

    Example:
        >>> import tsdistill as td
        >>> profile = profile_of(td.datasets.load("nyc-weather"))
        >>> profile.frequency, DataProfile.from_json(profile.to_json()) == profile
        ('h', True)
    """

    channels: tuple[str, ...]
    frequency: str | None = None
    zone: str | None = None
    until: str | None = None
    n_rows: int = Field(ge=0)
    items: tuple[str, ...] = ()
    blocks: tuple[tuple[HistoryBlock, ...], ...] = ()
    series: tuple[tuple[SeriesProfile, ...], ...] = ()


def profile_of(panel: Panel) -> DataProfile:
    """The profile of a panel: quantiles, steps, runs, season, what windows usually look like, digests of the history.

    Use it on data that a model was trained on and that is known to be sound; `check_data` compares later data with it.

    Args:
        panel: The data; without time stamps no digests are kept.

    Returns:
        The profile, about two kilobytes of JSON a series.

    Example:
        >>> import tsdistill as td
        >>> len(profile_of(td.datasets.load("nyc-weather")).series[0])
        18
    """
    n_channels = len(panel.channels)
    numbers_each = 80 + (panel.periods[0] if panel.periods else 1)
    n_profiled = max(1, min(MAX_SERIES, MAX_NUMBERS // numbers_each) // n_channels)
    n_blocks = max(1, min(MAX_BLOCKS, MAX_DIGESTS // (n_channels * len(panel.items))))
    newest = newest_item(panel)
    return DataProfile(
        channels=panel.channels,
        frequency=panel.frequency,
        zone=None if newest.ds is None or newest.ds.tz is None else str(newest.ds.tz),
        until=None if newest.ds is None else str(newest.ds[-1].isoformat()),
        n_rows=panel.n_rows,
        items=tuple(item.unique_id for item in panel.items),
        blocks=tuple(_blocks(item, n_blocks) for item in panel.items[: MAX_DIGESTS // n_channels]),
        series=tuple(
            tuple(_series(item, channel, panel.periods) for channel in range(n_channels))
            for item in panel.items[:n_profiled]
        ),
    )


def newest_item(panel: Panel) -> Item:
    """The item whose rows end last."""
    return max(panel.items, key=lambda item: (0 if item.ds is None else item.ds[-1].value, len(item)))


def stamps_of(item: Item) -> np.ndarray:
    """Stamps in nanoseconds of UTC."""
    assert item.ds is not None
    return item.ds.as_unit("ns").asi8


def digest(values: np.ndarray, marks: np.ndarray | None) -> str:
    """Of one channel's rows; what was filled counts as missing, and so does the difference of the last bits."""
    numbers = values.astype(np.float32)
    if marks is not None and marks.any():
        numbers = np.where(marks > 0, np.float32(np.nan), numbers)
    return hashlib.sha256(np.ascontiguousarray(numbers).tobytes()).hexdigest()[:8]


def block_of(item: Item, first: int, end: int) -> HistoryBlock:
    """The record of some rows."""
    stamps = stamps_of(item)
    marks = None if item.marks is None else item.marks[first:end]
    return HistoryBlock(
        begins=int(stamps[first]),
        ends=int(stamps[end - 1]),
        n_observed=end - first if marks is None else int((marks == 0).any(axis=1).sum()),
        digests=tuple(
            digest(item.values[first:end, channel], None if marks is None else marks[:, channel])
            for channel in range(item.values.shape[1])
        ),
    )


def _blocks(item: Item, n_blocks: int) -> tuple[HistoryBlock, ...]:
    if item.ds is None:
        return ()
    borders = np.unique(np.linspace(0, len(item), min(n_blocks, len(item)) + 1).astype(int)).tolist()
    return tuple(block_of(item, first, end) for first, end in itertools.pairwise(borders))


def _series(item: Item, channel: int, periods: tuple[int, ...]) -> SeriesProfile:
    values = item.values[:, channel]
    filled = np.zeros(len(values), dtype=bool) if item.marks is None else item.marks[:, channel] > 0
    observed = values[~filled] if not filled.all() else values
    quantiles = np.quantile(observed, PROBABILITIES)
    low, high = np.quantile(observed, [0.25, 0.75])
    scale = float((high - low) / 1.349) or float(observed.std()) or 1.0
    lengths = runs(values)
    zero = values == 0
    period = periods[0] if periods else 1
    place = phases(item.ds, len(values), period)
    season = _season(values, place, period)
    usual = []
    for length in window_lengths(periods):
        measured = statistics(values, length, scale, place, season)
        if len(measured) >= MIN_WINDOWS:
            jumps = np.abs(measured[LAG:] - measured[:-LAG]).max(axis=0)
            usual.append(
                Usual(
                    length=length,
                    low=_short(measured.min(axis=0)),
                    high=_short(measured.max(axis=0)),
                    jump=_short(jumps),
                )
            )
    return SeriesProfile(
        quantiles=_short(quantiles),
        scale=scale,
        largest_step=float(np.abs(np.diff(observed)).max()) if len(observed) > 1 else 0.0,
        longest_run=int(lengths[~zero & ~filled].max(initial=1)),
        longest_zeros=int(lengths[zero & ~filled].max(initial=0)),
        share_filled=float(filled.mean()),
        correlation_time=correlation_time(observed),
        season=() if season is None else _short(season),
        windows=tuple(usual),
    )


def _season(values: np.ndarray, place: np.ndarray, period: int) -> np.ndarray | None:
    """Mean by place in the season, where it explains enough of what is left of the days' own levels."""
    if period < 4 or len(values) < MIN_WINDOWS * period:
        return None
    counts = np.bincount(place, minlength=period)
    if (counts == 0).any():
        return None
    means = np.bincount(place, weights=values, minlength=period) / counts
    rest = values - np.convolve(values, np.ones(period) / period, mode="same")
    shape = means[place]
    if shape.std() == 0 or rest.std() == 0:
        return None
    return means if np.corrcoef(rest[period:-period], shape[period:-period])[0, 1] >= MARKED_SEASON else None


def correlation_time(values: np.ndarray) -> float:
    """Rows that count as one independent value: 1 + 2 * the sum of autocorrelations until the first below 0.05."""
    from statsmodels.tsa.stattools import acf

    if len(values) < 8 or values.std() == 0:
        return float(max(len(values), 1))
    rho = acf(values, nlags=min(len(values) // 4, 2000), fft=True)[1:]
    below = np.flatnonzero(rho < 0.05)
    return float(max(1.0, 1 + 2 * rho[: below[0] if len(below) else len(rho)].sum()))


def _short(numbers: np.ndarray) -> tuple[float, ...]:
    """Six digits are enough to compare with."""
    return tuple(float(f"{number:.7g}") for number in np.asarray(numbers))
