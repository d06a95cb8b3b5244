"""The significance test keeps its level on overlapping windows, finds real differences, says when it cannot tell."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from tests import oracles
from tests.typed import known
from tsdistill.errors import ConfigError, DataError, ShapeError
from tsdistill.evaluation import LossComparison, compare_losses, holm

HORIZON, SIMULATIONS = 24, 200


def persistent(rng: np.random.Generator, length: int, memory: float) -> np.ndarray:
    """A stationary AR(1) of unit variance."""
    noise = rng.standard_normal(length + 199)
    return lfilter([1.0], [1.0, -memory], noise)[199:] * math.sqrt(1 - memory**2)


def window_means(steps: np.ndarray) -> np.ndarray:
    """Means over a horizon of what overlapping windows see."""
    return np.convolve(steps, np.ones(HORIZON) / HORIZON, mode="valid")


def equally_good(rng: np.random.Generator, n_windows: int, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """Window losses of two forecasters whose errors have a common part and one of their own, alike in distribution."""
    length = n_windows + HORIZON - 1
    common = persistent(rng, length, memory)
    first, second = (window_means((common + persistent(rng, length, memory)) ** 2) for _ in range(2))
    return first, second


def moving_average(rng: np.random.Generator, n_windows: int, memory: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses whose difference is a plain moving average over the horizon of a persistent Gaussian series."""
    difference = window_means(persistent(rng, n_windows + HORIZON - 1, memory))
    return 5 + difference, np.full(n_windows, 5.0)


def share_told_apart(draw: Callable[..., tuple[np.ndarray, np.ndarray]], n_windows: int, memory: float) -> float:
    rng = np.random.default_rng(20261101)
    n_apart = 0
    for _ in range(SIMULATIONS):
        p_value = compare_losses(*draw(rng, n_windows, memory), horizon=HORIZON).p_value
        assert p_value is not None
        n_apart += p_value < 0.05
    return n_apart / SIMULATIONS


@pytest.mark.parametrize("draw", [equally_good, moving_average])
@pytest.mark.parametrize("n_windows", [101, 509, 1699])
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_equally_good_forecasters_are_rarely_told_apart(
    draw: Callable[..., tuple[np.ndarray, np.ndarray]], n_windows: int, memory: float
) -> None:
    assert share_told_apart(draw, n_windows, memory) <= 0.08


def test_moods_that_outlast_the_horizon_do_not_break_the_level() -> None:
    assert share_told_apart(equally_good, 1699, 0.97) <= 0.08


def test_a_naive_test_would_tell_them_apart_every_other_time() -> None:
    rng = np.random.default_rng(7)
    pairs = [equally_good(rng, 1009, 0.9) for _ in range(50)]
    n_apart = sum(stats.ttest_1samp(first - second, 0.0).pvalue < 0.05 for first, second in pairs)
    assert n_apart / len(pairs) > 0.5


def test_a_real_difference_is_found() -> None:
    def a_tenth_worse(rng: np.random.Generator, n_windows: int, memory: float) -> tuple[np.ndarray, np.ndarray]:
        """The second forecaster makes the first one's errors and some of its own: its MSE is 10 % higher."""
        length = n_windows + HORIZON - 1
        common, own = persistent(rng, length, memory), persistent(rng, length, memory)
        return window_means(common**2), window_means((common + math.sqrt(0.1) * own) ** 2)

    assert share_told_apart(a_tenth_worse, 1699, 0.5) >= 0.8


def test_the_statistic_equals_its_plain_oracle() -> None:
    first, second = equally_good(np.random.default_rng(3), 307, 0.5)
    result = compare_losses(first, second, horizon=HORIZON)
    difference = first - second
    error = math.sqrt(oracles.long_run_variance(difference, result.degrees) / len(difference))
    assert result.degrees == 307 // (4 * HORIZON)
    assert result.mean_difference == pytest.approx(difference.mean())
    assert result.statistic == pytest.approx(difference.mean() / error)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(difference.mean() / error), result.degrees))


def test_the_interval_holds_zero_exactly_when_the_difference_is_not_significant() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.05, 0.2, 0.8):
        first, second = equally_good(rng, 401, 0.5)
        result = compare_losses(first + shift, second, horizon=HORIZON)
        assert result.low is not None
        assert result.high is not None
        assert result.p_value is not None
        assert result.low < result.mean_difference < result.high
        assert (result.low <= 0 <= result.high) == (result.p_value >= 0.05)


