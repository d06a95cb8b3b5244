"""Scores count every window once, whatever the model, the batch size or the scaling; baselines; latency."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from tests import oracles
from tests.typed import instance_of
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Batch, Signature, Task
from tsdistill.errors import ConfigError, DataError, ShapeError, UnsupportedError
from tsdistill.evaluation import baselines, evaluate, forecasts, measure_latency, score, seasonal_naive, window_losses
from tsdistill.evaluation.latency import _latencies
from tsdistill.exporting import export
from tsdistill.models import Forecaster, LinearConfig, MLPConfig, SeasonalNaiveConfig
from tsdistill.training import train

CONTEXT, HORIZON, CHANNELS = 29, 7, ("a", "b", "c")


def waves(n_rows: int, seed: int = 0) -> np.ndarray:
    """Daily waves of three channels of very different sizes, with noise."""
    rng = np.random.default_rng(seed)
    hours = np.arange(n_rows)[:, None]
    return (np.sin(hours * 2 * np.pi / 24 + np.arange(3)) + rng.normal(0, 0.3, (n_rows, 3))) * [1, 10, 100] + [5, 50, 0]


def panel_of(*values: np.ndarray, stamps: bool = True, starts: tuple[str, ...] = ("2013-01-01",)) -> Panel:
    items = []
    for number, rows in enumerate(values):
        start = starts[number % len(starts)]
        ds = pd.date_range(start, periods=len(rows), freq="h") if stamps else None
        items.append(Item(f"item {number}", ds, rows))
    return Panel(tuple(items), channels=CHANNELS, frequency="h")


def task_of(*values: np.ndarray, context: int = CONTEXT, **options: Any) -> Task:
    return Task(panel_of(*values, **options), context=context, horizon=HORIZON)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(waves(211))


@pytest.fixture(scope="module")
def ridge(task: Task) -> Forecaster:
    return train(LinearConfig(), task)


def test_scores_equal_plain_loops_over_every_window(task: Task, ridge: Forecaster) -> None:
    scores = evaluate(ridge, task, "test")
    values, cut = task.panel.items[0].values, task.borders[0]
    firsts = range(cut.validation - CONTEXT, cut.test - CONTEXT - HORIZON + 1)
    contexts = np.stack([values[first : first + CONTEXT] for first in firsts])
    targets = np.stack([values[first + CONTEXT : first + CONTEXT + HORIZON] for first in firsts])
    raw = np.asarray(ridge.predict(contexts), dtype=np.float64)
    scaled, wanted = (raw - task.mean) / task.scale, (targets - task.mean) / task.scale
    assert scores["n_windows"] == len(firsts)
    assert scores["mse"] == pytest.approx(oracles.mse(scaled, wanted), rel=1e-5)
    assert scores["mae"] == pytest.approx(oracles.mae(scaled, wanted), rel=1e-5)
    assert scores["mse_raw"] == pytest.approx(oracles.mse(raw, targets), rel=1e-5)
    assert scores["mae_raw"] == pytest.approx(oracles.mae(raw, targets), rel=1e-5)
    assert scores["mase"] == pytest.approx(oracles.mase(raw, targets, values[: cut.train], 24), rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 5, 13, 1000])
def test_scores_do_not_depend_on_the_batch_size(task: Task, ridge: Forecaster, batch_size: int) -> None:
    expected = evaluate(ridge, task, "validation")
    assert evaluate(ridge, task, "validation", batch_size=batch_size) == pytest.approx(expected, rel=1e-6)


def test_all_ways_to_split_the_error_add_up(task: Task, ridge: Forecaster) -> None:
    scores, mse = score(ridge, task, "test"), evaluate(ridge, task, "test")["mse"]
    assert scores.window_losses.shape == (len(task.test),)
    assert scores.mse_by_step.shape == (HORIZON,)
    assert scores.mse_by_channel.shape == (len(CHANNELS),)
    for split in (scores.window_losses, scores.mse_by_step, scores.mse_by_channel):
        assert split.mean() == pytest.approx(mse)
    assert (window_losses(ridge, task, "test") == scores.window_losses).all()


def test_forecasts_come_in_the_order_of_the_windows(task: Task, ridge: Forecaster) -> None:
    forecast = forecasts(ridge, task.test, task.signature, batch_size=5)
    assert forecast.shape == (len(task.test), HORIZON, len(CHANNELS))
    target = task.test.batch(torch.arange(len(task.test))).target.numpy()
    assert ((forecast - target) ** 2).mean(axis=(1, 2)) == pytest.approx(window_losses(ridge, task, "test"), rel=1e-5)
    order = torch.tensor([7, 3])
    assert forecasts(ridge, task.test.subset(order)) == pytest.approx(forecast[order.numpy()], abs=1e-6)


def test_a_deployed_model_scores_as_the_one_it_was_made_from(task: Task, ridge: Forecaster) -> None:
    deployed = export(ridge, task)
    assert evaluate(deployed, task, "test") == pytest.approx(evaluate(ridge, task, "test"), rel=1e-4)
    assert forecasts(deployed, task.test) == pytest.approx(forecasts(ridge, task.test), abs=1e-4)


def test_int8_is_scored_one_window_at_a_time(task: Task, ridge: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = dataclasses.replace(export(ridge, task), precision="int8")
    sizes: list[int] = []
    run = deployed.predictor.run

    def counted(context: np.ndarray) -> np.ndarray:
        sizes.append(len(context))
        return run(context)

    monkeypatch.setattr(deployed.predictor, "run", counted)
    evaluate(deployed, task, "validation")
    assert sizes == [1] * len(task.validation)


def test_a_model_trained_on_another_scale_is_scored_in_raw_units(task: Task, ridge: Forecaster) -> None:
    later = Task(panel_of(3 * waves(211, seed=1) + 7), context=CONTEXT, horizon=HORIZON)
    assert later.signature != ridge.signature
    scores = evaluate(ridge, later, "test")
    assert scores == pytest.approx(evaluate(export(ridge, task), later, "test"), rel=1e-4)
    contexts = later.test.batch(torch.arange(len(later.test)))
    raw = np.asarray(ridge.predict(contexts.context.numpy() * later.scale + later.mean))
    truth = contexts.target.numpy() * later.scale + later.mean
    assert scores["mae_raw"] == pytest.approx(oracles.mae(raw, truth), rel=1e-4)


def test_a_model_with_a_shorter_context_uses_the_last_steps(ridge: Forecaster) -> None:
    longer = task_of(waves(211), context=47)
    assert evaluate(ridge, longer, "test") == pytest.approx(evaluate(ridge, task_of(waves(211)), "test"), rel=1e-5)


def test_a_teacher_that_is_no_forecaster_is_scored(task: Task) -> None:
    class Zero:
        digest = "zero"

        def forecast(self, batch: Batch) -> torch.Tensor:
            return torch.zeros_like(batch.target)

    target = task.test.batch(torch.arange(len(task.test))).target.numpy()
    assert evaluate(Zero(), task, "test")["mse"] == pytest.approx((target**2).mean())


def test_mase_uses_each_items_own_training_part() -> None:
    task = task_of(waves(211), 7 * waves(307, seed=1), 0.1 * waves(251, seed=2))
    model = SeasonalNaiveConfig(period=24).build(task.signature)
    parts = []
    for item, cut in zip(task.panel.items, task.borders, strict=True):
        firsts = range(cut.validation - CONTEXT, cut.test - CONTEXT - HORIZON + 1)
        contexts = np.stack([item.values[first : first + CONTEXT] for first in firsts])
        targets = np.stack([item.values[first + CONTEXT : first + CONTEXT + HORIZON] for first in firsts])
        raw = np.asarray(model.predict(contexts))
        parts.append((len(firsts), oracles.mase(raw, targets, item.values[: cut.train], 24)))
    expected = sum(count * value for count, value in parts) / sum(count for count, _ in parts)
    assert evaluate(model, task, "test")["mase"] == pytest.approx(expected, rel=1e-4)


def test_data_that_never_moves_has_no_mase() -> None:
    task = task_of(np.ones((211, 3)))
    assert "mase" not in evaluate(SeasonalNaiveConfig(period=1).build(task.signature), task)


def test_windows_of_several_items_share_their_times() -> None:
    starts = ("2013-01-01", "2013-01-01", "2013-01-02")
    task = Task(panel_of(waves(211), waves(211), waves(211), starts=starts), context=CONTEXT, horizon=HORIZON)
    times = score(SeasonalNaiveConfig(period=24).build(task.signature), task, "test").times.reshape(3, -1)
    cut = task.borders[0]
    assert times[0, 0] == np.datetime64("2013-01-01") + np.timedelta64(cut.validation, "h")
    assert (times[0] == times[1]).all()
    assert (times[2] - times[0] == np.timedelta64(1, "D")).all()


def test_items_without_stamps_share_their_rows() -> None:
    task = task_of(waves(211), waves(211, seed=1), stamps=False)
    times = score(SeasonalNaiveConfig(period=24).build(task.signature), task, "test").times.reshape(2, -1)
    assert times[0].tolist() == times[1].tolist() == list(range(task.borders[0].validation, 211 - HORIZON + 1))


# Leakage


def noisy_tail(values: np.ndarray, first: int) -> np.ndarray:
    changed = values.copy()
    changed[first:] = 1000 * np.random.default_rng(9).normal(size=changed[first:].shape)
    return changed


def test_the_test_part_moves_neither_baselines_nor_validation_scores(task: Task) -> None:
    values, cut = task.panel.items[0].values, task.borders[0]
    other = task_of(noisy_tail(values, cut.validation))
    for (name, one), two in zip(baselines(task).items(), baselines(other).values(), strict=True):
        assert one.digest == two.digest, name
        assert evaluate(one, task, "validation") == evaluate(two, other, "validation")
        assert evaluate(one, task, "test")["mse"] < evaluate(two, other, "test")["mse"]


# Baselines


def test_the_baselines_are_a_seasonal_naive_and_a_ridge(task: Task) -> None:
    models = baselines(task)
    assert {name: model.config.kind for name, model in models.items()} == {
        "seasonal naive": "seasonal-naive",
        "ridge": "linear",
    }
    assert evaluate(models["ridge"], task)["mse"] < evaluate(models["seasonal naive"], task)["mse"]


def period_of(task: Task) -> int:
    return instance_of(SeasonalNaiveConfig, seasonal_naive(task).config).period


def test_the_seasonal_naive_takes_the_period_that_is_best_on_validation() -> None:
    rng = np.random.default_rng(0)
    week = np.tile(rng.normal(size=(168, 3)), (5, 1)) + rng.normal(0, 0.01, (840, 3))
    assert period_of(task_of(week, context=173)) == 168
    assert period_of(task_of(waves(840), context=173)) == 24


def test_a_period_longer_than_the_context_is_not_considered() -> None:
    assert period_of(task_of(waves(211))) == 24
    assert period_of(task_of(waves(211), context=23)) == 1


# Errors


def untrained(context: int = CONTEXT, horizon: int = HORIZON, channels: tuple[str, ...] = CHANNELS) -> Forecaster:
    mean, scale = (0.0,) * len(channels), (1.0,) * len(channels)
    signature = Signature(context=context, horizon=horizon, channels=channels, mean=mean, scale=scale)
    return MLPConfig(width=5, depth=1).build(signature)


def diverged() -> Forecaster:
    model = untrained()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    return model


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (untrained(context=31), ShapeError, "`context` must be at least the model's 31 steps, got context=29"),
        (untrained(horizon=11), ShapeError, "`horizon` must be the model's 11 steps, got horizon=7"),
        (untrained(channels=("a", "b")), ShapeError, "`channels` must be the model's ['a', 'b'], got"),
        (untrained(channels=("c", "b", "a")), ShapeError, "the model's ['c', 'b', 'a']"),
        (untrained(31, 11, ("a",)), ShapeError, "3 problems in the task for MLP 'mlp'"),
        (diverged(), DataError, "must forecast finite numbers, got others in 16 of 16 windows"),
        (nn.Linear(29, 7), UnsupportedError, "got Linear. Build one with td.train"),
        (None, UnsupportedError, "`model` must be a forecaster"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(task: Task, model: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        evaluate(model, task)
    assert words in str(caught.value)


def test_a_teacher_with_the_wrong_horizon_is_refused(task: Task) -> None:
    class Short:
        def forecast(self, batch: Batch) -> torch.Tensor:
            return batch.target[:, :5]

    with pytest.raises(ShapeError, match=r"Short must forecast \(16, 7, 3\) .*got \(16, 5, 3\)"):
        evaluate(Short(), task)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": "tset"}, "`part` must be one of train, validation, test"),
        ({"batch_size": 0}, "`batch_size` must be"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(task: Task, ridge: Forecaster, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        evaluate(ridge, task, **options)
    assert words in str(caught.value)


# Latency


def test_callables_take_turns_in_short_blocks() -> None:
    calls: list[str] = []
    latencies = measure_latency({name: partial(calls.append, name) for name in "abc"}, n_runs=13, warmup=2)
    assert calls[:6] == list("aabbcc")
    timed = calls[6:]
    for first in (0, 15):
        assert sorted(timed[first : first + 15]) == sorted("abc" * 5)
    assert sorted(timed[30:]) == sorted("abc" * 3)
    assert {latency.n_runs for latency in latencies.values()} == {13}


def test_calls_are_made_anew_and_each_makes_its_share() -> None:
    made: list[list[str]] = []

    def make() -> dict[str, Callable[[], object]]:
        made.append([])
        return {name: partial(made[-1].append, name) for name in "ab"}

    latencies = measure_latency(make, n_runs=13, warmup=1, rebuilds=3)
    assert [len(calls) // 2 for calls in made] == [1 + 5, 1 + 4, 1 + 4]
    assert latencies["a"].paired_ms > 0
    assert latencies["a"].n_runs == latencies["b"].n_runs == 13
    made.clear()
    assert measure_latency(make, n_runs=2, warmup=0, rebuilds=5)["a"].n_runs == 2
    slow = {"it": lambda: time.sleep(0.01)}
    assert measure_latency(lambda: slow, n_runs=1000, max_seconds=0.05, rebuilds=4)["it"].n_runs <= 20


def test_the_order_is_shuffled_the_same_way_every_time() -> None:
    def order(seed: int) -> str:
        calls: list[str] = []
        many = {name: partial(calls.append, name) for name in "abcdefg"}
        measure_latency(many, n_runs=10, warmup=0, seed=seed)
        return "".join(calls)

    assert order(0) == order(0) != order(1)


def test_a_slower_call_is_found_slower() -> None:
    latencies = measure_latency({"slow": lambda: time.sleep(0.003), "fast": lambda: None}, n_runs=11, warmup=1)
    assert latencies["slow"].p50_ms >= 3 > latencies["fast"].p50_ms
    assert latencies["slow"].p50_ms <= latencies["slow"].p95_ms


def test_slow_spells_that_hit_everybody_do_not_move_what_calls_are_compared_by() -> None:
    rng = np.random.default_rng(0)
    rounds = []
    for spell in rng.choice([1, 10], 41):  # the machine is ten times as slow in about half of the rounds
        times = {"fast": 100 * spell, "slow": 103 * spell}
        rounds.append({name: [int(1e3 * time)] * 5 for name, time in times.items()})
    rounds[7]["fast"] = [10**9] * 5  # and once for one alone
    latencies = _latencies(rounds)
    assert latencies["slow"].paired_ms / latencies["fast"].paired_ms == pytest.approx(1.03, rel=1e-6)
    assert latencies["slow"].n_runs == 41 * 5
    alone = _latencies([{"it": [5_000_000] * 5}])["it"]
    assert alone.paired_ms == pytest.approx(alone.p50_ms) == pytest.approx(5)


def test_time_is_bounded_and_every_call_timed_all_the_same() -> None:
    latencies = measure_latency({name: lambda: time.sleep(0.01) for name in "ab"}, n_runs=10_000, max_seconds=0.05)
    assert 1 <= latencies["a"].n_runs == latencies["b"].n_runs < 100


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_while_measuring_and_as_before_afterwards(fails: bool) -> None:
    before, seen = torch.get_num_threads(), []

    def call() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled()))
        if fails and len(seen) > 3:
            raise RuntimeError("out of order")

    torch.set_num_threads(3)
    try:
        if fails:
            with pytest.raises(RuntimeError, match="out of order"):
                measure_latency({"it": call}, n_runs=7)
        else:
            measure_latency({"it": call}, n_runs=7)
        assert set(seen) == {(1, False)}
        assert (torch.get_num_threads(), gc.isenabled()) == (3, True)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_runs": 0}, ["`n_runs` must be at least 1"]),
        ({"rebuilds": 0}, ["`rebuilds` must be at least 1"]),
        ({"warmup": -1, "max_seconds": 0.0}, ["2 problems", "`warmup`", "`max_seconds` must be above 0"]),
    ],
)
def test_wrong_measuring_is_refused(options: dict[str, float], words: list[str]) -> None:
    measure: Callable[..., object] = measure_latency
    with pytest.raises(ConfigError) as caught:
        measure({"it": lambda: None}, **options)
    for word in words:
        assert word in str(caught.value)


def test_nothing_to_measure_takes_no_time() -> None:
    assert measure_latency({}, n_runs=10) == {}
