"""Metrics: equal to plain oracles, additive over batches, and the same split or whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests import oracles
from tsdistill.errors import ConfigError, ShapeError
from tsdistill.metrics import Total, coverage, mae, mase, mse, naive_scale, rmsse, smape, wql

WINDOWS, STEPS, CHANNELS, LEVELS = 11, 7, 3, [0.1, 0.5, 0.7, 0.9, 0.95]


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 3.0, size=shape)


FORECAST, TARGET = draw(WINDOWS, STEPS, CHANNELS, seed=1), draw(WINDOWS, STEPS, CHANNELS, seed=2)
TRAINING, QUANTILES = draw(53, CHANNELS, seed=3), draw(WINDOWS, STEPS, CHANNELS, len(LEVELS), seed=4)
MASK = np.random.default_rng(5).random(TARGET.shape) < 0.6

METRICS: dict[str, Callable[..., Total]] = {
    "mse": lambda rows, **options: mse(FORECAST[rows], TARGET[rows], **options),
    "mae": lambda rows, **options: mae(FORECAST[rows], TARGET[rows], **options),
    "smape": lambda rows, **options: smape(FORECAST[rows], TARGET[rows], **options),
    "mase": lambda rows, **options: mase(FORECAST[rows], TARGET[rows], naive_scale(TRAINING, 5), **options),
    "rmsse": lambda rows, **options: rmsse(
        FORECAST[rows], TARGET[rows], naive_scale(TRAINING, 5, squared=True), **options
    ),
    "wql": lambda rows, **options: wql(QUANTILES[rows], TARGET[rows], LEVELS, **options),
    "coverage": lambda rows, **options: coverage(FORECAST[rows], FORECAST[rows] + 3, TARGET[rows], **options),
}
ORACLES = {
    "mse": lambda: oracles.mse(FORECAST, TARGET),
    "mae": lambda: oracles.mae(FORECAST, TARGET),
    "smape": lambda: oracles.smape(FORECAST, TARGET),
    "mase": lambda: oracles.mase(FORECAST, TARGET, TRAINING, 5),
    "rmsse": lambda: oracles.rmsse(FORECAST, TARGET, TRAINING, 5),
    "wql": lambda: oracles.wql(QUANTILES, TARGET, LEVELS),
    "coverage": lambda: oracles.coverage(FORECAST, FORECAST + 3, TARGET),
}
WHOLE = slice(None)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_equals_its_plain_oracle(name: str) -> None:
    assert float(METRICS[name](WHOLE)) == pytest.approx(ORACLES[name](), rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("batch_size", [1, 5, 11])
def test_totals_of_batches_add_up_to_the_total_of_all(name: str, batch_size: int) -> None:
    parts = [METRICS[name](slice(first, first + batch_size)) for first in range(0, WINDOWS, batch_size)]
    assert sum(parts[1:], parts[0]).mean == pytest.approx(METRICS[name](WHOLE).mean, rel=1e-12)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("by", ["window", "step", "channel", ("window", "channel"), ("window", "step", "channel")])
@pytest.mark.parametrize("mask", [None, MASK])
def test_a_split_total_adds_up_to_the_whole(name: str, by: str | tuple[str, ...], mask: np.ndarray | None) -> None:
    if name == "rmsse" and "step" in by:
        with pytest.raises(ConfigError, match="root is taken over the steps"):
            METRICS[name](WHOLE, by=by, mask=mask)
        return
    split, whole = METRICS[name](WHOLE, by=by, mask=mask), METRICS[name](WHOLE, mask=mask)
    sizes = dict(zip(("window", "step", "channel"), TARGET.shape, strict=True))
    kept = (by,) if isinstance(by, str) else by
    assert np.shape(split.sum) == np.shape(split.count) == tuple(sizes[axis] for axis in kept)
    assert split.sum.sum() == pytest.approx(whole.sum, rel=1e-12)
    assert split.count.sum() == pytest.approx(whole.count, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in METRICS if name != "rmsse"])
def test_a_masked_entry_does_not_count(name: str) -> None:
    windows = np.arange(WINDOWS) < 4
    mask = np.broadcast_to(windows[:, None, None], TARGET.shape)
    assert METRICS[name](WHOLE, mask=mask).mean == pytest.approx(METRICS[name](windows).mean, rel=1e-12)


def test_what_is_masked_may_be_missing() -> None:
    target = np.where(MASK, TARGET, np.nan)
    assert mse(FORECAST, target, mask=MASK).mean == mse(FORECAST, TARGET, mask=MASK).mean


def test_a_masked_window_does_not_count_in_rmsse() -> None:
    mask = np.ones(TARGET.shape, dtype=bool)
    mask[4:] = False
    scale = naive_scale(TRAINING, squared=True)
    masked, few = rmsse(FORECAST, TARGET, scale, mask=mask), rmsse(FORECAST[:4], TARGET[:4], scale)
    assert (masked.sum, masked.count) == pytest.approx((few.sum, few.count))


def test_nothing_counted_has_no_mean() -> None:
    assert np.isnan(mse(FORECAST, TARGET, mask=np.zeros(TARGET.shape, dtype=bool)).mean)


def test_a_series_that_never_moved_is_left_out_of_mase() -> None:
    scale = naive_scale(TRAINING, 5) * [1.0, 0.0, 1.0]
    moving = [0, 2]
    expected = mase(FORECAST[..., moving], TARGET[..., moving], scale[moving])
    assert mase(FORECAST, TARGET, scale).mean == pytest.approx(expected.mean)


def test_mase_takes_a_scale_per_window() -> None:
    scale = np.arange(1.0, WINDOWS + 1)[:, None] * np.ones(CHANNELS)
    parts = [mase(FORECAST[[row]], TARGET[[row]], scale[row]) for row in range(WINDOWS)]
    assert mase(FORECAST, TARGET, scale).mean == pytest.approx(sum(parts[1:], parts[0]).mean)


def test_a_series_as_short_as_its_period_has_no_scale() -> None:
    assert np.isnan(naive_scale(TRAINING[:5], 5)).all()


def test_a_naive_forecast_of_the_training_series_scores_one() -> None:
    forecast, target = TRAINING[None, :-5], TRAINING[None, 5:]
    assert mase(forecast, target, naive_scale(TRAINING, 5)).mean == pytest.approx(1.0)
    assert rmsse(forecast, target, naive_scale(TRAINING, 5, squared=True)).mean == pytest.approx(1.0)


def test_the_median_level_of_wql_is_the_absolute_error() -> None:
    total = wql(FORECAST[..., None], TARGET, [0.5])
    assert total.sum == pytest.approx(mae(FORECAST, TARGET).sum)


def test_a_float32_sum_does_not_lose_small_errors() -> None:
    forecast = np.full((1009, 101, 11), 1e-4, dtype=np.float32)
    forecast[0, 0, 0] = 1e4
    expected = (1e8 + (forecast.size - 1) * np.float64(np.float32(1e-4)) ** 2) / forecast.size
    assert mse(forecast, np.zeros_like(forecast)).mean == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda: mse(FORECAST, TARGET[:, :, :2]), ShapeError, "one shape (window, step, channel)"),
        (lambda: mse(FORECAST[0], TARGET[0]), ShapeError, "got (7, 3) and (7, 3)"),
        (lambda: mse(FORECAST, TARGET, by="horizon"), ConfigError, "`by` must be made of window, step, channel"),  # type: ignore[arg-type]
        (lambda: mse(FORECAST, TARGET, mask=MASK[0]), ShapeError, "`mask` must have the target's shape (11, 7, 3)"),
        (lambda: mase(FORECAST, TARGET, np.ones(7)), ShapeError, "(window, channel) = (11, 3), got (7,)"),
        (lambda: coverage(FORECAST, FORECAST[0], TARGET), ShapeError, "`upper` and `target`"),
        (lambda: wql(QUANTILES, TARGET, LEVELS[:2]), ShapeError, "quantiles on the last axis"),
        (lambda: wql(QUANTILES, TARGET, [10, 50, 70, 90, 95]), ConfigError, "Give shares, not percent"),
        (lambda: naive_scale(TRAINING[:, 0]), ShapeError, "`series` must have shape (time, channel)"),
        (lambda: naive_scale(TRAINING, 0), ConfigError, "`period` must be at least 1"),
        (lambda: float(mse(FORECAST, TARGET, by="step")), ShapeError, "sums of shape (7,). Use `.mean`"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(wrong: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        wrong()
    assert words in str(caught.value)