def test_swapping_the_two_changes_the_sign_and_nothing_else() -> None:
    first, second = equally_good(np.random.default_rng(5), 211, 0.5)
    one, other = compare_losses(first, second, horizon=HORIZON), compare_losses(second, first, horizon=HORIZON)
    assert one.mean_difference == -other.mean_difference
    assert one.p_value == pytest.approx(other.p_value)
    assert (one.low, one.high) == pytest.approx((-known(other.high), -known(other.low)))


def test_identical_losses_are_not_told_apart() -> None:
    loss = np.random.default_rng(6).random(211)
    result = compare_losses(loss, loss, horizon=7)
    assert (result.mean_difference, result.statistic, result.p_value) == (0.0, 0.0, 1.0)


def test_the_same_difference_everywhere_is_beyond_doubt() -> None:
    assert compare_losses(np.full(211, 3.0), np.full(211, 2.0), horizon=7).p_value == 0.0


def test_long_horizons_get_fewer_degrees_of_freedom() -> None:
    loss = np.random.default_rng(8).random((2, 1009))
    degrees = [compare_losses(*loss, horizon=horizon).degrees for horizon in (1, 7, 24, 96)]
    assert degrees == [int(0.4 * 1009 ** (2 / 3)), 36, 10, 2]


@pytest.mark.parametrize(("n_windows", "horizon"), [(95, 24), (15, 1), (0, 3)])
def test_too_few_windows_give_a_difference_and_no_verdict(n_windows: int, horizon: int) -> None:
    loss = np.random.default_rng(9).random((2, n_windows))
    expected = float(np.mean(loss[0] - loss[1])) if n_windows else 0.0
    result = compare_losses(*loss, horizon=horizon)
    assert result == LossComparison(expected, None, None, None, None, 0, n_windows, n_windows)


def test_items_observed_together_do_not_count_twice() -> None:
    first, second = equally_good(np.random.default_rng(10), 409, 0.5)
    once = compare_losses(first, second, horizon=HORIZON)
    copies = [np.concatenate([values] * 5) for values in (first, second)]
    five = compare_losses(*copies, horizon=HORIZON, times=np.tile(np.arange(409), 5))
    assert five.p_value == pytest.approx(once.p_value)
    assert (five.n_windows, five.n_times) == (5 * 409, 409)
    naive = compare_losses(*copies, horizon=HORIZON)
    assert naive.p_value is not None
    assert once.p_value is not None
    assert naive.p_value < once.p_value


def test_the_order_of_labelled_windows_does_not_matter() -> None:
    first, second = equally_good(np.random.default_rng(11), 211, 0.5)
    order = np.random.default_rng(12).permutation(211)
    shuffled = compare_losses(first[order], second[order], horizon=HORIZON, times=order)
    assert shuffled.p_value == pytest.approx(compare_losses(first, second, horizon=HORIZON).p_value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.ones(5), np.ones(7)), ShapeError, "vectors of one length, got shapes (5,), (7,)"),
        ((np.ones((5, 3)), np.ones((5, 3))), ShapeError, "the mean loss of each window"),
        ((np.array([1.0, np.nan]), np.ones(2)), DataError, "must be finite, got 1 windows"),
    ],
)
def test_wrong_losses_are_refused(arguments: tuple[np.ndarray, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        compare_losses(*arguments, horizon=7)
    assert words in str(caught.value)


def test_a_horizon_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="`horizon` must be at least 1"):
        compare_losses(np.ones(50), np.ones(50), horizon=0)


def test_holm_equals_its_plain_oracle() -> None:
    p_values = np.random.default_rng(13).random(7) ** 3
    names = [f"model {number}" for number in range(7)]
    adjusted = holm(dict(zip(names, p_values.tolist(), strict=True)))
    assert list(adjusted) == names
    assert list(adjusted.values()) == pytest.approx(oracles.holm(p_values.tolist()))


def test_holm_counts_only_what_was_tested() -> None:
    assert holm({"a": 0.02, "b": None, "c": 0.03}) == {"a": 0.04, "b": None, "c": 0.04}
    assert holm({"a": None}) == {"a": None}
