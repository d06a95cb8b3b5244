"""Quantiles in scores and tables: right, on one set of levels, beside point forecasts, only where there are some."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from tests import oracles
from tests.typed import known
from tsdistill.data.task import Task
from tsdistill.errors import ShapeError
from tsdistill.evaluation import evaluate, quantile_levels, score
from tsdistill.evaluation.scores import outer_pair
from tsdistill.metrics import crossing_rate
from tsdistill.models import BinnedHead, Forecaster, LinearConfig, MLPConfig, PointHead, QuantileHead
from tsdistill.report import Report, Row, compare
from tsdistill.report.page import render
from tsdistill.report.text import accuracy
from tsdistill.testing import toy_task
from tsdistill.training import Training, train

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
COLUMNS = {"wql", "coverage", "nominal_coverage", "crossing_rate"}


def quick(task: Task, head: Any) -> Forecaster:
    return train(MLPConfig(width=5, depth=1, head=head), task, Training(max_steps=7, batch_size=29))


@pytest.fixture(scope="module")
def task() -> Task:
    return toy_task()


@pytest.fixture(scope="module")
def model(task: Task) -> Forecaster:
    return quick(task, QuantileHead(levels=LEVELS))


def everything(model: Forecaster, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Raw quantiles and targets of all test windows."""
    batch = task.test.batch(torch.arange(len(task.test)))
    with torch.no_grad():
        quantiles = model.eval().activations(batch.context).distribution
    assert quantiles is not None
    mean, scale = task.mean, task.scale
    return quantiles.numpy() * scale[:, None] + mean[:, None], batch.target.numpy() * scale + mean


@pytest.mark.parametrize("batch_size", [1, 13, 1000])
def test_quantile_scores_equal_plain_loops(task: Task, model: Forecaster, batch_size: int) -> None:
    quantiles, target = everything(model, task)
    scores = evaluate(model, task, "test", batch_size=batch_size)
    assert scores["wql"] == pytest.approx(oracles.wql(quantiles, target, list(LEVELS)), rel=1e-4)
    assert scores["coverage"] == pytest.approx(
        oracles.coverage(quantiles[..., 0], quantiles[..., -1], target), abs=2e-3
    )
    assert scores["nominal_coverage"] == 0.8
    assert scores["crossing_rate"] == 0


def test_scoring_leaves_a_model_in_the_mode_it_was_in(task: Task, model: Forecaster) -> None:
    for training in (True, False):
        model.train(training)
        evaluate(model, task)
        assert model.training is training


