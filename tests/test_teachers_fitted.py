"""Regressors of scikit-learn and models of statsmodels teach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.tree import DecisionTreeRegressor
from statsmodels.tsa.ar_model import AutoReg
from statsmodels.tsa.holtwinters import SimpleExpSmoothing

import tsdistill as td
from tsdistill.errors import ConfigError, DataError, ShapeError, UnsupportedError
from tsdistill.models import LinearConfig
from tsdistill.teachers import check_teacher, from_function, from_sklearn, from_statsmodels
from tsdistill.testing import toy_panel, toy_task

SPLIT = td.Split.fractions(0.6, 0.2, 0.2)


@pytest.fixture(scope="module")
def task() -> td.Task:
    return toy_task()


def some(windows: Any, n: int = 5) -> Any:
    return windows.batch(torch.linspace(0, len(windows) - 1, n).long())


def test_a_linear_regressor_is_least_squares_on_centred_windows(task: td.Task) -> None:
    teacher = from_sklearn(LinearRegression(fit_intercept=False), task, n_windows=None)
    every = task.train.batch(torch.arange(len(task.train)))
    x, y = (part.numpy().astype(np.float64).transpose(0, 2, 1) for part in (every.context, every.target))
    mean = x.mean(-1, keepdims=True)
    weight, *_ = np.linalg.lstsq((x - mean).reshape(-1, 47), (y - mean).reshape(-1, 11), rcond=None)
    expected = ((x - mean) @ weight + mean).transpose(0, 2, 1)
    np.testing.assert_allclose(teacher.forecast(every), expected, atol=1e-4)
    assert teacher.n_examples == 3 * len(task.train)


@pytest.mark.parametrize("horizon", [1, 3])
def test_one_output_and_many_are_both_served(horizon: int) -> None:
    task = td.Task(toy_panel(n_rows=199), context=17, horizon=horizon, split=SPLIT)
    boosted = from_sklearn(GradientBoostingRegressor(n_estimators=2, random_state=0), task, n_windows=31)
    tree = from_sklearn(DecisionTreeRegressor(max_depth=3, random_state=0), task, n_windows=31)
    for teacher in (boosted, tree):
        assert tuple(teacher.forecast(some(task.validation)).shape) == (5, horizon, 3)
    assert (type(boosted.regressor).__name__ == "MultiOutputRegressor") == (horizon > 1)


def test_the_regressor_that_was_given_stays_unfitted_and_teaches(task: td.Task) -> None:
    ridge = Ridge(1.0)
    teacher = from_sklearn(ridge, task)
    assert not hasattr(ridge, "coef_")
    student = td.distill(teacher, LinearConfig(), task, control=False)
    assert student.lineage[-1].spec["teacher"] == teacher.digest


def test_the_digest_follows_parameters_windows_and_what_was_learnt(task: td.Task) -> None:
    def forest(**options: Any) -> RandomForestRegressor:
        return RandomForestRegressor(**{"n_estimators": 2, "max_depth": 3, "random_state": 0, **options})

    made = [forest(), forest(), forest(random_state=1), forest(min_samples_leaf=2), Ridge(1.0), Ridge(2.0)]
    digests = [from_sklearn(regressor, task, n_windows=53).digest for regressor in made]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5
    assert from_sklearn(Ridge(1.0), task, n_windows=53, seed=1).digest not in digests
    teacher = from_sklearn(Ridge(1.0), task, n_windows=53)
    assert teacher.digest in digests
    teacher.regressor.coef_[0, 0] += 1e-9
    assert teacher.digest not in digests


def test_other_tasks_and_no_regressors_are_refused(task: td.Task) -> None:
    teacher = from_sklearn(Ridge(), task, n_windows=53)
    with pytest.raises(ShapeError, match="the task's 7 steps"):
        check_teacher(teacher, td.Task(task.panel, context=47, horizon=7, split=SPLIT))
    with pytest.raises(ShapeError, match="fitted for another one"):
        check_teacher(teacher, toy_task(seed=1))
    with pytest.raises(ConfigError, match="fit and predict"):
        from_sklearn("ridge", task)
    with pytest.raises(ConfigError, match="n_windows"):
        from_sklearn(Ridge(), task, n_windows=0)

    class Lost(Ridge):  # type: ignore[misc]
        def predict(self, X: Any) -> Any:  # noqa: N803
            return super().predict(X) * np.nan

    with pytest.raises(DataError, match="not all finite"):
        from_sklearn(Lost(), task, n_windows=53)


def last_season(series: np.ndarray, n_steps: int) -> np.ndarray:
    return np.resize(series[-24:], n_steps)


def test_a_function_of_a_series_teaches_like_the_forecaster_it_is(task: td.Task) -> None:
    teacher = from_function(last_season, task)
    naive = td.models.SeasonalNaiveConfig(period=24).build(task.signature)
    for windows in (task.train, task.validation, task.test):
        batch = some(windows)
        torch.testing.assert_close(teacher.forecast(batch), naive.forecast(batch), rtol=1e-4, atol=1e-4)
    assert teacher.digest == from_function(last_season, task).digest
    assert teacher.digest != from_function(lambda s, n: last_season(s, n) + 1e-3, task).digest


def test_a_function_sees_raw_values_of_items_with_a_scaler_of_their_own() -> None:
    task = td.Task(toy_panel(), context=47, horizon=11, split=SPLIT, scaler="item")
    teacher = from_function(last_season, task)
    naive = td.models.SeasonalNaiveConfig(period=24).build(task.signature)
    torch.testing.assert_close(
        teacher.forecast(some(task.train)), naive.forecast(some(task.train)), rtol=1e-4, atol=1e-4
    )
    with pytest.raises(UnsupportedError, match="common scaler"):
        teacher.forecast(some(task.test))


def test_between_two_fits_the_last_forecast_goes_on(task: td.Task) -> None:
    """A straight line through the last two values: an old one is another one."""

    def line(series: np.ndarray, n_steps: int) -> np.ndarray:
        return series[-1] + (series[-1] - series[-2]) * np.arange(1, n_steps + 1)

    plain, strided = from_function(line, task), from_function(line, task, stride=5)
    assert plain.digest != strided.digest
    index = torch.tensor([35, 37, 39, 40])
    batch = task.train.batch(index)
    forecast = strided.forecast(batch)
    torch.testing.assert_close(forecast[[0, 3]], plain.forecast(task.train.batch(index[[0, 3]])), rtol=1e-4, atol=1e-4)
    values = np.asarray(task.values(0))
    for row, late in ((1, 2), (2, 4)):
        end = 35 + 46  # the cutoff of window 35
        path = values[end] + (values[end] - values[end - 1]) * np.arange(1, 16)[:, None]
        expected = (path[late : late + 11] - task.mean) / task.scale
        np.testing.assert_allclose(forecast[row], expected, atol=1e-3)
    before = strided.n_fits
    strided.forecast(task.train.batch(torch.arange(35, 45)))
    assert strided.n_fits == before  # both cutoffs were known
    strided.forecast(some(task.validation))
    with pytest.raises(UnsupportedError, match="stride=1"):
        strided.forecast(some(task.test))


def test_models_of_statsmodels_teach() -> None:
    task = td.Task(toy_panel(n_rows=131), context=29, horizon=3, split=td.Split.fractions(0.5, 0.25, 0.25))
    smooth = from_statsmodels(SimpleExpSmoothing, task, settings={"initialization_method": "estimated"}, stride=7)
    batch = some(task.train)
    assert tuple(smooth.forecast(batch).shape) == (5, 3, 3)
    two = from_statsmodels(AutoReg, task, settings={"lags": 2})
    raw = batch.context[1, :, 2].double().numpy() * task.scale[2] + task.mean[2]
    expected = (AutoReg(raw, lags=2).fit().forecast(3) - task.mean[2]) / task.scale[2]
    np.testing.assert_allclose(two.forecast(batch)[1, :, 2], expected, atol=1e-3)
    assert two.digest != from_statsmodels(AutoReg, task, settings={"lags": 3}).digest
    student = td.distill(smooth, LinearConfig(), task, control=False)
    assert student.lineage[-1].spec["teacher"] == smooth.digest


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda s, n: s[:3], r"11 finite numbers for a window, got shape \(3,\) for channel 'load'"),
        (lambda s, n: np.full(n, np.nan), "not all of them finite"),
        (lambda s, n: 1 / 0, "failed on a window of channel 'load': ZeroDivisionError"),
    ],
    ids=["shape", "nan", "fails"],
)
def test_what_a_function_does_wrong_is_told(task: td.Task, function: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_function(function, task)


def test_no_functions_and_no_strides_are_refused(task: td.Task) -> None:
    with pytest.raises(ConfigError, match="`function`"):
        from_function("theta", task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`model`"):
        from_statsmodels("theta", task)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`stride`"):
        from_function(last_season, task, stride=0)
    with pytest.raises(DataError, match="Make it for this task"):
        check_teacher(from_function(last_season, task, stride=3), toy_task(seed=1))
