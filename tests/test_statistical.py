"""Statistical baselines are what statsmodels says, say on how many windows, and are compared on the same ones only."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.forecasting.stl import STLForecast
from statsmodels.tsa.forecasting.theta import ThetaModel
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from tests.typed import known
from tsdistill.data.panel import Item, Panel
from tsdistill.data.task import Signature, Task
from tsdistill.distillation import distill
from tsdistill.errors import ConfigError, DataError, UnsupportedError
from tsdistill.evaluation import (
    Statistical,
    StatisticalForecaster,
    baselines,
    compare_losses,
    evaluate,
    forecasts,
    score,
    statistical,
    window_losses,
)
from tsdistill.evaluation import statistical as statistical_verb
from tsdistill.models import Forecaster, LinearConfig, MLPConfig
from tsdistill.report import Comparison, Report, compare
from tsdistill.report.figures import figures
from tsdistill.report.page import render
from tsdistill.report.pairing import overlap, spread
from tsdistill.report.text import accuracy, cost
from tsdistill.teachers import Teacher
from tsdistill.training import Training, train

PERIOD, HORIZON, CONTEXT = 5, 7, 41
METHODS = ("ets", "theta", "stl")


def waves(n_rows: int, n_channels: int = 2, seed: int = 0) -> np.ndarray:
    """Positive seasonal series whose noise remembers, of very different sizes."""
    rng = np.random.default_rng(seed)
    noise = np.zeros((n_rows, n_channels))
    for row in range(1, n_rows):
        noise[row] = 0.6 * noise[row - 1] + rng.normal(0, 0.3, n_channels)
    season = np.sin(np.arange(n_rows)[:, None] * 2 * np.pi / PERIOD + np.arange(n_channels))
    return (season + noise + 9) * 10.0 ** np.arange(n_channels)


def task_of(*values: np.ndarray, context: int = CONTEXT, frequency: str | None = "B", **options: Any) -> Task:
    channels = tuple("abc"[: values[0].shape[1]])
    items = tuple(
        Item(str(n), pd.bdate_range("2013-01-01", periods=len(rows)) if frequency else None, rows)
        for n, rows in enumerate(values)
    )
    return Task(Panel(items, channels=channels, frequency=frequency), context=context, horizon=HORIZON, **options)


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(waves(307))


def direct(method: str, series: np.ndarray, period: int = PERIOD) -> np.ndarray:
    """The same forecast by statsmodels alone; STL's by its own forecaster and a maximum likelihood fit."""
    if method == "ets":
        season = {"seasonal": "add", "seasonal_periods": period} if period > 1 else {}
        model = ExponentialSmoothing(series, trend="add", damped_trend=True, **season)
        return np.asarray(model.fit(use_brute=False).forecast(HORIZON))
    if method == "theta":
        return np.asarray(ThetaModel(series, period=period, deseasonalize=period > 1).fit().forecast(HORIZON))
    model = STLForecast(series, ARIMA, model_kwargs={"order": (1, 0, 0), "trend": "c"}, period=period)
    return np.asarray(model.fit().forecast(HORIZON))