def test_crossing_is_measured_not_assumed(task: Task, model: Forecaster, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(model).activations

    def crossed(self: Any, *inputs: Any, **options: Any) -> Any:
        outputs = real(self, *inputs, **options)
        levels = known(outputs.distribution)
        levels[..., [0, 1]] = levels[..., [1, 0]]
        return outputs

    monkeypatch.setattr(type(model), "activations", crossed)
    assert evaluate(model, task)["crossing_rate"] == pytest.approx(0.25)


def test_the_crossing_rate_is_that_of_a_plain_loop() -> None:
    forecast = np.random.default_rng(0).normal(size=(5, 7, 3, 4))
    assert crossing_rate(forecast).mean == pytest.approx(oracles.crossing_rate(forecast))
    assert crossing_rate(np.ones((5, 7, 3, 4))).mean == 0
    for wrong in (np.ones((5, 7, 3, 1)), np.ones((5, 7, 3))):
        with pytest.raises(ShapeError, match="at least 2 quantiles"):
            crossing_rate(wrong)


@pytest.mark.parametrize("head", [PointHead(), BinnedHead(n_bins=7)], ids=["point", "bins"])
def test_a_model_without_quantiles_has_no_quantile_scores(task: Task, head: Any) -> None:
    other = quick(task, head)
    assert quantile_levels(other) == ()
    assert not COLUMNS & set(evaluate(other, task))


def test_a_point_forecast_stands_for_every_quantile(task: Task) -> None:
    ridge = train(LinearConfig(), task)
    scores = score(ridge, task, "test", levels=LEVELS).to_dict()
    batch = task.test.batch(torch.arange(len(task.test)))
    target = batch.target.numpy() * task.scale + task.mean
    assert scores["wql"] == pytest.approx(scores["mae_raw"] / np.abs(target).mean(), rel=1e-5)
    assert COLUMNS & set(scores) == {"wql"}


def test_a_loss_can_be_taken_over_some_of_the_levels(task: Task, model: Forecaster) -> None:
    quantiles, target = everything(model, task)
    scores = score(model, task, "test", levels=(0.5, 0.7)).to_dict()
    assert scores["wql"] == pytest.approx(oracles.wql(quantiles[..., 2:4], target, [0.5, 0.7]), rel=1e-4)
    assert scores["nominal_coverage"] == 0.8


@pytest.mark.parametrize(
    ("levels", "pair"),
    [((0.1, 0.5, 0.9), (0, 2)), ((0.05, 0.1, 0.5, 0.9), (1, 3)), ((0.5, 0.9), None), ((0.5,), None)],
)
def test_coverage_is_that_of_the_outermost_symmetric_pair(
    task: Task, levels: tuple[float, ...], pair: tuple[int, int] | None
) -> None:
    assert outer_pair(levels) == pair
    scores = evaluate(MLPConfig(width=5, depth=1, head=QuantileHead(levels=levels)).build(task.signature), task)
    assert ("coverage" in scores) == ("nominal_coverage" in scores) == (pair is not None)
    assert ("crossing_rate" in scores) == (len(levels) > 1)


def test_positions_choose_windows(task: Task, model: Forecaster) -> None:
    places = np.array([2, 3, 31])
    whole, some = score(model, task, "test"), score(model, task, "test", positions=places)
    assert some.window_losses == pytest.approx(whole.window_losses[places], rel=1e-5)
    assert (some.times == whole.times[places]).all()
    assert (some.yardstick == whole.yardstick[places]).all()


# In a report


@pytest.fixture(scope="module")
def report(task: Task, model: Forecaster) -> Report:
    return compare({"sure": quick(task, PointHead()), "unsure": model}, task, latency=False)


def test_every_row_has_a_loss_and_rows_with_quantiles_the_rest(report: Report, task: Task, model: Forecaster) -> None:
    assert report.levels == LEVELS
    row, scores = report.row("unsure"), evaluate(model, task, "test")
    for name in COLUMNS:
        assert getattr(row, name) == pytest.approx(scores[name], rel=1e-4), name
    for other in ("sure", "ridge", "seasonal naive"):
        mae_raw = known(report.row(other).mae_raw)
        assert report.row(other).wql == pytest.approx(mae_raw * row_size(task), rel=1e-4)
        assert report.row(other).coverage is report.row(other).crossing_rate is None


def row_size(task: Task) -> float:
    """One over the mean absolute raw target of the test part."""
    batch = task.test.batch(torch.arange(len(task.test)))
    return float(1 / np.abs(batch.target.numpy() * task.scale + task.mean).mean())


def test_every_form_of_the_report_has_the_columns(report: Report) -> None:
    cells = accuracy(report)
    assert list(cells)[-3:] == ["WQL", "coverage 80 %", "crossing"]
    place = [row.name for row in report.rows].index("unsure")
    assert cells["crossing"][place] == "0.0 %"
    assert cells["coverage 80 %"][0] == cells["crossing"][0] == "-"
    text, page = report.to_text(), render(report)
    for words in ("WQL", "coverage 80 %", "over the levels 0.1, 0.3, 0.5, 0.7, 0.9", "stands for"):
        assert words in " ".join(text.split()), words
        assert words in " ".join(page.split()), words
    assert set(report.to_frame()) >= COLUMNS
    assert Report.from_json(report.to_json()) == report


def test_without_quantiles_there_are_no_columns(report: Report) -> None:
    rows = tuple(row.replace(**dict.fromkeys(COLUMNS)) for row in report.rows)
    plain = report.replace(rows=rows, levels=())
    assert list(accuracy(plain)) == ["MSE", "change", "p", "MAE", "MASE", "raw MSE", "raw MAE"]
    assert "WQL" not in plain.to_text() + render(plain)


def test_a_report_written_before_there_were_quantiles_still_loads(report: Report) -> None:
    old = json.loads(report.to_json())
    del old["levels"]
    for row in old["rows"]:
        for name in COLUMNS:
            row.pop(name, None)
    assert Report.from_json(json.dumps(old)).row("unsure").wql is None


def test_rows_of_different_levels_share_a_loss_and_name_their_own_coverage() -> None:
    from tsdistill.report.comparison import _common_levels
    from tsdistill.report.entries import Entry

    def entry(*levels: float) -> Entry:
        config = MLPConfig(head=QuantileHead(levels=levels) if levels else PointHead())
        return Entry("a", "model", config.build(toy_task().signature), "onnx fp32", 0)

    assert _common_levels([entry(0.1, 0.5, 0.9), entry(), entry(0.2, 0.5, 0.9)]) == (0.5, 0.9)
    assert _common_levels([entry()]) == ()
    row = Row(name="a", runtime="onnx", mse=1, mae=1, mse_raw=1, mae_raw=1, n_parameters=0, size_bytes=0, coverage=0.75)
    rows = (row.replace(nominal_coverage=0.8), row.replace(name="b", nominal_coverage=0.6, crossing_rate=0.00004))
    facts: dict[str, Any] = {"context": 29, "horizon": 7, "channels": ("a",), "split": "test", "n_windows": {"test": 5}}
    cells = accuracy(Report(**facts, reference="a", subject="b", rows=rows))
    assert cells["coverage"] == ["75.0 % of 80 %", "75.0 % of 60 %"]
    assert cells["crossing"] == ["-", "0.004 %"]