@pytest.mark.parametrize("method", METHODS)
def test_forecasts_are_those_of_statsmodels(task: Task, method: Any) -> None:
    raw = task.panel.items[0].values
    series = raw[100 : 100 + CONTEXT]
    expected = np.stack([direct(method, series[:, channel]) for channel in range(2)], axis=1) / raw.std(axis=0)
    model = StatisticalForecaster(Statistical(kind=method, period=PERIOD), signature_of(2))
    forecast = np.asarray(model.predict(series)) / raw.std(axis=0)
    assert forecast.shape == (HORIZON, 2)
    # Two estimates of one autoregression differ in a short window; anything else is the same computation.
    assert forecast == pytest.approx(expected, abs=0.15 if method == "stl" else 1e-3)
    assert model.n_fits == 2
    # statsmodels searches a little differently for series of another size.
    scaled = np.asarray(statistical(method, task).predict(series)) / raw.std(axis=0)
    assert scaled == pytest.approx(forecast, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_scaled_and_raw_forecasts_agree(task: Task, method: Any) -> None:
    model = statistical(method, task)
    some = task.test.subset(torch.tensor([3, 17]))
    batch = next(some.batches(2))
    scaled = model.forecast(batch)
    assert scaled.dtype == torch.float32
    raw = np.asarray(model.predict((batch.context.numpy() * task.scale + task.mean).astype(np.float32)))
    assert scaled.numpy() == pytest.approx((raw - task.mean) / task.scale, abs=1e-2)
    alone = [forecasts(model, some.subset(torch.tensor([row])), task.signature)[0] for row in range(2)]
    assert scaled.numpy() == pytest.approx(np.stack(alone), abs=1e-6)


def test_a_season_of_positive_values_is_multiplicative_where_zero_is_known(task: Task) -> None:
    raw = task.panel.items[0].values[:CONTEXT]
    model = statistical("theta", task)
    centred = ThetaModel(raw[:, 0] - raw[:, 0].mean(), period=PERIOD).fit().forecast(HORIZON) + raw[:, 0].mean()
    forecast = np.asarray(model.predict(raw))[:, 0]
    assert forecast == pytest.approx(direct("theta", raw[:, 0]), rel=1e-4)
    assert np.abs(forecast - np.asarray(centred)).max() > 1e-3


def test_a_longer_context_is_used_from_its_end(task: Task) -> None:
    model = statistical("stl", task)
    longer = task_of(waves(307), context=53)
    assert evaluate(model, longer, "test")["mse"] == pytest.approx(evaluate(model, task, "test")["mse"], rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_move_is_forecast_not_to(method: Any) -> None:
    values = waves(307)
    values[:, 1] = 5.25
    model = statistical(method, task_of(values))
    assert np.asarray(model.predict(values[:CONTEXT]))[:, 1] == pytest.approx(5.25)
    assert model.n_fits == 1


def test_warnings_are_counted_and_told() -> None:
    """A perfect season leaves nothing to estimate; the suite makes errors of warnings that get out."""
    season = np.tile(np.arange(5.0), 61)[:, None]
    model = statistical("ets", task_of(season + np.r_[waves(290, 1), np.zeros((15, 1))]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.predict(season[:CONTEXT])
        model.predict(waves(CONTEXT, 1))
    assert [str(warning.message) for warning in caught] == []
    assert (model.n_fits, model.n_warned["ConvergenceWarning"]) == (2, 1)
    assert "2 fits, ConvergenceWarning 1" in model.remark
    assert "none with a warning" in statistical("ets", task_of(waves(307))).remark


def test_a_perfect_season_is_repeated_by_stl() -> None:
    season = np.tile(np.arange(5.0), 61)[:, None]
    model = StatisticalForecaster(Statistical(kind="stl", period=5), signature_of(1))
    assert np.asarray(model.predict(season[:CONTEXT]))[:, 0] == pytest.approx(season[CONTEXT : CONTEXT + HORIZON, 0])


def signature_of(n_channels: int) -> Signature:
    names, zero, one = tuple("abc"[:n_channels]), (0.0,) * n_channels, (1.0,) * n_channels
    return Signature(context=CONTEXT, horizon=HORIZON, channels=names, mean=zero, scale=one)


def test_a_fit_that_fails_says_where(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("no")

    monkeypatch.setattr("statsmodels.tsa.forecasting.theta.ThetaModel.fit", fails)
    with pytest.raises(DataError, match=r"theta cannot be fitted to window 0 of the batch, channel 'a': no\. Leave"):
        evaluate(statistical("theta", task), task)


@pytest.mark.parametrize(
    ("context", "frequency", "period", "expected"),
    [(CONTEXT, "B", None, 5), (9, "B", None, 1), (10, "B", None, 5), (CONTEXT, None, None, 1), (CONTEXT, "B", 20, 20)],
)
def test_the_season_is_the_shortest_that_fits_twice(
    context: int, frequency: str | None, period: int | None, expected: int
) -> None:
    model = statistical("theta", task_of(waves(307), context=context, frequency=frequency), period=period)
    assert model.config.period == expected
    assert ("no season" in model.remark) == (expected == 1)
    series = waves(context, 1)
    short = np.asarray(StatisticalForecaster(model.config, signature_of(1).replace(context=context)).predict(series))
    assert short[:, 0] == pytest.approx(direct("theta", series[:, 0], expected), rel=1e-3)


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        ("arima", {}, "`method` must be one of ets, theta, stl, got method='arima'"),
        ("theta", {"period": 21}, "`period` must fit twice into the context of 41 steps, got period=21"),
        ("theta", {"period": 0}, "`period` must fit twice"),
        ("stl", {"period": 1}, 'must have a season that fits twice into the context of 41 steps for "stl"'),
    ],
)
def test_a_wrong_call_says_what_is_wrong(task: Task, method: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        statistical_verb(method, task, **options)
    assert words in str(caught.value)


def test_the_digest_names_method_season_and_scaling(task: Task) -> None:
    digests = [
        statistical("ets", task).digest,
        statistical("theta", task).digest,
        statistical("theta", task, period=7).digest,
        statistical("theta", task_of(2 * waves(307))).digest,
    ]
    assert len(set(digests)) == 4
    assert statistical("ets", task).digest == digests[0]


def test_a_statistical_forecaster_teaches() -> None:
    task = task_of(waves(151, 1))
    teacher = statistical("stl", task)
    assert isinstance(teacher, Teacher)
    student = distill(teacher, LinearConfig(), task, control=False)
    assert student.lineage[-1].spec["teacher"] == teacher.digest
    assert (
        teacher.n_fits == len(task.train) + 2
    )  # two more when the loss is bound + 2  # two windows more, when the loss is bound


def test_baselines_have_the_statistical_ones_on_request(task: Task) -> None:
    assert list(baselines(task)) == ["seasonal naive", "ridge"]
    models = baselines(task, ("stl", "ets"))
    assert list(models) == ["seasonal naive", "ridge", "stl", "ets"]
    assert models["stl"].digest == statistical("stl", task).digest


# In a report


@pytest.fixture(scope="module")
def two() -> Task:
    """Two items, so that chosen windows lie in both."""
    return task_of(waves(307), 3 * waves(211, seed=1))


@pytest.fixture(scope="module")
def model(two: Task) -> Forecaster:
    return train(MLPConfig(width=5, depth=1), two, Training(max_steps=5, batch_size=29))


@pytest.fixture(scope="module")
def report(two: Task, model: Forecaster) -> Report:
    return compare({"small": model}, two, baselines=("stl", "theta"), n_baseline_windows=23, n_latency_runs=5)


def chosen(task: Task) -> np.ndarray:
    return np.array([int((number + 0.5) * len(task.test) / 23) for number in range(23)])


def test_rows_hold_what_some_windows_say(report: Report, two: Task, model: Forecaster) -> None:
    assert [row.name for row in report.rows] == ["small", "small", "seasonal naive", "ridge", "stl", "theta"]
    row, places = report.row("stl"), chosen(two)
    assert (row.runtime, row.role, row.kind, row.size_bytes, row.size_ratio) == (
        "statsmodels",
        "baseline",
        "stl",
        None,
        None,
    )
    losses = window_losses(statistical("stl", two), two, "test")[places]
    reference = window_losses(model, two, "test")[places]
    assert row.n_windows == 23
    assert row.mse == pytest.approx(losses.mean(), rel=1e-5)
    assert row.mse_ratio == pytest.approx(losses.mean() / reference.mean(), rel=1e-4)
    assert row.mse_difference == pytest.approx(losses.mean() - reference.mean(), rel=1e-3)
    assert known(row.low) < known(row.mse_difference) < known(row.high)
    assert (row.n_latency_runs, report.row("ridge").n_latency_runs) == (3, 5)
    assert {row.n_windows for row in report.rows if row.runtime != "statsmodels"} == {None}


def test_comparisons_are_on_the_same_windows(report: Report, two: Task, model: Forecaster) -> None:
    comparison = {entry.other: entry for entry in report.comparisons}["theta"]
    places = chosen(two)
    mine = score(model, two, "test")
    reference = window_losses(statistical("theta", two), two, "test")[places]
    reach = overlap(mine.times, places, HORIZON)
    expected = compare_losses(mine.window_losses[places], reference, horizon=reach, times=mine.times[places])
    assert comparison.n_windows == 23
    assert comparison.relative == pytest.approx(expected.mean_difference / reference.mean(), rel=1e-3)
    assert comparison.p_value == pytest.approx(expected.p_value, rel=1e-2)
    assert report.row("theta").p_value == pytest.approx(expected.p_value, rel=1e-2)


def test_the_number_of_windows_is_said_wherever_the_row_is(report: Report, two: Task) -> None:
    whole = str(len(two.test))
    assert accuracy(report)["windows"] == [whole] * 4 + ["23"] * 2
    assert cost(report)["bytes"][-1] == cost(report)["smaller"][-1] == "-"
    remark = f"stl, theta: refitted to each window, scored on 23 evenly spread ones of {whole}"
    for text in (report.to_text(), render(report)):
        assert remark in " ".join(text.split())
        assert "stl: season of 5 steps; 46 fits, none with a warning." in " ".join(text.split())
    assert any("on 23 windows" in paragraph for paragraph in report.verdict)


def test_errors_of_some_windows_are_not_drawn_among_those_of_all(report: Report) -> None:
    for name in ("size", "latency", "steps"):
        titles = {trace["name"] for trace in figures(report)[name]["data"]}
        assert not any("stl" in title or "theta" in title for title in titles), name
        assert any("ridge" in title for title in titles), name
    assert {"stl (statsmodels)", "theta (statsmodels)"} <= set(report.examples[0].forecasts)


def test_a_report_with_them_survives_json_and_one_from_before_loads(report: Report) -> None:
    assert Report.from_json(report.to_json()) == report
    assert report.to_frame()["n_windows"].tolist()[-2:] == [23, 23]
    old = json.loads(report.to_json())
    old["rows"] = [row for row in old["rows"] if row["runtime"] != "statsmodels"]
    old["comparisons"] = [entry for entry in old["comparisons"] if "n_windows" not in entry]
    assert not {"n_windows", "remark"} & {name for row in old["rows"] for name in row}
    assert "windows" not in accuracy(Report.from_json(json.dumps(old)))


def test_a_reference_that_loses_on_the_same_windows_is_told(report: Report) -> None:
    rows = [row.replace(mse_ratio=0.9 if row.name == "theta" else 1.1, mse=5.0) for row in report.rows[1:]]
    changed = report.replace(rows=(report.rows[0].replace(mse=1.0), *rows), subject="ridge")
    lines = [line for line in changed.verdict if "ratios to it say little" in line]
    assert lines == ["small itself (MSE 1.0000) does not beat theta (-10.0 % on 23 windows): ratios to it say little."]


def test_untested_windows_do_not_ask_for_more_of_the_part(report: Report) -> None:
    untested = tuple(Comparison(subject="small", other="stl", relative=0.1, n_windows=n) for n in (5, None))
    assert not any("too few" in line for line in report.replace(comparisons=untested[:1]).verdict)
    assert any("too few" in line for line in report.replace(comparisons=untested[1:]).verdict)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"baselines": ("ets", "thea")}, ["`baselines` must be made of ets, theta, stl, got", "`theta`"]),
        ({"baselines": ("ets", "ets")}, ["name each method once"]),
        ({"n_baseline_windows": 0}, ["`n_baseline_windows` must be"]),
        ({"baselines": ("theta",), "names": ["theta"]}, ["a row that is added anyway"]),
    ],
)
def test_a_wrong_comparison_says_what_is_wrong(
    two: Task, model: Forecaster, options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(dict.fromkeys(options.pop("names", ["small"]), model), two, **options)
    for word in words:
        assert word in str(caught.value)


def test_a_statistical_model_is_asked_for_by_name(two: Task, model: Forecaster) -> None:
    with pytest.raises(UnsupportedError, match=r"local. Ask for it by baselines=\(\"theta\",\)"):
        compare({"small": model, "local": statistical("theta", two)}, two)


@pytest.mark.parametrize(("n_windows", "n_chosen"), [(101, 7), (23, 23), (5, 11), (2, 1)])
def test_windows_are_spread_evenly(n_windows: int, n_chosen: int) -> None:
    places = spread(n_windows, n_chosen)
    if n_chosen >= n_windows:
        assert places is None
        return
    assert places is not None
    steps = np.diff([-0.5 * n_windows / n_chosen, *places, n_windows + 0.5 * n_windows / n_chosen])
    assert len(places) == n_chosen
    assert np.abs(steps - n_windows / n_chosen).max() <= 1


@pytest.mark.parametrize("horizon", [1, 7, 13, 100])
def test_the_overlap_of_chosen_windows_is_that_of_a_plain_loop(horizon: int) -> None:
    rng = np.random.default_rng(0)
    times = np.concatenate([np.arange(3, 61), np.arange(41, 97)])
    places = np.sort(rng.choice(len(times), 19, replace=False))
    labels = sorted(set(times.tolist()))
    ranks = sorted({labels.index(time) for time in times[places].tolist()})
    expected = max(sum(begin <= other < begin + horizon for other in ranks) for begin in ranks)
    assert overlap(times, places, horizon) == expected
    assert overlap(np.arange(50), np.arange(50), horizon) == min(horizon, 50)
